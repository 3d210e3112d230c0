"""What others ask for the same: cAdvisor, Telegraf and the OpenTelemetry Collector by turns with the agent, to the same Kafka.

Each is given as a program that is there already. Whoever is not given does not take part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.agent import LEASH, AgentProcess, Measured, free_port
from benchmarks.cgroups import Cgroups, tenant_command, wait_until
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.containers import DockerContainers, started_engine
from benchmarks.contenders import CONTENDERS, STREAMER, Contender, Host
from benchmarks.cpu import cpu_seconds_of
from streamer.kernel.hierarchy import detect

_READY_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 3.0
_OTHER: Final = -1
_ALL: Final = 0.98  # of the containers: so many have to be seen before a window begins


class Window(NamedTuple):
    """One contender in one window: CPU as a share of one core; rates per second.

    own       samples of the benchmark's containers; `others`, those of whatever else it sampled
    """

    contender: str
    cpu: float
    docker_cpu: float
    broker_cpu: float
    rss_bytes: int
    messages: float
    value_bytes: float
    stored_bytes: float
    seen: int
    own: float
    others: float

    @property
    def samples(self) -> float:
        return self.own + self.others


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks peers`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--containers", type=positive, default=500, metavar="N", help="raw cgroups to make")
    where.add_argument("--docker", type=positive, default=None, metavar="N", help="Docker containers to make, instead")
    for contender in CONTENDERS.values():
        if contender.name != STREAMER:
            only = ", with --docker" if contender.docker_only else ""
            parser.add_argument(f"--{contender.name}", metavar="PROGRAM", help=f"let it take part{only}")
    parser.add_argument(
        "--workload", choices=("idle", "busy"), default="idle", help="processes that sleep, or that do a little twice a second"
    )
    parser.add_argument("--seconds", type=positive, default=30, metavar="S", help="length of a window")
    parser.add_argument("--warm-up", type=positive, default=10, metavar="S", help="from the first samples of all to the window")
    parser.add_argument("--repetitions", type=positive, default=3, metavar="R", help="windows of each, by turns")
    parser.add_argument("--partitions", type=positive, default=6, metavar="P", help="of the Kafka topics")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0, 2 for options that do not go together."""
    programs = {name: program for name in CONTENDERS if name != STREAMER and (program := getattr(args, name))}
    if not args.docker and (cannot := [name for name in programs if CONTENDERS[name].docker_only]):
        print(f"{', '.join(cannot)}: only with --docker", file=sys.stderr)
        return 2
    from tests.support.brokers import KafkaServer

    hierarchies, count = detect(Path("/")), args.docker or args.containers
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        engine = started_engine(stack) if args.docker else None
        progress("a Kafka broker")
        kafka = stack.enter_context(KafkaServer())
        host = Host(kafka.address, engine.host if engine else "", str(engine.directory / "data") if engine else "", directory)
        progress(f"{count} {'Docker containers' if engine else 'cgroups'}")
        if engine:
            containers = stack.enter_context(DockerContainers(engine, hierarchies, count, args.workload))
            wanted = {name: number for number, name in enumerate(containers.own)}
            wanted |= {f"shop-web-{number}": number for number in range(count)}
        else:
            tenant = tenant_command(directory, args.workload)
            wanted = {path: n for n, path in enumerate(stack.enter_context(Cgroups(hierarchies, count, tenant)).paths)}
        lab = Lab(args, host, kafka, engine, wanted)
        asyncio.run(lab.create_topics())
        time.sleep(_SETTLE_SECONDS)
        windows = list(lab.measure(programs))
    return _report(args, count, programs, windows)


class Lab:
    """The host that all take turns on, and what is measured of it. `wanted`: each container's names -> its number."""

    def __init__(self, args: argparse.Namespace, host: Host, kafka: Any, engine: Any, wanted: Mapping[str, int]) -> None:
        self._args, self._host, self._kafka, self._wanted = args, host, kafka, wanted
        self._docker_pids: list[int] = []
        if engine:
            pidfiles = (engine.directory / "docker.pid", engine.directory / "exec" / "containerd" / "containerd.pid")
            self._docker_pids = [int(file.read_text()) for file in pidfiles]
        self._quiet = (0.0, 0.0)

    async def create_topics(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._host.bootstrap)
        await admin.start()
        try:
            names = [topic for contender in CONTENDERS.values() for topic in contender.topics]
            await admin.create_topics([NewTopic(name, self._args.partitions, 1) for name in names])
        finally:
            await admin.close()

    def measure(self, programs: Mapping[str, str]) -> Iterator[Window]:
        """A quiet window and one of each, and again."""
        for repetition in range(1, self._args.repetitions + 1):
            progress(f"repetition {repetition} of {self._args.repetitions}: nobody")
            self._quiet = self._around(lambda: time.sleep(self._args.seconds))
            for name in (STREAMER, *programs):
                progress(f"repetition {repetition} of {self._args.repetitions}: {name}")
                yield self._window(CONTENDERS[name], programs.get(name, ""))

    def _around(self, meanwhile: Callable[[], object]) -> tuple[float, float]:
        """CPU of Docker's daemons and of the broker meanwhile, as shares of one core."""
        pids = [*self._docker_pids, self._kafka._process.pid]
        began, before = time.monotonic(), [cpu_seconds_of(pid) for pid in pids]
        meanwhile()
        after, took = [cpu_seconds_of(pid) for pid in pids], time.monotonic() - began
        shares = [(used - was) / took for used, was in zip(after, before, strict=True)]
        return sum(shares[:-1]), shares[-1]

    def _window(self, contender: Contender, program: str) -> Window:
        first = asyncio.run(self._ends(contender))
        with self._process(contender, program) as process:
            count = len(set(self._wanted.values()))
            seen: set[int] = set()
            place = dict(first)

            def all_there() -> bool:
                process.check()
                now = asyncio.run(self._ends(contender))
                seen.update(asyncio.run(self._arrived(contender, place, now))[0].keys() - {_OTHER})
                place.update(now)
                return len(seen) >= _ALL * count

            if not wait_until(all_there, _READY_SECONDS, every=0.5):
                progress(f"{contender.name}: only {len(seen)} of {count} containers after {_READY_SECONDS:g} s")
            time.sleep(self._args.warm_up)
            start, stored, before = asyncio.run(self._ends(contender)), self._stored(contender), process.cpu_seconds()
            began = time.monotonic()
            docker, broker = self._around(lambda: time.sleep(self._args.seconds))
            used, seconds, rss = process.cpu_seconds() - before, time.monotonic() - began, process.rss_bytes()
            stop, stored = asyncio.run(self._ends(contender)), self._stored(contender) - stored
        samples, messages, size = asyncio.run(self._arrived(contender, start, stop))
        others = samples.pop(_OTHER, 0)
        return Window(
            contender.name, used / seconds, docker - self._quiet[0], broker - self._quiet[1], rss, messages / seconds,
            size / seconds, stored / seconds, len(samples), sum(samples.values()) / seconds,
            others / seconds,
        )  # fmt: skip

    def _process(self, contender: Contender, program: str) -> Measured:
        log = self._host.directory / f"{contender.name}.log"
        if contender.name != STREAMER:
            return Measured([*LEASH, *contender.command(program, self._host)], log)
        arguments = ["--sink", f"kafka://{self._host.bootstrap}", "--interval", "1s", "--listen", f"127.0.0.1:{free_port()}"]
        return AgentProcess(arguments, log, docker=self._host.docker)

    def _stored(self, contender: Contender) -> int:
        """Bytes of its topics' logs on the broker's disk, as they came: compressed."""
        return sum(
            file.stat().st_size
            for topic in contender.topics
            for directory in (self._kafka.directory / "data").glob(f"{topic}-*")
            for file in directory.glob("*.log")
        )

    async def _ends(self, contender: Contender) -> dict[Any, int]:
        async with _consumer(self._host.bootstrap) as consumer:
            return dict(await consumer.end_offsets(self._partitions(contender)))

    def _partitions(self, contender: Contender) -> list[Any]:
        from aiokafka import TopicPartition

        return [TopicPartition(topic, number) for topic in contender.topics for number in range(self._args.partitions)]

    async def _arrived(
        self, contender: Contender, start: Mapping[Any, int], stop: Mapping[Any, int]
    ) -> tuple[Counter[int], int, int]:
        """Samples per container (by number, or `_OTHER`), messages, and bytes of keys, values and headers between two places."""
        samples: Counter[int] = Counter()
        messages = size = 0
        if not (left := [partition for partition in start if stop[partition] > start[partition]]):
            return samples, messages, size
        async with _consumer(self._host.bootstrap) as consumer:
            consumer.assign(left)
            for partition in left:
                consumer.seek(partition, start[partition])
            waiting = set(left)
            while waiting:
                for partition, records in (await consumer.getmany(*waiting, timeout_ms=500)).items():
                    for record in records:
                        if record.offset >= stop[partition]:
                            break
                        messages += 1
                        value = record.value or b""
                        size += len(record.key or b"") + len(value) + sum(len(name) + len(text) for name, text in record.headers)
                        names = contender.sampled(partition.topic, record.key, value)
                        samples.update(self._wanted.get(name, _OTHER) for name in names)
                    if records[-1].offset >= stop[partition] - 1:
                        waiting.discard(partition)
        return samples, messages, size


@contextlib.asynccontextmanager
async def _consumer(bootstrap: str) -> Any:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=1 << 24)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


# what is told of it


def _report(args: argparse.Namespace, count: int, programs: Mapping[str, str], windows: list[Window]) -> int:
    machine = report.machine()
    versions = {name: _version(program) for name, program in programs.items()}
    by_name = {name: [window for window in windows if window.contender == name] for name in (STREAMER, *programs)}
    what = "Docker containers" if args.docker else "cgroups"
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in {**machine, **versions}.items()),
            f"{count} {args.workload} {what}, a sample a second asked for, {args.repetitions} x {args.seconds} s by turns; min / median / max.",
            report.table(
                (
                    "",
                    "CPU, % of a core",
                    "in Docker %",
                    "in Kafka %",
                    "RSS MB",
                    "samples/s and container",
                    "containers",
                    "samples/s of others",
                ),
                [_costs(name, mine, count) for name, mine in by_name.items()],
            ),
            report.table(
                ("", "messages/s", "kB/s", "kB/s stored", "bytes a sample", "stored"),
                [_sizes(name, mine) for name, mine in by_name.items()],
            ),
            report.table(
                ("streamer : it", "CPU", "CPU with Docker's", "the same per sample", "RSS", "stored bytes per sample"),
                [_ratios(name, by_name[STREAMER], by_name[name]) for name in programs],
            )
            if programs
            else "nobody to compare with (--cadvisor, --telegraf, --otelcol)",
        ]
    )
    print(text)
    if args.save:
        figures = {
            "machine": machine,
            "versions": versions,
            "options": plain(args),
            "windows": [each._asdict() for each in windows],
        }
        for path in report.save(f"peers-{'docker' if args.docker else 'cgroups'}-{args.workload}", text, figures):
            print(f"saved to {path}")
    return 0


def _version(program: str) -> str:
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return next(iter((asked.stdout or asked.stderr).strip().splitlines()), "?")


def _costs(name: str, mine: Sequence[Window], count: int) -> list[str]:
    return [
        name,
        report.spread([100 * window.cpu for window in mine]),
        report.spread([100 * window.docker_cpu for window in mine]),
        report.spread([100 * window.broker_cpu for window in mine]),
        report.spread([window.rss_bytes / 1e6 for window in mine]),
        report.spread([window.own / count for window in mine], 2),
        f"{min(window.seen for window in mine)}",
        f"{statistics.median(window.others for window in mine):.1f}",
    ]


def _sizes(name: str, mine: Sequence[Window]) -> list[str]:
    middle = {field: statistics.median(getattr(window, field) for window in mine) for field in Window._fields[1:]}
    samples = statistics.median(window.samples for window in mine) or math.nan
    kilo = [f"{middle[field] / 1000:.1f}" for field in ("value_bytes", "stored_bytes")]
    return [
        name,
        f"{middle['messages']:.1f}",
        *kilo,
        *(f"{middle[field] / samples:.0f}" for field in ("value_bytes", "stored_bytes")),
    ]


def _ratios(name: str, ours: Sequence[Window], theirs: Sequence[Window]) -> list[str]:
    """Of windows that were measured one after the other."""
    figures: tuple[Callable[[Window], float], ...] = (
        lambda window: window.cpu,
        lambda window: window.cpu + window.docker_cpu,
        lambda window: (window.cpu + window.docker_cpu) / (window.samples or math.nan),
        lambda window: window.rss_bytes,
        lambda window: window.stored_bytes / (window.samples or math.nan),
    )
    pairs = list(zip(ours, theirs, strict=True))
    return [name, *(report.spread([figure(mine) / (figure(its) or math.nan) for mine, its in pairs], 2) for figure in figures)]
