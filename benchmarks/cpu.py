"""How finely this kernel tells the CPU of a process, and what is told instead where that is too coarse.

Most kernels count it in nanoseconds. Some, like user-mode Linux, look every 10 ms who is running: work that sleeps in between
falls between these looks or into them. How long a processor was idle they know exactly all the same, for that is when
the looks are switched off (nohz).
"""

from __future__ import annotations

import os
import time
from typing import Final

_COARSE_SECONDS: Final = 1e-3
_TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")


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
