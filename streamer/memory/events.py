"""What was said once: lifecycle, OOM kills, the stream's own news; bounded kind by kind in number, bytes and age."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from streamer.model.messages import Topic

_EVENT_BYTES: Final = 400  # beside the record: the tuple, its numbers and strings, its places in two collections


class Event(NamedTuple):
    """Something that was said once.

    kind     created, updated, deleted; oom; started, stopped, gap, degraded, recovered
    subject  the container's id, or the host's
    time_ms  when it happened
    told_ms  when it was said; never decreasing from event to event
    value    the record as JSON
    """

    position: int
    topic: Topic
    kind: str
    id: str
    host_id: str
    subject: str
    time_ms: int
    told_ms: int
    value: bytes

    @property
    def size(self) -> int:
        return len(self.value) + _EVENT_BYTES


_position: Final = attrgetter("position")
_told_ms: Final = attrgetter("told_ms")


class Events:
    """The last events of one kind, each id once, the oldest first."""

    def __init__(self, most: int, most_bytes: int, most_ms: int) -> None:
        """How many, how many bytes of them, and how long after they were told."""
        self._most, self._most_bytes, self._most_ms = most, most_bytes, most_ms
        self._events: deque[Event] = deque()  # by position
        self._ids: set[str] = set()
        self.bytes = 0
        self.forgotten: tuple[int, int] = (0, 0)
        """Position of the newest event that was let go, and when it was told; zeros: none was."""

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __reversed__(self) -> Iterator[Event]:
        return reversed(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids

    def latest(self, count: int) -> list[Event]:
        """The newest `count`, the oldest of them first."""
        newest = reversed(self._events)
        return [event for _, event in zip(range(count), newest)][::-1]  # noqa: B905  the shorter one counts

    def after(self, position: int = 0, told_ms: int = 0, most: int | None = None) -> list[Event]:
        """The first `most` (None: all) behind this position that were told at this time or later, the oldest first."""
        begin = bisect_right(self._events, position, key=_position)
        if told_ms:
            begin = bisect_left(self._events, told_ms, lo=begin, key=_told_ms)
        return list(islice(self._events, begin, None if most is None else begin + most))

    def add(self, event: Event) -> None:
        """Append one whose position is behind those of all others; who may be told things twice looks for its id first."""
        self._events.append(event)
        self._ids.add(event.id)
        self.bytes += event.size
        while len(self._events) > self._most or self.bytes > self._most_bytes:
            self._drop()

    def expire(self, now_ms: int) -> None:
        """Let go of what was told too long ago."""
        while self._events and now_ms - self._events[0].told_ms >= self._most_ms:
            self._drop()

    def _drop(self) -> None:
        event = self._events.popleft()
        self._ids.discard(event.id)
        self.bytes -= event.size
        self.forgotten = (event.position, event.told_ms)
