"""The kernel log: the real one, and a pipe in packet mode, which is read record by record like it, for faults at an exact point."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamer.clock import SystemClock
from streamer.model import observations as o
from streamer.sources import kmsg
from streamer.sources.docker_api import nanoseconds
from streamer.sources.kmsg import KmsgSource
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock

if TYPE_CHECKING:  # importing it would make a live test of every test in this file
    from tests.support.cgroups import CgroupFolder

NS = 1_000_000_000
KILLED = "Memory cgroup out of memory: Killed process {pid} (tail) total-vm:100kB, anon-rss:20kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
SUMMARY = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/b,task_memcg=/b/a,task=tail,pid={pid},uid=0"


class Log:
    """A kernel log of our own: `write` adds a record, `faults` are raised by the next reads instead of an answer."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # packet mode: one write is one read, pipe(2)
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self.faults: list[OSError] = []
        self.opened: list[bool] = []
        self.given: list[int] = []  # descriptors, in order
        self.refused: OSError | None = None

    def open(self, path: str, from_start: bool) -> int:
        self.opened.append(from_start)
        if self.refused is not None:
            raise self.refused
        self.given.append(os.dup(self._read))
        return self.given[-1]

    def read(self, fd: int, size: int) -> bytes:
        if self.faults:
            raise self.faults.pop(0)
        return os.read(fd, size)

    def write(self, seq: int, text: str = "eth0: link up", time_us: int = 0, priority: int = 3) -> None:
        os.write(self._write, f"{priority},{seq},{time_us},-;{text}\n".encode())

    def close(self) -> None:
        for fd in (self._read, self._write):
            os.close(fd)


@pytest.fixture
def log() -> Iterator[Log]:
    with contextlib.closing(Log()) as made:
        yield made


class Listening:
    """A running source, and what it said."""

    def __init__(self, source: KmsgSource) -> None:
        self.source = source
        self.heard: list[o.Observation] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Listening]:
        task = asyncio.create_task(self.source.run(self.heard.append))
        try:
            await self.until(lambda: self.source.status().state != "starting")
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail("did not come to be; heard:\n" + "\n".join(map(str, self.heard)))
            await asyncio.sleep(0.002)

    def kills(self) -> list[o.OomKilled]:
        return [x for x in self.heard if isinstance(x, o.OomKilled)]

    def lost(self) -> list[tuple[int | None, str, str]]:
        return [(x.count, x.first, x.last) for x in self.heard if isinstance(x, o.Lost)]


def listening_to(log: Log, clock: FakeClock | None = None, resume_after: int | None = None, cgroup: str = "") -> Listening:
    return Listening(
        KmsgSource(
            "/dev/kmsg",
            clock or FakeClock(monotonic_ns=100 * NS),
            Telemetry(),
            resume_after,
            cgroup_of=lambda _: cgroup,
            open_log=log.open,
            read=log.read,
        )
    )


# the real log


@pytest.mark.live
@pytest.mark.v2
async def test_a_real_kill_is_told_with_its_cgroup_and_time(tmp_path: Path) -> None:
    """The kernel's own record of a process killed in a memory cgroup of the test's own."""
    hierarchy = Path("/sys/fs/cgroup/memory")
    cgroup = (hierarchy if hierarchy.is_dir() else Path("/sys/fs/cgroup")) / f"streamer-test-{os.getpid()}-kmsg"
    cgroup.mkdir()
    limit = "memory.limit_in_bytes" if hierarchy.is_dir() else "memory.max"
    try:
        (cgroup / limit).write_text(str(20 << 20))
        async with Listening(KmsgSource("/dev/kmsg", SystemClock(), Telemetry())).running() as listening:
            before = time.time_ns()
            victim = await asyncio.create_subprocess_exec(
                "sh", "-c", f"echo $$ > {cgroup}/cgroup.procs; exec tail /dev/zero", stderr=subprocess.DEVNULL
            )
            await listening.until(lambda: any(kill.pid == victim.pid for kill in listening.kills()))
            await victim.wait()
            kill = next(kill for kill in listening.kills() if kill.pid == victim.pid)
            assert (kill.process, kill.constraint, kill.uid) == ("tail", "memcg", 0)
            assert kill.killed_cgroup == kill.limit_cgroup == f"/{cgroup.name}"
            assert before <= kill.time_ns <= time.time_ns()
            assert kill.seq == listening.source.last_seq or kill.seq < (listening.source.last_seq or 0)
    finally:
        cgroup.rmdir()


@pytest.mark.live
@pytest.mark.v2
async def test_the_real_log_is_resumed_after_a_record() -> None:
    """What came since is read, without a hole."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        seqs = []
        with contextlib.suppress(BlockingIOError):
            while True:
                with contextlib.suppress(BrokenPipeError):  # overwritten while it was read: the next read goes on behind it
                    seqs.append(int(os.read(fd, 16384).split(b",")[1]))
    finally:
        os.close(fd)
    middle = seqs[len(seqs) // 2]  # the oldest ones are gone as soon as somebody writes to a log that is full
    assert middle < seqs[-1]
    async with Listening(KmsgSource("/dev/kmsg", SystemClock(), Telemetry(), resume_after=middle)).running() as listening:
        await listening.until(lambda: (listening.source.last_seq or 0) > middle)
        assert listening.lost() == []


def kill_in(cgroup: Path) -> int:
    """Have the kernel end a process at the limit of its cgroup; its pid."""
    command = f"echo $$ > {cgroup}/cgroup.procs; exec tail /dev/zero"
    victim = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    victim.wait()
    return victim.pid


def oldest() -> int:
    """The number of the oldest record in the log."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(os.read(fd, 16384).split(b",")[1])
    finally:
        os.close(fd)


def flood(beyond: int) -> None:
    """Write into the log, as a user may, until that record is overwritten; bounded."""
    limit = Path("/proc/sys/kernel/printk_devkmsg")
    before = limit.read_text()
    limit.write_text("on\n")
    fd = os.open("/dev/kmsg", os.O_WRONLY)
    try:
        for number in range(100_000):
            os.write(fd, b"<14>streamer-test: " + b"x" * 900)
            if number % 100 == 0 and oldest() > beyond:
                return
        pytest.fail("the log of this kernel is larger than the test can fill")
    finally:
        os.close(fd)
        limit.write_text(before)


@pytest.mark.v2  # only where the log is the test's own kernel's
async def test_a_log_that_is_flooded_past_its_ring_is_missed_by_exactly_as_much_as_is_said(cgroups: CgroupFolder) -> None:
    """The kills before and after are told; the one between lies in the range, by number and by time."""
    cgroups.make("tight", memory_limit_bytes=20 << 20)
    tight = Path(f"/sys/fs/cgroup{cgroups.path}/tight")
    records = []

    def read(fd: int, size: int) -> bytes:
        raw = os.read(fd, size)
        records.append(int(raw.split(b",")[1]))
        return raw

    async with Listening(KmsgSource("/dev/kmsg", SystemClock(), Telemetry(), read=read)).running() as listening:
        first = kill_in(tight)
        await listening.until(lambda: [kill.pid for kill in listening.kills()] == [first])
        listening.source.drain()
        known = listening.source.last_seq
        assert known is not None and records[-1] == known
        records.clear()
        began_ns = time.time_ns()
        kill_in(tight)  # nobody reads now: the loop waits for this very function
        ended_ns = time.time_ns()
        flood(beyond=known + 500)
        last = kill_in(tight)
        await listening.until(lambda: [kill.pid for kill in listening.kills()] == [first, last])
        (lost,) = [x for x in listening.heard if isinstance(x, o.Lost)]
        assert lost.first == str(known + 1) and lost.last == str(records[0] - 1)
        assert lost.count == records[0] - 1 - known > 500
        assert records == list(range(records[0], records[-1] + 1))
        assert "overwritten" in lost.reason
        _, since, until = re.split(r", between | and ", lost.reason)
        assert (nanoseconds(since) or 0) < began_ns + NS and ended_ns - NS < (nanoseconds(until) or 0)


# exact faults


async def test_only_what_comes_is_read_and_a_kill_is_told(log: Log) -> None:
    """The log is opened at its end."""
    async with listening_to(log).running() as listening:
        log.write(7, SUMMARY.format(pid=5))
        log.write(8, KILLED.format(pid=5))
        await listening.until(listening.kills)
        (kill,) = listening.kills()
        assert (kill.seq, kill.pid, kill.killed_cgroup, kill.limit_cgroup) == (8, 5, "/b/a", "/b")
        assert log.opened == [False, True]  # and once more to learn the number of the newest record


async def test_overwritten_records_are_counted_exactly(log: Log) -> None:
    """EPIPE, and the number of the next record."""
    async with listening_to(log).running() as listening:
        log.write(7)
        await listening.until(lambda: listening.source.last_seq == 7)
        log.faults.append(BrokenPipeError(errno.EPIPE, "Broken pipe"))
        log.write(20)
        log.write(21)
        await listening.until(lambda: listening.source.last_seq == 21)
        assert listening.lost() == [(12, "8", "19")]


async def test_records_lost_before_the_first_one_cannot_be_counted(log: Log) -> None:
    """That some were lost is said all the same."""
    async with listening_to(log).running() as listening:
        log.faults.append(BrokenPipeError(errno.EPIPE, "Broken pipe"))
        log.write(20)
        await listening.until(lambda: listening.source.last_seq == 20)
        assert listening.lost() == [(None, "", "19")]


async def test_a_record_of_another_form_is_counted(log: Log) -> None:
    """The number of the next one tells that it is missing."""
    async with listening_to(log).running() as listening:
        log.write(7)
        await listening.until(lambda: listening.source.last_seq == 7)
        os.write(log._write, b"not a record")
        log.write(9)
        await listening.until(lambda: listening.source.last_seq == 9)
        assert listening.lost() == [(1, "8", "8")]


async def test_resuming_tells_what_came_since_and_nothing_twice(log: Log) -> None:
    """Records up to the remembered one are left out; what was overwritten after it is counted."""
    for seq in (4, 5, 9, 10):
        log.write(seq, KILLED.format(pid=seq))
    async with listening_to(log, resume_after=5).running() as listening:
        await listening.until(lambda: len(listening.kills()) == 2)
        assert [kill.seq for kill in listening.kills()] == [9, 10]
        assert listening.lost() == [(3, "6", "8")]
        assert log.opened == [True]


async def test_where_a_later_run_goes_on_is_known_before_anything_is_logged(log: Log) -> None:
    """The newest record's number: what comes after the first moment is not lost by a crash before the second record."""
    log.write(41)
    async with listening_to(log).running() as first:
        assert first.source.settled_seq == first.source.last_seq == 41
        assert first.kills() == []
    log.write(42, KILLED.format(pid=5))
    async with listening_to(log, resume_after=first.source.settled_seq).running() as second:
        await second.until(second.kills)
        assert second.lost() == []


async def test_a_report_that_is_half_read_is_read_again_by_a_later_run(log: Log) -> None:
    """With everything that it says; once it is told, and a moment has passed, no more."""
    clock = FakeClock(monotonic_ns=100 * NS)
    async with listening_to(log, clock).running() as first:
        log.write(7, time_us=99_000_000)
        log.write(8, SUMMARY.format(pid=5), time_us=100_000_000)
        await first.until(lambda: first.source.last_seq == 8)
        assert first.source.settled_seq == 7
    log.write(8, SUMMARY.format(pid=5), time_us=100_000_000)
    log.write(9, KILLED.format(pid=5), time_us=100_000_000)
    async with listening_to(log, clock, resume_after=first.source.settled_seq).running() as second:
        await second.until(second.kills)
        (kill,) = second.kills()
        assert (kill.seq, kill.killed_cgroup, kill.limit_cgroup) == (9, "/b/a", "/b")
        assert second.source.settled_seq == 7  # it may still be the first of a group
        clock.advance(2)
        second.source.drain()
        assert second.source.settled_seq == 9
        assert second.lost() == []


async def test_a_log_that_ends_before_the_remembered_record_is_another_one(log: Log) -> None:
    """Said once; what comes from then on is told, though its numbers are lower."""
    log.write(3, KILLED.format(pid=1))
    async with listening_to(log, resume_after=1000).running() as listening:
        await listening.until(listening.lost)
        log.write(4, KILLED.format(pid=2))
        await listening.until(listening.kills)
        assert [kill.seq for kill in listening.kills()] == [4]
        assert listening.lost() == [(None, "", "")]


async def test_numbers_that_begin_anew_are_another_log(log: Log) -> None:
    """Nothing is left out because of a number that was remembered."""
    async with listening_to(log, resume_after=1000).running() as listening:
        listening.source.drain()  # empty
        log.write(4, KILLED.format(pid=2))
        await listening.until(listening.kills)
        assert listening.lost() == [(None, "", "")]


async def test_the_remembered_record_is_the_newest(log: Log) -> None:
    """Nothing came since: nothing is missing."""
    log.write(3)
    async with listening_to(log, resume_after=3).running() as listening:
        log.write(4, KILLED.format(pid=2))
        await listening.until(listening.kills)
        assert listening.lost() == []


async def test_a_hole_says_between_which_times_it_is(log: Log) -> None:
    """Of the records around it; before the first one when none was read yet."""
    clock = FakeClock(wall_ns=1000 * NS, monotonic_ns=100 * NS)
    log.write(8, time_us=40_000_000)
    log.write(20, time_us=50_000_000)
    async with listening_to(log, clock, resume_after=5).running() as listening:
        await listening.until(lambda: listening.source.last_seq == 20)
        reasons = [x.reason for x in listening.heard if isinstance(x, o.Lost)]
        assert reasons[0].endswith(", before 1970-01-01T00:15:40.000000000Z")
        assert reasons[1].endswith(", between 1970-01-01T00:15:40.000000000Z and 1970-01-01T00:15:50.000000000Z")
        assert listening.lost() == [(2, "6", "7"), (11, "9", "19")]


async def test_drain_reads_what_is_there_without_the_loop(log: Log) -> None:
    """Called when a cgroup has gone: the kill that ended it is told first."""
    async with listening_to(log).running() as listening:
        for seq in range(10):  # a pipe holds 16 packets
            log.write(seq, KILLED.format(pid=seq + 1))
        listening.source.drain()
        assert [kill.seq for kill in listening.kills()] == list(range(10))
    listening.source.drain()  # after the end: nothing to read


async def test_a_kill_that_is_expected_is_told_without_the_kernel_s_waking_anybody(log: Log) -> None:
    """Looked for at once, while its report is being printed, and a moment later; then no more."""
    clock = FakeClock(monotonic_ns=100 * NS)
    async with listening_to(log, clock).running() as listening:
        asyncio.get_running_loop().remove_reader(log.given[0])  # the kernel is late
        log.write(1, KILLED.format(pid=1))
        listening.source.expect()
        assert [kill.pid for kill in listening.kills()] == [1]
        listening.source.expect()
        listening.source.expect()
        log.write(2, SUMMARY.format(pid=2))
        await asyncio.sleep(0.005)
        log.write(3, KILLED.format(pid=2))
        await listening.until(lambda: len(listening.kills()) == 2)
        assert listening.kills()[1].killed_cgroup == "/b/a"
        listening.source.expect()
        clock.advance(1)
        for _ in range(10):
            await asyncio.sleep(0.002)
        log.write(4, KILLED.format(pid=4))
        for _ in range(10):
            await asyncio.sleep(0.002)
        assert len(listening.kills()) == 2


async def test_between_two_looks_the_processor_is_left_to_others(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a sleep: whoever is about to kill may be waiting for it. And it is looked in every turn of the event loop."""
    slept: list[float] = []
    monkeypatch.setattr(kmsg, "sleep", slept.append)
    async with listening_to(log, FakeClock(monotonic_ns=100 * NS)).running() as listening:
        asyncio.get_running_loop().remove_reader(log.given[0])
        looks, read = 0, listening.source._read_record

        def counted(fd: int, size: int) -> bytes:
            nonlocal looks
            looks += 1
            return read(fd, size)

        listening.source._read_record = counted
        listening.source.expect()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert looks >= 1000
        assert len(slept) == looks
        assert 0 < max(slept) < 0.001
        log.write(1, KILLED.format(pid=1))
        await listening.until(listening.kills)


async def test_notices_that_no_kill_follows_are_heard_ever_more_seldom(log: Log) -> None:
    """A cgroup in which nothing may be killed gives notice all the time: nobody looks into the log without end for that."""
    clock = FakeClock(monotonic_ns=100 * NS)
    async with listening_to(log, clock).running() as listening:
        asyncio.get_running_loop().remove_reader(log.given[0])
        pauses = []
        for _ in range(6):
            listening.source.expect()
            looking = listening.source._expected
            assert looking is not None
            clock.advance(0.002)
            listening.source.expect()
            assert listening.source._expected is looking  # for no longer
            clock.advance(0.5)
            await listening.until(lambda: listening.source._expected is None)
            paused = 0.0
            while listening.source._expected is None:
                listening.source.expect()
                clock.advance(0.1)
                paused += 0.1
            pauses.append(round(paused, 1))
            log.write(99 + len(pauses), KILLED.format(pid=1)) if len(pauses) == 5 else None
            clock.advance(0.5)
            await listening.until(lambda: listening.source._expected is None)
            listening.source._deaf_until_ns = 0
        assert pauses[0] < pauses[1] < pauses[2]
        assert max(pauses) <= 1.2 and pauses[5] < pauses[4]


async def test_a_kill_without_a_cgroup_is_looked_up_at_once(log: Log) -> None:
    """In a storm the kernel prints only the last line; the process may still be there to ask."""
    async with listening_to(log, cgroup="/from/proc").running() as listening:
        log.write(1, KILLED.format(pid=5))
        await listening.until(listening.kills)
        assert listening.kills()[0].killed_cgroup == "/from/proc"


async def test_a_kill_of_the_past_is_not_looked_up(log: Log) -> None:
    """The number of its process may be another's by now."""
    log.write(1, KILLED.format(pid=5))
    async with listening_to(log, resume_after=0, cgroup="/from/proc").running() as listening:
        await listening.until(listening.kills)
        log.write(2, KILLED.format(pid=6))
        await listening.until(lambda: len(listening.kills()) == 2)
        assert [kill.killed_cgroup for kill in listening.kills()] == ["", "/from/proc"]


async def test_the_cgroup_of_a_process_is_read_below_the_host_s_proc(log: Log, tmp_path: Path) -> None:
    """v1: of the memory controller; a process that has ended has none, and of one that is ending the kernel says the root."""
    for pid, told in ((5, "3:cpu:/elsewhere\n2:memory:/a/b\n0::/unified\n"), (7, "3:cpu:/\n2:memory:/\n0::/\n")):
        (tmp_path / f"{pid}").mkdir()
        (tmp_path / f"{pid}/cgroup").write_text(told)
    source = KmsgSource("/dev/kmsg", FakeClock(), Telemetry(), proc_root=tmp_path, open_log=log.open, read=log.read)
    async with Listening(source).running() as listening:
        log.write(1, KILLED.format(pid=5))
        log.write(2, KILLED.format(pid=6))
        log.write(3, KILLED.format(pid=7))
        await listening.until(lambda: len(listening.kills()) == 3)
        assert [kill.killed_cgroup for kill in listening.kills()] == ["/a/b", "", ""]


async def test_the_time_of_a_record_follows_the_log_s_own_clock(log: Log) -> None:
    """The log's clock runs 3 s behind the monotonic one; a record read late still has the time at which it was written."""
    clock = FakeClock(wall_ns=1000 * NS, monotonic_ns=100 * NS)
    async with listening_to(log, clock).running() as listening:
        log.write(1, "read as it came", time_us=97_000_000)
        await listening.until(lambda: listening.source.last_seq == 1)
        clock.advance(10)
        log.write(2, KILLED.format(pid=5), time_us=105_000_000)
        await listening.until(listening.kills)
        assert listening.kills()[0].time_ns == 1008 * NS


async def test_the_past_is_dated_by_the_log_when_resuming(log: Log) -> None:
    """A record that was written before we looked does not become one of now."""
    log.write(1, KILLED.format(pid=5), time_us=40_000_000)
    clock = FakeClock(wall_ns=1000 * NS, monotonic_ns=100 * NS)
    async with listening_to(log, clock, resume_after=0).running() as listening:
        await listening.until(listening.kills)
        assert listening.kills()[0].time_ns == 940 * NS


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (PermissionError(errno.EPERM, "Operation not permitted"), "CAP_SYSLOG"),
        (PermissionError(errno.EACCES, "Permission denied"), "CAP_SYSLOG"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "--device=/dev/kmsg"),
        (OSError(errno.ENODEV, "No such device"), "kmsg.enabled"),
    ],
)
async def test_a_log_that_cannot_be_opened_is_said_once_and_tried_again(
    log: Log, monkeypatch: pytest.MonkeyPatch, fault: OSError, hint: str
) -> None:
    """Degraded with a remedy, then Recovered."""
    monkeypatch.setattr("streamer.sources.kmsg._TRY_AGAIN_SECONDS", 0.01)
    log.refused = fault
    async with listening_to(log).running() as listening:
        await listening.until(lambda: len(log.opened) > 3)
        log.refused = None
        await listening.until(lambda: listening.source.status().state == "ok")
        log.write(1, KILLED.format(pid=5))
        await listening.until(listening.kills)
        told = [type(x) for x in listening.heard]
        assert told == [o.Degraded, o.Recovered, o.OomKilled]
        assert isinstance(listening.heard[0], o.Degraded)
        assert hint in listening.heard[0].remedy


async def test_a_log_that_breaks_is_taken_up_after_the_last_record(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened anew from its start, what was read before is left out."""
    monkeypatch.setattr("streamer.sources.kmsg._TRY_AGAIN_SECONDS", 0.01)
    async with listening_to(log).running() as listening:
        log.write(1)
        await listening.until(lambda: listening.source.last_seq == 1)
        log.faults.append(OSError(errno.EIO, "Input/output error"))
        log.write(1, KILLED.format(pid=5))
        log.write(2, KILLED.format(pid=6))
        await listening.until(listening.kills)
        assert [kill.seq for kill in listening.kills()] == [2]
        assert log.opened == [False, True, True]
        assert [type(x) for x in listening.heard] == [o.Degraded, o.Recovered, o.OomKilled]
