"""The Kafka sink while its broker cannot or will not take what it is sent: a real broker, faults at an exact point."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors

from streamer.brokers import parse
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.wire import Entry
from streamer.sinks.kafka import KafkaSink, create_topics, records, refusals
from streamer.sinks.kafka.producer import Producer
from streamer.testing.messages import Speaker, encoded
from tests.support.brokers import KafkaServer, small_disk
from tests.support.read_back import records as read_back


@pytest.fixture
def prefix() -> str:
    """Topics that no other test uses."""
    return f"p{uuid4().hex[:8]}"


async def _connected(kafka: KafkaServer, prefix: str, partitions: int = 1) -> KafkaSink:
    await create_topics(kafka.url, prefix, partitions=partitions)
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix)
    await sink.connect()
    return sink


def _producer(sink: KafkaSink) -> Producer:
    assert sink._producer is not None
    return sink._producer


async def _values(kafka: KafkaServer, *topics: str) -> list[bytes]:
    return [record.value for record in await read_back(kafka, *topics)]


async def test_too_few_replicas_are_named_and_waited_for(prefix: str) -> None:
    """NOT_ENOUGH_REPLICAS says which partition and what to do; the other topics' records are stored once all the same."""
    with KafkaServer() as first, KafkaServer(joins=first) as second:
        await create_topics(first.url, prefix, partitions=1, replication=2)
        oom, lifecycle = f"{prefix}.container.oom", f"{prefix}.container.lifecycle"
        first.configure_topic(oom, "min.insync.replicas=2")
        speaker = Speaker("h")
        batch = encoded([message for _ in range(5) for message in (speaker.lifecycle("c"), speaker.oom("c"))])
        sink = KafkaSink(parse(first.url), "h", prefix=prefix)
        second.kill()
        # Until its death is noticed, leaders take records that they cannot have acknowledged: those would be sent again.
        await _until(lambda: all(len(first.in_sync(topic)[0].split(",")) == 1 for topic in (oom, lifecycle)))
        refused = await _until_refused(sink, batch, "min.insync.replicas")
        assert refused.problem.startswith(f"{oom}[0] at {first.address}: ")
        assert "start the missing brokers" in refused.remedy
        second.start()
        await _until_sent(sink, batch)
        assert await _values(first, lifecycle) == [entry.value for entry in batch[::2]]
        assert await _values(first, oom) == [entry.value for entry in batch[1::2]]


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(240):
        while not await asyncio.to_thread(happened):
            await asyncio.sleep(0.2)


async def _until_refused(sink: KafkaSink, batch: list[Entry], words: str) -> NotConnected:
    """Try again, as the outbox does, while leaders move."""
    async with asyncio.timeout(240):
        while True:
            try:
                await sink.connect()
                await sink.send(batch)
            except NotConnected as refused:
                await sink.close()
                if words in refused.problem:
                    return refused
            await asyncio.sleep(0.2)


async def _until_sent(sink: KafkaSink, batch: list[Entry]) -> None:
    async with asyncio.timeout(240):
        while True:
            try:
                await sink.connect()
                await sink.send(batch)
            except NotConnected:
                await asyncio.sleep(0.2)
            else:
                return
            finally:
                await sink.close()


async def test_a_topic_that_is_deleted_holds_the_sink_until_it_is_made_again(kafka: KafkaServer, prefix: str) -> None:
    """A deleted topic ends the send, is named by the next connect with the remedy, and made again it is used again."""
    sink = await _connected(kafka, prefix)
    batch = encoded([Speaker("h").stats("c") for _ in range(3)])
    await sink.send(batch)
    topic = f"{prefix}.container.stats"
    kafka.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, "--delete", "--topic", topic)
    with pytest.raises(NotConnected, match=topic):
        await _send_for_ever(sink, batch)  # the broker hears of it in its own time
    await sink.close()
    with pytest.raises(PermanentlyRefused, match=f"no such topic: {topic}") as refused:
        await sink.connect()
    assert "streamer topics create" in refused.value.remedy
    await create_topics(kafka.url, prefix, partitions=1)
    await sink.connect()
    assert not (await sink.send(batch)).rejected
    await sink.close()
    assert await _values(kafka, topic) == [entry.value for entry in batch]


async def test_an_invalid_record_is_rejected_alone(kafka: KafkaServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVALID_RECORD (here: a record without a key in a compacted topic) takes out that record; the others arrive in order."""
    usual = records._head

    def head(entry: Entry, key: bytes, later_ms: int, offset: int) -> bytes:
        if not entry.key.endswith("/nobody"):
            return usual(entry, key, later_ms, offset)
        return b"\0" + records.varint(later_ms) + records.varint(offset) + records.varint(-1) + records.varint(-1)

    monkeypatch.setattr(records, "_head", head)
    sink = await _connected(kafka, prefix)
    speaker = Speaker("h")
    names = [f"c{number}" for number in range(11)]
    batch = encoded(
        [*(speaker.state(name) for name in names[:7]), speaker.tombstone("nobody"), *(speaker.state(n) for n in names[7:])]
    )
    receipt = await sink.send(batch)
    assert receipt.rejected == [(7, "refused by the broker: invalid")]
    assert not (await sink.send(batch[:1])).rejected  # the producer goes on
    await sink.close()
    assert await _values(kafka, f"{prefix}.container.state") == [entry.value for entry in [*batch[:7], *batch[8:], batch[0]]]


async def test_a_producer_that_lost_its_place_is_replaced(kafka: KafkaServer, prefix: str) -> None:
    """OUT_OF_ORDER_SEQUENCE_NUMBER ends the producer; a new one stores the batch once."""
    sink = await _connected(kafka, prefix)
    speaker = Speaker("h")
    first, second = encoded([speaker.stats("c")]), encoded([speaker.stats("c")], first_position=2)
    await sink.send(first)
    _producer(sink)._sequences[TopicPartition(f"{prefix}.container.stats", 0)] += 7
    with pytest.raises(NotConnected, match="out of order") as lost:
        await sink.send(second)
    assert "replaced" in lost.value.remedy
    await sink.close()
    await sink.connect()
    await sink.send(second)
    await sink.close()
    assert await _values(kafka, f"{prefix}.container.stats") == [entry.value for entry in first + second]


async def test_a_fenced_producer_is_replaced(kafka: KafkaServer, prefix: str) -> None:
    """One whose id somebody else uses with a newer epoch is told so, and a new one stores the batch once."""
    sink, other = await _connected(kafka, prefix), KafkaSink(parse(kafka.url), "h", prefix=prefix)
    speaker = Speaker("h")
    batches = [encoded([speaker.stats("c")], first_position=position) for position in (1, 2, 3)]
    await sink.send(batches[0])
    await other.connect()
    ours, theirs = _producer(sink), _producer(other)
    theirs._id, theirs._epoch = ours._id, ours._epoch + 1
    await other.send(batches[1])
    await other.close()
    with pytest.raises(NotConnected, match="another one has its id"):
        await sink.send(batches[2])
    await sink.close()
    await sink.connect()
    await sink.send(batches[2])
    await sink.close()
    assert await _values(kafka, f"{prefix}.container.stats") == [entry.value for batch in batches for entry in batch]


async def test_a_broker_that_hangs_is_named(kafka: KafkaServer, prefix: str) -> None:
    """Frozen, it answers nothing: that is said before the outbox's own deadline, and the batch is there after it was replayed."""
    sink = await _connected(kafka, prefix)
    batch = encoded([Speaker("h").stats("c") for _ in range(3)])
    kafka.pause()
    try:
        with pytest.raises(NotConnected, match=rf"stats\[0\] at {kafka.address}: no answer in time"):
            await sink.send(batch)
        await sink.close()
    finally:
        kafka.resume()
    await sink.connect()
    await sink.send(batch)
    await sink.close()
    assert set(await _values(kafka, f"{prefix}.container.stats")) == {entry.value for entry in batch}


@pytest.mark.parametrize("code", [45, 47, 59, 90])
def test_every_way_to_lose_a_producer_has_it_replaced(code: int) -> None:
    """These codes are no reason to call the operator: connected again, the sink has a new producer."""
    error = refusals.answered(code, "topic[0]")
    assert isinstance(error, NotConnected)
    assert "replaced" in error.remedy


async def test_a_lost_answer_stores_nothing_twice(kafka: KafkaServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the broker has stored a batch: the same numbers are sent again and known to the broker."""
    sink = await _connected(kafka, prefix, partitions=3)
    client = _producer(sink).client
    usual, cuts = client.send, iter([True, False, True])

    async def send(node: int, request: Any, **more: Any) -> Any:
        answer = await usual(node, request, **more)
        if next(cuts, False):
            raise kafka_errors.KafkaConnectionError("cut")
        return answer

    monkeypatch.setattr(client, "send", send)
    batch = encoded([Speaker("h").stats(f"c{number % 20}") for number in range(200)])
    assert not (await sink.send(batch[:100])).rejected
    assert not (await sink.send(batch[100:])).rejected
    await sink.close()
    found = Counter(await _values(kafka, f"{prefix}.container.stats"))
    assert found == Counter(entry.value for entry in batch)


async def test_a_cut_connection_is_made_again_at_once(kafka: KafkaServer, prefix: str) -> None:
    """Between two sends the connections are cut: the next one connects again, and says nothing."""
    sink = await _connected(kafka, prefix)
    batch = encoded([Speaker("h").stats("c") for _ in range(4)])
    await sink.send(batch[:2])
    for connection in list(_producer(sink).client._conns.values()):
        connection._writer.transport.abort()
    await sink.send(batch[2:])
    await sink.close()
    assert await _values(kafka, f"{prefix}.container.stats") == [entry.value for entry in batch]


async def _send_for_ever(sink: KafkaSink, batch: list[Entry]) -> None:
    while True:
        await sink.send(batch)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 megabytes."""
    with small_disk(tmp_path / "disk", "48m") as path:
        yield path


async def test_a_full_disk_is_waited_for(disk: Path, prefix: str) -> None:
    """Its log directory full, the broker ends or refuses; with room again and restarted it gets the rest."""
    with KafkaServer(log_dirs=str(disk / "logs"), metadata_log_dir=str(disk.parent / "metadata")) as kafka:
        sink = await _connected(kafka, prefix)
        speaker = Speaker("h")
        first, rest = encoded([speaker.stats("c")]), encoded([speaker.stats("c") for _ in range(50)], first_position=2)
        await sink.send(first)
        filler = disk / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], capture_output=True, check=False)
        with pytest.raises(NotConnected):
            await _send_for_ever(sink, rest)
        await sink.close()
        filler.unlink()
        kafka.kill()
        kafka.start()
        await sink.connect()
        assert not (await sink.send(rest)).rejected
        await sink.close()
        assert {entry.value for entry in first + rest} <= set(await _values(kafka, f"{prefix}.container.stats"))
