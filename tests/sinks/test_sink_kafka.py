"""The Kafka sink against a real Apache Kafka, read back by Kafka's own tools and by aiokafka's consumer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient

from streamer.brokers import parse
from streamer.config import Publishing, SinkSettings
from streamer.contracts import Sink
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import TOPICS
from streamer.model.wire import Entry, attributes
from streamer.sinks import make
from streamer.sinks.kafka import KafkaSink, TopicReport, create_topics, topics
from streamer.testing.clock import START_NS
from streamer.testing.contract import Kept, RemoteSinkContract
from streamer.testing.messages import Speaker, encoded
from tests.support.brokers import KafkaServer
from tests.support.read_back import records

EVENTS = {topic.suffix: topic.short for topic in TOPICS if not topic.compacted}


class TestKafkaContract(RemoteSinkContract):
    """What every sink must do."""

    @pytest.fixture(autouse=True)
    def _peer(self, kafka: KafkaServer) -> None:
        self.server = kafka
        self.prefix = f"p{uuid4().hex[:8]}"

    async def make_sink(self) -> KafkaSink:
        await create_topics(self.server.url, self.prefix, partitions=3)
        return KafkaSink(parse(self.server.url), "h", prefix=self.prefix)

    async def read_back(self) -> list[Kept]:
        found = await records(self.server, *(f"{self.prefix}.{suffix}" for suffix in EVENTS))
        return [Kept(EVENTS[record.topic.removeprefix(f"{self.prefix}.")], record.value) for record in found]

    async def read_state(self) -> dict[str, bytes]:
        found = await records(self.server, f"{self.prefix}.container.state")
        latest = {record.key.decode().partition("/")[2]: record.value for record in found}
        return {container: value for container, value in latest.items() if value is not None}

    async def stall(self) -> None:
        self.server.pause()

    async def resume(self) -> None:
        self.server.resume()


@pytest.fixture
def prefix() -> str:
    """Topics that no other test uses."""
    return f"p{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaServer]:
    """A Kafka that tests may kill, with small topics allowed and clocks compared."""
    with KafkaServer() as server:
        yield server


async def _sent(sink: Sink, batch: list[Entry]) -> list[tuple[int, str]]:
    await sink.connect()
    try:
        return list((await sink.send(batch)).rejected)
    finally:
        await sink.close()


async def _refused(sink: Sink) -> PermanentlyRefused:
    with pytest.raises(PermanentlyRefused) as refused:
        await sink.connect()
    await sink.close()
    return refused.value


async def test_the_partition_is_the_one_java_picks(kafka: KafkaServer, prefix: str) -> None:
    """Keys that Kafka's own producer wrote lie in the partitions that the sink puts them into."""
    await create_topics(kafka.url, prefix, partitions=7)
    keys = [f"{number:064x}" for number in range(40)] + ["", "a", "ab", "abc", "abcd", "ключ", "host/🦀"]
    java = f"{prefix}.java"
    kafka.tool(
        "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, "--create", "--topic", java, "--partitions", "7"
    )
    producer = ["--bootstrap-server", kafka.address, "--topic", java, "--property", "parse.key=true"]
    kafka.tool("org.apache.kafka.tools.ConsoleProducer", *producer, given="".join(f"{key}\tx\n" for key in keys))
    theirs = {record.key.decode(): record.partition for record in await records(kafka, java)}
    await _sent(KafkaSink(parse(kafka.url), "h", prefix=prefix), encoded([Speaker("h").stats(key) for key in keys]))
    ours = {record.key.decode(): record.partition for record in await records(kafka, f"{prefix}.container.stats")}
    assert set(theirs) == set(keys)
    assert ours == theirs


async def test_kafkas_own_consumer_sees_key_timestamp_headers_and_value(kafka: KafkaServer, prefix: str) -> None:
    """The console consumer prints the time of the fact, the CloudEvents attributes as headers, the key, and the JSON."""
    await create_topics(kafka.url, prefix, partitions=1)
    (entry,) = encoded([Speaker("h").oom("c1", process="tail")])
    await _sent(KafkaSink(parse(kafka.url), "h", prefix=prefix), [entry])
    (line,) = kafka.consume(f"{prefix}.container.oom", 1, "timestamp", "headers", "key")
    timestamp, headers, key, value = line.split("\t")
    assert timestamp == f"CreateTime:{entry.time_ms}"
    assert headers.split(",") == [f"{name}:{text.decode()}" for name, text in attributes(entry)]
    assert key == "c1"
    assert json.loads(value)["process"] == "tail"


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
async def test_every_compression_is_read_by_kafka(
    kafka: KafkaServer, prefix: str, compression: Literal["none", "gzip", "lz4", "zstd"]
) -> None:
    """Kafka's own consumer reads what was written with each codec that the configuration offers."""
    await create_topics(kafka.url, prefix, partitions=1)
    batch = encoded([Speaker("h").stats("c") for _ in range(50)])
    settings = Publishing(prefix=prefix, kafka_compression=compression)
    await _sent(make(SinkSettings(url=kafka.url), settings, "h"), batch)
    assert kafka.consume(f"{prefix}.container.stats", 50) == [(entry.value or b"").decode() for entry in batch]


async def test_topics_are_created_with_their_settings(kafka: KafkaServer, prefix: str) -> None:
    """The state topic is compacted, the others keep days; a second run finds them, and says what is different."""
    names = [f"{prefix}.{topic.suffix}" for topic in TOPICS]
    assert await create_topics(kafka.url, prefix, partitions=3) == [TopicReport(name, "created") for name in names]
    assert await create_topics(kafka.url, prefix, partitions=3) == [TopicReport(name, "exists") for name in names]
    described = kafka.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, "--describe")
    mine = {
        line.split("Topic: ")[1].split()[0]: line for line in described.splitlines() if "PartitionCount" in line and prefix in line
    }
    assert "cleanup.policy=compact" in mine[f"{prefix}.container.state"]
    assert "retention.ms=86400000" in mine[f"{prefix}.container.stats"]
    assert "retention.ms=604800000" in mine[f"{prefix}.container.lifecycle"]
    assert "PartitionCount: 3" in mine[f"{prefix}.control"]
    kafka.configure_topic(f"{prefix}.container.state", "cleanup.policy=delete")
    again = {report.name: report for report in await create_topics(kafka.url, prefix, partitions=4)}
    assert again[f"{prefix}.container.state"] == TopicReport(
        f"{prefix}.container.state", "exists", ("cleanup.policy is delete, wanted compact", "partitions is 3, wanted 4")
    )


async def test_a_topic_that_cannot_be_created_is_reported(kafka: KafkaServer, prefix: str) -> None:
    """The broker's own words stand in the report."""
    reports = await create_topics(kafka.url, prefix, replication=3)
    assert {report.outcome for report in reports} == {"refused"}
    assert "eplication factor" in reports[0].differences[0]


async def test_missing_topics_are_named_with_the_remedy(kafka: KafkaServer, prefix: str) -> None:
    """Nothing is sent until all topics are there; who wants fewer types needs fewer topics."""
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix, types={"stats", "control"})
    refused = await _refused(sink)
    assert refused.problem == f"no such topic: {prefix}.container.stats, {prefix}.control"
    assert refused.remedy == f"create them: streamer topics create {kafka.url}"
    await create_topics(kafka.url, prefix, partitions=1)
    assert not await _sent(sink, encoded([Speaker("h").stats("c")]))


async def test_a_broker_that_creates_topics_is_waited_for() -> None:
    """With auto.create.topics.enable the topics appear when they are asked for."""
    with KafkaServer(auto_create_topics_enable="true") as server:
        batch = encoded(Speaker("h").some(200))
        assert not await _sent(KafkaSink(parse(server.url), "h"), batch)
        found = await records(server, "streamer.container.stats")
        assert len(found) == sum(entry.topic.short == "stats" for entry in batch)


async def test_a_message_too_large_is_rejected_alone(kafka: KafkaServer, prefix: str) -> None:
    """The broker's limit takes out the one that exceeds it; those around it arrive, in order."""
    await create_topics(kafka.url, prefix, partitions=1)
    speaker = Speaker("h")
    batch = encoded([speaker.stats("c", labels={"l": "x" * (2_000_000 if number == 5 else 10)}) for number in range(10)])
    rejected = await _sent(KafkaSink(parse(kafka.url), "h", prefix=prefix, compression="none"), batch)
    assert [index for index, _ in rejected] == [5]
    assert "too large" in rejected[0][1]
    found = await records(kafka, f"{prefix}.container.stats")
    assert [record.value for record in found] == [entry.value for entry in batch if entry is not batch[5]]


async def test_a_topic_with_a_small_limit_gets_small_batches(kafka: KafkaServer, prefix: str) -> None:
    """Where max.message.bytes is below our batch, the sink finds the size that goes in, and keeps it."""
    await create_topics(kafka.url, prefix, partitions=1)
    kafka.configure_topic(f"{prefix}.container.stats", "max.message.bytes=60000")
    batch = encoded([Speaker("h").stats(f"c{number}") for number in range(2000)])
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix, compression="none")
    await sink.connect()
    assert not (await sink.send(batch[:1000])).rejected
    renewed = sink._producer
    assert not (await sink.send(batch[1000:])).rejected
    assert sink._producer is renewed  # the second batch went in without another refusal
    await sink.close()
    found = await records(kafka, f"{prefix}.container.stats")
    assert [record.value for record in found] == [entry.value for entry in batch]


async def test_times_the_broker_does_not_believe_are_left_out(kafka: KafkaServer, prefix: str) -> None:
    """With a clock an hour ahead nothing is lost, in no partition: the records go without a timestamp, the value holds the time."""
    await create_topics(kafka.url, prefix, partitions=6)
    ahead = Speaker("h", epoch=START_NS // 1_000_000 * 2)
    batch = encoded([ahead.oom(f"c{number}") for number in range(12)])  # single records too, which are not to be rejected
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix)
    await sink.connect()
    assert not (await sink.send(batch)).rejected
    assert not (await sink.send(batch)).rejected
    await sink.close()
    found = await records(kafka, f"{prefix}.container.oom")
    assert sorted(record.value for record in found) == sorted(2 * [entry.value for entry in batch])
    assert {record.timestamp for record in found} == {-1} and len({record.partition for record in found}) > 3


async def test_new_partitions_are_used(kafka: KafkaServer, prefix: str) -> None:
    """A topic that gets more partitions is spread over all of them after the next look at the metadata."""
    await create_topics(kafka.url, prefix, partitions=1)
    batch = encoded([Speaker("h").stats(f"c{number}") for number in range(200)])
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix)
    await sink.connect()
    await sink.send(batch)
    change = ["--alter", "--topic", f"{prefix}.container.stats", "--partitions", "5"]
    kafka.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, *change)
    assert sink._producer is not None
    async with asyncio.timeout(20):  # the brokers tell each other of it in their own time
        while sink._producer.partitions(f"{prefix}.container.stats") < 5:
            await sink._producer.client.force_metadata_update()
    await sink.send(batch)
    await sink.close()
    found = await records(kafka, f"{prefix}.container.stats")
    assert len(found) == 400
    assert {record.partition for record in found} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_it_authenticates(kafka: KafkaServer, prefix: str, mechanism: str) -> None:
    """User and password of the URL, percent-encoded, with every mechanism that is offered."""
    secret = quote(kafka.password, safe="")
    url = f"kafka://agent:{secret}@{kafka.sasl_address}?sasl={mechanism}"
    await create_topics(url, prefix, partitions=1)
    sink = KafkaSink(parse(url), "h", prefix=prefix)
    assert not await _sent(sink, encoded([Speaker("h").control()]))
    assert secret not in sink.describe()


async def test_a_wrong_password_is_refused(kafka: KafkaServer, prefix: str) -> None:
    """The broker's answer is found out and said with a remedy; the password is not."""
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        refused = await _refused(
            KafkaSink(parse(f"kafka://agent:nope-nope@{kafka.sasl_address}?sasl={mechanism}"), "h", prefix=prefix)
        )
        assert "password" in refused.remedy
        assert "nope-nope" not in str(refused)


async def test_tls_is_spoken_and_the_certificate_checked(kafka: KafkaServer, prefix: str) -> None:
    """`kafkas://` with the authority's certificate works; without it the broker is refused."""
    secret = quote(kafka.password, safe="")
    url = f"kafkas://agent:{secret}@{kafka.tls_address}?sasl=SCRAM-SHA-512"
    await create_topics(f"{url}&ca={kafka.ca}", prefix, partitions=1)
    assert not await _sent(KafkaSink(parse(f"{url}&ca={kafka.ca}"), "h", prefix=prefix), encoded([Speaker("h").control()]))
    refused = await _refused(KafkaSink(parse(url), "h", prefix=prefix))
    assert "?ca=" in refused.remedy


async def test_a_user_without_rights_is_told_which(kafka: KafkaServer, prefix: str) -> None:
    """A user who may not see the topics, and one who may see but not write them, are refused with the remedy."""
    await create_topics(kafka.url, prefix, partitions=1)
    url = f"kafka://guest:{quote(kafka.password, safe='')}@{kafka.sasl_address}"
    sink = KafkaSink(parse(url), "h", prefix=prefix)
    refused = await _refused(sink)
    assert "kafka-acls" in refused.remedy
    allow = ["--bootstrap-server", kafka.address, "--add", "--allow-principal", "User:guest"]
    tool = "org.apache.kafka.tools.AclCommand"
    kafka.tool(tool, *allow, "--operation", "Describe", "--topic", prefix, "--resource-pattern-type", "prefixed")
    kafka.tool(tool, *allow, "--operation", "Write", "--topic", f"{prefix}.control")
    await sink.connect()
    speaker = Speaker("h")
    assert not (await sink.send(encoded([speaker.control()]))).rejected
    with pytest.raises(PermanentlyRefused, match=rf"{prefix}\.container\.oom") as at_send:
        await sink.send(encoded([speaker.oom("c")]))
    await sink.close()
    assert "kafka-acls" in at_send.value.remedy


async def test_nobody_listening_is_retried(kafka: KafkaServer) -> None:
    """A dead port is not connected, and says which."""
    sink = KafkaSink(parse("kafka://127.0.0.1:1"), "h")
    with pytest.raises(NotConnected, match="1"):
        await sink.connect()
    await sink.close()


async def test_a_killed_broker_is_let_go_of_and_found_again(own_kafka: KafkaServer, prefix: str) -> None:
    """Killed in the middle: the send ends when it is cancelled, `close` returns, and a new connection goes on."""
    await create_topics(own_kafka.url, prefix, partitions=2)
    batch = encoded(Speaker("h").some(400))
    sink = KafkaSink(parse(own_kafka.url), "h", prefix=prefix)
    await sink.connect()
    await sink.send(batch[:100])
    own_kafka.kill()
    with pytest.raises((NotConnected, TimeoutError)):
        async with asyncio.timeout(2):
            await sink.send(batch[100:])
    async with asyncio.timeout(20):
        await sink.close()
    with pytest.raises(NotConnected):
        await sink.connect()
    await sink.close()
    own_kafka.start()
    assert not await _sent(sink, batch[100:])
    values = {record.value for record in await records(own_kafka, *(f"{prefix}.{suffix}" for suffix in EVENTS))}
    assert values == {entry.value for entry in batch if not entry.topic.compacted}


async def test_the_clients_noise_is_kept_down(caplog: pytest.LogCaptureFixture) -> None:
    """The same complaint of aiokafka is logged once in a while, with the number of those left out."""
    seldom = next(one for one in logging.getLogger("aiokafka.client").filters if type(one).__name__ == "_Seldom")
    assert isinstance(seldom, logging.Filter)

    def record(created: float) -> logging.LogRecord:
        one = logging.LogRecord("aiokafka.client", logging.ERROR, "", 0, "Unable to test %s", ("this",), None)
        one.created = created
        return one

    kept = [one for one in (record(created) for created in (100.0, 101.0, 102.0, 131.0)) if seldom.filter(one)]
    assert [one.getMessage() for one in kept] == ["Unable to test this", "Unable to test this (2 more like this were left out)"]


async def test_it_uses_what_it_expects_of_the_client_library(kafka: KafkaServer, prefix: str) -> None:
    """The parts of aiokafka's client that are not its public face are where the sink looks for them."""
    await create_topics(kafka.url, prefix, partitions=1)
    sink = KafkaSink(parse(kafka.url), "h", prefix=prefix)
    await sink.connect()
    assert sink._producer is not None
    client = sink._producer.client
    (connection, *_) = client._conns.values()
    assert isinstance(connection._writer.transport, asyncio.WriteTransport)
    assert hasattr(client, "_md_update_fut")
    await sink.close()
    assert connection._writer is None


async def test_topics_are_created_when_the_cluster_counts_its_broker_in(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that answers, but names no broker, is asked again; for ever it is not."""
    usual, silent = AIOKafkaAdminClient.describe_cluster, iter([True, True])

    async def describe_cluster(admin: AIOKafkaAdminClient) -> Any:
        if next(silent, False):
            raise kafka_errors.NodeNotReadyError("node id None")
        return await usual(admin)

    monkeypatch.setattr(topics, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(AIOKafkaAdminClient, "describe_cluster", describe_cluster)
    assert {report.outcome for report in await create_topics(kafka.url, f"p{uuid4().hex[:8]}", partitions=1)} == {"created"}
    silent = iter([True, True, True])
    with pytest.raises(NotConnected):
        await create_topics(kafka.url, partitions=1)
