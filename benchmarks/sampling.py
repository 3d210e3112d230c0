"""What a sample costs: CPU per container and sample, from cgroup files to acknowledged message.

Beside it, in the same run and alternating with it, a C loop that preads the same files of the same cgroups and does
nothing else: what the kernel charges. The ratio of the two is the figure; README.md says what it does not show.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import cpu, report, stages
from benchmarks.agent import AgentProcess, free_port
from benchmarks.cgroups import Cgroups, tenant_command, wait_until
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.containers import DockerContainers, started_engine
from benchmarks.ends import End, open_ends
from benchmarks.yardstick import PACED, UNPACED, Yardstick
from streamer.kernel.hierarchy import Hierarchies, detect

_READY_SECONDS: Final = 60.0
_REST_SECONDS: Final = 5.0
_ENOUGH: Final = 0.95  # of the samples asked for; fewer, and the figure would be that of an agent that does not keep up
_STRANGERS: Final = 0.02  # samples of others, as a share of ours, that are not worth a word
_US: Final = 1e6

Tenants = Cgroups | DockerContainers


class Configuration(NamedTuple):
    """One way to run the agent."""

    sink: str
    http: bool

    @property
    def label(self) -> str:
        return f"{self.sink}, HTTP {'on' if self.http else 'off'}"


class Floor(NamedTuple):
    """CPU of the C loop in µs per container and round: with pauses, as the agent makes them, and round after round."""

    paced_us: float
    unpaced_us: float


class Window(NamedTuple):
    """What an agent, and all the machine, used in one window; the `samples` that arrived; `own`, those of the benchmark's cgroups."""

    usage: cpu.Usage
    not_idle: float
    samples: int
    own: int
    rss_bytes: int


class Turn(NamedTuple):
    """One run of the agent, and the mean of the runs of the C loop right before and after it. Times in µs per sample."""

    configuration: str
    floor: Floor
    cpu_us: float
    user_us: float
    system_us: float
    reads: float
    samples_per_second: float
    own_per_second: float
    rss_bytes: int

    @property
    def ratio(self) -> float:
        return self.cpu_us / self.floor.paced_us


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks sampling`."""
    parser.add_argument("--containers", type=positive, default=500, metavar="N", help="cgroups to make and sample")
    parser.add_argument("--docker", action="store_true", help="let them be those of Docker containers, in an engine of its own")
    parser.add_argument(
        "--seconds",
        type=positive,
        default=30,
        metavar="S",
        help="length of a measured window of the agent; the C loop runs for a third of it before and after",
    )
    parser.add_argument("--warm-up", type=positive, default=5, metavar="S", help="time from the first samples to the window")
    parser.add_argument("--repetitions", type=positive, default=3, metavar="R", help="runs of every configuration, alternating")
    parser.add_argument(
        "--workload", choices=("idle", "busy"), default="idle", help="processes that sleep, or that do a little twice a second"
    )
    parser.add_argument("--sink", choices=("file", "kafka", "both"), default="both", help="where the agent publishes to")
    parser.add_argument("--http", choices=("off", "on", "both"), default="both", help="with the sidecar or without")
    parser.add_argument("--partitions", type=positive, default=6, metavar="P", help="of the Kafka topics")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0, or 1 when samples did not arrive at the pace asked for, so that the ratio means little."""
    sinks = ("file", "kafka") if args.sink == "both" else (args.sink,)
    https = (False, True) if args.http == "both" else (args.http == "on",)
    configurations = [Configuration(sink, http) for sink in sinks for http in https]
    hierarchies = detect(Path("/"))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        ends = open_ends(stack, sinks, args.partitions, directory)
        engine = started_engine(stack) if args.docker else None
        bench = Bench(args, hierarchies, ends, directory, engine.host if engine else "")
        progress("agents at rest")
        rest = {configuration.label: bench.rest(configuration) for configuration in configurations}
        cgroups: Tenants
        if engine:
            progress(f"{args.containers} Docker containers")
            cgroups = stack.enter_context(DockerContainers(engine, hierarchies, args.containers, args.workload))
        else:
            tenant = tenant_command(directory, args.workload)
            cgroups = stack.enter_context(Cgroups(hierarchies, args.containers, tenant))
        turns = list(bench.measure(cgroups, configurations))
        progress("stages")
        breakdown = stages.measure(hierarchies, cgroups.paths, {name: end.url for name, end in ends.items()})
    return _report(args, bench, turns, rest, breakdown)


class Bench:
    """Everything that the measurements share."""

    def __init__(
        self, args: argparse.Namespace, hierarchies: Hierarchies, ends: dict[str, End], directory: Path, docker: str
    ) -> None:
        self._args, self._hierarchies, self._ends, self._directory, self._docker = args, hierarchies, ends, directory, docker
        self._yardstick = Yardstick(directory)
        self.mode = hierarchies.mode
        self.in_ticks: Final = self._yardstick.in_ticks
        self.files: list[str] = []
        self.held: set[str] = set()

    def rest(self, configuration: Configuration) -> int:
        """Resident bytes of an agent on a host without our cgroups."""
        with self._agent(configuration) as agent:
            time.sleep(_REST_SECONDS)
            return agent.rss_bytes()

    def measure(self, cgroups: Tenants, configurations: list[Configuration]) -> Iterator[Turn]:
        """The C loop and the agent by turns."""
        listing = cgroups.listing()
        self.files = ["net/dev" if file.endswith("/net/dev") else Path(file).name for file in listing[0]]
        self._yardstick.take(listing)
        before = self._floor()
        for repetition in range(1, self._args.repetitions + 1):
            for configuration in configurations:
                progress(f"repetition {repetition} of {self._args.repetitions}: {configuration.label}")
                window = self._window(configuration, cgroups)
                after = self._floor()
                floor = Floor(*(statistics.mean(pair) for pair in zip(before, after, strict=True)))
                yield _turn(configuration, window, floor, self.in_ticks)
                before = after

    def _floor(self) -> Floor:
        seconds = max(1, self._args.seconds // 3)
        return Floor(self._yardstick.us(seconds, PACED), self._yardstick.us(max(1, seconds // 5), UNPACED))

    def _window(self, configuration: Configuration, cgroups: Tenants) -> Window:
        end, count = self._ends[configuration.sink], len(cgroups.paths)
        first = end.mark()
        with self._agent(configuration) as agent:

            def all_there() -> bool:
                agent.check()
                return end.delivered(first, end.mark(), cgroups.own).own >= 2 * count

            if not wait_until(all_there, _READY_SECONDS, every=0.5):
                raise RuntimeError(
                    f"{_READY_SECONDS:g} s after the agent's start not every cgroup's samples had arrived at {end.url}"
                )
            time.sleep(self._args.warm_up)
            start, before, machine_before = end.mark(), agent.usage(), cpu.not_idle_seconds()
            time.sleep(self._args.seconds)
            stop, after, machine_after = end.mark(), agent.usage(), cpu.not_idle_seconds()
            self.held = agent.open_files(cgroups.paths[0].rpartition("/")[0] + "/") or self.held
            rss = agent.rss_bytes()
        return Window(after.since(before), machine_after - machine_before, *end.delivered(start, stop, cgroups.own), rss)

    def _agent(self, configuration: Configuration) -> AgentProcess:
        listen = f"127.0.0.1:{free_port()}" if configuration.http else "off"
        return AgentProcess(
            ["--sink", self._ends[configuration.sink].url, "--interval", "1s", "--listen", listen],
            self._directory / "log",
            docker=self._docker,
        )


def _turn(configuration: Configuration, window: Window, floor: Floor, in_ticks: bool) -> Turn:
    samples, usage = max(1, window.samples), window.usage
    used = window.not_idle if in_ticks else usage.cpu
    return Turn(
        configuration.label, floor, used * _US / samples, usage.user * _US / samples, usage.system * _US / samples,
        usage.reads / samples, window.samples / usage.at, window.own / usage.at, window.rss_bytes,
    )  # fmt: skip


def _report(args: argparse.Namespace, bench: Bench, turns: list[Turn], rest: dict[str, int], breakdown: stages.Stages) -> int:
    machine = report.machine()
    late = [turn for turn in turns if turn.own_per_second < _ENOUGH * args.containers - 1]
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"{args.containers} {args.workload} {'Docker containers' if args.docker else 'cgroups'} (cgroup {bench.mode}), a sample a second, {args.repetitions} x {args.seconds} s. CPU in µs per sample, min / median / max.",
            _turns_table(turns, rest),
            *([cpu.IN_TICKS] if bench.in_ticks else []),
            f"{len(bench.files)} files per container: {', '.join(bench.files)}. " + _held(bench, args.containers),
            "Where it goes (each stage alone, without a pause, so with warm caches: the sum is less than the whole):",
            breakdown.table(),
        ]
    )
    print(text)
    for turn in late:
        print(f"{turn.configuration}: only {turn.own_per_second:.1f} samples/s of {args.containers} arrived", file=sys.stderr)
    if any(turn.samples_per_second > turn.own_per_second + _STRANGERS * args.containers for turn in turns):
        print(
            "other containers were sampled too, and their coming and going costs as well: repeat this on a quiet host",
            file=sys.stderr,
        )
    if args.save:
        figures = {
            "machine": machine,
            "options": plain(args),
            "turns": [_figures(turn) for turn in turns],
            "rest_bytes": rest,
            "stages_us": breakdown.us,
        }
        words = ["sampling", *(["docker"] if args.docker else []), *(["v2"] if bench.mode == "v2" else []), args.workload]
        for path in report.save("-".join(words), text, figures):
            print(f"saved to {path}")
    return 1 if late else 0


def _turns_table(turns: list[Turn], rest: dict[str, int]) -> str:
    head = [
        "agent",
        "C loop",
        "agent CPU",
        "of it user",
        "ratio",
        "ratio to C without pauses",
        "samples/s",
        "of them ours",
        "read calls",
        "RSS MB, at rest",
        "with all",
    ]
    rows = []
    for label in dict.fromkeys(turn.configuration for turn in turns):
        mine = [turn for turn in turns if turn.configuration == label]
        rows.append(
            [
                label,
                report.spread([turn.floor.paced_us for turn in mine]),
                report.spread([turn.cpu_us for turn in mine]),
                report.spread([turn.user_us for turn in mine]),
                report.spread([turn.ratio for turn in mine], 2),
                report.spread([turn.cpu_us / turn.floor.unpaced_us for turn in mine], 2),
                f"{statistics.median(turn.samples_per_second for turn in mine):.1f}",
                f"{statistics.median(turn.own_per_second for turn in mine):.1f}",
                f"{statistics.median(turn.reads for turn in mine):.1f}",
                f"{rest[label] / 1e6:.1f}",
                f"{max(turn.rss_bytes for turn in mine) / 1e6:.1f}",
            ]
        )
    return report.table(head, rows)


def _held(bench: Bench, containers: int) -> str:
    """What the agent holds open of the files that the C loop reads; read calls per sample show that it reads the others too."""
    held = {file.rpartition("/")[2] for file in bench.held}
    text = f"The agent holds {len(bench.held) / containers:.1f} open per container"
    if anew := [file for file in bench.files if file not in held]:
        text += f" and opens anew for each sample: {', '.join(anew)}"
    if others := sorted(held.difference(bench.files)):
        text += f"; it also reads what the C loop does not: {', '.join(others)}"
    return f"{text}."


def _figures(turn: Turn) -> dict[str, Any]:
    return {**turn._asdict(), "floor": turn.floor._asdict(), "ratio": turn.ratio}
