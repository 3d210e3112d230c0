"""What was said once: lifecycle, OOM kills, the stream's own news; bounded kind by kind in number, bytes and age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from streamer.model.messages import Topic


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
        return len(self.value) + 256  # 256: the tuple, its strings and its place


class Events:
    """The last events of one kind, each id once, the oldest first."""

    def __init__(self, most: int, most_bytes: int, most_ms: int) -> None:
        """How many, how many bytes of them, and how long after they were told."""
        self._most, self._most_bytes, self._most_ms = most, most_bytes, most_ms
        self._by_id: OrderedDict[str, Event] = OrderedDict()
        self._first_ms = 0  # when the oldest was told
        self.bytes = 0
        self.forgotten: tuple[int, int] = (0, 0)
        """Position of the newest event that was let go, and when it was told; zeros: none was."""

    def __iter__(self) -> Iterator[Event]:
        return iter(self._by_id.values())

    def __reversed__(self) -> Iterator[Event]:
        return reversed(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._by_id

    def latest(self, count: int) -> list[Event]:
        """The newest `count`, the oldest of them first."""
        newest = reversed(self._by_id.values())
        return [event for _, event in zip(range(count), newest)][::-1]  # noqa: B905  the shorter one counts

    def after(self, position: int = 0, told_ms: int = 0) -> list[Event]:
        """Those behind this position that were told at this time or later, the oldest first."""
        found = list(takewhile(lambda event: event.position > position and event.told_ms >= told_ms, reversed(self)))
        found.reverse()
        return found

    def add(self, event: Event) -> None:
        self._by_id[event.id] = event
        self.bytes += event.size
        while len(self._by_id) > self._most or self.bytes > self._most_bytes:
            self._drop()
        self._look()

    def expire(self, now_ms: int) -> None:
        """Let go of what was told too long ago."""
        while self._by_id and now_ms - self._first_ms >= self._most_ms:
            self._drop()
            self._look()

    def _drop(self) -> None:
        event = self._by_id.popitem(last=False)[1]
        self.bytes -= event.size
        self.forgotten = (event.position, event.told_ms)

    def _look(self) -> None:
        self._first_ms = next(iter(self._by_id.values())).told_ms if self._by_id else 0
