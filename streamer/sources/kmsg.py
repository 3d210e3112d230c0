"""Follows the kernel log for OOM kills. The log numbers its records: what was overwritten unread is counted exactly.

Format and behaviour: Documentation/ABI/testing/dev-kmsg. One read gives one record; EPIPE says that the next one was
overwritten, and the read after it goes on with the oldest that is left. Clearing the log (`dmesg -C`) neither removes
records from it nor starts the numbers anew.

A later run goes on where `settled_seq` of this one was. `Lost` has the numbers of the missing records as `first` and
`last`, and in its reason the times of the records around them: `…, between <RFC 3339> and <RFC 3339>`, or, where none
was read before, `…, before <RFC 3339>`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from time import sleep  # noqa: TID251  for a hundredth of what the event loop can wait
from typing import Final, NamedTuple

from msgspec import structs

from streamer.clock import rfc3339
from streamer.contracts import Clock, Emit, Status
from streamer.kernel import proc
from streamer.kernel.kmsg import OomParser, Record, parse_record, record_seq, skim
from streamer.model import observations as o
from streamer.telemetry import Telemetry

_RECORD_BYTES: Final = 16_384  # the kernel's longest is 8192 with its escapes; a shorter buffer is answered EINVAL
_AT_ONCE: Final = 1000  # records in one go of the event loop, so that a log that is being flooded holds up nobody
_TRY_AGAIN_SECONDS: Final = 60.0
_LAGS: Final = 16
_EXPECTED_WITHIN_NS: Final = 10_000_000
"""A kill's line stands in the log some 0.3 ms after the kernel's notice of it, or a few when processors are short."""
_ASIDE_SECONDS: Final = 20e-6
"""Between two looks; 0.07 ms with the kernel's timer slack. The notice may wake us on the processor of who kills. He waits for us then, for a time
slice of 3 ms also if we yield; and we for him, 2 ms where he writes to a serial console. Who has slept wakes up on one that is free, if any is."""
_DEAF_NS: Final = 100_000_000
_DEAF_AT_MOST_NS: Final = 1_000_000_000
_OUT_OF_ORDER_US: Final = 1_000_000  # records of two CPUs may be in another order than their times, by much less than that


class _Expected(NamedTuple):
    """A kill is: how many were told when this began, and until when (monotonic ns)."""

    kills: int
    until_ns: int


class KmsgSource:
    """Emits `OomKilled` for each kill, `Lost` for overwritten records, `Degraded` once while the log cannot be read.

    resume_after  `settled_seq` of an earlier run in this boot: what came since is told, or counted as lost; the last
                  kills of that run may be told once more, just as they were. None: only what comes from now on
    proc_root     the host's /proc, asked for the cgroup of a killed process when the log does not have it
    open_log      opens a path for non-blocking reads, at the end of the log or (`from_start`) at its oldest record
    """

    name = "source.kmsg"

    def __init__(
        self,
        path: str,
        clock: Clock,
        telemetry: Telemetry,
        resume_after: int | None = None,
        *,
        proc_root: str | os.PathLike[str] = "/proc",
        cgroup_of: Callable[[int], str] | None = None,
        open_log: Callable[[str, bool], int] | None = None,
        read: Callable[[int, int], bytes] = os.read,
    ) -> None:
        self._path, self._clock, self._telemetry = path, clock, telemetry
        self._last_seq = resume_after
        self._cgroup_of = cgroup_of or (lambda pid: _cgroup_of(proc_root, pid))
        self._open_log, self._read_record = open_log or _open_log, read
        self._parser = OomParser()
        self._emit: Emit | None = None
        self._fd = -1
        self._broken: asyncio.Future[OSError] | None = None
        self._caught_up = False  # what is read from here on is read as it comes
        self._hole = ""  # why records are missing before the next one, whose number will tell how many
        self._skipped: int | None = None  # the last record that was read again because the log was opened anew
        self._latest_us: int | None = None  # the log's time of the last record that was read
        self._read_at_ns = self._empty_at_ns = 0  # monotonic: when it was, and when the log was last found empty
        self._lags: deque[int] = deque(maxlen=_LAGS)
        self._kills = 0  # told so far
        self._expected: _Expected | None = None
        self._deaf_ns = self._deaf_until_ns = 0  # to notices, after one that no kill followed
        self._status = Status(self.name, "starting", since_ms=clock.wall_ns() // 1_000_000)

    @property
    def last_seq(self) -> int | None:
        """The number of the last record that is known; None while there was none."""
        return self._last_seq

    @property
    def settled_seq(self) -> int | None:
        """Where a later run has to resume after: the kills of all records up to it were told, and no report is half read.

        A report is many records long, so this stays behind `last_seq` while one is being read and for a moment after:
        `drain()` first gives the newest. None while no record is known.
        """
        if self._last_seq is None:
            return None
        if self._latest_us is not None:
            # what comes from now on will have been logged after the log was last found empty
            self._parser.settle(self._latest_us + (self._empty_at_ns - self._read_at_ns) // 1000 - _OUT_OF_ORDER_US)
        return self._last_seq if self._parser.begun is None else self._parser.begun - 1

    def status(self) -> Status:
        return self._status

    async def run(self, emit: Emit) -> None:
        """Until cancelled."""
        self._emit = emit
        try:
            while True:
                try:
                    problem = await self._follow()
                except OSError as error:
                    problem = error
                self._degraded(problem)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
        finally:
            self._emit = None

    def drain(self) -> None:
        """Read and emit everything that stands in the log right now."""
        while self._fd >= 0 and self._read():
            pass

    def expect(self) -> None:
        """Look into the log at once, and for a moment again and again, between all else: a kill is about to stand there.

        On the event loop. Who waits for the log is woken by the kernel's next tick only, up to 4 ms later. Notices that no kill
        follows, as of a cgroup in which nothing may be killed, are heard ever more seldom, down to one a second.
        """
        now_ns = self._clock.monotonic_ns()
        if self._expected is None and now_ns >= self._deaf_until_ns:
            self._expected = _Expected(self._kills, now_ns + _EXPECTED_WITHIN_NS)
            self._look()

    def _look(self) -> None:
        expected, self._expected = self._expected, None
        self.drain()
        if expected is None or self._fd < 0:
            return
        if self._kills > expected.kills:
            self._deaf_ns = 0
        elif (now_ns := self._clock.monotonic_ns()) > expected.until_ns:
            self._deaf_ns = min(max(2 * self._deaf_ns, _DEAF_NS), _DEAF_AT_MOST_NS)
            self._deaf_until_ns = now_ns + self._deaf_ns
        else:  # asyncio's timers are not quick enough: they round up to 1 ms, and a victim that is to be asked for its cgroup is gone by then
            self._expected = expected
            sleep(_ASIDE_SECONDS)
            asyncio.get_running_loop().call_soon(self._look)

    async def _follow(self) -> OSError:
        """Open the log and read it until it cannot be read any more.

        Raises:
            OSError: it cannot be opened or waited for.
        """
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        resumes = self._last_seq is not None
        fd = self._open_log(self._path, resumes)
        try:
            newest = None if resumes else await self._newest()
            loop.add_reader(fd, self._readable)
            self._fd, self._caught_up, self._skipped = fd, not resumes, None
            if not resumes:
                self._read()
                if self._last_seq is None:
                    self._last_seq = newest  # nothing came since: the next one is the one after it
            self._working()
            return await self._broken
        finally:
            self._fd = -1
            loop.remove_reader(fd)
            os.close(fd)

    async def _newest(self) -> int | None:
        """The number of the newest record: without it, nobody could tell later what came after the first moment."""
        newest: int | None = None
        fd = self._open_log(self._path, True)
        try:
            while True:
                for _ in range(_AT_ONCE):
                    try:
                        seq = record_seq(self._read_record(fd, _RECORD_BYTES))
                    except BrokenPipeError:
                        continue
                    except BlockingIOError:
                        return newest
                    if seq is None:
                        return newest
                    newest = seq
                await asyncio.sleep(0)
        finally:
            os.close(fd)

    def _readable(self) -> None:
        if self._fd >= 0:
            self._read()

    def _read(self) -> bool:
        """Take in a number of records; whether there may be more."""
        offset_ns: int | None = None
        for position in range(_AT_ONCE):
            try:
                raw = self._read_record(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                self._found_empty()
                return False
            except BrokenPipeError:
                self._hole = "was overwritten before it was read"
                continue
            except OSError as error:
                self._fail(error)
                return False
            if not raw:
                self._fail(OSError("the log has ended"))
                return False
            try:
                record = skim(raw) or parse_record(raw)
            except ValueError:
                self._hole = "had a record of another form"
                continue
            if self._caught_up and position == 0:
                self._lags.append(self._clock.monotonic_ns() - record.time_us * 1000)
            if offset_ns is None:  # for all that are read in one go: a kill's report is a hundred records long
                offset_ns = self._wall_offset_ns()
            self._take(record, offset_ns)
        return True

    def _take(self, record: Record, offset_ns: int) -> None:
        if self._last_seq is not None and record.seq <= self._last_seq:
            if not self._caught_up:
                self._skipped = record.seq
                return  # told before
            self._another_log()
        self._skipped = None
        self._look_for_hole(record)
        self._last_seq, self._latest_us, self._read_at_ns = record.seq, record.time_us, self._clock.monotonic_ns()
        for killed in self._parser.feed(record, offset_ns):
            if not killed.killed_cgroup and self._caught_up:
                # In a storm of kills the kernel leaves out all but one line. The process may still be there; of one that
                # was killed in the past the number may be another's by now.
                killed = structs.replace(killed, killed_cgroup=self._cgroup_of(killed.pid))  # noqa: PLW2901  the same kill, known better
            self._kills += 1
            self._say(killed)

    def _look_for_hole(self, record: Record) -> None:
        last, hole = self._last_seq, self._hole
        self._hole = ""
        missing = record.seq - last - 1 if last is not None else None
        if missing or (hole and missing is None):
            offset_ns = self._wall_offset_ns()
            until = rfc3339(record.time_us * 1000 + offset_ns)
            since = "" if self._latest_us is None else rfc3339(self._latest_us * 1000 + offset_ns)
            when = f"between {since} and {until}" if since else f"before {until}"
            reason = f"the kernel log {hole or 'skipped records'}, {when}"
            first = "" if last is None else str(last + 1)
            self._say(o.Lost(self.name, self._clock.wall_ns(), reason, missing, first, str(record.seq - 1)))

    def _found_empty(self) -> None:
        self._caught_up, self._empty_at_ns = True, self._clock.monotonic_ns()
        skipped, self._skipped = self._skipped, None
        if skipped is not None and skipped != self._last_seq:
            self._another_log()
            self._last_seq = skipped

    def _another_log(self) -> None:
        """The log does not reach the record that was read last: what was logged since then, nobody can tell."""
        reason = f"the kernel log ends before record {self._last_seq}, which was read before: it is another log"
        self._say(o.Lost(self.name, self._clock.wall_ns(), reason))
        self._last_seq = self._latest_us = None
        self._parser = OomParser()

    def _wall_offset_ns(self) -> int:
        """What to add to a record's time. The log's clock is not steered by NTP and drifts from the monotonic one by seconds
        in a week; how far they are apart shows in the records that were read as they came, the quickest of them best."""
        drift = min(self._lags, default=0)
        return self._clock.wall_ns() - self._clock.monotonic_ns() + drift

    # how it is

    def _fail(self, error: OSError) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(error)
        self._fd = -1

    def _say(self, observation: o.Observation) -> None:
        if self._emit is not None:
            self._emit(observation)

    def _working(self) -> None:
        if self._status.state == "degraded":
            self._say(o.Recovered(self.name, self._clock.wall_ns()))
        self._set_status("ok")

    def _degraded(self, error: OSError) -> None:
        reason, remedy = f"{self._path} cannot be read: {error.strerror or error}", _remedy(error, self._path)
        if self._status.state != "degraded":
            self._say(o.Degraded(self.name, self._clock.wall_ns(), reason, remedy))
        self._set_status("degraded", reason, remedy)

    def _set_status(self, state: str, reason: str = "", remedy: str = "") -> None:
        self._telemetry.set("streamer_source_up", 1 if state == "ok" else 0, self.name)
        if (state, reason) != (self._status.state, self._status.reason):
            self._status = Status(self.name, state, reason, remedy, self._clock.wall_ns() // 1_000_000)


def _open_log(path: str, from_start: bool) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.lseek(fd, 0, os.SEEK_SET if from_start else os.SEEK_END)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _cgroup_of(proc_root: str | os.PathLike[str], pid: int) -> str:
    """The memory cgroup of a process, "" when it has ended: then the cgroup's own counters witness the kill."""
    try:
        cgroups = proc.parse_cgroup(proc.read(os.path.join(proc_root, str(pid), "cgroup")))
    except OSError:  # or hidden from us
        return ""
    if (of_v1 := cgroups.get("memory")) is None:
        return cgroups.get("", "")
    # on v1 the kernel says the root of whoever is ending, too (kernel/cgroup/cgroup.c, proc_cgroup_show)
    return "" if of_v1 == "/" else of_v1


def _remedy(error: OSError, path: str) -> str:
    if isinstance(error, PermissionError):
        return "run the agent as root or with CAP_SYSLOG (kernel.dmesg_restrict asks for it); without, kills are known from counters and Docker"
    if isinstance(error, FileNotFoundError):
        return f"give the agent's container the device: docker run --device={path} --cap-add=SYSLOG"
    return "kills are known from the cgroups' counters and from Docker; set kmsg.enabled = false to leave the log alone"
