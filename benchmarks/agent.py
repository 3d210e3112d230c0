"""The real agent as a process of its own, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from benchmarks.cgroups import wait_until
from benchmarks.cpu import Usage, cpu_seconds_of, usage_of

_STOP_SECONDS: Final = 30.0
_SHOWN: Final = 6000  # characters of a log: of a crash, from its beginning, where it says in which thread it was
_SAMPLED_SECONDS: Final = 90.0
_SCRAPE_SECONDS: Final = 30.0

LEASH: Final = ("setpriv", "--pdeathsig", "TERM", "--")
"""A command before another one: should this process be killed, that one ends too (setpriv(1))."""


def told(pid: int, file: str, name: str) -> int:
    """A number out of `/proc/<pid>/status` or `smaps_rollup`."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


class Measured:
    """A program as a process of its own. A context manager; its log (stderr) goes to a file, which an error shows."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command, self._log, self._environment = command, log, environment

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=self._environment
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def usage(self) -> Usage:
        """Raises RuntimeError, with the end of its log, when it has ended."""
        self.check()
        return usage_of(self.pid)

    def cpu_seconds(self) -> float:
        """CPU of all its threads so far, finer than `usage` tells."""
        self.check()
        return cpu_seconds_of(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return self._told("status", "VmRSS") * 1024

    def pss_bytes(self) -> int:
        """Resident memory now, with what is shared counted as its share."""
        return self._told("smaps_rollup", "Pss") * 1024

    def anonymous_bytes(self) -> int:
        """Resident memory that belongs to no file, so to this process alone, whoever else maps the same programs."""
        return self._told("smaps_rollup", "Anonymous") * 1024

    def threads(self) -> int:
        return self._told("status", "Threads")

    def descriptors(self) -> int:
        """How many it has open now."""
        self.check()
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _told(self, file: str, name: str) -> int:
        self.check()
        return told(self.pid, file, name)

    def open_files(self, part: str) -> set[str]:
        """The files that it holds open below a cgroup folder."""
        found = set()
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if part in target and os.path.isfile(target):
                found.add(target)
        return found

    def check(self) -> None:
        """Raises RuntimeError when it has ended."""
        if self._process.poll() is not None:
            log = self._log.read_text(errors="replace")
            end = log[crash : crash + _SHOWN] if (crash := log.find("Fatal Python error")) >= 0 else log[-_SHOWN:]
            raise RuntimeError(f"{' '.join(self._command)} ended with exit code {self._process.returncode}; its log:\n{end}")


class AgentProcess(Measured):
    """`streamer run` with these arguments. A context manager; its log goes to a file, which an error shows.

    within  a command before it, as `Cgroups.alone` gives one; it has to become the agent by exec
    docker  the Docker Engine that it asks; by default none: where there are only raw cgroups it has no part
    module  what is run, with its arguments before `run`
    """

    def __init__(
        self, arguments: list[str], log: Path, within: Sequence[str] = (), docker: str = "", module: Sequence[str] = ("streamer",)
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
        environment["STREAMER_STATE_DIR"] = str(log.with_suffix(".state"))  # as it runs in earnest, in a place of its own
        environment |= {"STREAMER_DOCKER__HOST": docker} if docker else {"STREAMER_DOCKER__ENABLED": "false"}
        super().__init__([*within, *LEASH, sys.executable, "-m", *module, "run", *arguments], log, environment)


class SecondAgent(AgentProcess):
    """An agent that samples each second and answers at `api`, a URL. `more`: further options."""

    def __init__(
        self, sink: str, log: Path, within: Sequence[str] = (), more: Sequence[str] = (), module: Sequence[str] = ("streamer",)
    ) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.api: Final = f"http://{address}"
        super().__init__(["--sink", sink, "--interval", "1s", "--listen", address, *more], log, within, module=module)

    def metrics(self) -> dict[str, float]:
        """Its own metrics, by series as they are written: `name{label="value"}`. Those of containers are left out."""
        self.check()
        with urllib.request.urlopen(f"{self.api}/metrics", timeout=_SCRAPE_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        own = (line.rpartition(" ") for line in lines if line.startswith(("streamer_", "process_")))
        return {series: float(value) for series, _, value in own}

    def wait_sampled(self, samples: int) -> None:
        """Until it has taken so many. Raises RuntimeError when that takes too long."""

        def sampled() -> bool:
            try:
                return self.metrics()["streamer_samples_total"] >= samples
            except OSError:
                self.check()
                return False

        if not wait_until(sampled, _SAMPLED_SECONDS, every=0.2):
            raise RuntimeError(f"{_SAMPLED_SECONDS:g} s after its start the agent had not taken {samples} samples")


def total(metrics: dict[str, float], name: str) -> float:
    """The sum of all series of a metric."""
    return sum(value for series, value in metrics.items() if series == name or series.startswith(f"{name}{{"))


def free_port() -> int:
    """A TCP port that is free, and that no connection is given before somebody listens there."""
    from tests.support import brokers

    return brokers.free_port()
