"""The far end of a sink: what has really arrived there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from benchmarks.command import progress
from benchmarks.guest import KAFKA
from streamer.model.messages import STATS, TOPICS

_PREFIX: Final = "streamer"
_READ_SECONDS: Final = 60.0

Mark = Mapping[Any, int]
"""A place in a stream: partition (or nothing) -> position."""


Own = str | tuple[str, ...]
"""What the ids of those containers begin with that are asked about; any of several."""


class Delivered(NamedTuple):
    """Samples that arrived between two marks: all of them, and those of the cgroups asked about."""

    samples: int
    own: int


class End(Protocol):
    """A sink's far end."""

    url: str

    def mark(self) -> Mark:
        """How far the stream has come now."""
        ...

    def delivered(self, start: Mark, end: Mark, whose: Own) -> Delivered:
        """What arrived between two marks."""
        ...


class _Line(msgspec.Struct):
    type: str
    container_id: str = ""


class FileEnd:
    """A JSON Lines file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = path.as_uri()
        path.unlink(missing_ok=True)

    def mark(self) -> Mark:
        return {None: self._path.stat().st_size if self._path.exists() else 0}

    def delivered(self, start: Mark, end: Mark, whose: Own) -> Delivered:
        if end == start:
            return Delivered(0, 0)  # there may be no file yet
        samples = own = 0
        decode = msgspec.json.Decoder(_Line).decode
        with self._path.open("rb") as file:
            file.seek(start[None])
            if start[None]:
                file.readline()  # a mark may fall into a line: one is left out at this end and one taken in at the other
            while file.tell() < end[None]:
                line = decode(file.readline())
                if line.type == STATS.type:
                    samples += 1
                    own += line.container_id.startswith(whose)
        return Delivered(samples, own)


class RedisEnd:
    """The stats stream of a Redis; a mark is its last id."""

    def __init__(self, url: str) -> None:
        self.url = url

    def mark(self) -> Mark:
        with self._client() as client:
            last = [client.xinfo_stream(key)["last-generated-id"] for key in self._keys(client)]
        ms, number = last[0].split(b"-") if last else (0, 0)
        return {"ms": int(ms), "number": int(number)}

    def delivered(self, start: Mark, end: Mark, whose: Own) -> Delivered:
        samples = own = 0
        at, through = (f"{mark['ms']}-{mark['number']}" for mark in (start, end))
        decode = msgspec.json.Decoder(_Line).decode
        with self._client() as client:
            for key in self._keys(client):
                while entries := client.xrange(key, f"({at}", through, count=1000):
                    at = entries[-1][0].decode()
                    samples += len(entries)
                    own += sum(decode(fields[b"data"]).container_id.startswith(whose) for _, fields in entries)
        return Delivered(samples, own)

    def _client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url)

    def _keys(self, client: Any) -> list[bytes]:
        """None before the first sample."""
        return list(client.keys(f"{_PREFIX}:*:stats"))


class KafkaEnd:
    """The stats topic of a broker that has no topics yet; they are made with `partitions` each."""

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self._bootstrap, self._partitions = bootstrap, partitions
        self.url = f"kafka://{bootstrap}"
        asyncio.run(self._create())

    def mark(self) -> Mark:
        return asyncio.run(self._ends())

    def delivered(self, start: Mark, end: Mark, whose: Own) -> Delivered:
        return (
            asyncio.run(self._count(start, end, (whose,) if isinstance(whose, str) else whose)) if end != start else Delivered(0, 0)
        )

    async def _create(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(f"{_PREFIX}.{topic.suffix}", self._partitions, 1) for topic in TOPICS])
        finally:
            await admin.close()

    async def _ends(self) -> Mark:
        async with self._consumer() as (consumer, partitions):
            return dict(await consumer.end_offsets(partitions))

    async def _count(self, start: Mark, end: Mark, whose: tuple[str, ...]) -> Delivered:
        samples = own = 0
        prefixes = tuple(prefix.encode() for prefix in whose)
        async with self._consumer() as (consumer, partitions), asyncio.timeout(_READ_SECONDS):
            left = {partition for partition in partitions if end[partition] > start[partition]}
            for partition in partitions:
                consumer.seek(partition, start[partition])
            while left:
                for partition, records in (await consumer.getmany(*left, timeout_ms=500)).items():
                    within = [record.key for record in records if record.offset < end[partition]]
                    samples += len(within)
                    own += sum(key is not None and key.startswith(prefixes) for key in within)
                    if records[-1].offset >= end[partition] - 1:
                        left.discard(partition)
        return Delivered(samples, own)

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[tuple[Any, list[Any]]]:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        partitions = [TopicPartition(f"{_PREFIX}.{STATS.suffix}", number) for number in range(self._partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=1 << 24)
        await consumer.start()
        try:
            consumer.assign(partitions)
            yield consumer, partitions
        finally:
            await consumer.stop()


def open_ends(stack: ExitStack, sinks: Sequence[str], partitions: int, directory: Path) -> dict[str, End]:
    """The far ends of these sinks by name; a broker is started for as long as `stack` holds."""
    ends: dict[str, End] = {}
    if "file" in sinks:
        ends["file"] = FileEnd(directory / "messages.jsonl")
    if "redis" in sinks:
        from tests.support.brokers import RedisServer

        ends["redis"] = RedisEnd(stack.enter_context(RedisServer()).url)
    if "kafka" in sinks:
        ends["kafka"] = KafkaEnd(os.environ.get(KAFKA) or _started_kafka(stack), partitions)
    return ends


def _started_kafka(stack: ExitStack) -> str:
    from tests.support.brokers import KafkaServer

    progress("a Kafka broker")
    return stack.enter_context(KafkaServer()).address
