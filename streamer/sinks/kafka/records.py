"""Record batches as Kafka keeps them: https://kafka.apache.org/documentation/#recordbatch (format 2).

Built here and not by aiokafka, for the compression: aiokafka compresses at levels (lz4 9, zstd 3) that cost up to eight
times what the level here does. What is the same in all records of a topic is packed once.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import cramjam
from aiokafka.record.util import calc_crc32c

from streamer.model.messages import Topic
from streamer.model.wire import SEQUENCE_DIGITS, Entry, attributes, fixed, varying

_MAGIC: Final = 2
_NO_OFFSET: Final = 0  # the broker numbers the records
_NO_LEADER_EPOCH: Final = -1
_NO_TIMESTAMP: Final = -1  # Kafka's own value for a record without one
_HEAD: Final = struct.Struct(">qiibI")  # base offset, length of what follows, leader epoch, format, CRC of what follows
_STATE: Final = struct.Struct(">hiqqqhii")  # attributes, last offset, times, producer id, epoch, sequence, records
_BEFORE_LENGTH: Final = 12


def _zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data, level=1))


def _lz4(data: bytes) -> bytes:
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)  # linked blocks are not for Kafka
    compressor.compress(data)
    return bytes(compressor.finish())


CODECS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    # name -> number in a batch's attributes, function
    "none": (0, bytes),
    "gzip": (1, lambda data: gzip.compress(data, 1)),
    "lz4": (3, _lz4),
    "zstd": (4, _zstd),
}


def _long_varint(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    packed = bytearray()
    while rest > 0x7F:
        packed.append(rest & 0x7F | 0x80)
        rest >>= 7
    packed.append(rest)
    return bytes(packed)


_SHORT: Final = 8192
_VARINTS: Final = tuple(_long_varint(number) for number in range(_SHORT))
_TEXTS: Final = tuple(packed.decode("latin-1") for packed in _VARINTS)
"""The same as text, a character per byte: putting a record together as text takes half as long as joining its bytes."""


def varint(number: int) -> bytes:
    """A signed number in as many bytes as it needs."""
    return _VARINTS[number] if 0 <= number < _SHORT else _long_varint(number)


class Raw(NamedTuple):
    """The records of a batch one behind the other, before compression."""

    data: bytes
    records: int
    first_ms: int
    latest_ms: int


_Common = tuple[str, str, str, str, str]
_KNOWN: Final = 64  # there are no more topics; earlier runs' are on disk for a while
_time_ms: Final = attrgetter("time_ms")


class Packer:
    """Makes batches."""

    def __init__(self, compression: str) -> None:
        self._codec, self._compress = CODECS[compression]
        self._common: dict[tuple[str, str, int], _Common] = {}  # by topic, host id and epoch

    def append(self, waiting: Sequence[Entry], most_bytes: int, *, timestamps: bool) -> Raw:
        """The first entries, up to `most_bytes`, but one at least."""
        parts: list[bytes] = []
        total = records = 0
        first_ms = waiting[0].time_ms
        short, text = _VARINTS, _TEXTS
        topic: Topic | None = None
        host_id, epoch = "", -1
        for entry in waiting:
            later_ms = entry.time_ms - first_ms if timestamps else 0
            value, key, id_, subject, time = entry.value, entry.key, entry.id, entry.subject, entry.time
            usual = not entry.structured and later_ms >= 0 and (key + id_ + subject + time).isascii()
            if usual and value is not None:  # in line: half of the time would be calling
                if entry.topic is not topic or entry.epoch != epoch or entry.host_id != host_id:
                    topic, epoch, host_id = entry.topic, entry.epoch, entry.host_id
                    before, after_id, after_subject, after_time, behind = self._in_common(entry)
                later = text[later_ms] if later_ms < _SHORT else _as_text(varint(later_ms))
                length = text[len(value)] if len(value) < _SHORT else _as_text(varint(len(value)))
                try:
                    head = f"\0{later}{text[records]}{text[len(key)]}{key}{length}".encode("latin-1")
                    tail = (
                        f"{before}{text[len(id_)]}{id_}{after_id}{text[len(subject)]}{subject}{after_subject}"
                        f"{text[len(time)]}{time}{after_time}{entry.seq:020d}{behind}"
                    ).encode("latin-1")
                except IndexError:  # an endless name, or a batch of very many
                    head, value, tail = _unusual(entry, later_ms, records)
            else:
                head, value, tail = _unusual(entry, later_ms, records)
            size = len(head) + len(value) + len(tail)
            if records and total + size > most_bytes:
                break
            parts += (short[size] if size < _SHORT else varint(size), head, value, tail)
            total += size + 3
            records += 1
        latest_ms = max(map(_time_ms, waiting[:records]))
        if not timestamps:
            first_ms = latest_ms = _NO_TIMESTAMP
        return Raw(b"".join(parts), records, first_ms, latest_ms)

    def finish(self, raw: Raw, producer_id: int, epoch: int, sequence: int) -> bytes:
        """Compress, and put the head before it. Takes its time; may be called from any thread."""
        state = _STATE.pack(self._codec, raw.records - 1, raw.first_ms, raw.latest_ms, producer_id, epoch, sequence, raw.records)
        body = state + self._compress(raw.data)
        length = _HEAD.size - _BEFORE_LENGTH + len(body)
        return _HEAD.pack(_NO_OFFSET, length, _NO_LEADER_EPOCH, _MAGIC, calc_crc32c(body)) + body

    def _in_common(self, entry: Entry) -> _Common:
        """What the headers of this entry have in common with others of its topic, host and run; bytes as text."""
        which = entry.topic.short, entry.host_id, entry.epoch
        known = self._common.get(which)
        if known is None:
            before, after_id, after_subject, after_time, behind = fixed(entry, _header, _string)
            number = varying(entry)[-1]
            after_time += varint(len(number)) + number[:-SEQUENCE_DIGITS]
            before = varint(len(attributes(entry))) + before
            known = _as_text(before), _as_text(after_id), _as_text(after_subject), _as_text(after_time), _as_text(behind)
            if len(self._common) >= _KNOWN:
                self._common.clear()
            self._common[which] = known
        return known


def _as_text(packed: bytes) -> str:
    return packed.decode("latin-1")


def _unusual(entry: Entry, later_ms: int, offset: int) -> tuple[bytes, bytes, bytes]:
    """One record that is not packed in line."""
    about = attributes(entry)
    tail = varint(len(about)) + b"".join(_header(name, text) for name, text in about)
    return _head(entry, entry.key.encode(), later_ms, offset), entry.value or b"", tail


def _head(entry: Entry, key: bytes, later_ms: int, offset: int) -> bytes:
    """A record up to its value."""
    length = -1 if entry.value is None else len(entry.value)
    return b"\0" + varint(later_ms) + varint(offset) + varint(len(key)) + key + varint(length)


def _header(name: str, value: bytes) -> bytes:
    return _string(name) + varint(len(value)) + value


def _string(text: str) -> bytes:
    packed = text.encode()
    return varint(len(packed)) + packed
