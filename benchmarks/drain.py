"""How fast a backlog drains: messages a second, and CPU per message of the agent and of the broker, to real brokers.

Beside it the floor: the same bytes, packed beforehand, from a loop that does nothing but hand them over.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.command import add_save, plain, progress
from benchmarks.cpu import cpu_seconds_of
from benchmarks.messages import HOST_ID, Tenants
from streamer import brokers
from streamer.clock import SystemClock
from streamer.config import Outbox as OutboxSettings
from streamer.config import Publishing, SinkSettings
from streamer.contracts import Receipt, Sink
from streamer.model.messages import TOPICS, Message
from streamer.model.wire import Entry, encode
from streamer.outbox.outbox import Outbox
from streamer.sinks import make
from streamer.telemetry import Telemetry

_US: Final = 1e6
_CAP_BYTES: Final = 8_000_000_000
_DEADLINE_SECONDS: Final = 300.0
_CONTAINERS: Final = 200
_HEAP: Final = "-Xmx1g"
_TYPES: Final = {"stats": frozenset({"stats"}), "events": frozenset(topic.short for topic in TOPICS) - {"stats"}}
_MAKE_AT_ONCE: Final = 10_000


class Run(NamedTuple):
    """One drain: CPU in µs per message; `broker_us` is 0 for a file."""

    per_second: float
    agent_us: float
    broker_us: float


class Peer(NamedTuple):
    """Where to drain to. `pid` 0: no process of its own. `floor` hands over what is packed already."""

    name: str
    url: str
    pid: int
    floor: Callable[[Sequence[Entry], str], Run] | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks drain`."""
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="messages in a backlog")
    parser.add_argument("--kinds", nargs="+", choices=tuple(_TYPES), default=list(_TYPES), help="what the backlog is made of")
    parser.add_argument(
        "--sinks", nargs="+", choices=("kafka", "redis", "file"), default=["kafka", "redis", "file"], help="where to"
    )
    parser.add_argument("--repetitions", type=int, default=3, metavar="R", help="measured drains; one before them warms up")
    parser.add_argument("--batch-messages", type=int, default=5000, metavar="N", help="outbox.batch_messages")
    parser.add_argument("--batch-bytes", type=int, default=8_000_000, metavar="N", help="outbox.batch_bytes")
    parser.add_argument("--compression", default="zstd", help="publishing.kafka_compression")
    parser.add_argument("--partitions", type=int, default=6, metavar="P", help="of the Kafka topics")
    parser.add_argument("--no-floor", action="store_true", help="leave the floor out")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    figures: dict[str, Any] = {
        "machine": report.machine(),
        "options": plain(args),
        "drains": [],
    }
    rows: list[list[str]] = []
    for name in args.sinks:
        for kind in args.kinds:
            with ExitStack() as stack:  # a broker of its own for each: what one left behind does not slow the next
                peer = _peer(stack, name, args)
                backlogs = _backlogs(kind, args.messages)
                size = 0
                runs: list[Run] = []
                for repetition in range(args.repetitions + 1):
                    messages = next(backlogs)
                    size = size or _value_bytes(messages)
                    progress(f"{name}, {kind}: {'warming up' if repetition == 0 else repetition}")
                    gc.collect()
                    runs.append(asyncio.run(_drain(peer, kind, messages, args)))
                floor = None
                if peer.floor is not None and not args.no_floor:
                    entries = [encode(message, 10**9 + n, time.time_ns() // 10**6) for n, message in enumerate(next(backlogs))]
                    progress(f"{name}, {kind}: floor")
                    floor = peer.floor(entries, args.compression)
            rows.append(_row(name, kind, size, runs[1:], floor))
            figures["drains"].append({"sink": name, "kind": kind, "value_bytes": size, "runs": runs[1:], "floor": floor})
    head = ["drain", "value bytes", "messages/s", "agent µs", "broker µs", "floor: messages/s", "client µs", "broker µs"]
    text = f"{_title(figures)}\n\n{report.table(head, rows)}"
    print(text)
    if args.save:
        for path in report.save("drain", text, figures):
            progress(f"written: {path}")
    return 0


def _title(figures: dict[str, Any]) -> str:
    options = figures["options"]
    about = f"{options['messages']} messages, batches of at most {options['batch_messages']} and {options['batch_bytes']} bytes"
    return "\n".join(f"{key}: {value}" for key, value in {**figures["machine"], "backlog": about}.items())


def _row(name: str, kind: str, size: int, runs: Sequence[Run], floor: Run | None) -> list[str]:
    row = [
        f"{name}, {kind}",
        str(size),
        report.spread([run.per_second for run in runs], 0),
        report.spread([run.agent_us for run in runs]),
        report.spread([run.broker_us for run in runs]) if name != "file" else "",
    ]
    return row + (["", "", ""] if floor is None else [f"{floor.per_second:.0f}", f"{floor.agent_us:.1f}", f"{floor.broker_us:.1f}"])


def _backlogs(kind: str, count: int) -> Iterator[list[Message]]:
    tenants = Tenants(_CONTAINERS)
    while True:
        yield list(tenants.stats(count) if kind == "stats" else tenants.events(count))


def _value_bytes(messages: Sequence[Message]) -> int:
    """Mean bytes of a value, tombstones counted as 0."""
    return round(statistics.fmean(len(encode(message, 1, 1).value or b"") for message in messages))


# draining


class _Connected:
    """A sink whose first `connect` is done already: connecting is not draining."""

    def __init__(self, sink: Sink) -> None:
        self.name, self._sink, self._first = sink.name, sink, True

    async def connect(self) -> None:
        if not self._first:
            await self._sink.connect()
        self._first = False

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        return await self._sink.send(batch)

    async def close(self) -> None:
        await self._sink.close()

    def describe(self) -> str:
        return self._sink.describe()


async def _drain(peer: Peer, kind: str, messages: list[Message], args: argparse.Namespace) -> Run:
    """Fill an outbox while its sink does not take anything, then let it drain."""
    sink = make(SinkSettings(url=peer.url), Publishing(kafka_compression=args.compression), HOST_ID)
    await sink.connect()
    settings = OutboxSettings(memory_bytes=_CAP_BYTES, batch_messages=args.batch_messages, batch_bytes=args.batch_bytes)
    telemetry = Telemetry()
    outbox = Outbox(SystemClock(), settings, "binary", telemetry, lambda seen: progress(f"unexpected: {seen}"))
    outbox.add(_Connected(sink), _TYPES[kind])
    count = len(messages)
    outbox._position = time.time_ns() // 1000  # above every run before
    for start in range(0, count, _MAKE_AT_ONCE):
        outbox.publish(messages[start : start + _MAKE_AT_ONCE])
    messages.clear()
    gc.collect()
    broker, agent, began = _cpu(peer.pid), time.process_time(), time.perf_counter()
    running = asyncio.create_task(outbox.run())
    left = await outbox.drain(_DEADLINE_SECONDS)
    took, agent, broker = time.perf_counter() - began, time.process_time() - agent, _cpu(peer.pid) - broker
    running.cancel()
    await asyncio.wait([running])
    if any(left.values()):
        raise RuntimeError(f"left after {_DEADLINE_SECONDS:g} s: {left}")
    return Run(count / took, agent * _US / count, broker * _US / count)


def _cpu(pid: int) -> float:
    """CPU seconds of what is at the far end; 0: nothing of its own."""
    return cpu_seconds_of(pid) if pid else 0.0


# the far ends and their floors


def _peer(stack: ExitStack, name: str, args: argparse.Namespace) -> Peer:
    if name == "file":
        directory = Path(tempfile.mkdtemp(prefix="streamer-bench-"))
        stack.callback(shutil.rmtree, directory)
        return Peer(name, (directory / "messages.jsonl").as_uri(), 0)
    from tests.support.brokers import KafkaServer, RedisServer

    if name == "redis":
        redis = stack.enter_context(RedisServer())
        return Peer(name, redis.url, _pid(redis), lambda entries, _: _redis_floor(redis.port, _pid(redis), entries))

    class Server(KafkaServer):
        def command(self) -> list[str]:  # a server's own compiler and heap: those of the tests start fast and run slowly
            return [_HEAP if word.startswith("-Xmx") else word for word in super().command() if word != "-XX:TieredStopAtLevel=1"]

    from streamer.sinks.kafka import create_topics

    kafka = stack.enter_context(Server())
    asyncio.run(create_topics(kafka.url, partitions=args.partitions))
    return Peer(
        name, kafka.url, _pid(kafka), lambda entries, codec: asyncio.run(_kafka_floor(kafka.url, _pid(kafka), entries, codec))
    )


def _pid(server: Any) -> int:
    return int(server._process.pid)


def _redis_floor(port: int, pid: int, entries: Sequence[Entry]) -> Run:
    """The sink's own commands through a blocking socket, replies counted by a thread."""
    from streamer.sinks.redis import RedisSink

    sink = RedisSink(brokers.parse(f"redis://127.0.0.1:{port}"), HOST_ID)
    parts: list[bytes] = []
    sink._pack(parts, [], entries, entries[0], {})
    data = b"".join(parts)
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def read() -> None:
            replies = 0
            while replies < len(entries):
                received = connection.recv(1 << 20)
                if not received or b"-ERR" in received:
                    raise RuntimeError(f"Redis answered {received[:80]!r}")
                replies += received.count(b"$") + received.count(b":")

        reader = threading.Thread(target=read)
        broker, client, began = _cpu(pid), time.process_time(), time.perf_counter()
        reader.start()
        connection.sendall(data)
        reader.join()
    took, client, broker = time.perf_counter() - began, time.process_time() - client, _cpu(pid) - broker
    return Run(len(entries) / took, client * _US / len(entries), broker * _US / len(entries))


async def _kafka_floor(url: str, pid: int, entries: Sequence[Entry], codec: str) -> Run:
    """The sink's own batches, compressed beforehand; each partition's go one after the other, as the sink's do."""
    from aiokafka import TopicPartition
    from aiokafka.partitioner import murmur2

    from streamer.sinks.kafka.producer import Packed, Producer

    topics = {topic.short: f"streamer.{topic.suffix}" for topic in TOPICS}
    producer = Producer({**brokers.kafka_options(brokers.parse(url))}, list(topics.values()), codec)
    await producer.start()
    await producer.refresh()
    waiting: dict[TopicPartition, list[Entry]] = {}
    for entry in entries:
        topic = topics[entry.topic.short]
        partition = (murmur2(entry.key.encode()) & 0x7FFFFFFF) % producer.partitions(topic)
        waiting.setdefault(TopicPartition(topic, partition), []).append(entry)
    packed: dict[TopicPartition, list[Packed]] = {place: [] for place in waiting}
    for place, these in waiting.items():
        done = 0
        while done < len(these):
            packed[place].append(await producer.pack(these[done : done + 1000], done, 900_000, timestamps=True))
            done += packed[place][-1].records

    async def feed(place: TopicPartition) -> None:
        for batch in packed[place]:
            if code := await producer.put(place, batch):
                raise RuntimeError(f"Kafka answered {code}")

    broker, client, began = _cpu(pid), time.process_time(), time.perf_counter()
    await asyncio.gather(*(feed(place) for place in packed))
    took, client, broker = time.perf_counter() - began, time.process_time() - client, _cpu(pid) - broker
    await producer.close()
    return Run(len(entries) / took, client * _US / len(entries), broker * _US / len(entries))
