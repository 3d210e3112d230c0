"""Containers that come and go: raw cgroups, some with a process, some killed by the OOM killer, some that stay.

One thread makes and removes them by a plan that a seed repeats, and writes each act into the ledger. On a machine that
is out of breath the plan is late but nothing of it is left out.
"""

from __future__ import annotations

import heapq
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.faults.ledger import KernelLog, Ledger, Span
from tests.support.cgroups import CgroupFolder

SHORT_SECONDS: Final = (0.05, 0.3)
LONG_SECONDS: Final = (1.0, 4.0)
_MOST_STAYING: Final = 12
_OOM_LIMIT_BYTES: Final = 8 << 20
_OOM_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.01
_ROOT: Final = Path("/sys/fs/cgroup")

_KINDS: Final = (
    # kind, weight: what happens to a new container
    ("empty", 40),  # nobody is ever in it
    ("busy", 25),  # a process joins and is ended before the removal
    ("long", 15),  # it is there for seconds
    ("oom", 5),  # its process takes more memory than it may
    ("again", 8),  # it has the name of one that was there before
    ("stay", 4),
)


class Workload:
    """Acts below one cgroup folder. `rate`: new containers a second."""

    def __init__(self, ledger: Ledger, log: KernelLog, chance: random.Random, *, rate: float = 20.0) -> None:
        self.rate = rate
        self._ledger, self._log, self._chance = ledger, log, chance
        began = time.time_ns()
        self._folder = CgroupFolder()
        self._hierarchy = "unified" if self._folder.v2 else "memory"
        ledger.folders.append(self._folder.path)
        ledger.made(self._folder.path, self._incarnation(self._folder.path), Span(began, time.time_ns()))
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._staying = 0
        self._gone: list[str] = []  # names that can be had again
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._making = threading.Event()
        self._ending = threading.Event()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workload")

    def start(self) -> None:
        """Begin to make containers."""
        self._making.set()
        self._thread.start()

    def finish(self) -> None:
        """Make no more, end what is to end soon, leave the rest alive; raises what went wrong on the thread."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """Remove everything, whatever happened."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._folder.close()

    # acts, each written down; from another thread only while the plan does not run or with names of its own

    def make(self, name: str, *, memory_limit_bytes: int = 0) -> str:
        """Make a container; returns its id, which is its cgroup path."""
        began = time.time_ns()
        path = self._folder.make(name, memory_limit_bytes=memory_limit_bytes)
        self._ledger.made(path, self._incarnation(path), Span(began, time.time_ns()))
        return path

    def remove(self, name: str) -> None:
        """End its process, if there is one, and remove it."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()
        began = time.time_ns()
        self._folder.remove(name)
        self._ledger.removed(f"{self._folder.path}/{name}", Span(began, time.time_ns()))

    def run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in a container."""
        process = self._processes[name] = self._folder.run(name, *command)
        return process

    def kill_by_oom(self, name: str) -> None:
        """Make a container and let the OOM killer end a process in it; the container stays."""
        self.make(name, memory_limit_bytes=_OOM_LIMIT_BYTES)
        began = time.time_ns()
        process = self.run(name, "tail", "/dev/zero")
        process.wait(_OOM_SECONDS)
        self._write_down_kill(name, process, began)

    # the plan

    def _run(self) -> None:
        try:
            self._later(0.0, self._next)
            while self._due:
                self._log.read()
                wait = self._due[0][0] - time.monotonic()
                if wait > 0:
                    time.sleep(min(wait, 0.05))
                    continue
                heapq.heappop(self._due)[2]()
        except BaseException as trouble:  # noqa: BLE001  `finish` raises it on the thread that waits
            self._trouble = trouble

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, act))

    def _next(self) -> None:
        if self._ending.is_set():
            self._leave_alive()
            return
        self._later(self._chance.uniform(0.5, 1.5) / self.rate, self._next)
        (kind,) = self._chance.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
        short, long = self._chance.uniform(*SHORT_SECONDS), self._chance.uniform(*LONG_SECONDS)
        again = self._chance.random()
        name = f"c{self._number:05}"
        if kind == "again" and self._gone:
            name = self._gone.pop(int(again * len(self._gone)))
        elif kind == "oom":
            self._begin_oom(name)
            return
        self.make(name)
        if kind == "busy" or (kind == "long" and again < 0.5):
            self.run(name, "sleep", "600")
        if kind == "stay" and self._staying < _MOST_STAYING:
            self._staying += 1
            return
        self._later(long if kind == "long" else short, lambda: self._end(name))

    def _end(self, name: str) -> None:
        self.remove(name)
        self._gone.append(name)

    def _begin_oom(self, name: str) -> None:
        self.make(name, memory_limit_bytes=_OOM_LIMIT_BYTES)
        began = time.time_ns()
        process = self.run(name, "tail", "/dev/zero")
        give_up = time.monotonic() + _OOM_SECONDS

        def look() -> None:
            if process.poll() is None and time.monotonic() < give_up:
                self._later(_LOOK_SECONDS, look)
                return
            self._write_down_kill(name, process, began)
            self._later(SHORT_SECONDS[0], lambda: self._end(name))

        self._later(_LOOK_SECONDS, look)

    def _write_down_kill(self, name: str, process: subprocess.Popen[bytes], began: int) -> None:
        assert process.returncode == -signal.SIGKILL, f"no OOM kill in {name}: {process.returncode}"
        self._ledger.killed(f"{self._folder.path}/{name}", process.pid, Span(began, time.time_ns()))

    def _leave_alive(self) -> None:
        """What would end later than soon stays."""
        soon = time.monotonic() + SHORT_SECONDS[1]
        self._due = [due for due in self._due if due[0] <= soon]
        heapq.heapify(self._due)

    def _incarnation(self, path: str) -> str:
        root = _ROOT if self._folder.v2 else _ROOT / self._hierarchy
        return self._ledger.incarnation(self._hierarchy, os.stat(root / path[1:]).st_ino)
