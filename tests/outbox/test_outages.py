"""Real brokers stopped, killed and restarted under a stream of messages: nothing durable is missing, nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from streamer.brokers import parse
from streamer.clock import SystemClock
from streamer.config import Outbox as OutboxSettings
from streamer.model.messages import TOPICS
from streamer.model.observations import Degraded, Lost, Observation, Recovered
from streamer.model.wire import Entry
from streamer.outbox.outbox import Outbox
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.kafka import KafkaSink, create_topics
from streamer.sinks.redis import RedisSink
from streamer.telemetry import Telemetry
from streamer.testing.messages import Speaker
from tests.support.brokers import KafkaServer, RedisServer, Server
from tests.support.read_back import records, stream_entries

TYPES = frozenset({"lifecycle", "oom", "stats", "control"})
SUFFIXES = {topic.short: topic.suffix for topic in TOPICS}
IMPATIENT = OutboxSettings(connect_timeout="10s", send_timeout="4s")  # a broker that has no CPU for a moment is not away


class Brokers(NamedTuple):
    redis: RedisServer
    kafka: KafkaServer


@pytest.fixture(scope="module")
def own() -> Iterator[Brokers]:
    """Brokers that these tests may kill, and that keep what they acknowledged."""
    with RedisServer(durable=True) as redis, KafkaServer() as kafka:
        yield Brokers(redis, kafka)


class Fault(NamedTuple):
    """What is done to a broker while messages go on, and how it ends."""

    broker: Callable[[Brokers], Server]
    begin: Callable[[Server], None]
    end: Callable[[Server], None]
    component: str


FAULTS = {
    "redis-hangs": Fault(lambda own: own.redis, Server.pause, Server.resume, "sink.redis"),
    "redis-killed": Fault(lambda own: own.redis, Server.kill, Server.launch, "sink.redis"),
    "kafka-hangs": Fault(lambda own: own.kafka, Server.pause, Server.resume, "sink.kafka"),
    "kafka-killed": Fault(lambda own: own.kafka, Server.kill, Server.launch, "sink.kafka"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_outage_loses_nothing_and_disturbs_nobody(name: str, own: Brokers, tmp_path: Path) -> None:
    """While one broker hangs or is dead, the others get every message; afterwards it has them all too, in order."""
    fault = FAULTS[name]
    prefix, host_id = f"p{uuid4().hex[:8]}", "h"
    await create_topics(own.kafka.url, prefix, partitions=3)
    heard: list[Observation] = []
    outbox = Outbox(SystemClock(), IMPATIENT, "binary", Telemetry(), heard.append)
    outbox.add(JsonLinesSink(str(tmp_path / "out.jsonl")), TYPES)
    outbox.add(RedisSink(parse(own.redis.url), host_id, prefix=prefix), TYPES)
    outbox.add(KafkaSink(parse(own.kafka.url), host_id, prefix=prefix, types=TYPES), TYPES)
    running = asyncio.create_task(outbox.run())
    speaker = Speaker(host_id)
    sent: list[Entry] = []

    async def talk(until: Callable[[], bool], least: int) -> None:
        async with asyncio.timeout(240):
            start = len(sent)
            while len(sent) < start + least or not until():
                some = speaker.some(120, containers=4)
                for first in range(0, len(some), 10):
                    sent.extend(outbox.publish(some[first : first + 10]))
                    await asyncio.sleep(0.005)

    def state(component: str) -> str:
        return next(status.state for status in outbox.statuses() if status.component == component)

    try:
        await talk(lambda: {status.state for status in outbox.statuses()} == {"ok"}, 500)
        broker = fault.broker(own)
        fault.begin(broker)
        try:
            await talk(lambda: state(fault.component) == "down", 1500)
            others = [status for status in outbox.statuses() if status.component != fault.component]
        finally:
            fault.end(broker)
        await talk(lambda: state(fault.component) == "ok", 500)
        left = await outbox.drain(60)
    except TimeoutError:
        pytest.fail(f"{outbox.statuses()}, left {outbox.left()}, heard {heard}")
    finally:
        running.cancel()
        await asyncio.wait([running])

    assert set(left.values()) == {0}
    assert {status.state for status in others} == {"ok"}
    assert {one.component for one in heard if isinstance(one, Degraded | Recovered)} == {fault.component}
    assert not [one for one in heard if isinstance(one, Lost)]
    wanted = _by_container(_values(sent))
    for place in (_file(tmp_path / "out.jsonl"), await _redis(own.redis, prefix, host_id), await _kafka(own.kafka, prefix)):
        assert _by_container(place) == wanted


def _values(entries: list[Entry]) -> list[bytes]:
    return [entry.value for entry in entries if entry.topic.short in TYPES and entry.value is not None]


def _by_container(values: list[bytes]) -> dict[tuple[str, str], list[str]]:
    """Ids by topic and container, in order of arrival, repeated ones dropped as a consumer does."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for value in values:
        record = json.loads(value)
        found.setdefault((record["type"], record.get("container_id", "")), {})[record["id"]] = None
    return {key: list(ids) for key, ids in found.items()}


def _file(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


async def _redis(server: RedisServer, prefix: str, host_id: str) -> list[bytes]:
    kept = []
    for short in TYPES:
        entries = await stream_entries(server, f"{prefix}:{{{host_id}}}:{short}")
        assert len({entry.fields["ce_id"] for entry in entries}) == len(entries)  # a replay adds nothing
        kept += [entry.data for entry in entries]
    return kept


async def _kafka(server: KafkaServer, prefix: str) -> list[bytes]:
    return [record.value for record in await records(server, *(f"{prefix}.{SUFFIXES[short]}" for short in TYPES))]
