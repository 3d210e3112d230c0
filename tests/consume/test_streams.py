"""Real streams, written by the project's own sinks, damaged by hand, and verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from streamer.brokers import parse
from streamer.cli import main
from streamer.config import Publishing, SinkSettings
from streamer.consume import Selection, reader
from streamer.errors import NotConnected
from streamer.model.messages import CONTROL, HOST, LIFECYCLE, OOM, STATS, Message, Topic
from streamer.model.wire import Entry, attributes, encode
from streamer.sinks import make
from streamer.sinks.kafka import create_topics
from streamer.sinks.redis import RedisSink
from streamer.testing.messages import Speaker, encoded
from tests.support.brokers import KafkaServer, RedisServer, free_port
from tests.support.read_back import redis_client, stream_entries

GONE = {LIFECYCLE: (7, 40, 41, 42), OOM: (3,), STATS: (100, 500, 501), CONTROL: (5,)}
"""What is taken out of a stream: by topic, `seq`."""
EPOCH = 1_700_000_000_000


def a_stream(host_id: str, count: int = 22 * 182) -> list[Message]:
    """A whole run (a turn of the speaker is 182 messages): `started`, several thousand messages, `stopped` with the marks."""
    speaker = Speaker(host_id, epoch=EPOCH)
    said = [speaker.control("started"), *speaker.some(count)]
    marks: dict[str, int] = {}
    for message in said:
        if message.record is not None and not message.topic.compacted:
            marks[message.topic.suffix] = message.record.seq
    return [*said, speaker.control("stopped", high_water={**marks, "control": marks["control"] + 1})]


def is_gone(entry: Entry) -> bool:
    """Whether it is among what is taken out."""
    return entry.seq in GONE.get(entry.topic, ()) and not entry.topic.compacted


async def sent(url: str, entries: Sequence[Entry], *, prefix: str, host_id: str) -> None:
    """Publish as the agent does."""
    sink = make(SinkSettings(url=url), Publishing(prefix=prefix), host_id)
    await sink.connect()
    for start in range(0, len(entries), 1000):
        await sink.send(entries[start : start + 1000])
    await sink.close()


@pytest.fixture
def verify(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prefix: str
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`streamer verify --json`: the exit code and the object. Runs in a thread with an event loop of its own."""
    monkeypatch.setenv("STREAMER_PUBLISHING__PREFIX", prefix)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["verify", "--json", *arguments])
        said = capsys.readouterr()
        assert not said.err
        told: dict[str, Any] = json.loads(said.out)
        return code, told

    return run


@pytest.fixture
def prefix() -> str:
    """Topics and keys that no other test uses."""
    return f"v{uuid4().hex[:8]}"


def numbers(told: dict[str, Any], kind: str) -> dict[str, list[int]]:
    """Topic -> the numbers of the findings of a kind."""
    found: dict[str, list[int]] = {}
    for finding in told["findings"]:
        if finding["kind"] == kind:
            found.setdefault(finding["topic"], []).extend(
                number for first, last in finding["runs"] for number in range(first, last + 1)
            )
    return found


WANTED = {topic.suffix: list(gone) for topic, gone in GONE.items()}


def kinds(told: dict[str, Any], severity: str) -> set[str]:
    """The kinds of findings of a severity."""
    return {finding["kind"] for finding in told["findings"] if finding["severity"] == severity}


class TestFiles:
    """JSON Lines."""

    def test_exactly_the_lines_that_were_removed(self, verify: Any, prefix: str, tmp_path: Path) -> None:
        """A whole file is complete; a copy without some lines names those, wherever the copy ends."""
        entries = encoded([message for message in a_stream("h") if not message.topic.compacted])
        asyncio.run(sent(f"file://{tmp_path}/whole", entries, prefix=prefix, host_id="h"))
        code, told = verify(f"file://{tmp_path}/whole")
        assert code == 0 and told["ok"] and told["records"] == len(entries) and not told["findings"]
        lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
        kept = [line for line, entry in zip(lines, entries, strict=True) if not is_gone(entry)]
        (tmp_path / "copy").write_bytes(b"".join(kept) + b'{"type":"container.sta')
        code, told = verify(f"file://{tmp_path}/copy")
        assert code == 1 and numbers(told, "missing") == WANTED
        assert kinds(told, "error") == {"missing"} and any("no end" in finding["text"] for finding in told["findings"])

    def test_a_rotated_file_has_lost_its_beginning_only(self, verify: Any, prefix: str, tmp_path: Path) -> None:
        """What was before is a note."""
        entries = encoded([message for message in a_stream("h") if not message.topic.compacted])
        asyncio.run(sent(f"file://{tmp_path}/f", entries[1500:], prefix=prefix, host_id="h"))
        code, told = verify(f"file://{tmp_path}/f")
        assert code == 0 and kinds(told, "note") == {"expired"}


class TestRedis:
    """Redis Streams."""

    def test_exactly_the_entries_that_were_deleted(self, redis_server: RedisServer, verify: Any, prefix: str) -> None:
        """By XDEL, of one of two hosts; the first ones of a stream too."""
        streams = {host_id: encoded(a_stream(host_id)) for host_id in ("h1", "h2")}
        for host_id, entries in streams.items():
            asyncio.run(sent(redis_server.url, entries, prefix=prefix, host_id=host_id))
        code, told = verify(redis_server.url)
        assert code == 0 and not told["findings"] and {row["host_id"] for row in told["rows"]} == {"h1", "h2"}
        assert sum(row["seen"] for row in told["rows"]) == sum(
            len([e for e in s if not e.topic.compacted]) for s in streams.values()
        )
        for topic, gone in GONE.items():
            asyncio.run(self.delete(redis_server, f"{prefix}:{{h2}}:{topic.short}", lambda entry, gone=gone: entry["seq"] in gone))
        code, told = verify(redis_server.url)
        assert code == 1 and numbers(told, "missing") == WANTED and kinds(told, "error") == {"missing"}
        assert {finding["host_id"] for finding in told["findings"] if finding["kind"] == "missing"} == {"h2"}
        assert verify(redis_server.url, "--host", "h1")[0] == 0
        assert numbers(verify(redis_server.url, "--type", "oom")[1], "missing") == {"container.oom": [3]}
        asyncio.run(self.delete(redis_server, f"{prefix}:{{h1}}:oom", lambda entry: entry["seq"] < 3))
        assert numbers(verify(redis_server.url, "--host", "h1")[1], "missing") == {"container.oom": [1, 2]}

    async def delete(self, server: RedisServer, key: str, chosen: Callable[[dict[str, Any]], bool]) -> None:
        entries = [entry.id for entry in await stream_entries(server, key) if chosen(json.loads(entry.data))]
        async with redis_client(server) as client:
            assert await client.xdel(key, *entries) == len(entries) > 0

    def test_what_was_trimmed_is_a_note(self, redis_server: RedisServer, verify: Any, prefix: str) -> None:
        """By MAXLEN and MINID, also everything; a hole after that is missing."""
        entries = encoded(a_stream("h"))
        asyncio.run(sent(redis_server.url, [entry for entry in entries if not is_gone(entry)], prefix=prefix, host_id="h"))
        stats, oom = f"{prefix}:{{h}}:stats", f"{prefix}:{{h}}:oom"
        redis_server.cli("XTRIM", stats, "MAXLEN", str(sum(entry.topic is STATS for entry in entries) - 300))
        redis_server.cli("XTRIM", oom, "MAXLEN", "0")
        code, told = verify(redis_server.url)
        wanted = {topic: gone for topic, gone in WANTED.items() if topic != "container.oom"}
        assert code == 1 and numbers(told, "missing") == {**wanted, "container.stats": [500, 501]}
        gone = numbers(told, "expired")
        assert gone["container.stats"] == list(range(1, 299)) and gone["container.oom"][0] == 1

    def test_since_reads_less_and_takes_nothing_for_missing(self, redis_server: RedisServer, verify: Any, prefix: str) -> None:
        """By entry id."""
        entries = encoded(a_stream("h"))
        asyncio.run(sent(redis_server.url, entries, prefix=prefix, host_id="h"))
        code, told = verify(redis_server.url, "--since", "2023-11-14T22:13:22Z")
        assert code == 0 and 0 < told["records"] < len(entries) and kinds(told, "note") == {"expired"}

    @pytest.mark.parametrize("envelope", ["binary", "structured"])
    async def test_records_come_back_with_their_ids(self, redis_server: RedisServer, prefix: str, envelope: str) -> None:
        """Value, id beside it, entry id; the present state out of the hash."""
        messages = a_stream("h", 300)
        entries = [encode(message, at, message.time_ms, envelope) for at, message in enumerate(messages, 1)]  # type: ignore[arg-type]  # two words of a Literal
        await sent(redis_server.url, entries, prefix=prefix, host_id="h")
        source = reader(redis_server.url, Selection(prefix))
        await source.open()
        found = [(batch.place, record) async for batch in source.batches() for record in batch.records]
        assert source.progress().done == len(found)
        await source.close()
        flat = {(entry.topic.short, entry.id): entry for entry in encoded(messages) if not entry.topic.compacted}
        assert {
            (record.topic.short, record.transport_id) for _, record in found if record.topic and not record.topic.compacted
        } == flat.keys()
        for place, record in found:
            if record.topic is not None and not record.topic.compacted:
                entry = flat[record.topic.short, record.transport_id or ""]
                assert record.value == entry.value
                assert place.where(record.at) == f"{prefix}:{{h}}:{entry.topic.short} {entry.order_ms}-{entry.position}"
        assert not source.notes

    async def test_hosts_without_a_heartbeat_are_found_by_their_keys(self, redis_server: RedisServer, prefix: str) -> None:
        """The sorted set is not all there is."""
        await sent(redis_server.url, encoded([Speaker("lost").stats("c")]), prefix=prefix, host_id="lost")
        source = reader(redis_server.url, Selection(prefix))
        await source.open()
        assert [batch.place.host_id async for batch in source.batches() if batch.records] == ["lost"]
        await source.close()

    def test_any_bytes_in_a_stream(self, redis_server: RedisServer, verify: Any, prefix: str) -> None:
        """Entries of somebody else are schema errors with their place."""
        redis_server.cli("XADD", f"{prefix}:{{h}}:stats", "7-1", "data", "\udcff\udcfe{")
        redis_server.cli("XADD", f"{prefix}:{{h}}:oom", "7-2", "other", "field")
        redis_server.cli("HSET", f"{prefix}:{{h}}:state", "c", "[]")
        code, told = verify(redis_server.url)
        assert code == 1 and told["records"] == 3 and told["counts"]["schema"] == 3
        assert f"{prefix}:{{h}}:stats 7-1" in {finding["where"] for finding in told["findings"]}


class TestKafka:
    """Kafka."""

    def test_exactly_the_records_that_were_left_out(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """A whole stream in three partitions is complete; a copy without some records names those."""
        entries = encoded(a_stream("h"))
        for name, some in ((prefix, entries), (f"{prefix}.copy", [entry for entry in entries if not is_gone(entry)])):
            asyncio.run(create_topics(kafka.url, name, partitions=3))
            asyncio.run(sent(kafka.url, some, prefix=name, host_id="h"))
        code, told = verify(kafka.url)
        assert code == 0 and told["records"] == len(entries) and not told["findings"]
        code, told = verify(kafka.url, "--prefix", f"{prefix}.copy")
        assert code == 1 and numbers(told, "missing") == WANTED and kinds(told, "error") == {"missing"}
        assert all(f"{prefix}.copy." in finding["where"] for finding in told["findings"])

    def test_what_was_sent_twice_is_a_repeat(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """A batch whose acknowledgement was lost comes again."""
        entries = encoded(a_stream("h", 3 * 182))
        asyncio.run(create_topics(kafka.url, prefix, partitions=2))
        asyncio.run(sent(kafka.url, [*entries[:300], *entries[200:]], prefix=prefix, host_id="h"))
        code, told = verify(kafka.url)
        again = [entry for entry in entries[200:300] if not entry.topic.compacted]
        assert code == 0 and sum(row["repeats"] for row in told["rows"]) == len(again) > 0

    def test_what_has_expired_is_a_note(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """The beginnings of partitions are gone, as after the retention; a hole behind that is missing."""
        entries = encoded(a_stream("h"))
        asyncio.run(create_topics(kafka.url, prefix, partitions=2))
        gone = [entry for entry in entries if not (entry.topic is STATS and entry.seq == 2000)]
        asyncio.run(sent(kafka.url, gone, prefix=prefix, host_id="h"))
        topic = f"{prefix}.container.stats"
        asyncio.run(self.expire(kafka, {TopicPartition(topic, 0): 200, TopicPartition(topic, 1): 100}))
        code, told = verify(kafka.url)
        assert code == 1 and numbers(told, "missing") == {"container.stats": [2000]}
        assert len(numbers(told, "expired")["container.stats"]) == 300 and kinds(told, "note") == {"expired"}

    async def expire(self, server: KafkaServer, upto: dict[TopicPartition, int]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.address)
        await admin.start()
        try:
            await admin.delete_records({place: RecordsToDelete(before_offset=offset) for place, offset in upto.items()})
        finally:
            await admin.close()

    def test_since_reads_less_and_takes_nothing_for_missing(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """By the records' timestamps."""
        entries = encoded(a_stream("h"))
        asyncio.run(create_topics(kafka.url, prefix, partitions=3))
        asyncio.run(sent(kafka.url, entries, prefix=prefix, host_id="h"))
        code, told = verify(kafka.url, "--since", "2023-11-14T22:13:22Z", "--type", "stats")
        assert code == 0 and 0 < told["records"] < len(entries) and kinds(told, "note") == {"expired"}
        assert told["since_ms"] == 1_700_000_002_000

    def test_topics_that_are_missing_are_told_and_not_made(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """Asking for a topic by name can make it: the reader does not."""
        code, told = verify(kafka.url)
        assert code == 1 and told["records"] == 0 and not told["ok"]
        assert [finding["text"] for finding in told["findings"]] == [
            f"there is no topic {prefix}.{suffix}"
            for suffix in ("container.lifecycle", "container.oom", "container.stats", "container.state", "host.info", "control")
        ]
        assert prefix not in kafka.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, "--list")

    def test_any_bytes_in_a_topic(self, kafka: KafkaServer, verify: Any, prefix: str) -> None:
        """Records of somebody else are schema errors with their place; an id beside that differs is one too."""
        asyncio.run(create_topics(kafka.url, prefix, partitions=1))
        (good,) = encoded([Speaker("h").oom("c")])
        bad = [(OOM, b"\xff{", []), (STATS, b"", []), (HOST, b"[1]", [("ce_id", b"\xff")])]
        asyncio.run(self.produce(kafka, prefix, [*bad, (OOM, good.value, [*attributes(good)[2:], ("ce_id", b"x")])]))
        code, told = verify(kafka.url)
        assert code == 1 and told["records"] == 4 and told["counts"]["schema"] == 4
        assert f"{prefix}.host.info[0]@0" in {finding["where"] for finding in told["findings"]}

    async def produce(
        self, server: KafkaServer, prefix: str, some: list[tuple[Topic, bytes | None, list[tuple[str, bytes]]]]
    ) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=server.address)
        await producer.start()
        try:
            for topic, value, headers in some:
                await producer.send_and_wait(f"{prefix}.{topic.suffix}", value, headers=headers)
        finally:
            await producer.stop()

    async def test_nobody_there(self) -> None:
        """One clear error, and nothing is left behind."""
        for scheme in ("kafka", "redis"):
            source = reader(f"{scheme}://127.0.0.1:{free_port()}", Selection())
            with pytest.raises(NotConnected):
                await source.open()
            await source.close()


async def test_a_second_agent_run_is_read_with_the_first(redis_server: RedisServer, prefix: str) -> None:
    """What `connect` of a sink leaves is what readers find: nothing of the reader's own writes."""
    sink = RedisSink(parse(redis_server.url), "h", prefix=prefix)
    await sink.connect()
    await sink.close()
    source = reader(redis_server.url, Selection(prefix))
    await source.open()
    assert [batch async for batch in source.batches()] == []
    await source.close()
    async with redis_client(redis_server) as client:
        assert await client.keys(f"{prefix}*") == []
