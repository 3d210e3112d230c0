"""Takes a value apart as far as a reader must: out of the CloudEvent around it, and which record it is. Any bytes will do."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from streamer.model.messages import TOPICS, Topic

BROKEN: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding of arbitrary bytes raises: no JSON, no UTF-8, nested too deeply."""

_FLAT: Final = b'{"type":"'  # how every record that is not inside of a CloudEvent begins
_BY_TYPE: Final = {topic.type: topic for topic in TOPICS}
_BY_TYPE_BYTES: Final = {topic.type.encode(): topic for topic in TOPICS}


class _CloudEvent(Struct):
    specversion: str
    data: msgspec.Raw
    id: str | UnsetType = UNSET


class _Type(Struct):
    type: str


_cloud_event: Final = msgspec.json.Decoder(_CloudEvent)
_type: Final = msgspec.json.Decoder(_Type)


def unwrap(value: bytes) -> tuple[bytes, str | None]:
    """The record out of a structured CloudEvent, and the id beside it; any other value as it is, and None."""
    if value.startswith(_FLAT) or b'"specversion"' not in value:
        return value, None
    try:
        event = _cloud_event.decode(value)
    except BROKEN:
        return value, None
    return bytes(event.data), None if event.id is UNSET else event.id


def topic_of(record: bytes) -> Topic | None:
    """Which topic a flat record belongs to, by its `type`; None when it does not say, or names none of ours."""
    if record.startswith(_FLAT):
        topic = _BY_TYPE_BYTES.get(record[len(_FLAT) : record.find(b'"', len(_FLAT))])
        if topic is not None:
            return topic
    try:
        return _BY_TYPE.get(_type.decode(record).type)
    except BROKEN:
        return None
