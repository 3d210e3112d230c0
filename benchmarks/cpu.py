"""The CPU of a process: what this kernel tells of it, how finely, and what is told instead where that is too coarse.

Most kernels count it in nanoseconds. Some, like user-mode Linux, look every 10 ms who is running: work that sleeps in between
falls between these looks or into them. How long a processor was idle they know exactly all the same, for that is when
the looks are switched off (nohz).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_COARSE_SECONDS: Final = 1e-3
_TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2

IN_TICKS: Final = (
    "This kernel tells the CPU of a process in ticks. Counted instead, for the C loop and for the agent: what the whole machine "
    "did not spend idle. The share called user is as told."
)


class Usage(NamedTuple):
    """What a process has used so far: CPU seconds of all threads, read calls (proc(5): stat, io), and when this was read."""

    user: float
    system: float
    reads: int
    at: float

    @property
    def cpu(self) -> float:
        return self.user + self.system

    def since(self, before: Usage) -> Usage:
        return Usage(self.user - before.user, self.system - before.system, self.reads - before.reads, self.at - before.at)


def usage_of(pid: int) -> Usage:
    """What a process has used; that of children only once they have been waited for."""
    # the name in parentheses may hold anything: fields are counted from behind it (proc(5))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Usage(int(fields[11]) * _TICK, int(fields[12]) * _TICK, int(io["syscr"]), time.monotonic())


def cpu_seconds_of(pid: int) -> float:
    """CPU of all threads of a process so far, in nanoseconds' steps (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def told_in_ticks() -> bool:
    """Whether the CPU of a process is told in steps that are longer than what a sampler does at a time."""
    first = now = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    while now == first:
        now = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    return now - first > _COARSE_SECONDS


def not_idle_seconds() -> float:
    """What the processors have not spent idle since some moment: all that runs on this machine (proc(5): stat)."""
    with open("/proc/stat") as told:
        idle, iowait = told.readline().split()[4:6]
    return time.monotonic() * (os.cpu_count() or 1) - (int(idle) + int(iowait)) * _TICK
