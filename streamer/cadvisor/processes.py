"""Processes in cAdvisor's shape, which is that of ps(1); times of day are local."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from streamer.cadvisor.shapes_v2 import ProcessInfo
from streamer.contracts import Clock
from streamer.kernel import proc
from streamer.kernel.hierarchy import Hierarchies
from streamer.kernel.processes import Process, processes

_NS: Final = 1_000_000_000
_DAY: Final = 86_400


class ProcessLister:
    """`Operations`' `processes`: those of the host whose hierarchies these are, read away from the event loop."""

    def __init__(self, hierarchies: Hierarchies, host_root: str, clock: Clock) -> None:
        self._hierarchies, self._host_root, self._clock = hierarchies, host_root, clock

    async def __call__(self, path: str) -> list[ProcessInfo]:
        """The processes in this cgroup; of `/`: all of the host.

        Raises:
            Gone: there is no such cgroup.
        """
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> list[ProcessInfo]:
        root = self._host_root
        found = processes(self._hierarchies, path)
        users = parse_users(_text(os.path.join(root, "etc/passwd")))
        boot_ns, memory_bytes = proc.btime(root) * _NS, proc.meminfo(root).get("MemTotal", 0)
        now_ns = self._clock.wall_ns()
        return [
            process_info(each, users=users, boot_ns=boot_ns, now_ns=now_ns, memory_bytes=memory_bytes) for each in found
        ]  # fmt: skip


def _text(path: str) -> str:
    try:
        return proc.read(path).decode("utf-8", "replace")
    except OSError:  # an image without users
        return ""


def process_info(process: Process, *, users: Mapping[int, str], boot_ns: int, now_ns: int, memory_bytes: int) -> ProcessInfo:
    """One process.

    users         names by user id
    boot_ns       when this boot began, ns since 1970
    memory_bytes  of the host
    """
    stat = process.stat
    started_ns = boot_ns + stat.started_ns
    lived_ns = max(now_ns - started_ns, 1)
    return ProcessInfo(
        user=users.get(process.uid, str(process.uid)),
        pid=process.pid,
        parent_pid=stat.parent_pid,
        start_time=_started(started_ns // _NS, now_ns // _NS),
        percent_cpu=stat.cpu_ns * 1000 // lived_ns / 10,
        percent_mem=stat.resident_bytes * 1000 // memory_bytes / 10 if memory_bytes else 0.0,
        rss=stat.resident_bytes,
        virtual_size=stat.virtual_bytes,
        status=_status(process),
        running_time=_running(stat.cpu_ns // _NS),
        cgroup_path=process.cgroup_path,
        cmd=stat.name,
        fd_count=process.open_files,
        psr=stat.cpu,
    )


def parse_users(passwd: str) -> dict[int, str]:
    """passwd(5): names by user id, the first one where several share it."""
    users: dict[int, str] = {}
    for line in passwd.splitlines():
        name, *rest = line.split(":")
        if len(rest) > 1 and rest[1].isdecimal():
            users.setdefault(int(rest[1]), name)
    return users


def _started(seconds: int, now: int) -> str:
    """`15:04` of today, `Jan02` of this year, else the year."""
    at, today = datetime.fromtimestamp(seconds).astimezone(), datetime.fromtimestamp(now).astimezone()
    if at.date() == today.date():
        return at.strftime("%H:%M")
    return at.strftime("%b%d" if at.year == today.year else "%Y")


def _running(seconds: int) -> str:
    """`02:03:04`, `01-02:03:04`."""
    days, rest = divmod(seconds, _DAY)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days:02}-{clock}" if days else clock


def _status(process: Process) -> str:
    """The state's letter; then `<` or `N` for its niceness, `L` locks memory, `s` leads its session, `l` has threads, `+` in the
    foreground (ps(1), PROCESS STATE CODES)."""
    stat = process.stat
    marks = (
        ("<", stat.nice < 0),
        ("N", stat.nice > 0),
        ("L", process.locks_memory),
        ("s", stat.session == process.pid),
        ("l", stat.threads > 1),
        ("+", stat.foreground_group == stat.group),
    )
    return stat.state + "".join(mark for mark, is_so in marks if is_so)
