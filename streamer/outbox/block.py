"""Entries as they lie on disk: durable ones one by one, samples in compressed blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from streamer.model.wire import Entry, pack, unpack
from streamer.outbox.lock import StoreFailed

LEVEL: Final = 1  # of zstd: samples shrink to a tenth for some microseconds each
MOST: Final = 1000  # entries in a block


def blocks(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Samples cut into blocks: each of one epoch, without a hole in its numbers."""
    start = 0
    for index in range(1, len(entries) + 1):
        if index == len(entries) or index - start >= MOST or not follows(entries[index - 1 : index], entries[index : index + 1]):
            yield entries[start:index]
            start = index


def follows(block: Sequence[Entry], more: Sequence[Entry]) -> bool:
    """Whether these may stand in one block: the same epoch, no number missing between them, not too many."""
    last, first = block[-1], more[0]
    in_order = first.position > last.position and (first.epoch, first.seq) == (last.epoch, last.seq + 1)
    return in_order and len(block) + len(more) <= MOST


def deflate(entries: Sequence[Entry]) -> bytes:
    """A block as bytes."""
    from cramjam import zstd

    return bytes(zstd.compress(pack(entries), level=LEVEL))


def inflate(block: bytes) -> list[Entry]:
    """The entries of a block.

    Raises:
        StoreFailed: it is damaged.
    """
    import cramjam

    try:
        return entries_of(bytes(cramjam.zstd.decompress(block)))
    except cramjam.DecompressionError as error:
        raise StoreFailed(f"a block of samples cannot be read: {error}", damaged=True) from error


def entries_of(packed: bytes) -> list[Entry]:
    """What `wire.pack` was given.

    Raises:
        StoreFailed: these are other bytes, or of a topic that this version does not have.
    """
    try:
        return unpack(packed)
    except (msgspec.MsgspecError, KeyError) as error:
        raise StoreFailed(f"an entry cannot be read: {error!r}", damaged=True) from error
