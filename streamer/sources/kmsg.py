"""Follows the kernel log for OOM kills. The log numbers its records: what was overwritten unread is counted exactly.

Format and behaviour: Documentation/ABI/testing/dev-kmsg. One read gives one record; EPIPE says that the next one was
overwritten, and the read after it goes on with the oldest that is left.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs

from streamer.contracts import Clock, Emit, Status
from streamer.kernel import proc
from streamer.kernel.kmsg import OomParser, Record, parse_record
from streamer.model import observations as o
from streamer.telemetry import Telemetry

_RECORD_BYTES: Final = 16_384  # the kernel's longest is 8192 with its escapes; a shorter buffer is answered EINVAL
_AT_ONCE: Final = 1000  # records in one go of the event loop, so that a log that is being flooded holds up nobody
_TRY_AGAIN_SECONDS: Final = 60.0
_LAGS: Final = 16


class KmsgSource:
    """Emits `OomKilled` for each kill, `Lost` for overwritten records, `Degraded` once while the log cannot be read.

    resume_after  the record to go on after, of the same boot: what came since is told, or counted as lost. None: only
                  what comes from now on
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
        self._lags: deque[int] = deque(maxlen=_LAGS)
        self._status = Status(self.name, "starting", since_ms=clock.wall_ns() // 1_000_000)

    @property
    def last_seq(self) -> int | None:
        """The number of the last record read: where to resume after. None while none was read."""
        return self._last_seq

    @property
    def settled_seq(self) -> int | None:
        """Where to resume after so that no kill is missed."""
        return self._last_seq

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
            loop.add_reader(fd, self._readable)
            self._fd, self._caught_up = fd, not resumes
            self._working()
            return await self._broken
        finally:
            self._fd = -1
            loop.remove_reader(fd)
            os.close(fd)

    def _readable(self) -> None:
        if self._fd >= 0:
            self._read()

    def _read(self) -> bool:
        """Take in a number of records; whether there may be more."""
        for position in range(_AT_ONCE):
            try:
                raw = self._read_record(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                self._caught_up = True
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
                record = parse_record(raw)
            except ValueError:
                self._hole = "had a record of another form"
                continue
            if self._caught_up and position == 0:
                self._lags.append(self._clock.monotonic_ns() - record.time_us * 1000)
            self._take(record)
        return True

    def _take(self, record: Record) -> None:
        last, hole = self._last_seq, self._hole
        self._hole = ""
        if last is not None and record.seq <= last:
            return  # told in an earlier run
        missing = record.seq - last - 1 if last is not None else None
        if missing or (hole and missing is None):
            first, reason = "" if last is None else str(last + 1), f"the kernel log {hole or 'skipped records'}"
            self._say(o.Lost(self.name, self._clock.wall_ns(), reason, missing, first, str(record.seq - 1)))
        self._last_seq = record.seq
        for killed in self._parser.feed(record, self._wall_offset_ns()):
            if not killed.killed_cgroup:
                # In a storm of kills the kernel leaves out all but one line. The process may still be there.
                killed = structs.replace(killed, killed_cgroup=self._cgroup_of(killed.pid))  # noqa: PLW2901  the same kill, known better
            self._say(killed)

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
    """The memory cgroup of a process, "" when it has ended."""
    try:
        cgroups = proc.parse_cgroup(proc.read(os.path.join(proc_root, str(pid), "cgroup")))
    except OSError:  # ended, or hidden from us: then the cgroup's own counters witness the kill
        return ""
    return cgroups.get("memory") or cgroups.get("", "")


def _remedy(error: OSError, path: str) -> str:
    if isinstance(error, PermissionError):
        return "run the agent as root or with CAP_SYSLOG (kernel.dmesg_restrict asks for it); without, kills are known from counters and Docker"
    if isinstance(error, FileNotFoundError):
        return f"give the agent's container the device: docker run --device={path} --cap-add=SYSLOG"
    return "kills are known from the cgroups' counters and from Docker; set kmsg.enabled = false to leave the log alone"
