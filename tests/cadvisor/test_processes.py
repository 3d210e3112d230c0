"""Processes in the shape of ps(1)."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.cadvisor.processes import ProcessLister, parse_users, process_info
from streamer.clock import SystemClock
from streamer.kernel.hierarchy import detect
from streamer.kernel.processes import Process, Stat
from tests.support.cgroups import CgroupFolder

NS = 1_000_000_000
BOOT = 1_700_000_000
STAT = Stat("sleep", "S", 1, 50, 50, -1, 0, 0, 1, 0, 4096, 2048, 1)


def shown(*, lived: int = 100, **about: Any) -> Any:
    process = Process(7, 0, STAT._replace(**about), 4, "")
    return process_info(process, users={0: "root"}, boot_ns=BOOT * NS, now_ns=(BOOT + lived) * NS, memory_bytes=1_000_000)


def test_shares_are_percents_with_one_digit() -> None:
    """Of a core since its start, and of the host's memory."""
    process = shown(cpu_ns=33_360_000_000, resident_bytes=123_456)
    assert (process.percent_cpu, process.percent_mem, process.running_time) == (33.3, 12.3, "00:00:33")
    assert (process.user, process.rss, process.virtual_size, process.fd_count, process.psr) == ("root", 123_456, 4096, 4, 1)


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where it is 5:45 h later than in UTC: the boot was at 3:58:20 on 15 November 2023."""
    monkeypatch.setenv("TZ", "XXX-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kathmandu")
@pytest.mark.parametrize(
    ("lived", "start"), [(60, "03:58"), (20 * 3600, "03:58"), (21 * 3600, "Nov15"), (46 * 86_400, "Nov15"), (47 * 86_400, "2023")]
)
def test_start_times(lived: int, start: str) -> None:
    """Local; of today, of this year, of another: not by how long ago it was."""
    assert shown(lived=lived).start_time == start


@pytest.mark.parametrize(
    ("cpu_seconds", "running"), [(3661, "01:01:01"), (86_400, "01-00:00:00"), (100 * 86_400 + 1, "100-00:00:01")]
)
def test_running_times(cpu_seconds: int, running: str) -> None:
    """With days once there are some."""
    assert shown(cpu_ns=cpu_seconds * NS).running_time == running


@pytest.mark.parametrize(
    ("about", "status"),
    [
        ({}, "S"),
        ({"nice": 5}, "SN"),
        ({"nice": -5, "state": "R"}, "R<"),
        ({"session": 7, "threads": 3, "foreground_group": 50}, "Ssl+"),
    ],
)
def test_the_status_of_a_process(about: dict[str, Any], status: str) -> None:
    """Letters in the order of ps(1)."""
    assert shown(**about).status == status


def test_who_locks_memory_is_marked() -> None:
    """Before who leads a session."""
    process = Process(7, 0, STAT._replace(nice=5, session=7), 4, "", locks_memory=True)
    assert process_info(process, users={}, boot_ns=0, now_ns=NS, memory_bytes=1).status == "SNLs"


def test_users() -> None:
    """The first name of an id; lines that are none are skipped; who is not there is a number."""
    assert parse_users("root:x:0:0::/:\ntoor:x:0:0::/:\n\n+::\nbad\nweb:x:33:33::/:") == {0: "root", 33: "web"}
    assert process_info(Process(7, 5, STAT, 0, ""), users={}, boot_ns=0, now_ns=NS, memory_bytes=0).user == "5"


@pytest.mark.live  # not in the guest: on user-mode Linux ps cannot tell when a process was started
async def test_as_ps_shows_them(cgroups: CgroupFolder) -> None:
    """Two processes of a cgroup, every column; those below it and elsewhere are not there."""
    path = cgroups.make("a")
    cgroups.make("b")
    perl = "use POSIX; if ($ARGV[0]) { POSIX::nice(7); $> = 65534 } else { setsid() } $x = 'x' x 9000000; sleep 600"
    started = [cgroups.run("a", "perl", "-e", perl), cgroups.run("a", "perl", "-e", perl, "1"), cgroups.run("b", "sleep", "600")]
    pids = [process.pid for process in started[:2]]
    columns = "user:32,pid,ppid,stime,pmem,rss,vsz,stat,time,comm,psr"
    lister = ProcessLister(detect(Path("/")), "/", SystemClock())

    def theirs() -> list[list[str]]:
        command = ["ps", "-ww", "-o", columns, "-p", ",".join(map(str, pids))]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        return sorted((line.split() for line in lines), key=lambda words: int(words[1]))

    deadline = time.monotonic() + 20
    while True:
        ours = await lister(path)
        lines = [
            [p.user, str(p.pid), str(p.parent_pid), p.start_time, f"{p.percent_mem:.1f}", str(p.rss // 1024), str(p.virtual_size // 1024),
             p.status, p.running_time, p.cmd, str(p.psr)]
            for p in ours
        ]  # fmt: skip
        expected = theirs()
        if lines == expected and {(p.user, p.status) for p in ours} == {("root", "Ss"), ("nobody", "SN")}:
            break
        assert time.monotonic() < deadline, (lines, expected)
        await asyncio.sleep(0.01)
    for process in ours:
        assert process.cgroup_path == ""
        assert process.fd_count == len(list(Path("/proc", str(process.pid), "fd").iterdir()))
        assert 0 <= process.percent_cpu <= 100
