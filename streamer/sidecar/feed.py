"""What the clients of `/events` are told: there once for all of them, each is but a place in it. Pure.

Events are in memory anyway. Samples are held here for a moment, as long as somebody follows them. So a client that does
not read costs nothing per record, and what waits for clients is bounded whatever their number: who is so far behind that
events were forgotten is lost, and let go; who is behind with samples misses these, as newer ones follow, and is told so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from streamer.memory import Event, Events, Memory
from streamer.model import messages as m
from streamer.model.messages import Message
from streamer.model.wire import Entry, record_bytes
from streamer.sidecar.following import EVENTS, TYPES, Gap, Past, Place, Wish

LOOKED_AT: Final = 64
"""Records looked at in one go: a fraction of a millisecond."""
SAMPLES_BYTES: Final = 2_000_000
"""Of the samples that are held: those of 500 containers for more than a second, by which a client that reads may be late."""

_ANY: Final = 2**62
_position: Final = attrgetter("position")


class Feed:
    """Everything that is told, and who waits for it."""

    def __init__(self, memory: Memory, samples_bytes: int | None = None) -> None:
        self._memory = memory
        self._samples_bytes = SAMPLES_BYTES if samples_bytes is None else samples_bytes
        self._samples = self._none_held()
        self._followers: set[Follower] = set()
        self._stops: dict[bool, Callable[[], None]] = {}  # of being told of events (False), of samples as well (True)
        self._waiting: dict[str, dict[Follower, Callable[[], None]]] = {name: {} for name in TYPES}  # by what they want

    def __len__(self) -> int:
        """How many follow."""
        return len(self._followers)

    @property
    def held_bytes(self) -> int:
        """Of samples."""
        return self._samples.bytes

    def follow(self, wish: Wish) -> Follower:
        """From now on, until it is closed."""
        follower = Follower(self, self._memory, wish)
        self._followers.add(follower)
        self._listen()
        return follower

    def forget(self, follower: Follower) -> None:
        """It is told nothing more; twice is fine."""
        self._followers.discard(follower)
        self._stand_up(follower)
        self._listen()

    def of(self, topic: m.Topic) -> Events:
        """What there is of a type, in order."""
        return self._samples if topic is m.STATS else self._memory.events(topic)

    def wait(self, follower: Follower, on_news: Callable[[], None]) -> None:
        """Have this called once, when there is something that it wants. It has taken everything that there is."""
        for name in follower.wish.types:
            self._waiting[name][follower] = on_news

    def _stand_up(self, follower: Follower) -> None:
        for waiting in self._waiting.values():
            waiting.pop(follower, None)

    def _listen(self) -> None:
        """To no more than is followed: samples are many."""
        samples = any(m.STATS.short in follower.wish.types for follower in self._followers)
        wanted = {samples} if self._followers else set()
        for kind in self._stops.keys() - wanted:
            self._stops.pop(kind)()
        for kind in wanted - self._stops.keys():
            self._stops[kind] = self._memory.watch(self._hear, samples=kind)
        if not samples:
            self._samples = self._none_held()

    def _none_held(self) -> Events:
        return Events(_ANY, self._samples_bytes, _ANY)

    def _hear(self, message: Message, entry: Entry) -> None:
        if message.topic is m.STATS:
            self._samples.add(
                Event(
                    entry.position, m.STATS, m.STATS.short, entry.id, entry.host_id, entry.subject, entry.time_ms, entry.order_ms, record_bytes(entry)
                )
            )  # fmt: skip
        waiting = self._waiting[message.topic.short]
        for follower, on_news in list(waiting.items()) if waiting else ():
            if follower.wants(message, entry.position):
                self._stand_up(follower)
                on_news()


class Follower:
    """One client: what it wants, and behind which record it is."""

    def __init__(self, feed: Feed, memory: Memory, wish: Wish) -> None:
        self.wish = wish
        self._feed, self._memory = feed, memory
        self._topics = [topic for name, topic in TYPES.items() if name in wish.types]
        self._gone = self._forgotten()
        self._samples_behind = self._last = memory.position
        self._waits = False  # everything was taken
        self.is_behind = False
        """Whether there may be more than was taken the last time."""

    def begin(self, past: Past) -> None:
        """At another place than from now on; what is missing there was told as the gap of `past`."""
        self._last, self._gone, self._samples_behind = past.behind, self._forgotten(), self._memory.position
        self.is_behind = self._last < self._memory.position

    @property
    def last(self) -> int:
        """The position up to which everything that is wanted was taken."""
        return self._memory.position if self._waits else self._last

    @property
    def is_lost(self) -> bool:
        """Whether events of what it wants were forgotten before it took them."""
        return any(now > max(known, self._last) for now, known in zip(self._forgotten(), self._gone, strict=True))

    def missed(self) -> Gap | None:
        """The samples that were let go of before it took them, if there are any; it goes on with those from now on."""
        if m.STATS not in self._topics:
            return None
        begin, end = max(self._last, self._samples_behind), self._memory.position
        if self._feed.of(m.STATS).forgotten[0] <= begin:
            return None
        self._samples_behind = end
        epoch = self._memory.epoch
        return Gap("samples", str(Place(epoch, begin)), str(Place(epoch, end)), [m.STATS.short])

    def take(self, most_bytes: int, most: int = LOOKED_AT) -> list[Event]:
        """Of the next `most` records those that are wanted, or some `most_bytes` of them."""
        found: list[Event] = []
        size = 0
        self._waits = False
        coming = heapq.merge(*(self._next(topic, most) for topic in self._topics), key=_position)
        for looked_at, event in enumerate(coming):
            if looked_at == most or size >= most_bytes:
                self.is_behind = True
                return found
            self._last = event.position
            if self.wish.is_for(event):
                found.append(event)
                size += event.size
        self._last, self.is_behind = self._memory.position, False
        return found

    def _forgotten(self) -> list[int]:
        """The newest position of each type of events, behind which all is there."""
        return [self._memory.events(topic).forgotten[0] for topic in EVENTS if topic.short in self.wish.types]

    def _next(self, topic: m.Topic, most: int) -> list[Event]:
        behind = max(self._last, self._samples_behind) if topic is m.STATS else self._last
        return self._feed.of(topic).after(behind, most=most + 1)

    def wants(self, message: Message, position: int) -> bool:
        """Whether what was just said, at this position, is for it. It waits: what is not for it need not be looked at again."""
        if message.topic is m.CONTROL or self.wish.fits(message.whole):
            self._waits = False
            return True
        self._last = position
        return False

    def wait(self, on_news: Callable[[], None]) -> None:
        """Have this called once there is something to take, of which there is nothing now."""
        self._waits = True
        self._feed.wait(self, on_news)

    def close(self) -> None:
        """It is over; twice is fine."""
        self._feed.forget(self)
