"""The gate that keeps released readers working: is a schema a compatible successor of a released one? Pure.

Readers of a released schema must read what new agents write, and new readers what old agents wrote. So only two changes
are let through: a new optional field, and a new value of an enumeration (readers are told to expect them). Whatever
else differs is a break, also in keywords that this file has never heard of: nothing passes unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class Break(NamedTuple):
    """What old readers would stumble over. `field`: `spec.cpu_shares`, `network_interfaces[].name`, `labels.*`."""

    record: str
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.record}: {self.field}" if self.field else self.record
        return f"{where}: {self.problem}; remedy: {self.remedy}"


Found = tuple[str, str, str]
"""(field, problem, remedy)"""

_NO_PROMISE: Final = frozenset({"$schema", "$defs", "$comment", "title", "description", "examples", "deprecated"})
"""Words about a value, not rules for it. `default` is a rule: an absent field means its default."""

_PUT_BACK: Final = "put it back as it was"
_NEW_FIELD: Final = "leave it as it was and add a new optional field beside it"


def gate(released: Mapping[str, dict[str, Any]], current: Mapping[str, dict[str, Any]]) -> list[Break]:
    """Every break between two sets of schemas, told apart by `$id`.

    A record under a higher schema version is a new contract, which consumers see in its name, and is not compared.
    """
    latest: dict[str, tuple[int, dict[str, Any]]] = {}
    for schema in current.values():
        record, version = _identity(schema)
        if record not in latest or version > latest[record][0]:
            latest[record] = (version, schema)
    found: list[Break] = []
    for schema in released.values():
        record, version = _identity(schema)
        if record not in latest or latest[record][0] < version:
            found.append(Break(record, "", f"version {version} was released and is gone", "put the record back into TOPICS"))
        elif latest[record][0] == version:
            found += compare(schema, latest[record][1])
    return found


def compare(released: dict[str, Any], current: dict[str, Any]) -> list[Break]:
    """Every break between two versions of one record's schema.

    Raises:
        ValueError: a `$ref` leads nowhere.
    """
    record, version = _identity(released)
    last_resort = f"; if it must be, give {record} schema version {version + 1} in TOPICS"
    return [
        Break(record, field, problem, remedy + last_resort)
        for field, problem, remedy in _differences(_expanded(released, released), _expanded(current, current), "")
    ]


def _identity(schema: Any) -> tuple[str, int]:
    """`urn:streamer:schema:container.stats:1` -> (`container.stats`, 1)."""
    match = re.fullmatch(r"urn:streamer:schema:(.+):([0-9]+)", str(schema.get("$id") if isinstance(schema, Mapping) else None))
    if match is None:
        raise ValueError("$id is not urn:streamer:schema:RECORD:VERSION: no schema of a record")
    return match[1], int(match[2])


# References


def _expanded(node: Any, root: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """The schema with every local `$ref` replaced by what it names; a schema within itself stays a `$ref`."""
    if isinstance(node, list):
        return [_expanded(item, root, inside) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {keyword: _expanded(value, root, inside) for keyword, value in node.items() if keyword != "$ref"}
    reference = node.get("$ref")
    if not isinstance(reference, str) or reference in inside:  # also a property that is called `$ref`
        return beside if reference is None else {**beside, "$ref": _expanded(reference, root, inside)}
    target = _expanded(_resolved(reference, root), root, (*inside, reference))
    if isinstance(target, dict) and not (beside.keys() - _NO_PROMISE):
        return {**target, **beside}
    return {**beside, "allOf": [*beside.get("allOf", []), target]}


def _resolved(reference: str, root: dict[str, Any]) -> Any:
    node: Any = root
    if not reference.startswith("#"):
        raise ValueError(f"$ref {reference!r} leads out of the document")
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            try:
                node = node[part.replace("~1", "/").replace("~0", "~")]
            except (KeyError, TypeError) as error:
                raise ValueError(f"$ref {reference!r} leads nowhere") from error
    return node


# Comparison, keyword by keyword


def _differences(old: Any, new: Any, at: str) -> list[Found]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        old, new = ({} if schema is True else schema for schema in (old, new))
        if not isinstance(old, dict) or not isinstance(new, dict):
            return [] if old == new else [(at, f"was {_shown(old)} and is now {_shown(new)}", _PUT_BACK)]
    found = _into_closed(old, new, at)
    for keyword in sorted((old.keys() | new.keys()) - _NO_PROMISE):
        rule = _RULES.get(keyword, _same)
        found += rule(keyword, old.get(keyword, _DEFAULTS.get(keyword)), new.get(keyword, _DEFAULTS.get(keyword)), at)
    return found


_DEFAULTS: Final[dict[str, Any]] = {"properties": {}, "required": [], "additionalProperties": True, "items": True}
"""What an absent keyword means, where that is not simply nothing."""


def _into_closed(old: dict[str, Any], new: dict[str, Any], at: str) -> list[Found]:
    """New fields of an object whose old schema says what every unnamed field must be."""
    if old.get("additionalProperties", True) in (True, {}):
        return []
    added = new.get("properties", {}).keys() - old.get("properties", {}).keys()
    return [
        (f"{at}.{name}" if at else name, "is new in an object that takes no new fields", "leave it out") for name in sorted(added)
    ]


def _same(keyword: str, old: Any, new: Any, at: str) -> list[Found]:
    if old == new:
        return []
    what = "type" if keyword == "type" else f"rule {keyword!r}"
    return [(at, f"its {what} was {_shown(old)} and is now {_shown(new)}", _NEW_FIELD)]


def _type(keyword: str, old: Any, new: Any, at: str) -> list[Found]:
    def ordered(types: Any) -> Any:
        return sorted(types) if isinstance(types, list) else [types]

    return [] if ordered(old) == ordered(new) else _same(keyword, old, new, at)


def _properties(_: str, old: dict[str, Any], new: dict[str, Any], at: str) -> list[Found]:
    found: list[Found] = []
    for name, schema in old.items():
        field = f"{at}.{name}" if at else name
        found += _differences(schema, new[name], field) if name in new else [(field, "was removed", _PUT_BACK)]
    return found


def _required(_: str, old: list[str], new: list[str], at: str) -> list[Found]:
    def field(name: str) -> str:
        return f"{at}.{name}" if at else name

    return [
        *(
            (field(name), "is now required, but agents in use do not always send it", "make it optional")
            for name in new
            if name not in old
        ),
        *((field(name), "was always there and may now be absent", "keep it required") for name in old if name not in new),
    ]


def _enum(_: str, old: list[Any] | None, new: list[Any] | None, at: str) -> list[Found]:
    if old is None or new is None:
        turned = "is now limited to an enumeration" if old is None else "is no longer an enumeration"
        return [(at, turned, _NEW_FIELD)]
    return [
        (at, f"the value {_shown(value)} was removed", "keep the value, even if it is no longer sent")
        for value in old
        if value not in new
    ]


def _inner(keyword: str, old: Any, new: Any, at: str) -> list[Found]:
    suffix = {"items": "[]", "additionalProperties": ".*"}.get(keyword, f"({keyword})")
    if old is None or new is None:
        return _same(keyword, old, new, at)
    return _differences(old, new, at + suffix)


def _each(keyword: str, old: Any, new: Any, at: str) -> list[Found]:
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return _same(keyword, old, new, at)
    return [
        found
        for number, pair in enumerate(zip(old, new, strict=True))
        for found in _differences(*pair, f"{at}({keyword} {number})")
    ]


Rule = Callable[[str, Any, Any, str], list[Found]]

_RULES: Final[dict[str, Rule]] = {
    "properties": _properties,
    "required": _required,
    "enum": _enum,
    "type": _type,
    "items": _inner,
    "additionalProperties": _inner,
    "propertyNames": _inner,
    "allOf": _each,
    "anyOf": _each,
    "oneOf": _each,
    "prefixItems": _each,
}
"""Keyword -> how it may change; a keyword without a row must not change at all."""


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
