"""The recent samples of one container, packed: a kilobyte for ten of them, less when little moves.

The newest sample is held as a row of integers (`layout.py`). Every older one is told by the one after it: an entry says
how much time passed in between and, number by number, by how much the row grew; nothing when it did not. So reading
goes from the newest back, as far as it is asked to, and to let go of the oldest is to drop its entry.

    block    at most `_BLOCK` entries in a row, compressed (zstd)
             MessagePack: [turn, entry, …], the oldest entry first
    entry    [step] or [step, growth, …]; step: ns since the sample before, negative when that is left out of thin answers
    turn     nil, or how the sample before the block's first entry looked, where that entry cannot tell:
             [layout's fields, row]

Entries that do not fill a block yet wait uncompressed. Blocks go as a whole, so some entries more than needed are held.
A block in which nothing moved says beside it when its samples in thin answers were: those of idle containers are made
without looking into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import sub
from sys import getsizeof
from typing import Any, Final, NamedTuple

import msgspec
from cramjam import zstd
from msgspec import convert

from streamer.memory.layout import Layout, LayoutKey, Row, StatsSample, layout_for, layout_of
from streamer.model.stats import IoDevice, NetworkInterface

LONGEST_GAP_NS: Final = 60_000_000_000
"""Between two samples of a thin answer, while samples are taken more often than that."""

_BLOCK: Final = 16  # there is little more to find in larger ones, and on average half of one waits uncompressed
_LEVEL: Final = 1  # higher ones take longer for 3 % less

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode
_NO_TURN: Final = _pack(None)

_INT_BYTES: Final = 40  # with its place in the row
_BLOCK_BYTES: Final = getsizeof(b"") + getsizeof((0,) * 4) + 40  # with its place in the list and its span
_SHOWN_BYTES: Final = getsizeof((0, 0)) + 40


class _Block(NamedTuple):
    """Entries that were put away.

    entries  how many
    packed   compressed
    span_ns  of a block in which nothing moved: from the sample after it back to the oldest that its entries tell of; else 0
    shown    of such a block: for each sample that a thin answer has, the newest first, how many entries back and how many ns
    """

    entries: int
    packed: bytes
    span_ns: int = 0
    shown: tuple[tuple[int, int], ...] = ()


class Samples:
    """The newest samples, as many as `most`."""

    __slots__ = (
        "_blocks",
        "_entries",
        "_gap_ns",
        "_layout",
        "_most",
        "_row",
        "_shown",
        "_shown_ns",
        "_time_ns",
        "_waiting",
        "_waits",
    )

    def __init__(self, most: int) -> None:
        self._most = most
        self._forget()

    def _forget(self) -> None:
        # the newest sample
        self._layout: Layout | None = None
        self._time_ns = 0
        self._row: Row = ()
        # those before it
        self._entries = 0  # in all
        self._blocks: list[_Block] = []
        self._waiting = bytearray(_NO_TURN)
        self._waits = 0
        # what a thin answer leaves out
        self._shown = True  # whether it has the newest by its own right
        self._shown_ns = 0  # the last one it has
        self._gap_ns = 0  # from there to the next; 0: however long it is

    def __len__(self) -> int:
        return min(self._most, self._entries + 1) if self._layout else 0

    @property
    def size(self) -> int:
        """Bytes that they take."""
        blocks = sum(len(b.packed) + _BLOCK_BYTES + _SHOWN_BYTES * len(b.shown) for b in self._blocks)
        return getsizeof(self) + getsizeof(self._waiting) + _INT_BYTES * (len(self._row) + 4) + blocks

    def add(
        self,
        time_ns: int,
        values: tuple[Any, ...],
        interfaces: tuple[NetworkInterface, ...] = (),
        devices: tuple[IoDevice, ...] = (),
    ) -> None:
        """Append one; arguments as the fields of `StatsSample`.

        One that is not later than the newest is of a clock that was set back: the others go, what they tell is to come.

        Raises:
            OverflowError: a number beyond 64 bits.
        """
        if self._layout is not None and time_ns <= self._time_ns:
            self._forget()
        if self._layout is None:
            self._layout, self._row = layout_of(values, interfaces, devices)
            self._time_ns = self._shown_ns = time_ns
            return
        before, moved = self._row, True
        step = time_ns - self._time_ns if self._shown else self._time_ns - time_ns
        try:
            row = self._layout.row(values, interfaces, devices) if self._layout.key.even else None
            if row is not None:
                moved = row != before
                entry = _pack((step, *map(sub, row, before)) if moved else (step,))
        except (TypeError, ValueError, OverflowError):  # a value came or went, or grew by more than 64 bits can say
            row = None
        if row is None:
            turn = _pack((self._layout.key, before))
            self._seal()
            self._waiting[:] = turn
            self._layout, row = layout_of(values, interfaces, devices)
            entry = _pack((step,))
        self._row, self._time_ns = row, time_ns
        self._waiting += entry
        self._waits += 1
        self._entries += 1
        if self._waits == _BLOCK:
            self._seal()
        if self._blocks and self._entries - self._blocks[0].entries >= self._most - 1:
            self._entries -= self._blocks.pop(0).entries
        if moved:
            self._shown, self._shown_ns, self._gap_ns = True, time_ns, 0
        else:
            self._pace(time_ns, abs(step))

    def _seal(self) -> None:
        """Make a block of what waits."""
        if self._waits:
            packed = _list_of(self._waits + 1) + self._waiting
            compressed = bytes(zstd.compress(packed, level=_LEVEL))
            self._blocks.append(_Block(self._waits, compressed, *_quiet(_unpack(packed))))
            self._waiting[:] = _NO_TURN
            self._waits = 0

    def _pace(self, time_ns: int, step_ns: int) -> None:
        """Decide whether a thin answer has the newest sample, which says nothing new, also when it is the newest no more."""
        since_ns = time_ns - self._shown_ns
        self._shown = since_ns + step_ns // 2 >= self._gap_ns  # the nearest one: they come with jitter
        if self._shown:
            self._shown_ns = time_ns
            self._gap_ns = min(LONGEST_GAP_NS, 2 * (self._gap_ns or since_ns))

    def newest(self, most: int = -1, start_ns: int = 0, end_ns: int = 0, *, thin: bool = False) -> list[StatsSample]:
        """The newest `most` (-1: all, 0: none) of those from `start_ns` to `end_ns` (0: open), the oldest first.

        thin    of samples that do not differ but in time, leave out so many that the time from one to the next doubles,
                from what it was at first to `LONGEST_GAP_NS`; the newest of all is always there. Which are left out
                does not change from one answer to the next
        """
        found: list[StatsSample] = []
        before: Row | None = None
        for time_ns, layout, row, shown in self._back(thin=thin) if most else ():
            if time_ns < start_ns:
                break
            if (end_ns and time_ns > end_ns) or (thin and not shown):
                continue
            if row is before:  # nothing moved: all but the time is shared
                same = found[-1]
                found.append(StatsSample(time_ns, same.values, same.interfaces, same.devices))
            else:
                found.append(layout.sample(time_ns, row))
                before = row
            if len(found) == most:
                break
        found.reverse()
        return found

    def columns(self, columns: Sequence[int], most: int = -1) -> list[tuple[int, tuple[Any, ...]]]:
        """Of the newest `most` (-1: all), the oldest first, the time in ns and some of the values, which have to be whole numbers.

        columns  positions in `COLUMNS`
        """
        left = len(self) if most < 0 else min(most, len(self))
        if self._layout is None or not left:
            return []
        layout, time_ns = self._layout, self._time_ns
        reader = layout.reader(columns)
        numbers = reader.numbers(self._row)
        values = reader.values(numbers)
        found = [(time_ns, values)]
        for block in (_Block(self._waits, b""), *reversed(self._blocks)):
            if len(found) == left:
                break
            turn, *entries = self._unpacked(block)
            while entries and len(found) < left:
                step, *growth = entries.pop()
                time_ns -= abs(step)
                if growth:
                    numbers = tuple(map(sub, numbers, reader.numbers(growth)))
                    values = reader.values(numbers)
                elif turn and not entries:
                    layout = layout_for(convert(turn[0], LayoutKey))
                    reader = layout.reader(columns)
                    numbers = reader.numbers(turn[1])
                    values = reader.values(numbers)
                found.append((time_ns, values))
        found.reverse()
        return found

    def _back(self, *, thin: bool) -> Iterator[tuple[int, Layout, Row, bool]]:
        """From the newest sample to the oldest: time, layout, row, and whether it is in thin answers.

        thin    those that are not in thin answers may be left out
        """
        if self._layout is None:
            return
        layout, row, time_ns, left = self._layout, self._row, self._time_ns, len(self)
        yield time_ns, layout, row, True
        waiting = _Block(self._waits, b"")
        for block in (waiting, *reversed(self._blocks)):
            if thin and block.span_ns:
                yield from [(time_ns - ago_ns, layout, row, True) for back, ago_ns in block.shown if back < left]
                time_ns -= block.span_ns
                left -= block.entries
                continue
            turn, *entries = self._unpacked(block)
            while entries:
                left -= 1
                if left <= 0:
                    return
                step, *growth = entries.pop()
                time_ns -= abs(step)
                if growth:
                    row = tuple(map(sub, row, growth))
                elif turn and not entries:
                    layout, row = layout_for(convert(turn[0], LayoutKey)), tuple(turn[1])
                yield time_ns, layout, row, step > 0

    def _unpacked(self, block: _Block) -> list[Any]:
        """The turn and the entries of a block; what waits is one that is not packed."""
        packed = bytes(zstd.decompress(block.packed)) if block.packed else _list_of(self._waits + 1) + self._waiting
        unpacked: list[Any] = _unpack(packed)
        return unpacked


def _quiet(unpacked: list[Any]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """`span_ns` and `shown` of a block, `(0, ())` where something moved."""
    turn, *entries = unpacked
    if turn or any(len(entry) > 1 for entry in entries):
        return 0, ()
    span_ns = 0
    shown = []
    for back, (step,) in enumerate(reversed(entries), start=1):
        span_ns += abs(step)
        if step > 0:
            shown.append((back, span_ns))
    return span_ns, tuple(shown)


def _list_of(length: int) -> bytes:
    """The beginning of a list in MessagePack (array 16)."""
    return b"\xdc" + length.to_bytes(2, "big")
