"""Record batches as Kafka keeps them: https://kafka.apache.org/documentation/#recordbatch (format 2).

Built here and not by aiokafka, for the compression: aiokafka compresses at levels (lz4 9, zstd 3) that cost up to eight
times what the level here does. What is the same in all records of a topic is packed once.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import cramjam
from aiokafka.record.util import calc_crc32c

from streamer.model.wire import Entry, attributes, fixed, varying

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


def varint(number: int) -> bytes:
    """A signed number in as many bytes as it needs."""
    return _VARINTS[number] if 0 <= number < _SHORT else _long_varint(number)


class Raw(NamedTuple):
    """The records of a batch one behind the other, before compression."""

    data: bytes
    records: int
    first_ms: int
    latest_ms: int


class Packer:
    """Makes batches."""

    def __init__(self, compression: str) -> None:
        self._codec, self._compress = CODECS[compression]
        self._fixed: dict[str, tuple[str, list[bytes]]] = {}  # topic -> host id, what its records have in common

    def append(self, waiting: Sequence[tuple[int, Entry]], most_bytes: int, *, timestamps: bool) -> Raw:
        """The first entries, up to `most_bytes`, but one at least."""
        parts: list[bytes] = []
        total = records = 0
        first_ms = latest_ms = waiting[0][1].time_ms
        known, short = self._fixed, _VARINTS
        for _, entry in waiting:
            time_ms = entry.time_ms
            later_ms = time_ms - first_ms if timestamps else 0
            host_id, fixed_parts = known.get(entry.topic.short, _UNKNOWN)
            value = entry.value
            if value is None or entry.structured or host_id != entry.host_id:
                head, value, tail = self._unusual(entry, later_ms, records)
            else:  # in line: half of the time would be calling
                key = entry.key.encode()
                id_, subject, time, number = varying(entry)
                before, after_id, after_subject, after_time, behind = fixed_parts
                later = short[later_ms] if 0 <= later_ms < _SHORT else varint(later_ms)
                length = short[len(value)] if len(value) < _SHORT else varint(len(value))
                try:
                    head = b"".join((b"\0", later, short[records], short[len(key)], key, length))
                    tail = b"".join((
                        before, short[len(id_)], id_, after_id, short[len(subject)], subject, after_subject,
                        short[len(time)], time, after_time, short[len(number)], number, behind,
                    ))  # fmt: skip
                except IndexError:  # an endless name, or a batch of very many
                    head, value, tail = self._unusual(entry, later_ms, records)
            size = len(head) + len(value) + len(tail)
            if records and total + size > most_bytes:
                break
            parts += (varint(size), head, value, tail)
            total += size + 3
            records += 1
            latest_ms = max(latest_ms, time_ms)
        if not timestamps:
            first_ms = latest_ms = _NO_TIMESTAMP
        return Raw(b"".join(parts), records, first_ms, latest_ms)

    def finish(self, raw: Raw, producer_id: int, epoch: int, sequence: int) -> bytes:
        """Compress, and put the head before it. Takes its time; may be called from any thread."""
        state = _STATE.pack(self._codec, raw.records - 1, raw.first_ms, raw.latest_ms, producer_id, epoch, sequence, raw.records)
        body = state + self._compress(raw.data)
        length = _HEAD.size - _BEFORE_LENGTH + len(body)
        return _HEAD.pack(_NO_OFFSET, length, _NO_LEADER_EPOCH, _MAGIC, calc_crc32c(body)) + body

    def _unusual(self, entry: Entry, later_ms: int, offset: int) -> tuple[bytes, bytes, bytes]:
        """One record that cannot be packed in line; the next one of its topic can, if it is of the usual kind."""
        key, about = entry.key.encode(), attributes(entry)
        if entry.value is not None and not entry.structured:
            parts = fixed(entry, _header, _string)
            parts[0] = varint(len(about)) + parts[0]
            self._fixed[entry.topic.short] = entry.host_id, parts
        tail = varint(len(about)) + b"".join(_header(name, text) for name, text in about)
        return _head(entry, key, later_ms, offset), entry.value or b"", tail


_UNKNOWN: Final[tuple[str, list[bytes]]] = ("", [])


def _head(entry: Entry, key: bytes, later_ms: int, offset: int) -> bytes:
    """A record up to its value."""
    length = -1 if entry.value is None else len(entry.value)
    return b"\0" + varint(later_ms) + varint(offset) + varint(len(key)) + key + varint(length)


def _header(name: str, value: bytes) -> bytes:
    return _string(name) + varint(len(value)) + value


def _string(text: str) -> bytes:
    packed = text.encode()
    return varint(len(packed)) + packed
