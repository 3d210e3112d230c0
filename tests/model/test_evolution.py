"""The compatibility gate: a table of changes to a schema, and whether readers of the released one survive them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from streamer.model import evolution, schema
from streamer.model.messages import TOPICS

RELEASED: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:streamer:schema:thing:1",
    "title": "Thing",
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Id."},
        "kind": {"enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 0, "x-unit": "bytes"},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "spec": {"description": "Spec.", "$ref": "#/$defs/Spec"},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "default": []},
        "words": {"type": "array", "items": {"enum": ["x", "y"]}},
        "either": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "string"}]},
        "tree": {"$ref": "#/$defs/Tree"},
        "description": {"type": "string"},
    },
    "required": ["id", "kind"],
    "$defs": {
        "Spec": {
            "type": "object",
            "properties": {"limit": {"type": "integer"}, "part": {"$ref": "#/$defs/Part"}},
            "required": ["limit"],
        },
        "Part": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}, "required": ["name"]},
        "Tree": {
            "type": "object",
            "properties": {"leaf": {"type": "string"}, "below": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        },
    },
}

Change = Callable[[dict[str, Any]], object]


def fields(s: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = s["properties"]
    return found


def part(s: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = s["$defs"]["Part"]
    return found


def inlined(s: dict[str, Any]) -> None:
    fields(s)["spec"] = {**s["$defs"]["Spec"], "description": "Other words."}


def renamed(s: dict[str, Any]) -> None:
    s["$defs"]["Piece"] = s["$defs"].pop("Part")
    for place in (fields(s)["parts"]["items"], s["$defs"]["Spec"]["properties"]["part"], fields(s)["either"]["anyOf"][0]):
        place["$ref"] = "#/$defs/Piece"


COMPATIBLE: dict[str, Change] = {
    "nothing": lambda s: None,
    "other words": lambda s: (s.update(title="T", description="D", examples=[{}]), fields(s)["id"].update(description="?")),
    "a new optional field": lambda s: fields(s).update(new={"type": "integer"}),
    "a new optional field inside": lambda s: part(s)["properties"].update(new={"type": "integer"}),
    "a new object with required fields of its own": lambda s: fields(s).update(
        new={"type": "object", "required": ["x"], "properties": {"x": {}}}
    ),
    "a grown enumeration": lambda s: fields(s)["kind"]["enum"].insert(0, "c"),
    "a grown enumeration in a list": lambda s: fields(s)["words"]["items"]["enum"].append("z"),
    "the order of fields": lambda s: s.update(properties=dict(reversed(fields(s).items())), required=["kind", "id"]),
    "a definition put in place": inlined,
    "a definition renamed": renamed,
    "a type as a list of one": lambda s: fields(s)["id"].update(type=["string"]),
    "a definition nobody uses": lambda s: s["$defs"].update(Unused={"type": "null"}),
}

BREAKS: dict[str, tuple[Change, str, str]] = {
    # what was done, (how, field that is named, word of the problem)
    "removed": (lambda s: fields(s).pop("count"), "count", "was removed"),
    "removed, called description": (lambda s: fields(s).pop("description"), "description", "was removed"),
    "renamed": (lambda s: fields(s).update(number=fields(s).pop("count")), "count", "was removed"),
    "removed inside, twice reachable": (lambda s: part(s)["properties"].pop("size"), "spec.part.size", "was removed"),
    "removed in a list": (lambda s: part(s)["properties"].pop("size"), "parts[].size", "was removed"),
    "removed in an alternative": (lambda s: part(s)["properties"].pop("size"), "either(anyOf 0).size", "was removed"),
    "removed in a recursive one": (lambda s: s["$defs"]["Tree"]["properties"].pop("leaf"), "tree.leaf", "was removed"),
    "retyped": (lambda s: fields(s)["id"].update(type="integer"), "id", "type was string and is now integer"),
    "widened": (lambda s: fields(s)["count"].update(type="number"), "count", "type was integer"),
    "nullable": (lambda s: fields(s)["id"].update(type=["string", "null"]), "id", "type was string"),
    "nullable by anyOf": (lambda s: fields(s).update(id={"anyOf": [{"type": "string"}, {"type": "null"}]}), "id", "anyOf"),
    "retyped inside": (lambda s: s["$defs"]["Spec"]["properties"]["limit"].update(type="string"), "spec.limit", "type"),
    "retyped in a list": (lambda s: fields(s)["parts"].update(items={"type": "string"}), "parts[]", "type"),
    "retyped in a map": (lambda s: fields(s)["tags"].update(additionalProperties={"type": "integer"}), "tags.*", "type"),
    "newly required": (lambda s: s["required"].append("count"), "count", "is now required"),
    "newly required and new": (lambda s: (fields(s).update(new={}), s["required"].append("new")), "new", "is now required"),
    "newly required inside": (lambda s: part(s)["required"].append("size"), "parts[].size", "is now required"),
    "no longer required": (lambda s: s["required"].remove("kind"), "kind", "may now be absent"),
    "no longer required inside": (lambda s: s["$defs"]["Spec"].pop("required"), "spec.limit", "may now be absent"),
    "enum value removed": (lambda s: fields(s)["kind"]["enum"].remove("a"), "kind", "value a was removed"),
    "enum value renamed": (lambda s: fields(s)["kind"].update(enum=["A", "b"]), "kind", "value a was removed"),
    "enum value removed in a list": (lambda s: fields(s)["words"]["items"]["enum"].remove("x"), "words[]", "value x was removed"),
    "limited to an enum": (lambda s: fields(s)["id"].update(enum=["x"]), "id", "now limited to an enumeration"),
    "enum given up": (lambda s: fields(s).update(kind={"type": "string"}), "kind", "no longer an enumeration"),
    "closed": (lambda s: s.update(additionalProperties=False), ".*", "is now False"),
    "a minimum changed": (lambda s: fields(s)["count"].update(minimum=1), "count", "'minimum' was 0 and is now 1"),
    "a minimum dropped": (lambda s: fields(s)["count"].pop("minimum"), "count", "'minimum' was 0 and is now absent"),
    "a pattern added": (lambda s: fields(s)["id"].update(pattern="^a"), "id", "'pattern'"),
    "a format added": (lambda s: fields(s)["id"].update(format="uuid"), "id", "'format'"),
    "the unit changed": (lambda s: fields(s)["count"].update({"x-unit": "ns"}), "count", "'x-unit' was bytes"),
    "the default changed": (lambda s: fields(s)["parts"].update(default=[{"name": "x"}]), "parts", "'default'"),
    "a const added": (lambda s: fields(s)["id"].update(const="x"), "id", "'const'"),
    "a keyword this gate never heard of": (
        lambda s: fields(s)["id"].update(dependentRequired={"x": ["y"]}),
        "id",
        "'dependentRequired'",
    ),
    "hidden in a keyword it cannot read": (lambda s: s.update({"if": {"$ref": "#/$defs/Part"}}), "", "'if'"),
    "an alternative added": (lambda s: fields(s)["either"]["anyOf"].append({"type": "null"}), "either", "'anyOf'"),
    "an alternative removed": (lambda s: fields(s)["either"]["anyOf"].pop(), "either", "'anyOf'"),
    "an alternative retyped": (lambda s: fields(s)["either"]["anyOf"][1].update(type="integer"), "either(anyOf 1)", "type"),
    "a field that may be anything": (lambda s: fields(s).update(id=True), "id", "type was string and is now absent"),
    "a field that may be nothing": (lambda s: fields(s).update(id=False), "id", "is now False"),
    "a field in a map of texts": (
        lambda s: fields(s)["tags"].update(properties={"x": {"type": "integer"}}),
        "tags.x",
        "takes no new fields",
    ),
    "narrowed beside a reference": (lambda s: fields(s)["spec"].update(required=["part"]), "spec", "'allOf'"),
}


def changed(how: Change) -> dict[str, Any]:
    made = copy.deepcopy(RELEASED)
    how(made)
    return made


@pytest.mark.parametrize("name", COMPATIBLE)
def test_old_readers_survive(name: str) -> None:
    """Changes that the rules allow pass without a word."""
    assert evolution.compare(RELEASED, changed(COMPATIBLE[name])) == []


@pytest.mark.parametrize("name", BREAKS)
def test_old_readers_would_stumble(name: str) -> None:
    """Changes that the rules forbid are named: record, field, problem and remedy."""
    how, field, problem = BREAKS[name]
    breaks = evolution.compare(RELEASED, changed(how))
    found = [each for each in breaks if each.field == field and problem in each.problem]
    assert found, breaks
    assert found[0].record == "thing" and "schema version 2" in found[0].remedy
    assert str(found[0]).startswith("thing: ") and "; remedy: " in str(found[0])


@pytest.mark.parametrize("name", [name for name in BREAKS if "added" not in name and "new" not in name])
def test_going_back_is_seen_too(name: str) -> None:
    """What was a break in one direction is one in the other, but for the field or value that comes in."""
    allowed = ("removed", "renamed", "enum value")
    if not name.startswith(allowed):
        assert evolution.compare(changed(BREAKS[name][0]), RELEASED)


def test_a_reference_that_leads_nowhere_is_an_error() -> None:
    """A broken document is not silently compatible."""
    for reference in ("#/$defs/None", "other.json#/x"):
        broken = changed(lambda s, reference=reference: fields(s).update(spec={"$ref": reference}))  # type: ignore[misc]
        with pytest.raises(ValueError, match="leads"):
            evolution.compare(RELEASED, broken)


def test_the_gate_compares_all_records_by_their_id() -> None:
    """A record that is gone is a break, a higher version is a new contract, a new record is nobody's loss."""
    higher = changed(lambda s: s.update({"$id": "urn:streamer:schema:thing:2", "properties": {}}))
    other = changed(lambda s: s.update({"$id": "urn:streamer:schema:other:1"}))
    assert evolution.gate({"a": RELEASED}, {"b": RELEASED, "c": other}) == []
    assert evolution.gate({"a": RELEASED}, {"b": higher}) == []
    assert evolution.gate({"a": RELEASED}, {"b": other})[0].problem == "version 1 was released and is gone"
    assert evolution.gate({"a": higher}, {"b": RELEASED})[0].problem == "version 2 was released and is gone"
    with pytest.raises(ValueError, match=r"\$id is not"):
        evolution.gate({"a": {}}, {})


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.type)
def test_no_field_of_any_real_record_can_go_unseen(topic: Any) -> None:
    """Each property at each depth of each record is taken away once: the gate sees every one."""
    document = schema.document(topic)

    def objects(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for item in node for found in objects(item)]
        if not isinstance(node, dict):
            return []
        own = [node["properties"]] if isinstance(node.get("properties"), dict) and node.get("type") == "object" else []
        return own + [found for value in node.values() for found in objects(value)]

    for number, properties in enumerate(objects(document)):
        for name in properties:
            without = copy.deepcopy(document)
            del objects(without)[number][name]
            assert any(
                found.field.endswith(name) and found.problem == "was removed" for found in evolution.compare(document, without)
            ), name
