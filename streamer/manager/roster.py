"""Who is there: the fleet's indexes over its containers, and what runtimes told of them. Pure; it decides nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from streamer.manager.container import UNKNOWN, Container, Details

REMEMBER_ENDED: Final = 1000
REMEMBER_ENDED_NS: Final = 600_000_000_000  # the kernel log is read at once: later than this it tells of none
REMEMBER_DETAILS: Final = 2_000  # also of containers that were removed: their cgroups may be told of later than that
LATE_NS: Final = 10_000_000_000  # a cgroup is told of no later than this after it was made


class Roster:
    """An incarnation is in `by_path` while its cgroup is there, in `open` until its `deleted` is said, then in `ended`."""

    def __init__(self) -> None:
        self.by_path: Final[dict[str, Container]] = {}
        self.unsettled: Final[dict[str, Container]] = {}  # by incarnation: a deadline is running
        self._by_id: Final[dict[str, list[Container]]] = {}
        self._ended: Final[OrderedDict[str, Container]] = OrderedDict()  # by path, from the end of its cgroup on, the newest last
        self._exits: Final[OrderedDict[str, tuple[int, int | None]]] = OrderedDict()  # by container id: not taken by any run
        self._details: Final[OrderedDict[str, Details]] = OrderedDict()  # by container id, the newest last

    def open(self, container_id: str) -> list[Container]:
        """The incarnations of a container whose `deleted` is not said, the earliest first."""
        return list(self._by_id.get(container_id, ()))

    def everyone(self) -> Iterator[Container]:
        """Every incarnation whose `deleted` is not said."""
        for some in self._by_id.values():
            yield from some

    def incarnation(self, container_id: str, incarnation: str) -> Container | None:
        """One of `open`."""
        return next((c for c in self._by_id.get(container_id, ()) if c.incarnation == incarnation), None)

    def enter(self, container: Container) -> None:
        """Take in an incarnation whose `deleted` is to come."""
        self._by_id.setdefault(container.owner.container_id, []).append(container)

    def present(self, path: str, inode: int) -> Container | None:
        """The incarnation whose cgroup is there, if it is this one."""
        container = self.by_path.get(path)
        return container if container is not None and container.inode == inode else None

    def gone(self, container: Container, now_ns: int, *, log_readable: bool) -> None:
        """Its cgroup is no longer there; `hold_until` is about its end by now. Those that ended long ago are forgotten.

        While the kernel log cannot be read, it may yet tell of them: then only their number is bounded.
        """
        del self.by_path[container.path]
        ended = self._ended
        ended[container.path] = container
        ended.move_to_end(container.path)
        while len(ended) > REMEMBER_ENDED or (log_readable and next(iter(ended.values())).hold_until < now_ns - REMEMBER_ENDED_NS):
            ended.popitem(last=False)

    def leave(self, container: Container) -> bool:
        """Its `deleted` is said; whether it was the last incarnation of its container."""
        self.unsettled.pop(container.incarnation, None)
        siblings = self._by_id[container.owner.container_id]
        siblings.remove(container)
        if not siblings:
            del self._by_id[container.owner.container_id]
        return not siblings

    def at(self, path: str) -> Container | None:
        """The incarnation at this path; also one that has just ended."""
        return self.by_path.get(path) or self._ended.get(path)

    def nearest(self, path: str) -> Container | None:
        """The incarnation at this path or the nearest one above; also one that has just ended."""
        while path:
            found = self.at(path)
            if found is not None or path == "/":
                return found
            path = path[: path.rfind("/")] or "/"
        return None

    def details(self, container_id: str) -> Details:
        """What runtimes told of a container."""
        return self._details.get(container_id, UNKNOWN)

    def remember(self, container_id: str, details: Details) -> Details:
        """Keep what a runtime told; of very many the oldest that is not there is forgotten."""
        self._details[container_id] = details
        self._details.move_to_end(container_id)
        if len(self._details) > REMEMBER_DETAILS:
            oldest = next((known for known in self._details if known not in self._by_id), None)
            if oldest is not None:
                del self._details[oldest]
        return details

    def ended_early(self, container_id: str, time_ns: int, exit_code: int | None) -> None:
        """A runtime told of the end of a run that is not known, or not yet: on a busy host its word is quicker than the watch."""
        self._exits[container_id] = time_ns, exit_code
        self._exits.move_to_end(container_id)
        if len(self._exits) > REMEMBER_ENDED:
            self._exits.popitem(last=False)

    def take_exit(self, container_id: str, seen_ns: int, late_ns: int = LATE_NS) -> int | None:
        """The exit code of a run that appears only now, and has ended before that; None: it runs, or nobody knows.

        late_ns  so long before it was seen it may have ended
        """
        time_ns, exit_code = self._exits.pop(container_id, (0, None))
        return exit_code if time_ns > seen_ns - late_ns else None
