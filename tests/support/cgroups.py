"""Cgroups of a test's own, on v1 or v2, with processes and limits in them; removed at the end whatever happened."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_V1_HIERARCHIES = ("memory", "cpu", "cpuacct", "blkio", "pids")
_number = itertools.count()


class CgroupFolder:
    """A folder in every hierarchy; names are below it, paths as the agent tells them."""

    def __init__(self) -> None:
        self.v2 = (_ROOT / "cgroup.controllers").exists()
        self.path = f"/streamer-test-{os.getpid()}-{next(_number)}"
        self._roots = [_ROOT] if self.v2 else [_ROOT / name for name in _V1_HIERARCHIES]
        self._processes: list[subprocess.Popen[bytes]] = []
        for root in self._roots:
            directory = root / self.path[1:]
            directory.mkdir()
            if self.v2:
                (directory / "cgroup.subtree_control").write_text("+cpu +io +memory +pids")

    def make(self, name: str, *, memory_limit_bytes: int = 0) -> str:
        """Make a cgroup in every hierarchy; returns its path."""
        for directory in self._directories(name):
            directory.mkdir()
        if memory_limit_bytes:
            self.limit_memory(name, memory_limit_bytes)
        return f"{self.path}/{name}"

    def limit_memory(self, name: str, limit_bytes: int) -> None:
        """Set the memory limit, swap included."""
        if self.v2:
            self._file(name, "memory.max").write_text(str(limit_bytes))
            self._file(name, "memory.swap.max").write_text("0")
            return
        for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError):  # the one may not pass the other: which comes first depends on the direction
                self._file(name, file).write_text(str(limit_bytes))

    def run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process that is in the cgroup before it runs the command."""
        files = [str(directory / "cgroup.procs") for directory in self._directories(name)]
        join = "".join(f"echo $$ > {file}; " for file in files)
        process = subprocess.Popen(["sh", "-c", f'{join}exec "$@"', "sh", *command], stdin=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def pids(self, name: str) -> list[int]:
        """Who is in it, as the kernel says now."""
        return [int(pid) for pid in self._file(name, "cgroup.procs").read_text().split()]

    def cpu_usage_ns(self, name: str) -> int:
        """CPU time used, as the kernel says now."""
        if self.v2:
            lines = dict(line.split() for line in self._file(name, "cpu.stat").read_text().splitlines())
            return int(lines["usage_usec"]) * 1000
        return int((_ROOT / "cpuacct" / self.path[1:] / name / "cpuacct.usage").read_text())

    def remove(self, name: str) -> None:
        """Remove a cgroup from every hierarchy; its processes may take a moment to leave."""
        for directory in self._directories(name):
            _remove(directory)

    def close(self) -> None:
        """End every process, also those that these have started, and remove everything."""
        for process in self._processes:
            process.kill()
        for root in self._roots:
            for directory, _, _ in os.walk(root / self.path[1:], topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    _end_all(Path(directory))
                _remove(Path(directory))
        for process in self._processes:
            process.wait()

    def _directories(self, name: str) -> list[Path]:
        return [root / self.path[1:] / name for root in self._roots]

    def _file(self, name: str, file: str) -> Path:
        return (_ROOT if self.v2 else _ROOT / "memory") / self.path[1:] / name / file


def _end_all(directory: Path) -> None:
    """Kill what is in a cgroup, and what that started meanwhile."""
    deadline = time.monotonic() + 60
    while (pids := (directory / "cgroup.procs").read_text().split()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.005)


def _remove(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)  # a killed process leaves its cgroup a moment later
        else:
            return


@pytest.fixture
def cgroups() -> Iterator[CgroupFolder]:
    """A folder for cgroups of this test."""
    with contextlib.closing(CgroupFolder()) as folder:
        yield folder
