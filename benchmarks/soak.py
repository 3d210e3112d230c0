"""Hours of an agent's life: memory, descriptors, threads, CPU, delivery, every ten seconds, and whether any of it grows.

The report is written every ten minutes and at the end, also when the run is ended early (SIGTERM, Ctrl-C).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.agent import SecondAgent, total
from benchmarks.cgroups import Cgroups, tenant_command
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.drawing import Panel, picture
from benchmarks.ends import KafkaEnd
from streamer.kernel.hierarchy import detect

_REPORT_SECONDS: Final = 600.0
_BLOCKS: Final = 12
_T: Final = 2.228  # Student's t for 95 % and _BLOCKS - 2 degrees of freedom
_MB: Final = 1e6
_PARTS: Final = ("containers", "samples", "statistics", "deleted", "events")  # of `streamer_memory_bytes`
_OF_IT: Final = {  # rows of the report: what makes up its own memory
    **{part: f"{part}_bytes" for part in _PARTS},
    "not counted by the agent": "uncounted",
}
_KAFKA_KEEPS: Final[dict[str, Any]] = {  # so that the disk does not fill, however long it runs
    "log_retention_bytes": "40000000",
    "log_segment_bytes": "10000000",
    "log_retention_check_interval_ms": "30000",
    "log_segment_delete_delay_ms": "1000",
}


class Look(NamedTuple):
    """One look at the agent. Counters count from its start; `cpu` is in seconds, `backlog` in messages, memory in bytes.

    anonymous  memory that belongs to no file. Of PSS a part is the agent's share of the interpreter's file, which
               grows when other programs in Python end
    *_bytes    what the agent counts itself, by what it is
    """

    hours: float
    rss: int
    pss: int
    descriptors: int
    threads: int
    cpu: float
    samples: float
    skipped: float
    delivered: float
    backlog: float
    dropped: float
    failures: float
    gaps: float
    containers: float
    deleted_kept: float
    state_bytes: float
    churned: int
    anonymous: int
    containers_bytes: float
    samples_bytes: float
    statistics_bytes: float
    deleted_bytes: float
    events_bytes: float

    @property
    def counted(self) -> float:
        """Bytes that the agent counts itself: all that it holds for queries."""
        return sum(getattr(self, f"{part}_bytes") for part in _PARTS)

    @property
    def uncounted(self) -> float:
        """What of its own memory is left: the interpreter, code, decisions, buffers, holes."""
        return self.anonymous - self.counted


class Trend(NamedTuple):
    """A straight line through the medians of twelve equal parts of the time after the warm-up: per hour, and half of its 95 % interval.

    Looks that follow each other are alike, so that a line through all of them would seem far more certain than it is.
    """

    per_hour: float
    margin: float

    def text(self, unit: float, name: str) -> str:
        return f"{self.per_hour / unit:+.3f} ± {self.margin / unit:.3f} {name}/h"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks soak`."""
    parser.add_argument("--hours", type=float, default=2.0, metavar="H", help="length of the run")
    parser.add_argument("--containers", type=positive, default=500, metavar="N", help="cgroups to make and sample")
    parser.add_argument("--workload", choices=("idle", "busy"), default="busy", help="processes that sleep, or that do a little")
    parser.add_argument("--sink", choices=("file", "kafka"), default="kafka", help="where to; the file is emptied again and again")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="S", help="time between two looks, and life of a churned cgroup"
    )
    parser.add_argument("--warm-up", type=float, default=0.25, metavar="H", help="left out of the trends, at most half of the run")
    parser.add_argument("--out", type=Path, help="folder for looks, log and partial reports; default: a temporary one")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="no run: report on the looks of another one, with another --warm-up"
    )
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, report. Returns 0, or 1 when the stream read back is not whole."""
    if args.again:
        return _again(args)
    hierarchies = detect(Path("/"))
    with ExitStack() as stack:
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        out.mkdir(parents=True, exist_ok=True)
        broker, end = _sink(stack, args.sink, out)
        tenant = tenant_command(out, args.workload)
        progress(f"{args.containers} cgroups")
        cgroups = stack.enter_context(Cgroups(hierarchies, args.containers, tenant, hidden=True))
        course = Course(args, out, end or args.sink)
        try:
            with SecondAgent(broker, out / "agent.log", cgroups.alone()) as agent:
                course.follow(agent, cgroups)
        except KeyboardInterrupt:
            progress("ended early")
        finally:
            course.verified = _verified(broker) if end else None
            course.write("end")
    print(course.text())
    if args.save and len(course.looks) > 1:
        for path in course.save():
            print(f"saved to {path}")
    return 0 if course.verified is None or course.verified["ok"] else 1


def _again(args: argparse.Namespace) -> int:
    course = Course(args, args.out or args.again.parent, args.sink)
    course.looks = [Look(**json.loads(line)) for line in args.again.read_text().splitlines()]
    course.write("again")
    print(course.text())
    if args.save:
        course.save()
    return 0


def _sink(stack: ExitStack, kind: str, out: Path) -> tuple[str, str]:
    """The sink's URL, and how it is described where it can be read back."""
    if kind == "file":
        file = out / "messages.jsonl"
        file.unlink(missing_ok=True)
        return file.as_uri(), ""
    from tests.support.brokers import KafkaServer

    progress("a Kafka broker")
    broker = stack.enter_context(KafkaServer(**_KAFKA_KEEPS))
    return KafkaEnd(broker.address, 6).url, "kafka, 6 partitions, 40 MB kept of each"


def _verified(url: str) -> dict[str, Any]:
    """What `streamer verify` says of the stream."""
    progress("reading the stream back")
    command = [sys.executable, "-m", "streamer", "verify", "--json", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        return {"ok": False, "records": 0, "counts": {}, "rows": [], "findings": [], "error": done.stderr[-2000:]}
    told: dict[str, Any] = json.loads(done.stdout)
    return told


class Course:
    """The looks so far, and what follows from them."""

    def __init__(self, args: argparse.Namespace, out: Path, sink: str) -> None:
        self._args, self._out, self._sink = args, out, sink
        self._machine = report.machine()
        self.looks: list[Look] = []
        self.verified: dict[str, Any] | None = None

    def follow(self, agent: SecondAgent, cgroups: Cgroups) -> None:
        """Look every so often until the time is over; between two looks a cgroup is made and removed."""
        agent.wait_sampled(self._args.containers)
        progress(f"{self._args.hours:g} h; reports in {self._out}")
        began = reported = time.monotonic()
        churned = 0
        with (self._out / "looks.jsonl").open("w") as file:
            for due in _every(self._args.every, began, began + self._args.hours * 3600):
                look = _look(agent, (time.monotonic() - began) / 3600, churned)
                self.looks.append(look)
                file.write(json.dumps(look._asdict()) + "\n")
                file.flush()
                if self._args.sink == "file":
                    (self._out / "messages.jsonl").open("r+b").truncate(0)  # the sink appends: it goes on at the beginning
                if time.monotonic() - reported >= _REPORT_SECONDS:
                    reported = time.monotonic()
                    self.write("partial")
                with cgroups.one_more(f"churn{churned:06}"):
                    churned += 1
                    time.sleep(max(0.0, due - time.monotonic() - 1))  # so that it has ended when the next look is taken

    def write(self, name: str) -> None:
        """Report and picture, into the output folder."""
        if len(self.looks) > 1:
            (self._out / f"report-{name}.md").write_text(self.text() + "\n")
            (self._out / f"report-{name}.svg").write_text(self.svg())

    def save(self) -> list[Path]:
        """Into `results/`."""
        figures = {
            "machine": self._machine,
            "options": plain(self._args),
            "trends": {name: trend._asdict() for name, trend in self._trends().items()},
            "verified": self.verified and {key: self.verified[key] for key in ("ok", "records", "counts")},
            "looks": [list(look) for look in self.looks],
            "columns": Look._fields,
        }  # fmt: skip
        files = report.save(f"soak-{self._args.workload}", self.text(), figures)
        drawn = files[0].with_suffix(".svg")
        drawn.write_text(self.svg())
        return [*files, drawn]

    def text(self) -> str:
        """The report as Markdown."""
        if len(self.looks) < 2:
            return "no looks"
        first, last = self.looks[0], self.looks[-1]
        seconds = (last.hours - first.hours) * 3600
        settled = self._settled()
        trends = self._trends()
        rows = [
            ("RSS MB", *_extremes(settled, lambda look: look.rss / _MB), trends["rss"].text(_MB, "MB")),
            ("PSS MB", *_extremes(settled, lambda look: look.pss / _MB), trends["pss"].text(_MB, "MB")),
            ("its own (anonymous) MB", *_extremes(settled, lambda look: look.anonymous / _MB), trends["anonymous"].text(_MB, "MB")),
            *(
                (f"of it {part}, MB", *_extremes(settled, lambda look, name=name: getattr(look, name) / _MB), trends[name].text(_MB, "MB"))
                for part, name in _OF_IT.items()
            ),
            ("descriptors", *_extremes(settled, lambda look: look.descriptors, 0), trends["descriptors"].text(1, "")),
            ("threads", *_extremes(settled, lambda look: look.threads, 0), trends["threads"].text(1, "")),
            ("CPU, % of a core", *_extremes(_rates(settled, "cpu"), lambda rate: rate * 100), _of_rates(settled, "cpu").text(0.01, "%")),
            ("samples/s", *_extremes(_rates(settled, "samples"), lambda rate: rate), _of_rates(settled, "samples").text(1, "/s")),
            ("waiting in the outbox", *_extremes(settled, lambda look: look.backlog, 0), ""),
            ("state file, MB", *_extremes(settled, lambda look: look.state_bytes / _MB), ""),
        ]  # fmt: skip
        counts = (
            f"{last.samples:.0f} samples ({(last.samples - first.samples) / seconds:.1f} a second), {last.skipped:.0f} left out by the sampler, "
            f"{last.delivered:.0f} messages acknowledged, {last.dropped:.0f} dropped, {last.failures:.0f} failed sends, {last.gaps:.0f} gaps; "
            f"{last.churned} cgroups made and removed meanwhile."
        )
        about = (
            f"{last.hours:.2f} h, {self._args.containers} {self._args.workload} cgroups, a sample a second, to {self._sink}; {len(self.looks)} looks. "
            f"The table leaves out the first {self._warm_up():.2f} h. Trend: a line through the medians of {_BLOCKS} parts, with its 95 % interval."
        )
        parts = [
            "\n".join(f"{name}: {value}" for name, value in self._machine.items()),
            about,
            report.table(("", "min / median / max", "trend"), rows),
            counts,
        ]
        if self.verified is not None:
            parts.append(_verdict(self.verified))
        return "\n\n".join(parts)

    def svg(self) -> str:
        """The picture of the course."""
        looks = self.looks
        rated = [looks[0], *looks]
        panels = [
            Panel("memory, MB", {"RSS": [look.rss / _MB for look in looks], "PSS": [look.pss / _MB for look in looks]}),
            Panel(
                "its own (anonymous) memory, MB",
                {"all": [look.anonymous / _MB for look in looks], "counted": [look.counted / _MB for look in looks]},
            ),
            Panel("descriptors", {"": [look.descriptors for look in looks]}, from_zero=False),
            Panel("CPU, % of a core", {"": [rate * 100 for rate in _rates(rated, "cpu")]}),
            Panel("samples a second", {"": _rates(rated, "samples")}),
            Panel("messages waiting in the outbox", {"": [look.backlog for look in looks]}),
        ]
        title = f"streamer, {self._args.containers} {self._args.workload} cgroups, 1 s, {self._sink.split(',')[0]}"
        return picture(title, [look.hours for look in looks], "hours", panels)

    def _warm_up(self) -> float:
        return float(min(self._args.warm_up, self.looks[-1].hours / 2))

    def _settled(self) -> list[Look]:
        warm = self._warm_up()
        return [look for look in self.looks if look.hours >= warm]

    def _trends(self) -> dict[str, Trend]:
        settled = self._settled()
        names = ("rss", "pss", "anonymous", *_OF_IT.values(), "descriptors", "threads")
        return {name: trend([(look.hours, float(getattr(look, name))) for look in settled]) for name in names}


def _look(agent: SecondAgent, hours: float, churned: int) -> Look:
    told = agent.metrics()
    return Look(
        hours, agent.rss_bytes(), agent.pss_bytes(), agent.descriptors(), agent.threads(), agent.usage().cpu,
        told["streamer_samples_total"], told["streamer_samples_skipped_total"], total(told, "streamer_sink_delivered_total"),
        total(told, "streamer_sink_backlog_messages"), total(told, "streamer_sink_dropped_total"),
        total(told, "streamer_sink_failures_total"), total(told, "streamer_gaps_total"), told["streamer_containers"],
        told["streamer_memory_deleted_containers"], total(told, "streamer_state_bytes"), churned, agent.anonymous_bytes(),
        *(told[f'streamer_memory_bytes{{of="{part}"}}'] for part in _PARTS),
    )  # fmt: skip


def _every(seconds: float, began: float, until: float) -> Iterator[float]:
    """Yields at this pace, each time with the moment of the next one."""
    due = began
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + seconds, time.monotonic())
        yield due


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Of (hours, value); no trend where there are fewer than two points for each part."""
    size = len(points) // _BLOCKS
    if size < 2:
        return Trend(0.0, float("inf"))
    parts = [points[at * size : (at + 1) * size] for at in range(_BLOCKS)]
    x = [statistics.fmean(hour for hour, _ in part) for part in parts]
    y = [statistics.median(value for _, value in part) for part in parts]
    line = statistics.linear_regression(x, y)
    rest = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True)) / (_BLOCKS - 2)
    return Trend(line.slope, _T * math.sqrt(rest / sum((a - statistics.fmean(x)) ** 2 for a in x)))


def _rates(looks: Sequence[Look], name: str) -> list[float]:
    """What a counter grew by in a second, between each two looks."""
    rates = []
    for before, after in itertools.pairwise(looks):
        seconds = (after.hours - before.hours) * 3600
        rates.append((getattr(after, name) - getattr(before, name)) / seconds if seconds else 0.0)
    if len(rates) > 1 and looks[0] is looks[1]:
        rates[0] = rates[1]
    return rates


def _of_rates(looks: Sequence[Look], name: str) -> Trend:
    return trend([(look.hours, rate) for look, rate in zip(looks[1:], _rates(looks, name), strict=True)])


def _extremes(items: Sequence[Any], of: Callable[[Any], float], digits: int = 1) -> tuple[str]:
    return (report.spread([of(item) for item in items], digits),)


def _verdict(told: dict[str, Any]) -> str:
    if "error" in told:
        return f"Reading it back failed: {told['error']}"
    found = ", ".join(f"{number} {kind}" for kind, number in told["counts"].items()) or "nothing to complain about"
    rows = [(row["topic"], row["seen"], row["repeats"], row["declared"], row["undeclared"], row["expired"]) for row in told["rows"]]
    table = report.table(("topic", "seen", "repeats", "declared lost", "missing", "before what is kept"), rows)
    return f"`streamer verify` of what the broker still has: {'whole' if told['ok'] else 'NOT whole'}; {found}.\n\n{table}"
