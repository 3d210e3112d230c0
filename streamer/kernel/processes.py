"""The processes of a cgroup, as /proc tells of each (proc(5), proc_pid_stat(5)). Read for a person who asks, not for sampling."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from streamer.errors import Gone
from streamer.kernel.hierarchy import UNIFIED, Hierarchies
from streamer.kernel.proc import cgroup_of, read

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """What stands in /proc/<pid>/stat. Times in ns: CPU time used, and when it was started after the boot."""

    name: str
    state: str
    parent_pid: int
    group: int
    session: int
    foreground_group: int
    cpu_ns: int
    nice: int
    threads: int
    started_ns: int
    virtual_bytes: int
    resident_bytes: int
    cpu: int


class Status(NamedTuple):
    """What stands in /proc/<pid>/status alone, or better. `resident_bytes`: None for what has no memory (kernel threads, zombies)."""

    effective_uid: int
    resident_bytes: int | None
    locks_memory: bool


_STATUS: Final = re.compile(rb"^(Uid|VmRSS|VmLck):\s+(\d+)(?:\s+(\d+))?", re.MULTILINE)


def parse_status(raw: bytes) -> Status:
    """`Uid:  0  0  0  0`, `VmRSS:  1024 kB`, `VmLck:  0 kB` among its lines; what is not there is 0 or None."""
    found = {key: (int(first), int(second or 0)) for key, first, second in _STATUS.findall(raw)}
    resident = found.get(b"VmRSS")
    return Status(
        found.get(b"Uid", (0, 0))[1], resident[0] * 1024 if resident is not None else None, found.get(b"VmLck", (0, 0))[0] > 0
    )  # fmt: skip


class Process(NamedTuple):
    """One process.

    uid           the effective one
    stat          with the resident bytes of `status`: later kernels only estimate those in `stat`
    open_files    0 where we may not look
    cgroup_path   "" where it was not asked for
    locks_memory  has pages that cannot be swapped out
    """

    pid: int
    uid: int
    stat: Stat
    open_files: int
    cgroup_path: str
    locks_memory: bool = False


def parse_stat(raw: bytes) -> Stat | None:
    """A line of /proc/<pid>/stat; None when it is not one."""
    before, bracket, after = raw.rpartition(b")")  # the name may have brackets and blanks in it
    name = before.partition(b"(")[2].decode("utf-8", "replace")
    fields = after.split()
    if not bracket or len(fields) < 37:
        return None
    try:
        numbers = [0, *map(int, fields[1:37])]  # numbers[n] is field n + 3 of the manual
    except ValueError:
        return None
    return Stat(
        name=name,
        state=fields[0].decode("ascii", "replace"),
        parent_pid=numbers[1],
        group=numbers[2],
        session=numbers[3],
        foreground_group=numbers[5],
        cpu_ns=(numbers[11] + numbers[12]) * _TICK_NS,
        nice=numbers[16],
        threads=numbers[17],
        started_ns=numbers[19] * _TICK_NS,
        virtual_bytes=numbers[20],
        resident_bytes=numbers[21] * _PAGE_BYTES,
        cpu=numbers[36],
    )


def processes(hierarchies: Hierarchies, path: str) -> list[Process]:
    """Those in the cgroup itself, by pid; of `/`: all of the host, each with its cgroup.

    Raises:
        Gone: there is no such cgroup.
    """
    everybody = path == "/"
    pids = _all_pids(hierarchies.proc) if everybody else _pids_of(hierarchies, path)
    return [found for pid in sorted(pids) if (found := _process(hierarchies, pid, with_cgroup=everybody)) is not None]


def _pids_of(hierarchies: Hierarchies, path: str) -> Iterator[int]:
    try:
        listed = read(os.path.join(hierarchies.directory(hierarchies.anchor, path), "cgroup.procs"))
    except OSError as problem:
        raise Gone(f"cgroup {path} is not there") from problem
    return (int(pid) for pid in listed.split() if pid != b"0")  # 0: not visible from our pid namespace


def _all_pids(proc: str) -> Iterator[int]:
    return (int(name) for name in os.listdir(proc) if name.isdecimal())


def _process(hierarchies: Hierarchies, pid: int, *, with_cgroup: bool) -> Process | None:
    """None: it has ended meanwhile."""
    directory = os.path.join(hierarchies.proc, str(pid))
    try:
        stat, status = parse_stat(read(f"{directory}/stat")), parse_status(read(f"{directory}/status"))
        cgroups = cgroup_of(os.path.dirname(hierarchies.proc), pid) if with_cgroup else {}
    except (OSError, Gone):
        return None
    try:
        open_files = len(os.listdir(f"{directory}/fd"))
    except OSError:  # not ours to see
        open_files = 0
    anchor = "" if hierarchies.anchor == UNIFIED else hierarchies.anchor
    if stat is None:
        return None
    if status.resident_bytes is not None:
        stat = stat._replace(resident_bytes=status.resident_bytes)
    return Process(pid, status.effective_uid, stat, open_files, cgroups.get(anchor, ""), status.locks_memory)
