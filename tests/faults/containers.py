"""Docker containers that come and go, written into the ledger."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.faults.ledger import Ledger, Span
from tests.support.docker_engine import DockerEngine

_GONE_SECONDS: Final = 60.0


class Docker:
    """Acts through one engine. A container is known by its id; its cgroup's end is what counts as its end."""

    def __init__(self, engine: DockerEngine, ledger: Ledger) -> None:
        self._engine, self._ledger = engine, ledger

    def run(self) -> str:
        """Start a container that stays; returns its id."""
        began = time.time_ns()
        container = self._engine.run()
        self._ledger.made(container, "", Span(began, time.time_ns()))
        return container

    def run_and_end(self) -> str:
        """Run a container that ends by itself."""
        began = time.time_ns()
        container = self._engine.run("--rm", command=("sleep", "0.2"))
        self._ledger.made(container, "", Span(began, time.time_ns()))
        self._wait_gone(container, time.time_ns())
        return container

    def remove(self, container: str) -> None:
        """`docker rm -f`."""
        began = time.time_ns()
        self._engine.cli("rm", "-f", container)
        self._wait_gone(container, began)

    def end_process(self, container: str) -> Callable[[], None]:
        """End its process behind the daemon's back; what is returned waits until the cgroup is gone."""
        began = time.time_ns()
        for pid in self._cgroups(container)[0].joinpath("cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        return lambda: self._wait_gone(container, began)

    def _wait_gone(self, container: str, began: int) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while any(directory.exists() for directory in self._cgroups(container)):
            assert time.monotonic() < deadline, f"the cgroup of {container} is still there"
            time.sleep(0.01)  # the pace of looking; the deadline is above
        self._ledger.removed(container, Span(began, time.time_ns()))

    def _cgroups(self, container: str) -> list[Path]:
        """Where its cgroup is: in the hierarchy that identifies it."""
        places = [Path("/sys/fs/cgroup", hierarchy, "docker", container) for hierarchy in ("memory", "")]
        with contextlib.suppress(StopIteration):
            return [next(place for place in places if place.exists())]
        return []
