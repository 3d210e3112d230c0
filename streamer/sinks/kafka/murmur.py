"""The hash by which Kafka's own producers choose a partition: murmur2, 32 bits, with Kafka's seed.

aiokafka has it too, at twice the time; a container's two keys are hashed when it is new, the one thing about it that
costs more than its messages.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_32_BITS: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The hash, unsigned."""
    words = len(data) // 4
    hashed = _SEED ^ len(data)
    for word in _words(words).unpack_from(data):
        mixed = word * _MULTIPLIER & _32_BITS
        hashed = (hashed * _MULTIPLIER & _32_BITS) ^ ((mixed ^ mixed >> 24) * _MULTIPLIER & _32_BITS)
    if rest := data[words * 4 :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _32_BITS
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _32_BITS
    return hashed ^ hashed >> 15


def partition(key: bytes, partitions: int) -> int:
    """Where a record with this key goes, as Java's default partitioner has it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


@cache
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")
