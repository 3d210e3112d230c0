"""Many hosts and one broker: what it stores, whether its partitions are balanced, and what reading everything back takes.

The hosts' messages are those of the agent's own fleet, and go through its own sinks, one for each host; no cgroups are read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.cpu import cpu_seconds_of
from benchmarks.messages import Tenants
from streamer.config import Publishing, SinkSettings
from streamer.consume import Selection, reader
from streamer.model.messages import STATS, Message
from streamer.model.wire import Entry, attributes, encode
from streamer.sinks import make
from streamer.sinks.kafka import create_topics
from streamer.sinks.kafka.records import CODECS

_SLICES: Final = 20  # in a second; what is due at one moment is sent together
_US: Final = 1e6
_HUNDRED: Final = 100


class Sent(NamedTuple):
    """What all hosts sent: messages, and bytes of keys, headers and values."""

    messages: int
    bytes: int


class Reading(NamedTuple):
    """Reading everything back: seconds it took, CPU seconds of the reader."""

    seconds: float
    cpu: float


class Run(NamedTuple):
    """One broker, filled and read. `stored_bytes`: on Kafka's disk, in Redis's memory. `partitions`: messages of stats in each."""

    sent: Sent
    agents_cpu: float
    broker_cpu: float
    stored_bytes: int
    partitions: list[int]
    read: Reading
    verify: Reading


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks fleet`."""
    parser.add_argument("--hosts", type=positive, default=20, metavar="N", help="hosts")
    parser.add_argument("--containers", type=positive, default=50, metavar="N", help="containers of each")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="for which each is sampled once a second")
    parser.add_argument("--to", nargs="+", choices=("kafka", "redis"), default=["kafka", "redis"], help="brokers")
    parser.add_argument("--partitions", type=positive, default=6, metavar="P", help="of the Kafka topics")
    parser.add_argument("--compression", choices=tuple(CODECS), default="zstd", help="publishing.kafka_compression")
    parser.add_argument("--repetitions", type=positive, default=3, metavar="R", help="of all of it, with a broker of its own each")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    runs: dict[str, list[Run]] = {name: [] for name in args.to}
    for repetition in range(1, args.repetitions + 1):
        for name in args.to:
            progress(f"repetition {repetition} of {args.repetitions}: {name}")
            with ExitStack() as stack:
                runs[name].append(_run(stack, name, args))
    return _report(args, runs)


def _run(stack: ExitStack, name: str, args: argparse.Namespace) -> Run:
    from tests.support.brokers import KafkaServer, RedisServer

    server: Any = stack.enter_context(KafkaServer() if name == "kafka" else RedisServer())
    if name == "kafka":
        asyncio.run(create_topics(server.url, partitions=args.partitions))
    hosts = [Tenants(args.containers, seed=seed) for seed in range(1, args.hosts + 1)]
    work = [_batches(host, args) for host in hosts]
    sent = _size([batch for batches in work for batch in batches])
    empty, pid = _stored(server, name), server._process.pid
    broker, agents = cpu_seconds_of(pid), time.process_time()
    asyncio.run(_send(server.url, hosts, work, Publishing(kafka_compression=args.compression)))
    agents_cpu, broker_cpu = time.process_time() - agents, cpu_seconds_of(pid) - broker
    stored = _stored(server, name) - empty
    read, partitions, records = asyncio.run(_read(server.url))
    if records != sent.messages:
        raise RuntimeError(f"{records} of {sent.messages} messages are there")
    return Run(sent, agents_cpu, broker_cpu, stored, partitions, read, _verify(server.url))


def _batches(host: Tenants, args: argparse.Namespace) -> list[list[Entry]]:
    """A host's messages, as its agent would send them: all containers' beginnings, then samples slice by slice."""
    position = 0

    def entries(messages: Sequence[Message]) -> list[Entry]:
        nonlocal position
        position += len(messages)
        return [encode(message, position - len(messages) + n, message.time_ms) for n, message in enumerate(messages, 1)]

    samples = list(host.stats(args.containers * args.seconds))
    ends = [len(samples) * n // (_SLICES * args.seconds) for n in range(_SLICES * args.seconds + 1)]
    slices = [samples[start:end] for start, end in pairwise(ends) if end > start]
    return [entries([message for message in host.born if message.topic.lane == "durable" and not message.topic.compacted])] + [
        entries(part) for part in slices
    ]


def _size(batches: Sequence[Sequence[Entry]]) -> Sent:
    messages = total = 0
    for batch in batches:
        messages += len(batch)
        for entry in batch:
            total += len(entry.key) + len(entry.value or b"") + sum(len(name) + len(text) for name, text in attributes(entry))
    return Sent(messages, total)


async def _send(url: str, hosts: Sequence[Tenants], work: Sequence[Sequence[list[Entry]]], publishing: Publishing) -> None:
    """All hosts at the same time, each its batches one after the other."""

    async def one(host: Tenants, batches: Sequence[list[Entry]]) -> None:
        sink = make(SinkSettings(url=url), publishing, host.host_id)
        await sink.connect()
        try:
            for batch in batches:
                await sink.send(batch)
        finally:
            await sink.close()

    await asyncio.gather(*(one(host, batches) for host, batches in zip(hosts, work, strict=True)))


def _stored(server: Any, name: str) -> int:
    if name == "redis":
        return int(
            next(line for line in server.cli("info", "memory").splitlines() if line.startswith("used_memory:")).split(":")[1]
        )
    return sum(file.stat().st_size for file in (server.directory / "data").glob("streamer.*/*.log"))


async def _read(url: str) -> tuple[Reading, list[int], int]:
    """What `consume` takes to hand over every record, undecoded; messages of stats by partition; messages."""
    stream = reader(url, Selection())
    began, cpu = time.perf_counter(), time.process_time()
    places: dict[str, int] = {}
    records = 0
    await stream.open()
    try:
        async for batch in stream.batches():
            records += len(batch.records)
            if batch.place.topic is STATS:
                places[batch.place.name] = places.get(batch.place.name, 0) + len(batch.records)
    finally:
        await stream.close()
    return Reading(time.perf_counter() - began, time.process_time() - cpu), list(places.values()), records


def _verify(url: str) -> Reading:
    """The whole command, its start included."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "streamer", "verify", "--json", url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"streamer verify ended with {process.returncode}: {found.decode()[-3000:]}")
    return Reading(took, used.ru_utime + used.ru_stime)


def _report(args: argparse.Namespace, runs: dict[str, list[Run]]) -> int:
    machine = report.machine()
    head = (
        "", "messages", "raw kB/s per 100 containers", "stored", "agents µs", "broker µs", "fullest partition : mean",
        "read: messages/s", "CPU µs", "verify: messages/s", "CPU µs",
    )  # fmt: skip
    about = f"{args.hosts} hosts with {args.containers} containers, {args.seconds} s of a sample a second, sent without a pause;"
    about += f" {args.repetitions} times, min / median / max; CPU per message."
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            about,
            report.table(head, [_row(name, mine, args) for name, mine in runs.items()]),
        ]
    )
    print(text)
    if args.save:
        figures = {
            "machine": machine,
            "options": plain(args),
            "runs": {name: [each._asdict() for each in mine] for name, mine in runs.items()},
        }
        for path in report.save("fleet", text, json.loads(json.dumps(figures))):
            print(f"saved to {path}")
    return 0


def _row(name: str, mine: Sequence[Run], args: argparse.Namespace) -> list[str]:
    hundreds = args.hosts * args.containers / _HUNDRED
    count = mine[0].sent.messages
    parts = [each.partitions for each in mine]
    return [
        name,
        f"{count}",
        f"{mine[0].sent.bytes / args.seconds / hundreds / 1000:.0f}",
        report.spread([each.stored_bytes / args.seconds / hundreds / 1000 for each in mine], 0),
        report.spread([each.agents_cpu * _US / count for each in mine]),
        report.spread([each.broker_cpu * _US / count for each in mine]),
        report.spread([max(part) / statistics.fmean(part) for part in parts], 2) if name == "kafka" else "",
        report.spread([count / each.read.seconds for each in mine], 0),
        report.spread([each.read.cpu * _US / count for each in mine]),
        report.spread([count / each.verify.seconds for each in mine], 0),
        report.spread([each.verify.cpu * _US / count for each in mine]),
    ]
