"""cgroup v1: the kernel says that a cgroup is out of memory before it picks a process, to who has asked for it.

Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control": `<eventfd> <fd of memory.oom_control>` is written to
`cgroup.event_control`. It is a hint only, to look into the kernel's log at once: the kernel wakes those who wait for its log
no sooner than at its next tick. It holds for the cgroup's life, also for a limit above it, and is given once more when the
cgroup is removed. One eventfd does for all cgroups. On v2 nobody is told in time: `memory.events` is held back by 10 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import Final

from streamer.contracts import Clock
from streamer.kernel.hierarchy import Hierarchies

_REMOVAL_WITHIN_NS: Final = 100_000_000
"""A removal's own notice comes from a work queue of the kernel's, within this time of the directory's end."""


class OomNotices:
    """See above. `fd` becomes readable with each notice."""

    def __init__(self, hierarchies: Hierarchies, clock: Clock) -> None:
        self._memory = hierarchies.mounts.get("memory") if hierarchies.mode != "v2" else None
        self._clock = clock
        self._to_ask: set[str] = set()
        self._asked: set[str] = set()
        self._removed: deque[int] = deque()  # when; their notices are still to come
        self.fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ask(self, path: str) -> None:
        """Be told of this cgroup from now on; where that cannot be had, the log's own word has to do."""
        if self._memory is None or path == "/":
            return
        with contextlib.suppress(OSError):  # gone, not for us, or mounted read-only
            control = os.open(f"{self._memory}{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._register(path, control)
            finally:
                os.close(control)

    def ask_soon(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        """Ask in the loop's next turn; once, and not if it has gone by then."""
        self._to_ask.add(path)
        loop.call_soon(self._ask_now, path)

    def _ask_now(self, path: str) -> None:
        if path in self._to_ask:
            self._to_ask.discard(path)
            self.ask(path)

    def _register(self, path: str, control: int) -> None:
        events = os.open(f"{self._memory}{path}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(events, b"%d %d" % (self.fd, control))
        finally:
            os.close(events)
        self._asked.add(path)

    def removed(self, path: str) -> None:
        """This cgroup has gone: a notice will come of it that is none of memory."""
        self._to_ask.discard(path)
        if path in self._asked:
            self._asked.discard(path)
            self._removed.append(self._clock.monotonic_ns())

    def take(self) -> bool:
        """Whether more notices came than cgroups were removed. One taken for another's costs a kill its haste, or a look for nothing."""
        try:
            came = os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        late_ns = self._clock.monotonic_ns() - _REMOVAL_WITHIN_NS
        while self._removed and (came or self._removed[0] < late_ns):
            came -= self._removed.popleft() >= late_ns
        return came > 0

    def close(self) -> None:
        """Be told of nothing more, and ask for nothing."""
        self._memory = None
        os.close(self.fd)
