"""The kernel log: records of `/dev/kmsg`, and the OOM kills that they tell of. No I/O here.

Formats: Documentation/ABI/testing/dev-kmsg; mm/oom_kill.c and mm/memcontrol.c for what the OOM killer prints:

    tail invoked oom-killer: …                                     rate limited from here …
    memory: usage 20480kB, limit 20480kB, failcnt 19
    Task in /a killed as a result of limit of /b                   before 5.0, instead of the next
    oom-kill:constraint=…,oom_memcg=/b,task_memcg=/a,task=…,pid=1,uid=0           … to here
    Memory cgroup out of memory: Killed process 1 (tail) total-vm:…               always, once for each process
    Tasks in /b are going to be killed due to memory.oom.group set                then more `Killed process` lines
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

from streamer.model.observations import OomKilled

_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")
_FACILITY_KERNEL: Final = 0


class Record(NamedTuple):
    """One record. `priority` is facility * 8 + level; `time_us` monotonic since boot; `flags` `c` or `+`: goes on an earlier one."""

    priority: int
    seq: int
    time_us: int
    text: str
    flags: str = "-"
    caller: str = ""


def parse_record(raw: bytes) -> Record:
    r"""`4,629,3964975253,-;text` with `\x0a` escapes -> a record.

    Lines after the first (` KEY=value`) are left out. Bytes that are not UTF-8 are kept as `os.fsdecode` does, so
    that a cgroup's name equals the one of its directory.

    Raises:
        ValueError: this is no record.
    """
    head, semicolon, rest = raw.partition(b";")
    fields = head.split(b",")
    numbers = fields[:3]
    if not semicolon or len(fields) < 4 or not all(field.isdigit() and len(field) < 20 for field in numbers):
        raise ValueError(f"no record of the kernel log: {raw[:80]!r}")
    priority, seq, time_us = map(int, numbers)
    text = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), rest.split(b"\n", 1)[0]).decode("utf-8", "surrogateescape")
    caller = next((field[7:] for field in fields[4:] if field.startswith(b"caller=")), b"")
    return Record(priority, seq, time_us, text, fields[3].decode("ascii", "replace"), caller.decode("ascii", "replace"))


def record_seq(raw: bytes) -> int | None:
    """The number of a record, without reading the rest of it: at a start there may be thousands. None: this is no record."""
    fields = raw.split(b",", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() and len(fields[1]) < 20 else None


def skim(raw: bytes) -> Record | None:
    """A record that tells nothing of kills, with its text left out; None: `parse_record` has to read it.

    A kill's report is some hundred records long, of which five matter, and who waits for the kill waits for all of them.
    """
    head = None if _MARKS.search(raw) else _WHOLE.match(raw)
    return None if head is None else Record(int(head[1]), int(head[2]), int(head[3]), "")


Constraint = Literal["memcg", "global", "cpuset", "mempolicy", ""]

_CONSTRAINTS: Final[dict[str, Constraint]] = {"NONE": "global", "CPUSET": "cpuset", "MEMORY_POLICY": "mempolicy", "MEMCG": "memcg"}

_MESSAGE: Final = r"(?:(?P<message>(?:Memory cgroup o|O)ut of memory[^:]*): )?"
_KILLED: Final = re.compile(
    _MESSAGE
    + r"Killed process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\)(?P<sizes>(?:, UID (?P<uid>\d{1,10}),)? (?:total-vm|vsz):.*)",
    re.DOTALL,
)
_KILLED_BARE: Final = re.compile(
    _MESSAGE + r"Killed process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\)(?P<sizes>.*)(?P<uid>)", re.DOTALL
)
_KILL: Final = re.compile(_MESSAGE + r"Kill process (?P<pid>\d{1,10}) \(")  # the choice, before 5.1; a child may be killed instead
_MEMORY: Final = re.compile(r"memory: usage \d+kB, limit (\d{1,19})kB")
_END: Final = re.compile(r",pid=(\d{1,10}),uid=(\d{1,10})\Z")
_SUMMARY: Final = re.compile(
    r"oom-kill:constraint=CONSTRAINT_(?P<constraint>\w+),nodemask=(?:\(null\)|[\d,-]*)(?:,cpuset=.*?,mems_allowed=[\d,-]*)?"
    r"(?:,oom_memcg=(?P<memcgs>.*)|,global_oom(?:,task_memcg=(?P<killed>.*))?)?",
    re.DOTALL,
)
_LEGACY: Final = re.compile(r"Task in (/.*) killed as a result of limit of (/.*)", re.DOTALL)
_GROUP: Final = re.compile(r"Tasks in (/.*) are going to be killed due to memory\.oom\.group set", re.DOTALL)
_BEGINNINGS: Final = ("oom-kill:constraint=", "Task in ", "Tasks in ")
"""Lines that the kernel prints in pieces (pr_cont): what another CPU logs meanwhile cuts them into several records."""

_WORDS: Final = ("oom", "ill", "Task", "memory: usage")
"""No line that matters is without one of these; nearly all others are put aside by that."""
_MARKS: Final = re.compile("|".join(_WORDS).encode())
_WHOLE: Final = re.compile(rb"(\d{1,19}),(\d{1,19}),(\d{1,19}),-[^;]*;")

_STALE_US: Final = 10_000_000  # a report is printed at once, even over a slow serial console
_GROUP_PAUSE_US: Final = 100_000  # between two members of a group; what comes later was not killed with them
_MOST: Final = 64  # reports in flight; the kernel's own lock makes one at a time the rule
_LONGEST: Final = 16384  # characters of a line put together from pieces


class _Report(NamedTuple):
    """What is known of a kill before its `Killed process` line. `line`: the summary up to the task's name."""

    time_us: int
    constraint: Constraint = ""
    killed: str = ""
    limit: str = ""
    uid: int | None = None
    limit_bytes: int | None = None
    line: str = ""


class _Group(NamedTuple):
    """A cgroup that is killed as a whole, and who was killed already."""

    time_us: int
    report: _Report
    pids: set[int]


class OomParser:
    """Finds OOM kills in the kernel log, fed record by record. All state is bounded and forgotten after ten seconds.

    Only what the kernel itself logged counts: anybody who may open /dev/kmsg can write there, with another facility.

    begun  the number of the first record that it still carries something of; None: a new parser that is fed from the
           next record on would tell the very same
    """

    def __init__(self) -> None:
        self.begun: int | None = None
        self._forget()

    def _forget(self) -> None:
        self._partial: dict[str, Record] = {}  # by caller: a line that was cut into pieces
        self._reports: dict[int, _Report] = {}  # by pid, the oldest first
        self._legacy: list[_Report] = []  # not known of which pid, the oldest first
        self._headers: list[int] = []  # times of reports begun and not summed up; with two of them a limit may be either's
        self._limit_bytes: int | None = None
        self._group: _Group | None = None
        self._last: tuple[int, int, _Report] | None = None  # time, pid and report of the last kill
        self._latest_us = 0  # time of the latest record that was about kills

    def feed(self, record: Record, wall_offset_ns: int) -> list[OomKilled]:
        """The kills that this record completes: one for each `Killed process` line.

        Args:
            record: the next record, in the order of the log.
            wall_offset_ns: wall clock minus the kernel log's clock.
        """
        if not record.text or record.priority >> 3 != _FACILITY_KERNEL:
            return []
        self.settle(record.time_us)
        text = self._whole_line(record)
        if not any(word in text for word in _WORDS):
            return []
        killed = _KILLED.match(text) or _KILLED_BARE.match(text)
        if killed:
            self._partial.pop(record.caller, None)  # the kernel prints a report and its kill under one lock: the line is whole
            told = [self._killed(record, killed, wall_offset_ns)]
        else:
            self._take_note(record.time_us, text)
            told = []
        self._latest_us = max(self._latest_us, record.time_us)
        if self.begun is None and (self._waits() or self._group or self._last):
            self.begun = record.seq
        return told

    def settle(self, now_us: int) -> None:
        """Forget everything when none of it can count any more at this time of the log."""
        if self.begun is not None and now_us - self._latest_us > (_STALE_US if self._waits() else _GROUP_PAUSE_US):
            self.begun = None
            self._forget()

    def _waits(self) -> bool:
        """Whether something was said of a kill that has not come yet."""
        return bool(self._partial or self._reports or self._legacy or self._headers or self._limit_bytes is not None)

    def _whole_line(self, record: Record) -> str:
        """The text, or, when it goes on from an earlier record, all of the line so far."""
        if record.flags[:1] in ("c", "+") and not record.text.startswith(_BEGINNINGS):
            begun = self._partial.pop(record.caller, None)
            if begun is None or record.time_us - begun.time_us > _STALE_US:
                return record.text
            record = begun._replace(text=(begun.text + record.text)[:_LONGEST])
        if record.text.startswith(_BEGINNINGS):
            self._partial[record.caller] = record
            _trim(self._partial)
        return record.text

    def _take_note(self, now_us: int, text: str) -> None:
        if text.startswith("oom-kill:constraint="):
            self._summary(now_us, text)
        elif " invoked oom-killer: " in text:
            self._headers = [*[begun for begun in self._headers if now_us - begun < _STALE_US][-_MOST:], now_us]
            self._limit_bytes = self._group = None
        elif found := _MEMORY.match(text):
            self._limit_of_report(int(found[1]) * 1024)
        elif found := _LEGACY.fullmatch(text):
            waiting = [report for report in self._legacy if now_us - report.time_us < _STALE_US]
            self._legacy = [*waiting[-_MOST:], _Report(now_us, "memcg", found[1], found[2])]
            self._headers = self._headers[1:]
        elif found := _GROUP.fullmatch(text):
            self._group_begins(now_us, found[1])
        elif (found := _KILL.match(text)) and self._legacy:
            self._keep(int(found["pid"]), self._legacy.pop(0))

    def _limit_of_report(self, limit_bytes: int) -> None:
        known = None if limit_bytes >= 1 << 53 else limit_bytes
        if not self._legacy:
            self._limit_bytes = known
        elif len(self._legacy) == 1:  # before 5.0 the names came first
            self._legacy[0] = self._legacy[0]._replace(limit_bytes=known)

    def _summary(self, now_us: int, text: str) -> None:
        end = _END.search(text)
        if not end:
            return  # its next pieces come in records of their own
        report = _Report(
            now_us, uid=int(end[2]), limit_bytes=self._limit_bytes if len(self._headers) < 2 else None, line=text[: end.start()]
        )
        self._keep(int(end[1]), report)
        self._headers = self._headers[1:]
        self._limit_bytes = self._group = None

    def _keep(self, pid: int, report: _Report) -> None:
        self._reports.pop(pid, None)
        self._reports[pid] = report
        _trim(self._reports)

    def _group_begins(self, now_us: int, cgroup: str) -> None:
        at, pid, first = self._last or (-_STALE_US, 0, _Report(0))
        recent = now_us - at <= _GROUP_PAUSE_US
        report = _Report(now_us, "memcg", cgroup, first.limit if recent else "", None, first.limit_bytes if recent else None)
        self._group = _Group(now_us, report, {pid} if recent else set())

    def _killed(self, record: Record, line: re.Match[str], wall_offset_ns: int) -> OomKilled:
        now_us, pid, comm = record.time_us, int(line["pid"]), line["comm"]
        report, repeated = self._report_of(now_us, pid, comm)
        constraint = report.constraint
        if not constraint and line["message"]:
            constraint = "memcg" if line["message"].startswith("Memory cgroup") else "global"
        self._last = (now_us, pid, report)
        numbers = _numbers(line["sizes"])
        uid = numbers.pop("uid", None)
        return OomKilled(
            seq=record.seq,
            time_ns=now_us * 1000 + wall_offset_ns,
            pid=pid,
            process=comm.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            killed_cgroup=report.killed,
            limit_cgroup=report.limit,
            constraint=constraint,
            uid=int(line["uid"]) if line["uid"] else report.uid if uid is None else uid,
            memory_limit_bytes=report.limit_bytes if constraint == "memcg" else None,
            repeated=repeated,
            **numbers,
        )

    def _report_of(self, now_us: int, pid: int, comm: str) -> tuple[_Report, bool]:
        """What was said of this process before, and whether its kill was told already."""
        group = self._group
        if group is not None and now_us - group.time_us <= _GROUP_PAUSE_US:
            repeated = pid in group.pids
            group.pids.add(pid)
            self._group = group._replace(time_us=now_us)
            return group.report, repeated
        self._group = None
        report = self._reports.pop(pid, None)
        if report is None and len(self._legacy) == 1:
            report = self._legacy.pop()
        if report is None or now_us - report.time_us > _STALE_US:
            return _Report(now_us), False
        return (_read_summary(report, comm) if report.line else report), False


def _read_summary(report: _Report, comm: str) -> _Report:
    """Take a summary apart. Names may hold commas and `=`: the task's is known, and who is killed is below the limit."""
    suffix = f",task={comm}"
    line = report.line.removesuffix(suffix) if report.line.endswith(suffix) else report.line.rpartition(",task=")[0]
    found = _SUMMARY.fullmatch(line)
    if not found:
        return report
    limit, killed = "", found["killed"] or ""
    parts = (found["memcgs"] or "").split(",task_memcg=")
    for cut in range(len(parts) - 1, 0, -1):
        limit, killed = ",task_memcg=".join(parts[:cut]), ",task_memcg=".join(parts[cut:])
        if f"{killed}/".startswith(f"{limit.rstrip('/')}/"):
            break
    return report._replace(constraint=_CONSTRAINTS.get(found["constraint"], ""), killed=killed, limit=limit)


_SIZES: Final = {
    "total-vm": "total_vm_bytes",
    "vsz": "total_vm_bytes",
    "anon-rss": "anon_rss_bytes",
    "file-rss": "file_rss_bytes",
    "shmem-rss": "shmem_rss_bytes",
}
_SIZE: Final = re.compile(r"\b(total-vm|vsz|anon-rss|file-rss|shmem-rss):(\d{1,18})kB")
_OTHER: Final = re.compile(r"\b(UID|oom_score_adj):(-?\d{1,10})\b")


def _numbers(text: str) -> dict[str, Any]:
    numbers = {_SIZES[name]: int(number) * 1024 for name, number in _SIZE.findall(text)}
    numbers.update((name.lower(), int(number)) for name, number in _OTHER.findall(text))
    return numbers


def _trim(entries: dict[Any, Any]) -> None:
    while len(entries) > _MOST:
        del entries[next(iter(entries))]
