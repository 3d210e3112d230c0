"""The public face of the messages: JSON Schema 2020-12 per record and its examples, as the files of `schemas/`.

Everything here is generated from `messages.TOPICS`; nothing is written or read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from streamer.model.examples import EXAMPLES
from streamer.model.messages import TOPICS, Topic
from streamer.model.wire import schema_id

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def document(topic: Topic) -> dict[str, Any]:
    """The JSON Schema of a topic's record: an open model, for readers that ignore what they do not know."""
    generated = msgspec.json.schema(topic.record)
    definitions: dict[str, Any] = generated["$defs"]
    root = definitions.pop(topic.record.__name__)
    root["properties"]["type"]["const"] = topic.type
    root["properties"]["schema"]["const"] = topic.schema
    for node in _nodes([root, definitions]):
        if node.get("x-kind") == "counter":  # the kernel keeps them as unsigned 64-bit numbers
            node["minimum"] = 0
    return {
        "$schema": DIALECT,
        "$id": schema_id(topic),
        "title": root.pop("title"),
        "description": root.pop("description"),
        **root,
        **({"$defs": definitions} if definitions else {}),
    }


def example(topic: Topic) -> dict[str, Any]:
    """The first example of a topic's record."""
    return next(iter(examples(topic).values()))


def examples(topic: Topic) -> dict[str, dict[str, Any]]:
    """Every example of a topic's record, by name, as consumers read it."""
    return {name: msgspec.to_builtins(record) for name, record in EXAMPLES[topic.type].items()}


def file_name(topic: Topic) -> str:
    """`container.stats.v1.schema.json`."""
    return f"{topic.type}.v{topic.version}.schema.json"


def documents() -> dict[str, dict[str, Any]]:
    """Every record's schema by the name of its file: what a release freezes."""
    return {file_name(topic): document(topic) for topic in TOPICS}


def files() -> dict[str, str]:
    """Every generated file about records below `schemas/`: path -> text."""
    made = {name: text(schema) for name, schema in documents().items()}
    for topic in TOPICS:
        for name, record in examples(topic).items():
            made[f"examples/{name}.json"] = text(record)
    return made


def text(value: Any) -> str:
    """JSON as it is committed: indented, in the order of the types."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


TABLE_HEAD: Final = ("record", "version", "topic", "key", "lane", "$id")
_KEYS: Final = {"container": "container id", "host/container": "<host id>/<container id>", "host": "host id"}


def table(prefix: str = "streamer") -> list[tuple[str, ...]]:
    """One row per record, under `TABLE_HEAD`."""
    return [
        (
            topic.record.__name__,
            str(topic.version),
            f"{prefix}.{topic.suffix}",
            _KEYS[topic.keyed_by],
            "durable, compacted" if topic.compacted else topic.lane,
            schema_id(topic),
        )
        for topic in TOPICS
    ]


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _nodes(inner)
