"""What lies at Kafka, at Redis and in a file, read with clients that are not ours, in the order in which it lies there."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.faults.judge import Record, Stream
from tests.support.brokers import KafkaServer, RedisServer
from tests.support.read_back import records, stream_entries

KINDS: Final = ("lifecycle", "oom", "stats", "host", "control")
"""Short names of the topics whose numbers promise something."""

TOPICS: Final = ("container.lifecycle", "container.oom", "container.stats", "host.info", "control")


def from_file(path: Path) -> Stream:
    """A file of JSON lines."""
    stream = Stream("file", [[]], whole=True)
    data = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(data.splitlines(), 1):
        _take(stream, stream.logs[0], line, f"line {number}")
    if data and not data.endswith(b"\n"):
        stream.broken.append("the last line has no end")
    return stream


def from_redis(server: RedisServer, prefix: str, host_id: str) -> Stream:
    """The streams of one host."""

    async def read() -> Stream:
        stream = Stream("redis", [])
        for kind in KINDS:
            log: list[Record] = []
            for entry in await stream_entries(server, f"{prefix}:{{{host_id}}}:{kind}"):
                _take(stream, log, entry.data, f"{kind} {entry.id}")
            stream.logs.append(log)
        return stream

    return asyncio.run(read())


def from_kafka(server: KafkaServer, prefix: str) -> Stream:
    """The topics of a prefix, a log for each partition."""
    stream = Stream("kafka", [])
    logs: dict[tuple[str, int], list[Record]] = defaultdict(list)
    found = asyncio.run(records(server, *(f"{prefix}.{topic}" for topic in TOPICS)))
    for record in sorted(found, key=lambda record: (record.topic, record.partition, record.offset)):
        _take(
            stream, logs[record.topic, record.partition], record.value or b"", f"{record.topic}[{record.partition}] {record.offset}"
        )
    stream.logs = list(logs.values())
    return stream


def _take(stream: Stream, log: list[Record], data: bytes, place: str) -> None:
    try:
        record = json.loads(data)
        log.append({name: record[name] for name in ("id", "type", "epoch", "seq", "host_id", "time", "time_ms")} | record)
    except (ValueError, KeyError, TypeError) as problem:
        stream.broken.append(f"{place} is no message: {problem!r}: {data[:200]!r}")
