"""The recent samples of one container, packed: some 80 bytes each where a dozen numbers move, 10 where none does.

A sample's values become bytes at once, while they are at hand: a row of MessagePack (`layout.py`). It leaves no objects
behind, and a sample that says nothing new has the bytes of the one before. When `_BLOCK` of them wait they become a block,
compressed together, as one hardly differs from the next (LZ4: zstd makes a sixth less of it and takes five times as long).
A block in which nothing moved is its one row.

Beside its rows a block has its steps: for each sample the ns since the one before, negative when thin answers leave it out.
So reading goes from the newest back, as far as it is asked to, and blocks go as a whole: some samples more than needed are
held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from sys import getsizeof
from typing import Any, Final, NamedTuple

import msgspec
from cramjam import lz4

from streamer.memory.layout import Row, StatsSample, packed, reader, sample_of
from streamer.model.stats import IoDevice, NetworkInterface

LONGEST_GAP_NS: Final = 60_000_000_000
"""Between two samples of a thin answer, while samples are taken more often than that."""

_BLOCK: Final = 16  # a larger one saves little, and half of one waits on average

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list).decode


class _Block(NamedTuple):
    """Samples that were put away.

    samples  how many
    steps    packed
    rows     a list of as many, compressed; the one row, if nothing moved
    moved    which of these it is
    """

    samples: int
    steps: bytes
    rows: bytes
    moved: bool


_BLOCK_BYTES: Final = getsizeof(_Block(0, b"", b"", True)) + 8
_FLAT_BYTES: Final = 1000  # the object, and the newest row: its numbers are the record's
_WAITING_BYTES: Final = 48  # its time, and a place in two lists


class _Pace(NamedTuple):
    """What a thin answer has.

    shown_ns  the last one it has
    gap_ns    from there to the next; 0: however long it is
    """

    shown_ns: int
    gap_ns: int


class Samples:
    """The newest samples, as many as `most`."""

    __slots__ = (
        "_block",
        "_blocks",
        "_newest",
        "_newest_ns",
        "_newest_row",
        "_pace",
        "_packed",
        "_packed_ns",
        "_packed_row",
        "_room",
        "_rows",
        "_times",
        "most",
    )

    def __init__(self, most: int, turn: int = 0) -> None:
        """`turn`: different ones let those that begin together pack at different times."""
        self.most = most
        self._block = max(1, min(most, _BLOCK))
        self._room = 1 + turn % self._block  # so many may wait
        self._forget()

    def _forget(self) -> None:
        self._newest = b""
        self._newest_row: Row = ()  # not packed: to see that nothing moved is to see that these are the same objects
        self._newest_ns = 0
        # what waits, the oldest first
        self._rows: list[bytes] = []
        self._times: list[int] = []
        # what is before that
        self._blocks: list[_Block] = []
        self._packed = 0  # how many samples
        self._packed_row, self._packed_ns = b"", 0  # the newest of them
        self._pace = _Pace(0, 0)

    def __len__(self) -> int:
        return min(self.most, self._packed + len(self._rows))

    @property
    def size(self) -> int:
        """Bytes that they take."""
        rows = {id(row): row for row in (self._newest, *self._rows, *(block.rows for block in self._blocks))}
        blocks = _BLOCK_BYTES * len(self._blocks) + sum([getsizeof(block.steps) for block in self._blocks])
        return _FLAT_BYTES + sum(map(getsizeof, rows.values())) + _WAITING_BYTES * len(self._rows) + blocks

    def add(
        self,
        time_ns: int,
        values: tuple[Any, ...],
        interfaces: Sequence[NetworkInterface] = (),
        devices: Sequence[IoDevice] = (),
    ) -> None:
        """Append one; arguments as the fields of `StatsSample`. Raises as `append`."""
        self.append(time_ns, (*values, interfaces, devices))

    def again(self, times_ns: Sequence[int]) -> None:
        """Append some that say what the newest did, each later than the one before."""
        begun = 0
        while begun < len(times_ns):
            some = times_ns[begun : begun + self._room - len(self._rows)]
            begun += len(some)
            self._rows += [self._newest] * len(some)
            self._times += some
            self._newest_ns = some[-1]
            if len(self._rows) >= self._room:
                self._pack_up()

    def append(self, time_ns: int, row: Row) -> None:
        """Append one.

        One that is not later than the newest is of a clock that was set back: the others go, what they tell is to come.

        Raises:
            OverflowError: a number beyond 64 bits.
        """
        if time_ns <= self._newest_ns:
            self._forget()
        if row is not self._newest_row and row != self._newest_row:
            self._newest, self._newest_row = packed(row), row
        self._newest_ns = time_ns
        rows = self._rows
        rows.append(self._newest)
        self._times.append(time_ns)
        if len(rows) >= self._room:
            self._pack_up()

    def _pack_up(self) -> None:
        """Make a block of what waits."""
        rows, self._room = self._rows, self._block
        steps, self._pace = self._steps()
        moved = rows.count(rows[0]) != len(rows)
        together = bytes(lz4.compress_block(_list_of(len(rows)) + b"".join(rows))) if moved else rows[0]
        self._blocks.append(_Block(len(rows), _pack(steps), together, moved))
        self._packed += len(rows)
        self._packed_row, self._packed_ns = self._newest, self._newest_ns
        self._rows, self._times = [], []
        while self._packed - self._blocks[0].samples >= self.most:
            self._packed -= self._blocks.pop(0).samples

    def _steps(self) -> tuple[list[int], _Pace]:
        """Of what waits: the steps, and the pace after it."""
        shown_ns, gap_ns = self._pace
        before, before_ns = self._packed_row, self._packed_ns
        steps = []
        for row, time_ns in zip(self._rows, self._times, strict=True):
            step_ns = time_ns - before_ns
            if row is not before:
                shown_ns, gap_ns = time_ns, 0
                steps.append(step_ns)
                before = row
            else:
                since_ns = time_ns - shown_ns
                if since_ns + step_ns // 2 >= gap_ns:  # the nearest one: they come with jitter
                    shown_ns, gap_ns = time_ns, min(LONGEST_GAP_NS, 2 * (gap_ns or since_ns))
                    steps.append(step_ns)
                else:
                    steps.append(-step_ns)
            before_ns = time_ns
        return steps, _Pace(shown_ns, gap_ns)

    def newest(self, most: int = -1, start_ns: int = 0, end_ns: int = 0, *, thin: bool = False) -> list[StatsSample]:
        """The newest `most` (-1: all, 0: none) of those from `start_ns` to `end_ns` (0: open), the oldest first.

        thin    of samples that do not differ but in time, leave out so many that the time from one to the next doubles,
                from what it was at first to `LONGEST_GAP_NS`; the newest of all is always there. Which are left out
                does not change from one answer to the next
        """
        found: list[StatsSample] = []
        before: list[Any] | None = None
        for time_ns, row, shown in self._back() if most else ():
            if time_ns < start_ns:
                break
            if (end_ns and time_ns > end_ns) or (thin and not shown):
                continue
            if row is before:  # nothing moved: all but the time is shared
                same = found[-1]
                found.append(StatsSample(time_ns, same.values, same.interfaces, same.devices))
            else:
                found.append(sample_of(time_ns, row))
                before = row
            if len(found) == most:
                break
        found.reverse()
        return found

    def columns(self, columns: Sequence[int], most: int = -1) -> list[tuple[int, tuple[Any, ...]]]:
        """Of the newest `most` (-1: all), the oldest first, the time in ns and some of the values.

        columns  positions in `COLUMNS`
        """
        found: list[tuple[int, tuple[Any, ...]]] = []
        read, before = reader(columns), None
        for time_ns, row, _ in self._back() if most else ():
            if row is not before:
                before, values = row, read(row)
            found.append((time_ns, values))
            if len(found) == most:
                break
        found.reverse()
        return found

    def _back(self) -> Iterator[tuple[int, list[Any], bool]]:
        """From the newest sample to the oldest: time, row as unpacked, and whether it is in thin answers.

        Samples that share their bytes share their row.
        """
        left, time_ns, newest = len(self), self._newest_ns, True
        for rows, steps in self._pieces():
            for row, step_ns in zip(rows, reversed(steps), strict=False):  # the only row of a block comes without end
                if not left:
                    return
                yield time_ns, row, newest or step_ns > 0
                time_ns -= abs(step_ns)
                left -= 1
                newest = False

    def _pieces(self) -> Iterator[tuple[Iterable[list[Any]], list[int]]]:
        """What waits, then block by block, the newest first: rows from the newest to the oldest, and steps."""
        known, unpacked = b"", []

        def one(row: bytes) -> list[Any]:
            nonlocal known, unpacked
            if row is not known:
                known, unpacked = row, _unpack(row)
            return unpacked

        if self._rows:
            yield map(one, reversed(self._rows)), self._steps()[0]
        for block in reversed(self._blocks):
            if block.moved:
                yield reversed(_unpack(bytes(lz4.decompress_block(block.rows)))), _unpack(block.steps)
            else:
                yield repeat(one(block.rows)), _unpack(block.steps)


def _list_of(length: int) -> bytes:
    """The beginning of a list in MessagePack (array 16)."""
    return b"\xdc" + length.to_bytes(2, "big")
