"""What went past the watcher: cgroups that nobody could look at, and times in which some may have. Pure: given the time.

`Lives` finds a cgroup of which nothing was told by the time it is removed: on cgroup v1 a container is a directory in
each hierarchy, or in some, and only one of them is looked at for its identity. `Unseen` gathers what was missed and
gives it out as `Lost`: the first at once, then one a second of each kind at most.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Final, NamedTuple

from streamer.clock import rfc3339
from streamer.model.observations import Lost

OVERFLOWED: Final = "the kernel's inotify queue overflowed: cgroups that came and went within this time may have been missed"
BLIND: Final = "some cgroups could not be watched, only scanned: those that came and went within this time may have been missed"
EVERY_SECONDS: Final = 1.0
_SHOWN_PATHS: Final = 3
_NEVER_NS: Final = 1 << 62


class _Name:
    """Where a path stands."""

    __slots__ = ("since_ns", "standing")

    def __init__(self) -> None:
        self.standing: set[str] = set()  # hierarchies
        self.since_ns = 0  # the present one was not made before; 0: not known


class Lives:
    """Follows each path from the first hierarchy in which it is made to the last from which it is removed.

    What was removed everywhere without having been told of went unseen. Two of one name that overlap (made anew in one
    hierarchy before it is removed from another) may count as one. Paths are those of containers.
    """

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._untold: set[str] = set()  # the few of them that nothing was told of yet

    def __len__(self) -> int:
        return len(self._names)

    @property
    def untold_ns(self) -> int:
        """What nothing is told of yet was not made before this; a time later than all when there is no such."""
        return min((self._names[path].since_ns for path in self._untold), default=_NEVER_NS)

    def made(self, path: str, hierarchy: str, since_ns: int, *, known: bool) -> None:
        """A directory was made, not before `since_ns`, or was found; twice is as once. `known`: it is told of."""
        name = self._names.get(path)
        if name is None:
            name = self._names[path] = _Name()
        name.standing.add(hierarchy)
        name.since_ns = name.since_ns or since_ns
        if not known:
            self._untold.add(path)

    def told(self, path: str) -> None:
        """It is told of."""
        self._untold.discard(path)

    def removed(self, path: str, hierarchy: str, since_ns: int, *, ends: bool, stands: bool, known: bool) -> int:
        """A directory was removed, not before `since_ns`. 0, or, when nothing was told of it: the time before which it was not made.

        ends    it is the end of what was told of
        stands  what was told of still stands there: this was an earlier one of that name
        known   something of that name was told of, whose end was not, until now
        """
        name = self._names.get(path)
        if name is None:
            return 0 if known and not stands else since_ns  # made before its parent was watched, removed before that was listed
        began_ns = min(name.since_ns or since_ns, since_ns)
        name.standing.discard(hierarchy)
        unseen = stands or (path in self._untold and not name.standing)
        if unseen or ends:
            name.since_ns = 0
        if not name.standing and not stands:
            del self._names[path]
            self._untold.discard(path)
        return began_ns if unseen else 0

    def forget(self, but: Container[str] = ()) -> int:
        """Where removals may have been missed: forget every name, but for these. What `untold_ns` was before.

        The time in which something may be missing begins there: who was made then may have been removed unnoticed.
        """
        since_ns = self.untold_ns
        self._names = {path: name for path, name in self._names.items() if path in but}
        self._untold = {path for path in self._untold if path in but}
        return since_ns


class _Range(NamedTuple):
    first_ns: int
    last_ns: int

    def with_(self, first_ns: int, last_ns: int) -> _Range:
        return _Range(min(self.first_ns, first_ns), max(self.last_ns, last_ns))


class Unseen:
    """Gathers what was missed until it is said. Times are wall clock in ns; `first` and `last` of a `Lost` are RFC 3339.

    due_s  monotonic: when to `take` what has been gathered; infinite while there is nothing
    """

    def __init__(self, component: str) -> None:
        self.due_s = math.inf
        self._component = component
        self._taken_s = -math.inf
        self._ranges: dict[str, _Range] = {}  # by reason
        self._cgroups: _Range | None = None
        self._count = 0
        self._paths: list[str] = []

    @property
    def first_ns(self) -> int:
        """From when on something is missing that is not said yet; a time later than all when nothing is."""
        spans = [*self._ranges.values(), *([self._cgroups] if self._cgroups is not None else [])]
        return min((span.first_ns for span in spans), default=_NEVER_NS)

    def cgroup(self, path: str, first_ns: int, last_ns: int, now_s: float) -> None:
        """A cgroup was made and removed within this time, and nobody could look at it."""
        span = _Range(min(first_ns, last_ns), last_ns)
        self._cgroups = span if self._cgroups is None else self._cgroups.with_(*span)
        self._count += 1
        if len(self._paths) < _SHOWN_PATHS and path not in self._paths:
            self._paths.append(path)
        self._gathered(now_s)

    def range(self, reason: str, first_ns: int, last_ns: int, now_s: float, *, more_to_come: bool = False) -> None:
        """Whatever came and went within this time may have been missed; `more_to_come`: that is worth waiting for."""
        span = _Range(min(first_ns, last_ns), last_ns)
        self._ranges[reason] = self._ranges.get(reason, span).with_(*span)
        self._gathered(now_s + EVERY_SECONDS if more_to_come else now_s)

    def _gathered(self, at_s: float) -> None:
        if self.due_s == math.inf:
            self.due_s = max(at_s, self._taken_s + EVERY_SECONDS)

    def take(self, now_ns: int, now_s: float) -> list[Lost]:
        """All of it, to be said now."""
        said = [
            Lost(self._component, now_ns, reason, None, rfc3339(span.first_ns), rfc3339(span.last_ns))
            for reason, span in self._ranges.items()
        ]
        if self._cgroups is not None:
            span = self._cgroups
            said.append(Lost(self._component, now_ns, self._reason(), self._count, rfc3339(span.first_ns), rfc3339(span.last_ns)))
        self._ranges, self._cgroups, self._count, self._paths = {}, None, 0, []
        self.due_s, self._taken_s = math.inf, now_s
        return said

    def _reason(self) -> str:
        names = ", ".join(self._paths)
        if self._count == 1:
            return f"a cgroup was removed, with whatever was below it, before it could be looked at: {names}"
        more = f"{names}, …" if self._count > len(self._paths) else names
        return f"cgroups were removed, with whatever was below them, before they could be looked at: {more}"
