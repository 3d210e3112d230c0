"""What was really done to the host: containers made and removed, processes killed by the OOM killer, each with when.

Whoever acts writes it down here; the judge compares it with what streams tell. Times are the wall clock's, ns since
1970, and a span: read before the system call and after it, as the fact happened somewhere in between.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

_RECORD_BYTES: Final = 16_384
_KILLED: Final = re.compile(rb"^\d+,(\d+),.*;(?:Memory cgroup out|Out) of memory[^:]*: Killed process (\d+) \(")


class Span(NamedTuple):
    """From before an act to after it."""

    began_ns: int
    ended_ns: int


@dataclass
class Kill:
    """A process that the OOM killer ended. `log_seq`: the number of the kernel's record of it, None while that is not known."""

    pid: int
    span: Span
    log_seq: int | None = None


@dataclass
class Life:
    """One incarnation of a container.

    incarnation  "" where only the id is known: a Docker container's cgroup may be gone before it could be looked at
    deleted      None: it is still there
    """

    container_id: str
    incarnation: str
    created: Span
    deleted: Span | None = None
    kills: list[Kill] = field(default_factory=list)

    @property
    def facts(self) -> int:
        """How many things happened: it was created, perhaps deleted, and each kill."""
        return 1 + (self.deleted is not None) + len(self.kills)


class Ledger:
    """Written to from several threads. `folders`: cgroup paths below which only we make containers."""

    def __init__(self, boot_id: str = "") -> None:
        self._boot = (boot_id or Path("/proc/sys/kernel/random/boot_id").read_text().strip()).replace("-", "")[:16]
        self._lock = threading.Lock()
        self._lives: list[Life] = []
        self._open: dict[str, Life] = {}
        self.folders: list[str] = []

    def incarnation(self, hierarchy: str, inode: int) -> str:
        """The name of this run of a container, from what identifies its cgroup."""
        return f"{self._boot}.{hierarchy}.{inode}"

    def made(self, container_id: str, incarnation: str, span: Span) -> None:
        """A container is there."""
        with self._lock:
            life = self._open[container_id] = Life(container_id, incarnation, span)
            self._lives.append(life)

    def removed(self, container_id: str, span: Span) -> None:
        """The container is gone."""
        with self._lock:
            self._open.pop(container_id).deleted = span

    def killed(self, container_id: str, pid: int, span: Span) -> None:
        """The OOM killer ended a process of this container, which is still there."""
        with self._lock:
            self._open[container_id].kills.append(Kill(pid, span))

    def lives(self) -> list[Life]:
        """All incarnations so far, in the order in which they were made."""
        with self._lock:
            return list(self._lives)

    def alive(self) -> list[str]:
        """The ids of the containers that are there."""
        with self._lock:
            return list(self._open)

    @property
    def facts(self) -> int:
        """How many things were done."""
        return sum(life.facts for life in self.lives())

    def number_kills(self, log: KernelLog) -> None:
        """Take over the kernel log's numbers of the kills."""
        log.read()
        for life in self.lives():
            for kill in life.kills:
                kill.log_seq = log.kills.get(kill.pid, kill.log_seq)

    def as_records(self) -> list[dict[str, Any]]:
        """For people who look into a failure."""
        return [
            {
                "container_id": life.container_id,
                "incarnation": life.incarnation,
                "created": life.created,
                "deleted": life.deleted,
                "kills": [(kill.pid, kill.log_seq, *kill.span) for kill in life.kills],
            }
            for life in self.lives()
        ]


class KernelLog:
    """Our own reading of the kernel log from now on: which record told of which pid's kill. A context manager.

    Whoever floods the log calls `read` in between, so that nothing is overwritten unread here.
    """

    def __init__(self) -> None:
        self.kills: dict[int, int] = {}
        self.overruns = 0
        self._lock = threading.Lock()
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self) -> None:
        """Take in everything that stands there; from any thread."""
        with self._lock:
            while True:
                try:
                    record = os.read(self._fd, _RECORD_BYTES)
                except BlockingIOError:
                    return
                except OSError as problem:
                    if problem.errno != errno.EPIPE:
                        raise
                    self.overruns += 1
                    continue
                if found := _KILLED.match(record):
                    self.kills[int(found[2])] = int(found[1])
