"""From a fact to the one who waits for it: cgroups made and removed, OOM kills, while 500 others are sampled each second.

To the acknowledgement of Kafka, Redis and a file, to a consumer there, and to a client of the sidecar's event stream.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import console, report
from benchmarks.agent import SecondAgent, total
from benchmarks.arrivals import Arrivals, Fact, fact_of
from benchmarks.cgroups import Cgroups, remove_tree, tenant_command, wait_until
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.ends import open_ends
from benchmarks.latency_broker import warm_kafka
from streamer.kernel.hierarchy import detect

_SETTLE_SECONDS: Final = 4.0
_ALIVE_MS: Final = 50  # what lives for less may be gone before anybody could look at it, and is said to be
_APART_SECONDS: Final = (0.015, 0.045)  # not in step with anything
_KILLS_APART_SECONDS: Final = 0.55  # the kernel tells of ten in five seconds in full
_LATE_SECONDS: Final = 3.0
_OOM_LIMIT_BYTES: Final = 4 << 20
_KILLED: Final = re.compile(rb"^\d+,\d+,(\d+),[^;]*;.*Killed process (\d+) \(")
_MARK: Final = re.compile(rb"^\d+,\d+,(\d+),[^;]*;streamer-bench-%d mark (\d+)" % os.getpid())  # another run's are none of ours
_MS: Final = 1e6
_US: Final = 1e3
_MARKED_WITHIN_NS: Final = 20_000  # a mark that took longer may be wrong by so much; one alone takes 2 µs
_MARKS_AT_MOST: Final = 20
_TARGETS_MS: Final = {"/events": (1.5, 15.0)}
_TARGET_MS: Final = (3.0, 15.0)  # p50, p99
_PARTITIONS: Final = 6
_QUIET_OOM: Final = "oom, console quiet"


class Way(NamedTuple):
    """From the facts to where they arrive. `late`: how long each fact took, ms; `calls`: how long its system call took, ms (of a kill: 0).

    `missing` may be declared: `gaps` is how often the agent said, in all of the run, that it had not seen everything.
    `promised`: whether anything is of it; a reader's own work is in what he waits for, but for one of `/events`.
    """

    end: str
    what: str
    late: list[float]
    calls: list[float]
    missing: int
    gaps: float
    promised: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks latency`."""
    ends = ("kafka", "redis", "file", "events")
    parser.add_argument(
        "--to", nargs="+", choices=ends, default=list(ends), help="who waits: at a sink, or at the sidecar's /events"
    )
    parser.add_argument("--containers", type=positive, default=500, metavar="N", help="cgroups that are sampled meanwhile")
    parser.add_argument("--workload", choices=("idle", "busy"), default="idle", help="what their processes do")
    parser.add_argument("--lives", type=positive, default=300, metavar="N", help="cgroups to make and remove")
    parser.add_argument(
        "--alive",
        type=positive,
        default=_ALIVE_MS,
        metavar="MS",
        help="how long each of them is there, at least; at most 1.6 times that",
    )
    parser.add_argument(
        "--kills",
        type=positive,
        default=100,
        metavar="N",
        help="OOM kills; where a console shows them, so many with it and so many without, by turns",
    )
    parser.add_argument("--state", choices=("on", "off"), default="on", help="with the agent's state file or without")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0, or 1 when a fact did not arrive."""
    hierarchies = detect(Path("/"))
    ways: list[Way] = []
    broker: list[float] = []  # how long it takes alone, ms
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        progress(f"{args.containers} cgroups")
        cgroups = stack.enter_context(Cgroups(hierarchies, args.containers, tenant_command(directory, args.workload)))
        for end in args.to:
            progress(end)
            with ExitStack() as its_own:
                if end == "kafka":
                    kafka, broker = warm_kafka(its_own, _PARTITIONS)
                    url = kafka.url
                else:
                    sink = "file" if end == "events" else end
                    url = open_ends(its_own, [sink], _PARTITIONS, directory)[sink].url
                ways += _to(its_own, end, url, args, cgroups, directory)
    return _report(args, ways, broker)


def _to(stack: ExitStack, end: str, url: str, args: argparse.Namespace, cgroups: Cgroups, directory: Path) -> list[Way]:
    more = ["--state-dir", "off"] if args.state == "off" else []
    stamps = directory / f"{end}.stamps"
    module = ("streamer",) if end == "events" else ("benchmarks.latency_stamps", str(stamps))
    agent = stack.enter_context(SecondAgent(url, directory / f"{end}.log", more=more, module=module))
    agent.wait_sampled(2 * args.containers)
    waiting = stack.enter_context(Arrivals(agent.api if end == "events" else url))
    time.sleep(_SETTLE_SECONDS)
    before = agent.metrics()
    began = time.monotonic()
    facts = _lives(cgroups, args.lives, args.alive / 1000) | _kills(cgroups, args.kills)
    seconds = time.monotonic() - began
    sampled = agent.metrics()["streamer_samples_total"] - before["streamer_samples_total"]
    progress(f"{end}: {sampled / seconds:.0f} samples/s meanwhile")
    stamped = end != "events"
    wait_until(
        lambda: facts.keys() <= waiting.first().keys() and (not stamped or facts.keys() <= _acknowledged(stamps).keys()),
        _LATE_SECONDS,
        every=0.2,
    )
    read = waiting.first()
    gaps = total(agent.metrics(), "streamer_gaps_total")
    kinds = dict.fromkeys(timed.kind for timed in facts.values())
    if not stamped:
        return [_way("/events", kind, facts, read, gaps, promised=True) for kind in kinds]
    acknowledged = _acknowledged(stamps)
    ways = [_way(f"{end}, acknowledged", kind, facts, acknowledged, gaps, promised=True) for kind in kinds]
    return ways + [_way(f"{end}, in a reader's hands", kind, facts, read, gaps, promised=False) for kind in kinds]


def _way(end: str, kind: str, facts: dict[Fact, Timed], arrived: dict[Fact, int], gaps: float, *, promised: bool) -> Way:
    mine = {fact: timed for fact, timed in facts.items() if timed.kind == kind}
    late = [(arrived[fact] - timed.began_ns) / _MS for fact, timed in mine.items() if fact in arrived]
    calls = [(timed.done_ns - timed.began_ns) / _MS for timed in mine.values()]
    return Way(end, kind, late, calls, len(mine) - len(late), gaps, promised)


def _acknowledged(stamps: Path) -> dict[Fact, int]:
    """When each fact was first, by the agent's own word, monotonic ns."""
    found: dict[Fact, int] = {}
    for line in stamps.read_bytes().splitlines():  # each was written whole
        at_ns, _, record = line.partition(b" ")
        found.setdefault(fact_of(record), int(at_ns))
    return found


# facts


class Timed(NamedTuple):
    """When a fact began and when it was done, monotonic ns; `kind`: the row that it belongs to."""

    kind: str
    began_ns: int
    done_ns: int


def _lives(cgroups: Cgroups, count: int, alive_seconds: float) -> dict[Fact, Timed]:
    """Make and remove cgroups, in the anchor first; times are those of the system call there."""
    anchor, *others = cgroups.mounts
    facts = {}
    for number in range(count):
        path = f"{cgroups.folder}/life{number:05}"
        facts[Fact("created", path)] = _timed("created", os.mkdir, anchor + path)
        for mount in others:
            os.mkdir(mount + path)
        time.sleep(alive_seconds * random.uniform(1, 1.6))
        facts[Fact("deleted", path)] = _timed("deleted", os.rmdir, anchor + path)
        for mount in others:
            os.rmdir(mount + path)
        time.sleep(random.uniform(*_APART_SECONDS))
    return facts


def _timed(kind: str, call: Any, path: str) -> Timed:
    began = time.monotonic_ns()
    call(path)
    return Timed(kind, began, time.monotonic_ns())


def _kills(cgroups: Cgroups, count: int) -> dict[Fact, Timed]:
    """Processes that take more than they may; a kill has the time that the kernel gave its line in the log.

    Where kills are written to a console, each second one is not: of the others, that is in the figures.
    """
    path = f"{cgroups.folder}/oom"
    kinds = ("oom", _QUIET_OOM) if console.shows_kills() else ("oom",)
    victims: dict[int, str] = {}
    with _KernelLog() as log, _limited(cgroups, path) as join:
        for _ in range(count):
            for kind in kinds:
                time.sleep(_KILLS_APART_SECONDS)
                with console.quiet() if kind == _QUIET_OOM else nullcontext():
                    log.mark()
                    victim = subprocess.Popen(["sh", "-c", f'{join} exec "$@"', "sh", "tail", "/dev/zero"])
                    victim.wait()
                victims[victim.pid] = kind
                log.read()
        time.sleep(0.1)
        log.read()
        return {Fact("oom", str(pid)): Timed(victims[pid], at, at) for pid, at in log.kills.items() if pid in victims}


@contextmanager
def _limited(cgroups: Cgroups, path: str) -> Iterator[str]:
    """A cgroup with a memory limit in every hierarchy; gives shell commands to join it."""
    directories = [Path(mount + path) for mount in cgroups.mounts]
    for directory in directories:
        directory.mkdir()
    try:
        memory = cgroups.hierarchies.directory(cgroups.hierarchies.anchor, path)
        for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
            if Path(memory, file).exists():
                Path(memory, file).write_text(str(_OOM_LIMIT_BYTES))
        if Path(memory, "memory.swap.max").exists():
            Path(memory, "memory.swap.max").write_text("0")
        yield " ".join(f"echo $$ > {directory}/cgroup.procs;" for directory in directories)
    finally:
        for directory in directories:
            remove_tree(directory)


class _KernelLog:
    """`/dev/kmsg`: kills, in our clock. The log has another one; marks that we write ourselves say how far they are apart."""

    def __init__(self) -> None:
        self.kills: dict[int, int] = {}
        self._marked: dict[int, tuple[int, int]] = {}
        self._apart_ns = 0

    def __enter__(self) -> _KernelLog:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._file, 0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def mark(self) -> None:
        """Until one is exact: who is made to wait for a processor between clock and log would put the kills that far off."""
        for _ in range(_MARKS_AT_MOST):
            number = len(self._marked)
            file = os.open("/dev/kmsg", os.O_WRONLY)  # opened anew: how much one may write is limited for each
            try:
                before = time.monotonic_ns()
                os.write(file, b"<15>streamer-bench-%d mark %d\n" % (os.getpid(), number))
                self._marked[number] = before, time.monotonic_ns()
            finally:
                os.close(file)
            if self._marked[number][1] - before <= _MARKED_WITHIN_NS:
                break
        self.read()

    def read(self) -> None:
        while True:
            try:
                record = os.read(self._file, 8192)
            except BlockingIOError:
                return
            except BrokenPipeError:  # what is overwritten is missing: the facts of it, too
                continue
            if found := _MARK.match(record):
                before, after = self._marked[int(found[2])]
                self._apart_ns = (before + after) // 2 - int(found[1]) * 1000
            elif found := _KILLED.match(record):
                self.kills[int(found[2])] = int(found[1]) * 1000 + self._apart_ns


def _report(args: argparse.Namespace, ways: list[Way], broker: list[float]) -> int:
    machine = report.machine()
    rows = []
    for way in ways:
        p50, p99 = _TARGETS_MS.get(way.end, _TARGET_MS)
        late = sorted(way.late) or [float("inf")]
        kept = "yes" if late[len(late) // 2] <= p50 and late[len(late) * 99 // 100] <= p99 else "no"
        rows.append(
            (
                f"{way.what} → {way.end}", len(way.late), *(f"{late[min(len(late) - 1, len(late) * q // 100)]:.2f}" for q in (0, 50, 90, 99, 100)),
                f"{p50:g}, {p99:g}" if way.promised else "", kept if way.promised else "", f"{sorted(way.calls)[len(way.calls) // 2]:.2f}" if any(way.calls) else "", way.missing, f"{way.gaps:.0f}",
            )
        )  # fmt: skip
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"From the fact on, ms; {args.containers} {args.workload} cgroups sampled each second, state file {args.state}.",
            _console(),
            *([_alone(broker)] if broker else []),
            report.table(
                (
                    "",
                    "N",
                    "min",
                    "p50",
                    "p90",
                    "p99",
                    "max",
                    "promised p50, p99",
                    "kept",
                    "of it the system call",
                    "missing",
                    "gaps said",
                ),
                rows,
            ),
        ]
    )
    print(text)
    missing = sum(way.missing for way in ways)
    if missing:
        print(f"{missing} facts did not arrive", file=sys.stderr)
    if args.save:
        figures = {"machine": machine, "options": plain(args), "broker": broker, "ways": [way._asdict() for way in ways]}
        for path in report.save(f"latency-{args.workload}", text, figures):
            print(f"saved to {path}")
    return 1 if missing else 0


def _console() -> str:
    to, by_turns = ", ".join(console.names()) or "nowhere", ""
    if console.shows_kills():
        by_turns = f": a kill is written there before readers of the log are woken, but for those of the rows `{_QUIET_OOM}`"
    return f"The kernel's console: {to}, console_loglevel {console.level()}{by_turns}."


def _alone(broker: list[float]) -> str:
    took = sorted(broker)
    return f"The broker alone acknowledges a record in {took[len(took) // 2]:.2f} ms (p50), {took[len(took) * 99 // 100]:.2f} ms (p99)."
