"""What is known of Docker's containers, and what follows from each thing it says: what to pass on, whom to ask about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from streamer.model.observations import Described, RuntimeEvent
from streamer.sources.docker_api import RING, STATE_AFTER, Event, Listed, Place

_REMEMBERED_EVENTS: Final = 4 * RING


class Answer(NamedTuple):
    """What an answer is worth: what to pass on, if anything, and whether to ask again."""

    told: Described | None
    ask_again: bool = False


class _Container:
    """What was last heard of a container; times are monotonic ns."""

    __slots__ = ("asked_ns", "described", "heard_ns", "name", "place", "state", "told_ns")

    def __init__(self) -> None:
        self.state = ""
        self.name = ""
        self.described = False
        self.place: Place | None = None
        self.heard_ns = -1  # when the latest event came
        self.asked_ns = -1  # when it was asked about last
        self.told_ns = -1  # when the answer that was passed on last had been asked for


class Known:
    """Puts events, lists and descriptions, which overtake each other, in order. Times are monotonic ns."""

    def __init__(self) -> None:
        self._containers: dict[str, _Container] = {}
        self._seen: dict[tuple[str, str, int], None] = {}  # keys of the latest events, oldest first
        self.last: Event | None = None
        """The newest event, of whatever kind, that Docker is known to have had."""

    def __len__(self) -> int:
        return len(self._containers)

    def is_new(self, event: Event) -> bool:
        """Whether this event has not come before. Docker repeats events after a reconnect, and at times in between."""
        self.newest(event)
        if event.key in self._seen:
            return False
        self._seen[event.key] = None
        if len(self._seen) > _REMEMBERED_EVENTS:
            del self._seen[next(iter(self._seen))]
        return True

    def newest(self, event: Event) -> None:
        """Keep the event that a later connection takes up from."""
        if self.last is None or event.time_ns >= self.last.time_ns:
            self.last = event

    def heard(self, told: RuntimeEvent, now_ns: int) -> None:
        """An event came."""
        if told.action == "destroy":
            self._containers.pop(told.container_id, None)
            return
        container = self._containers.setdefault(told.container_id, _Container())
        container.state = STATE_AFTER.get(told.action, container.state)
        container.name = told.name or container.name
        container.heard_ns = now_ns

    def has(self, container_id: str) -> bool:
        """Whether anything is known of a container."""
        return container_id in self._containers

    def placed(self, container_id: str, place: Place) -> None:
        """An answer told where a container's files are."""
        if container_id in self._containers:
            self._containers[container_id].place = place

    def place(self, container_id: str) -> Place | None:
        """Where a container's files are, as told last. For any thread."""
        container = self._containers.get(container_id)
        return container.place if container is not None else None

    def listed(self, entries: Sequence[Listed], asked_ns: int, *, everything: bool) -> list[str]:
        """A list came: whom to ask about, because it differs from what is known, was never described, or (`everything`) runs."""
        ask = []
        for entry in entries:
            container = self._containers.get(entry.id)
            if container is not None and container.heard_ns > asked_ns:
                continue  # an event is newer than this list
            changed = container is not None and (container.state, container.name) != (entry.state, entry.name)
            container = self._containers.setdefault(entry.id, _Container())
            container.state, container.name = entry.state, entry.name
            runs = entry.state in ("running", "paused")
            if changed or (runs and (everything or not container.described)):
                ask.append(entry.id)
        present = {entry.id for entry in entries}
        for gone in [i for i, c in self._containers.items() if i not in present and c.heard_ns <= asked_ns]:
            del self._containers[gone]
        return ask

    def asked(self, container_id: str, now_ns: int) -> None:
        """A question about a container is on its way."""
        if container_id in self._containers:
            self._containers[container_id].asked_ns = now_ns

    def answered(self, told: Described, asked_ns: int) -> Answer:
        """An answer came to what was asked at `asked_ns`."""
        container = self._containers.get(told.container_id)
        if container is None:
            if told.state not in ("running", "paused"):
                return Answer(_lasting(told))  # destroyed meanwhile
            container = self._containers[told.container_id] = _Container()  # its events were lost
        if container.told_ns > asked_ns:
            return Answer(None)  # something newer has been passed on
        container.told_ns, container.described = asked_ns, True
        if container.heard_ns <= asked_ns:
            container.state, container.name = told.state or container.state, told.name
            return Answer(told)
        # An event overtook this answer: what it says of the present may be of another run.
        return Answer(_lasting(told), ask_again=container.asked_ns <= container.heard_ns)


def _lasting(told: Described) -> Described:
    """What holds for all runs of a container."""
    return msgspec.structs.replace(told, state=None, pid=0, started_at_ns=None, exit_code=None, oom_killed=None)
