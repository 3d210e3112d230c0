"""How long the lists in a message may be, and which are cut: a message of more might be too large for a broker."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

MOST: Final = 1000
"""Of file systems half a kilobyte each, of block devices a fifth of that: the largest message is below Kafka's megabyte."""

REMEDY: Final = "totals (io_*) hold all of them; streamer_left_out tells how many are not listed"


class Bounds:
    """Who cuts a list says so here; who speaks about the stream asks. For any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._beyond: dict[tuple[str, str], int] = {}

    def note(self, what: str, path: str, beyond: int) -> None:
        """Of this list of this cgroup, so many were left out just now; 0 or less: it is whole."""
        if beyond <= 0 and (what, path) not in self._beyond:
            return
        with self._guard:
            if beyond > 0:
                self._beyond[what, path] = beyond
            else:
                self._beyond.pop((what, path), None)

    @property
    def any(self) -> bool:
        """Whether a list is cut now."""
        return bool(self._beyond)

    def beyond(self) -> Mapping[str, int]:
        """How many are left out now, of all cgroups, by list; only of lists that are cut."""
        counts: dict[str, int] = {}
        with self._guard:
            for (what, _), beyond in self._beyond.items():
                counts[what] = counts.get(what, 0) + beyond
        return dict(sorted(counts.items()))


def told(beyond: Mapping[str, int]) -> str:
    """As a reason: which lists, without how many, which changes all the time; "" where all are whole."""
    return f"a message lists {MOST} at most, some are left out: {', '.join(beyond)}" if beyond else ""
