"""Containers that come and go: 200 a second, each at least 50 ms there. Is every one created and deleted, once and in order?

What the stream tells is read back and held against what was done to the host by the judge of the fault tests.
"""

from __future__ import annotations

import argparse
import heapq
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.agent import SecondAgent, total
from benchmarks.cgroups import Cgroups, tenant_command, wait_until
from benchmarks.command import add_save, plain, positive, progress
from streamer.kernel.hierarchy import detect

_LATE_SECONDS: Final = 20.0
_FOLDER: Final = "/churn"  # below which nobody else makes containers: the agent sees our own cgroups only
_MS: Final = 1e3


class Turn(NamedTuple):
    """One minute of it. `cpu_seconds` is the agent's over `seconds`; `longest_ms` of the lives that were meant to last `alive` ms."""

    sink: str
    lives: int
    seconds: float
    cpu_seconds: float
    shortest_ms: float
    median_ms: float
    longest_ms: float
    rss_bytes: int
    told: dict[str, int]
    samples: int
    gaps: int
    complaints: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks churn`."""
    parser.add_argument("--rate", type=positive, default=200, metavar="N", help="new containers a second")
    parser.add_argument("--alive", type=positive, default=50, metavar="MS", help="how long each is there at least")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="for how long they are made")
    parser.add_argument(
        "--containers", type=positive, default=50, metavar="N", help="others, which stay and are sampled each second"
    )
    parser.add_argument("--sinks", nargs="+", choices=("file", "kafka"), default=["file", "kafka"], help="where to")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, judge, print. Returns 0, or 1 when the judge has a complaint."""
    turns = []
    for sink in args.sinks:
        with ExitStack() as stack:
            progress(sink)
            turns.append(_turn(stack, sink, args))
    machine = report.machine()
    rows = [
        (
            turn.sink, turn.lives, f"{turn.lives / turn.seconds:.1f}", f"{turn.shortest_ms:.1f} / {turn.median_ms:.1f} / {turn.longest_ms:.1f}",
            turn.told["created"], turn.told["deleted"], turn.samples, turn.gaps, len(turn.complaints),
            f"{turn.cpu_seconds / turn.seconds * 100:.1f}", f"{turn.rss_bytes / 1e6:.1f}",
        )
        for turn in turns
    ]  # fmt: skip
    head = (
        "to",
        "lives",
        "a second",
        "alive ms",
        "created",
        "deleted",
        "samples of them",
        "gaps",
        "complaints",
        "CPU, % of a core",
        "RSS MB",
    )
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"{args.rate} containers a second for {args.seconds} s, beside {args.containers} that stay.",
            report.table(head, rows),
        ]
    )
    print(text)
    complaints = [complaint for turn in turns for complaint in turn.complaints]
    for complaint in complaints[:20]:
        print(complaint, file=sys.stderr)
    if args.save:
        figures = {"machine": machine, "options": plain(args), "turns": [turn._asdict() for turn in turns]}
        for path in report.save("churn", text, figures):
            print(f"saved to {path}")
    return 1 if complaints else 0


def _turn(stack: ExitStack, sink: str, args: argparse.Namespace) -> Turn:
    from tests.faults import streams
    from tests.faults.judge import judge
    from tests.faults.ledger import Ledger
    from tests.support.brokers import KafkaServer

    hierarchies = detect(Path("/"))
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
    cgroups = stack.enter_context(Cgroups(hierarchies, args.containers, tenant_command(directory, "idle"), hidden=True))
    broker: Any = None
    url = (directory / "messages.jsonl").as_uri()
    if sink == "kafka":
        from benchmarks.ends import KafkaEnd

        broker = stack.enter_context(KafkaServer())
        url = KafkaEnd(broker.address, 6).url
    ledger = Ledger()
    with SecondAgent(url, directory / "log", cgroups.alone()) as agent:
        agent.wait_sampled(2 * args.containers)
        cpu, began = agent.cpu_seconds(), time.monotonic()
        alive = _churn(cgroups, ledger, args)
        cpu, took = agent.cpu_seconds() - cpu, time.monotonic() - began
        rss = agent.rss_bytes()
        wait_until(lambda: total(agent.metrics(), "streamer_containers") <= args.containers, _LATE_SECONDS, every=0.2)
    stream = streams.from_kafka(broker, "streamer") if broker else streams.from_file(directory / "messages.jsonl")
    verdict = judge(ledger, stream)
    ours = [record for record in stream.records() if str(record.get("container_id", "")).startswith(f"{_FOLDER}/")]
    told = Counter(record["event"] for record in ours if record["type"] == "container.lifecycle")
    samples = sum(record["type"] == "container.stats" for record in ours)
    return Turn(
        sink, len(alive), took, cpu, alive[0], statistics.median(alive), alive[-1], rss, dict(told), samples,
        verdict.gaps, verdict.complaints(),
    )  # fmt: skip


def _churn(cgroups: Cgroups, ledger: Any, args: argparse.Namespace) -> list[float]:
    """Make and remove by a plan; what is late is caught up with. Returns how long each was there, ms, sorted."""
    from tests.faults.ledger import Span

    anchor = cgroups.hierarchies.anchor
    begun: dict[str, float] = {}
    alive: list[float] = []
    ending: list[tuple[float, str]] = []

    def make(path: str) -> None:
        at = time.time_ns()
        for mount in cgroups.mounts:
            os.mkdir(f"{mount}{cgroups.folder}{path}")
        inode = os.stat(f"{cgroups.mounts[0]}{cgroups.folder}{path}").st_ino
        ledger.made(path, ledger.incarnation(anchor, inode), Span(at, time.time_ns()))

    def remove(path: str) -> None:
        at = time.time_ns()
        for mount in cgroups.mounts:
            os.rmdir(f"{mount}{cgroups.folder}{path}")
        ledger.removed(path, Span(at, time.time_ns()))

    make(_FOLDER)
    ledger.folders.append(_FOLDER)
    started, count = time.monotonic(), args.rate * args.seconds
    number = 0
    while number < count or ending:
        due = started + number / args.rate if number < count else float("inf")
        time.sleep(max(0.0, min(due, ending[0][0] if ending else float("inf")) - time.monotonic()))
        if ending and ending[0][0] <= due:
            path = heapq.heappop(ending)[1]
            alive.append((time.monotonic() - begun.pop(path)) * _MS)
            remove(path)
        else:
            path = f"{_FOLDER}/{number:06}"
            make(path)
            begun[path] = time.monotonic()
            heapq.heappush(ending, (begun[path] + args.alive / _MS, path))
            number += 1
    remove(_FOLDER)
    return sorted(alive)
