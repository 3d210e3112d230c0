"""When records arrive at one who waits for them at a sink's far end, or at the sidecar: by a process of its own.

Its clock is CLOCK_MONOTONIC, the same for all processes of the machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from streamer.kernel.inotify import IN_MODIFY, Inotify
from streamer.model.messages import LIFECYCLE, OOM

_PREFIX: Final = "streamer"
_START_SECONDS: Final = 30.0
_RECEIVE_BYTES: Final = 1 << 20
_TOPICS: Final = (LIFECYCLE, OOM)
_SHORT: Final = ("lifecycle", "oom")
_MARKS: Final = tuple(f'"type":"{topic.type}"'.encode() for topic in _TOPICS)

Hear = Callable[[Iterable[bytes], int], None]
"""(JSON records, when they were in hand)"""


class Fact(NamedTuple):
    """What happened: `created` and `deleted` to a container, by its id; `oom` to a process, by its pid."""

    what: str
    who: str


class _Record(msgspec.Struct):
    type: str
    event: str = ""
    container_id: str = ""
    pid: int = 0


_decode: Final = msgspec.json.Decoder(_Record).decode


class Arrivals:
    """A process that waits for records. A context manager: inside, all that arrives is noted.

    `url`: `kafka://`, `redis://`, `file://`, or `http://` for the sidecar's event stream (SSE). The agent runs already.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_wait, args=(self._url, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START_SECONDS):
            raise RuntimeError(f"nobody could wait at {self._url}")
        self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def first(self) -> dict[Fact, int]:
        """When each fact was heard of first, monotonic ns."""
        self._pipe.send("give")
        told: dict[tuple[str, str], int] = self._pipe.recv()
        return {Fact(*fact): at for fact, at in told.items()}


def fact_of(value: bytes) -> Fact:
    """What a lifecycle or OOM record tells."""
    record = _decode(value)
    return Fact("oom", str(record.pid)) if record.type == OOM.type else Fact(record.event, record.container_id)


def _wait(url: str, pipe: Connection) -> None:
    heard: dict[tuple[str, str], int] = {}

    def hear(values: Iterable[bytes], at_ns: int) -> None:
        for value in values:
            if any(mark in value for mark in _MARKS):
                heard.setdefault(tuple(fact_of(value)), at_ns)

    def answer() -> None:
        while True:
            try:
                pipe.recv()
            except EOFError:
                os._exit(0)
            pipe.send(dict(heard))

    def ready() -> None:
        pipe.send("ready")
        threading.Thread(target=answer, daemon=True).start()

    _WAYS[url.partition(":")[0]](url, hear, ready)


def _kafka(url: str, hear: Hear, ready: Callable[[], None]) -> None:
    asyncio.run(_consume(url.partition("://")[2], hear, ready))


async def _consume(address: str, hear: Hear, ready: Callable[[], None]) -> None:
    """The broker answers a fetch that waits as soon as there is a record that consumers may have."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, fetch_max_wait_ms=10_000)
    await consumer.start()
    places = [
        TopicPartition(topic, number)
        for topic in (f"{_PREFIX}.{each.suffix}" for each in _TOPICS)
        for number in await _partitions(consumer, topic)
    ]
    consumer.assign(places)
    await consumer.seek_to_end()
    for place in places:
        await consumer.position(place)
    ready()
    while True:
        fetched = await consumer.getmany(timeout_ms=10_000)
        at_ns = time.monotonic_ns()
        hear((record.value for records in fetched.values() for record in records if record.value), at_ns)


async def _partitions(consumer: Any, topic: str) -> list[int]:
    client = consumer._client  # a topic that nobody is assigned to is not asked about otherwise
    await client.add_topic(topic)
    return sorted(client.cluster.partitions_for_topic(topic) or ())


def _redis(url: str, hear: Hear, ready: Callable[[], None]) -> None:
    """XREAD with BLOCK: Redis answers as soon as there is an entry."""
    import redis

    client: Any = redis.Redis.from_url(url)
    (first,) = client.keys(f"{_PREFIX}:*:lifecycle")
    keys = [first[: -len(b"lifecycle")] + name.encode() for name in _SHORT]
    last = {key: client.xrevrange(key, count=1) for key in keys}
    places = {key: entries[0][0] if entries else b"0" for key, entries in last.items()}
    ready()
    while True:
        told = client.xread(places, block=0)
        at_ns = time.monotonic_ns()
        for key, entries in told:
            places[key] = entries[-1][0]
            hear((fields[b"data"] for _, fields in entries if b"data" in fields), at_ns)


def _file(url: str, hear: Hear, ready: Callable[[], None]) -> None:
    """inotify(7) tells of each write."""
    path = Path(urlsplit(url).path)
    watch = Inotify()
    watch.add(str(path), IN_MODIFY)
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        ready()
        rest = b""
        while True:
            select.select([watch.fd], [], [])
            watch.read()
            new = file.read()
            at_ns = time.monotonic_ns()
            *lines, rest = (rest + new).split(b"\n")
            hear(lines, at_ns)


def _events(url: str, hear: Hear, ready: Callable[[], None]) -> None:
    """Server-Sent Events, by a socket of our own."""
    host = urlsplit(url).netloc
    with socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0)) as connection:
        request = f"GET /events?types={','.join(_SHORT)} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
        connection.sendall(request.encode())
        rest = connection.recv(_RECEIVE_BYTES)
        if b" 200 " not in rest[:20]:
            raise RuntimeError(f"{url}: {rest[:200]!r}")
        ready()
        while received := connection.recv(_RECEIVE_BYTES):
            at_ns = time.monotonic_ns()
            *lines, rest = (rest + received).split(b"\n")
            hear((line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")), at_ns)


_WAYS: Final = {"kafka": _kafka, "redis": _redis, "file": _file, "http": _events}
