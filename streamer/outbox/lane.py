"""One of the two queues of a sink: what is in memory, and what of it lies on disk only. Pure.

    head ─ disk ─ tail        oldest first

`head` goes next. Once more than a window of entries waits there, later ones are kept on disk alone and counted by
topic and epoch; they are read back, in order, as the head empties. What comes while the disk takes nothing waits
behind them in `tail`. Without a disk there is only a head. Head and tail together are bounded. What goes is the tail's
oldest: dropped from the head, what is on disk would be read back, and all of it go that way. With nothing on disk alone it
is the head's oldest, whether the disk has them too or not. What is read back comes on top until the tail has made room, a
window at a time: it goes first, so it has to come however full the memory is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from streamer.model.messages import Topic
from streamer.model.wire import Entry
from streamer.outbox.ranges import Ranges


class Head(NamedTuple):
    """What is known of an entry without its value: enough to count it as lost."""

    position: int
    topic: Topic
    epoch: int
    seq: int
    size: int


class Stretch(Struct):
    """Entries of one topic and epoch that lie on disk: `count` of the numbers `first_seq`..`last_seq`.

    The range only grows: when some of it cannot be read, that many of it are missing, and nobody knows which.
    """

    topic: Topic
    epoch: int
    first_seq: int
    last_seq: int
    count: int


class Mark(NamedTuple):
    """How far a sink has come in a lane: everything up to `position` is settled. `epoch`, `seq`: of the entry there."""

    position: int = 0
    epoch: int = 0
    seq: int = 0


class Lane:
    """See above. `window_bytes`: how much may wait in memory before the rest stays on disk; `most_bytes`: where that takes
    nothing, or there is none (then the two are the same)."""

    def __init__(self, *, window_bytes: int, most_bytes: int) -> None:
        self.window_bytes, self.most_bytes = window_bytes, most_bytes
        self.head: Final[deque[Entry]] = deque()
        self.tail: Final[deque[Entry]] = deque()
        self.head_bytes = self.tail_bytes = 0
        self.disk: Final[dict[tuple[str, int], Stretch]] = {}
        self.disk_messages = self.disk_bytes = 0
        self.disk_after = 0  # what lies on disk only has higher positions than this
        self.disk_through = 0  # the last one offered of it
        self.holes = Ranges()  # positions that went from the tail: they are lost, though a write that hung may come to an end
        self.mark = Mark()
        self.overflowed = False  # has lost something since it was last empty

    # how it is

    @property
    def messages(self) -> int:
        return len(self.head) + self.disk_messages + len(self.tail)

    @property
    def bytes(self) -> int:
        return self.head_bytes + self.disk_bytes + self.tail_bytes

    @property
    def lags(self) -> bool:
        """Whether more waits than the window holds, or did and is not caught up with yet."""
        return bool(self.disk_messages or self.tail) or self.overflowed or self.head_bytes > self.window_bytes

    @property
    def first_position(self) -> int | None:
        """A position that no waiting entry is below; None when nothing waits."""
        if self.head:
            return self.head[0].position
        if self.disk_messages:
            return self.disk_after + 1
        return self.tail[0].position if self.tail else None

    @property
    def wants_more(self) -> bool:
        """Whether entries should be read back from disk now."""
        return self.disk_messages > 0 and self.head_bytes < self.window_bytes // 2

    # filling

    def offer(self, entry: Entry, stored: bool) -> Iterator[Entry]:
        """Put an entry at the end; `stored`: it is on disk too. Yields what has to go for it, oldest first."""
        if self.tail or (self.disk_messages and not stored):
            self.tail.append(entry)
            self.tail_bytes += entry.size
        elif self.disk_messages or (stored and self.head_bytes > self.window_bytes):
            self._leave_on_disk(entry)
        else:
            self.head.append(entry)
            self.head_bytes += entry.size
        return self._too_much()

    def extend(self, entries: Sequence[Entry], size: int, stored: bool) -> bool:
        """Put entries of so many bytes at the end at once, if none of them has to stay on disk nor anything to go for them."""
        total = self.head_bytes + size
        if self.tail or self.disk_messages or total > self.most_bytes or (stored and total > self.window_bytes):
            return False
        self.head.extend(entries)
        self.head_bytes = total
        return True

    def adopt(self, stretches: Sequence[Stretch], total_bytes: int, after: int, through: int) -> None:
        """Take over what an earlier run left on disk, before anything is offered."""
        for stretch in stretches:
            self.disk[stretch.topic.short, stretch.epoch] = stretch
            self.disk_messages += stretch.count
        self.disk_bytes += total_bytes
        self.disk_after, self.disk_through = after, through

    def refill(self, entries: Sequence[Entry], through: int) -> list[Stretch]:
        """Take in what was read from disk up to position `through`, but for `holes`; returns what should have been there and was not."""
        self.head.extend(entries)
        size = 0
        for entry in entries:
            size += entry.size
            stretch = self.disk.get((entry.topic.short, entry.epoch))
            if stretch is not None:
                stretch.count -= 1
                self.disk_messages -= 1
        self.head_bytes += size
        self.disk_bytes -= size
        self.disk_after = max(self.disk_after, through)
        if self.disk_after < self.disk_through:
            return []
        return self.lose_disk()

    def gone_from_disk(self, heads: Sequence[Head]) -> list[Head]:
        """The disk was too small: these are no longer there. Returns the ones that this lane still needed."""
        needed: list[Head] = []
        for head in sorted(heads):  # one may come twice: what was written again after a failure stands in two blocks
            there = self.disk.get((head.topic.short, head.epoch))
            if there is None or head.position in self.holes or not self.disk_after < head.position <= self.disk_through:
                continue
            needed.append(head)
            self.disk_after = head.position
            self._forget(head.topic, head.epoch, head.size)
        if needed:
            self.overflowed = True
            if not self.head:
                self.mark = Mark(needed[-1].position, needed[-1].epoch, needed[-1].seq)
            if not self.disk_messages:
                self.lose_disk()
        return needed

    def lose_disk(self) -> list[Stretch]:
        """Nothing is to be had from disk any more: what was only there, and go on with what came after it."""
        lost = [stretch for stretch in self.disk.values() if stretch.count]
        self.disk.clear()
        self.holes = Ranges()
        self.disk_messages = self.disk_bytes = 0
        self.disk_after = max(self.disk_after, self.disk_through)
        self.head.extend(self.tail)
        self.head_bytes += self.tail_bytes
        self.tail.clear()
        self.tail_bytes = 0
        return lost

    def stow(self, stored: Callable[[Entry], bool]) -> None:
        """The disk takes entries again: those of the tail that it has need not stay in memory."""
        while self.tail and stored(self.tail[0]):
            entry = self.tail.popleft()
            self.tail_bytes -= entry.size
            self._leave_on_disk(entry)

    # emptying

    def popped(self, size: int) -> None:
        """Entries of so many bytes were taken from the head."""
        self.head_bytes -= size
        if self.overflowed and not self.messages:
            self.overflowed = False

    def push_front(self, batch: Sequence[Entry]) -> Iterator[Entry]:
        """Put entries back that were popped; yields what has to go for them: without a disk, which may have them."""
        self.head.extendleft(reversed(batch))
        self.head_bytes += sum(entry.size for entry in batch)
        return self._too_much() if self.window_bytes == self.most_bytes else iter(())

    def settled(self, entry: Entry) -> None:
        """Everything up to this entry is done with."""
        if entry.position > self.mark.position:
            self.mark = Mark(entry.position, entry.epoch, entry.seq)

    def in_memory(self) -> Iterator[Entry]:
        """Every entry that is held in memory, oldest first."""
        yield from self.head
        yield from self.tail

    def _too_much(self) -> Iterator[Entry]:
        # The newest stays even if it is bigger than the lane: it may still be delivered, and it is only one.
        while self.disk_messages and self.head_bytes + self.tail_bytes > self.most_bytes and len(self.tail) > 1:
            self.overflowed = True
            entry = self.tail.popleft()
            self.tail_bytes -= entry.size
            self.holes.add(self.disk_through + 1, entry.position)
            yield entry
        while not self.disk_messages and self.head_bytes > self.most_bytes and len(self.head) > 1:
            self.overflowed = True
            entry = self.head.popleft()
            self.head_bytes -= entry.size
            yield entry

    def _leave_on_disk(self, entry: Entry) -> None:
        if not self.disk_messages:
            self.disk_after = entry.position - 1
        stretch = self.disk.get((entry.topic.short, entry.epoch))
        if stretch is None:
            self.disk[entry.topic.short, entry.epoch] = Stretch(entry.topic, entry.epoch, entry.seq, entry.seq, 1)
        else:
            stretch.last_seq, stretch.count = entry.seq, stretch.count + 1
        self.disk_messages += 1
        self.disk_bytes += entry.size
        self.disk_through = entry.position

    def _forget(self, topic: Topic, epoch: int, size: int) -> None:
        """One entry less on disk, the first of its topic."""
        stretch = self.disk.get((topic.short, epoch))
        if stretch is None:
            return
        stretch.count -= 1
        self.disk_messages -= 1
        self.disk_bytes -= size
        if stretch.count <= 0:
            del self.disk[topic.short, epoch]
