"""Message -> bytes: the only place that knows how a message looks on the wire.

The value is the record as flat JSON. The CloudEvents 1.0 attributes travel beside it (Kafka headers and Redis fields
`ce_*`, Kafka protocol binding 1.0 §3.2) or, with the structured envelope, around it (JSON event format 1.0 §3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from streamer.model.messages import TOPICS, Again, ContainerLifecycle, Control, Message, Record, Steady, Topic

Envelope = Literal["binary", "structured"]

_encoder: Final = msgspec.json.Encoder()

CONTENT_TYPE: Final[dict[Envelope, bytes]] = {
    "binary": b"application/json",
    "structured": b"application/cloudevents+json; charset=UTF-8",
}
_CONTENT: Final = {envelope: ("content-type", kind) for envelope, kind in CONTENT_TYPE.items()}


class Entry(Struct, frozen=True, gc=False):
    """An encoded message on its way to the sinks; shared by all of them.

    position  increases by one with every message of this agent, over all topics and runs of one outbox
    order_ms  wall clock when offered, never decreasing with `position`: `order_ms-position` is a valid, increasing
              Redis entry id, the same at every replay
    value     None is the tombstone of a compacted topic
    ends      a last word, of a container or of the run: samples that are older must not follow it
    size      bytes that it is accounted with against a lane's cap: value, key and a flat rate for the rest
    """

    position: int
    order_ms: int
    topic: Topic
    key: str
    id: str
    subject: str
    time: str
    time_ms: int
    epoch: int
    seq: int
    host_id: str
    value: bytes | None
    structured: bool = False
    ends: bool = False
    size: int = 0


_FLAT_BYTES: Final = 256


def encode(message: Message, position: int, order_ms: int, envelope: Envelope = "binary") -> Entry:
    """Encode a message once, for all sinks.

    Text that is not UTF-8 (the name of a file or process can be any bytes; Python holds these as lone surrogates)
    stands in the message as `\\udcNN`.

    Raises:
        msgspec.ValidationError, TypeError: never for messages that the fleet builds; a bug if it happens.
    """
    try:
        return _encode(message, position, order_ms, envelope)
    except UnicodeEncodeError:
        return _encode(_as_utf8(message), position, order_ms, envelope)


def _encode(message: Message, position: int, order_ms: int, envelope: Envelope) -> Entry:
    record = message.record
    if type(record) is Again:
        if envelope == "binary" and (value := _encode_again(record, message.time_ms)):
            whole = record.of.record
            return Entry(
                position, order_ms, message.topic, message.key, record.id, whole.container_id, record.time, message.time_ms,
                whole.epoch, record.seq, whole.host_id, value, size=len(value) + len(message.key) + _FLAT_BYTES,
            )  # fmt: skip
        record = record.whole()
    if record is None:  # key of the compacted topic is <host id>/<container id>
        message.key.encode()  # a sink will; here it still can be mended
        host_id, _, subject = message.key.partition("/")
        return Entry(
            position,
            order_ms,
            message.topic,
            message.key,
            "",
            subject,
            "",
            message.time_ms,
            0,
            0,
            host_id,
            None,
            size=len(message.key) + _FLAT_BYTES,
        )
    subject = getattr(record, "container_id", record.host_id)
    structured = envelope == "structured"
    value = _encoder.encode(record)
    if structured:
        value = _encoder.encode(
            {
                **{
                    name.removeprefix("ce_"): text.decode()
                    for name, text in _attributes(
                        message.topic, record.id, record.host_id, subject, record.time, record.epoch, record.seq
                    )
                },
                "datacontenttype": "application/json",
                "data": msgspec.Raw(value),
            }
        )
    return Entry(
        position, order_ms, message.topic, message.key, record.id, subject, record.time, message.time_ms,
        record.epoch, record.seq, record.host_id, value, structured,
        message.topic.lane == "durable" and _ends(record), len(value) + len(message.key) + _FLAT_BYTES,
    )  # fmt: skip


_PLACES: Final = {"id": '"%s"', "seq": "%d", "time": '"%s"', "time_ms": "%d", "observed_time_ms": "%d"}
"""The fields of `Again`, in the order in which a record has them, as they are written."""


def _encode_again(again: Again, time_ms: int) -> bytes:
    """Its record as JSON, put together from what is the same in all; empty where that cannot be."""
    steady = again.of
    front, rest = steady.json or _learn(steady)
    return (front % (again.id, again.seq, again.time, time_ms, again.observed_time_ms)).encode() + rest if front else b""


def _learn(steady: Steady) -> tuple[str, bytes]:
    """What stands before and behind the last field that differs: as text, with places for these, and as it is."""
    record = steady.record
    head = {name: getattr(record, name) for name in Record.__struct_fields__}
    told = _encoder.encode(head)[:-1]
    value = _encoder.encode(record)
    front = ""
    if value.startswith(told) and _encoder.encode(record.id) == f'"{record.id}"'.encode():  # an id is written as it is
        fields = [
            f'"{name}":' + (_PLACES[name] if name in _PLACES else _encoder.encode(text).decode().replace("%", "%%"))
            for name, text in head.items()
        ]
        front = "{" + ",".join(fields)
    steady.json = front, value[len(told) :]
    return steady.json


class _Packed(Struct, array_like=True, gc=False):
    """An entry as it lies on disk; the topic by its short name."""

    position: int
    order_ms: int
    topic: str
    key: str
    id: str
    subject: str
    time: str
    time_ms: int
    epoch: int
    seq: int
    host_id: str
    value: bytes | None
    structured: bool = False
    ends: bool = False


_packer: Final = msgspec.msgpack.Encoder()
_unpacker: Final = msgspec.msgpack.Decoder(list[_Packed])
_TOPICS: Final = {topic.short: topic for topic in TOPICS}


def pack(entries: Sequence[Entry]) -> bytes:
    """Entries as bytes (MessagePack), for the disk."""
    return _packer.encode(
        [
            (e.position, e.order_ms, e.topic.short, e.key, e.id, e.subject, e.time, e.time_ms, e.epoch, e.seq, e.host_id, e.value,
             e.structured, e.ends)
            for e in entries
        ]
    )  # fmt: skip


def unpack(packed: bytes) -> list[Entry]:
    """The entries that `pack` was given.

    Raises:
        msgspec.MsgspecError: these are no such bytes.
        KeyError: a topic that this version does not have.
    """
    topics = _TOPICS
    return [
        Entry(
            p.position, p.order_ms, topics[p.topic], p.key, p.id, p.subject, p.time, p.time_ms, p.epoch, p.seq, p.host_id, p.value,
            p.structured, p.ends, len(p.value or b"") + len(p.key) + _FLAT_BYTES,
        )
        for p in _unpacker.decode(packed)
    ]  # fmt: skip


class _Enveloped(Struct):
    data: msgspec.Raw


_envelope_decoder: Final = msgspec.json.Decoder(_Enveloped)


def record_bytes(entry: Entry) -> bytes:
    """The flat record of an entry as JSON, out of the envelope if there is one; empty for a tombstone."""
    if entry.structured and entry.value is not None:
        return bytes(_envelope_decoder.decode(entry.value).data)
    return entry.value or b""


def as_json(said: Any) -> bytes:
    """A record, or what was taken from records, as JSON; text that is not UTF-8 as in `encode`."""
    try:
        return _encoder.encode(said)
    except UnicodeEncodeError:
        return _encoder.encode(_clean(msgspec.to_builtins(said)))


def _as_utf8(message: Message) -> Message:
    """The same message with lone surrogates written out."""
    record = message.whole
    if record is not None:
        record = msgspec.convert(_clean(msgspec.to_builtins(record)), type(record))
    return message._replace(key=_clean(message.key), record=record)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
        case list():
            return [_clean(item) for item in value]
    return value


def _ends(record: Record) -> bool:
    if isinstance(record, ContainerLifecycle):
        return record.event == "deleted"
    return isinstance(record, Control) and record.kind == "stopped"


def attributes(entry: Entry) -> list[tuple[str, bytes]]:
    """What travels beside the value: `ce_*` attributes and the content type; for a structured value only the latter."""
    if entry.structured:
        return [_CONTENT["structured"]]
    if entry.value is None:
        return [_CONTENT["binary"]]
    about = _attributes(entry.topic, entry.id, entry.host_id, entry.subject, entry.time, entry.epoch, entry.seq)
    about.append(_CONTENT["binary"])
    return about


VARYING: Final = ("ce_id", "ce_subject", "ce_time", "ce_sequence")
"""The attributes that differ from message to message, in their order; the others are the same for a topic and host."""

SEQUENCE_DIGITS: Final = 20
"""So long is the `seq` in `ce_sequence`, behind the epoch and a dot: all of a run's begin alike."""


def varying(entry: Entry) -> tuple[bytes, bytes, bytes, bytes]:
    """The values of `VARYING`, for who packs many messages and has the rest packed once."""
    return entry.id.encode(), entry.subject.encode(), entry.time.encode(), b"%d.%020d" % (entry.epoch, entry.seq)


def fixed(entry: Entry, field: Callable[[str, bytes], bytes], name: Callable[[str], bytes]) -> list[bytes]:
    """What stands before, between and behind the values of `VARYING` in a packed list of `attributes`.

    `field` packs a whole attribute; `name` what comes before the value, but for its length, which comes with the value.
    """
    parts = [b""]
    for attribute, value in attributes(entry):
        if attribute in VARYING:
            parts[-1] += name(attribute)
            parts.append(b"")
        else:
            parts[-1] += field(attribute, value)
    return parts


def _attributes(topic: Topic, id_: str, host_id: str, subject: str, time: str, epoch: int, seq: int) -> list[tuple[str, bytes]]:
    specversion, source, kind, dataschema = _same_for_all(topic, host_id)
    return [
        specversion,
        ("ce_id", id_.encode()),
        source,
        kind,
        ("ce_subject", subject.encode()),
        ("ce_time", time.encode()),
        dataschema,
        ("ce_sequence", b"%d.%020d" % (epoch, seq)),
    ]


@lru_cache(maxsize=64)
def _same_for_all(topic: Topic, host_id: str) -> tuple[tuple[str, bytes], ...]:
    """The attributes that do not change from message to message: a third of the time of an encoding, were they made anew."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", f"/hosts/{host_id}".encode()),
        ("ce_type", f"streamer.{topic.type}".encode()),
        ("ce_dataschema", schema_id(topic).encode()),
    )


def schema_id(topic: Topic) -> str:
    """The `$id` of a record's JSON Schema: `urn:streamer:schema:container.stats:1`."""
    return f"urn:streamer:schema:{topic.type}:{topic.version}"
