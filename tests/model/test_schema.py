"""The public face of the messages: schemas and examples are made from the types and agree with them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from streamer.model import schema, stats
from streamer.model.examples import EXAMPLES
from streamer.model.messages import LIFECYCLE, STATS, TOPICS, Topic

TOPIC = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.type)


def validator(topic: Topic) -> Draft202012Validator:
    return Draft202012Validator(schema.document(topic), format_checker=Draft202012Validator.FORMAT_CHECKER)


@TOPIC
def test_the_schema_says_what_it_is(topic: Topic) -> None:
    """Dialect, id, title and description; the model is open; type and schema are the record's own."""
    document = schema.document(topic)
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"urn:streamer:schema:{topic.type}:{topic.version}"
    assert document["title"] == topic.record.__name__ and document["description"]
    assert "additionalProperties" not in document and document["type"] == "object"
    assert document["properties"]["schema"]["const"] == f"{topic.type}/{topic.version}"


@TOPIC
def test_every_field_is_described(topic: Topic) -> None:
    """A consumer reads what each field means; `null` is nowhere allowed."""
    document = schema.document(topic)
    assert all(field.get("description") for field in document["properties"].values())
    assert '"null"' not in json.dumps(document)


@TOPIC
def test_examples_are_valid_and_read_back_as_the_record(topic: Topic) -> None:
    """Validated by a validator that is not ours, formats included; decoded by the type."""
    for name, example in schema.examples(topic).items():
        assert name == topic.type or name.startswith(f"{topic.type}.")
        validator(topic).validate(example)
        assert msgspec.json.decode(json.dumps(example), type=topic.record) == EXAMPLES[topic.type][name]


@TOPIC
def test_examples_show_every_field(topic: Topic) -> None:
    """Whoever maps columns from the examples misses none; only lifecycle tells of a pod, too."""
    shown = {field for example in schema.examples(topic).values() for field in example}
    missing = set(topic.record.__struct_fields__) - shown
    assert missing <= ({"pod", "namespace"} if topic is not LIFECYCLE else set())


def test_a_time_is_one() -> None:
    """Its format is looked at, by whoever validates here and by the tests above."""
    example = schema.example(STATS)
    assert validator(STATS).is_valid(example)
    assert not validator(STATS).is_valid({**example, "time": "yesterday"})


def test_counters_are_whole_numbers_from_zero() -> None:
    """Also those of each interface; gauges may be anything."""
    document = schema.document(STATS)
    fields: dict[str, Any] = document["properties"]
    for stat in stats.STATS:
        assert fields[stat.name]["x-unit"] == stat.unit and fields[stat.name]["x-kind"] == stat.kind
        assert fields[stat.name].get("minimum") == (0 if stat.kind == "counter" else None)
    interface = document["$defs"]["NetworkInterface"]["properties"]
    assert {name for name, field in interface.items() if field.get("minimum") == 0} == {suffix for suffix, _ in stats.NETWORK}
    example = schema.example(STATS)
    assert not validator(STATS).is_valid({**example, "cpu_usage_ns": -1})
    assert validator(STATS).is_valid({**example, "cpu_usage_ns": 2**64 - 1, "a_field_of_tomorrow": 1})


def test_every_statistic_of_the_table_is_in_the_example() -> None:
    """A new row in the table needs no other edit."""
    assert set(stats.COLUMNS) <= set(schema.example(STATS))


def test_examples_tell_one_story() -> None:
    """Times are the same in both forms, and each id is told once."""
    from datetime import datetime

    ids = []
    for topic in TOPICS:
        for example in schema.examples(topic).values():
            assert int(datetime.fromisoformat(example["time"]).timestamp() * 1000) == example["time_ms"], example["id"]
            assert example["observed_time_ms"] >= example["time_ms"] and example["epoch"] <= example["time_ms"]
            ids.append((topic.type, example["id"], example.get("event", ""), example["seq"]))
    assert len(ids) == len(set(ids))
