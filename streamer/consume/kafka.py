"""Reads the topics of a prefix from Kafka: all partitions, without a consumer group, up to where they ended at the start.

Partitions are read in step: next comes the one whose last record is the oldest. So the numbers of a host, which are spread over
partitions by container, arrive nearly in order, and whoever checks them has little to remember.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.structs import ConsumerRecord

from streamer import brokers
from streamer.consume import Batch, Place, Progress, Raw, Selection
from streamer.consume.values import unwrap
from streamer.errors import NotConnected, PermanentlyRefused, StreamerError
from streamer.model.messages import Topic

_RECORDS: Final = 500  # in a batch
_ANSWER_MS: Final = 1000
_PATIENCE_SECONDS: Final = 30.0  # without a record where there must be some
_REQUEST_TIMEOUT_MS: Final = 10_000
_LOG_APPEND_TIME: Final = 1  # Kafka's name for a timestamp that is the broker's own
_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (kafka_errors.TopicAuthorizationFailedError, "allow the user to read and describe: kafka-acls --operation read --topic …"),
    (kafka_errors.ClusterAuthorizationFailedError, "allow the user to read and describe the topics"),
    (kafka_errors.SaslAuthenticationFailed, "correct user and password"),
    (kafka_errors.AuthenticationFailedError, "correct user and password"),
    (kafka_errors.UnsupportedSaslMechanismError, "choose one that the broker offers: ?sasl=…"),
    (kafka_errors.IllegalSaslStateError, "the listener wants no SASL: name one that does, or leave user and password out"),
)


class _Part(NamedTuple):
    """A partition: what it is called here and there, and the offset it ended at."""

    partition: TopicPartition
    place: Place
    start: int
    end: int


class KafkaReader:
    """`kafka://host:port,…` or `kafkas://`."""

    def __init__(self, url: brokers.BrokerUrl, selection: Selection) -> None:
        self.kind = "kafka"
        self.notes: list[str] = []
        self._url, self._selection = url, selection
        self._options: Final = brokers.kafka_options(url, key="URL")
        self._consumer: AIOKafkaConsumer | None = None
        self._parts: list[_Part] = []
        self._done = 0

    @classmethod
    def from_url(cls, url: str, selection: Selection, *, password: str | None) -> Self:
        """`reader`'s entry. Raises ConfigError."""
        return cls(brokers.parse(url, password=password, key="URL"), selection)

    def describe(self) -> str:
        return self._url.shown

    async def open(self) -> None:
        self._consumer = consumer = AIOKafkaConsumer(
            **self._options,
            client_id="streamer-reader",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            check_crcs=True,
        )
        try:
            await consumer.start()
            await self._find(consumer)
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise _refusal(error) from error

    async def batches(self) -> AsyncIterator[Batch]:
        if self._consumer is None:
            raise NotConnected("not open")
        clocks = dict.fromkeys(self._parts, -1)  # ms since 1970 of the last record of each that is not at its end
        for part in self._parts:
            if part.start >= part.end:
                del clocks[part]
                yield Batch(part.place, ())
        told: set[_Part] = set()
        while clocks:
            part = min(clocks, key=clocks.__getitem__)
            found = await self._some(self._consumer, part)
            records = [record for record in found if record.offset < part.end]
            place = part.place
            if part not in told:
                told.add(part)
                if not place.trimmed and records and records[0].offset > 0 and not _compacted(place):
                    place = place._replace(trimmed="expired")  # between the look and the reading
            if records:
                clocks[part] = max(clocks[part], records[-1].timestamp)
            self._done += len(records)
            try:
                at_end = (found and found[-1].offset >= part.end - 1) or await self._consumer.position(part.partition) >= part.end
            except kafka_errors.KafkaError as error:
                raise _refusal(error) from error
            if at_end:
                del clocks[part]
            yield Batch(place, [_raw(place.topic, record) for record in records])

    def progress(self) -> Progress:
        return Progress(self._done, sum(part.end - part.start for part in self._parts), "records")

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            stopping = asyncio.ensure_future(consumer.stop())
            await asyncio.wait([stopping], timeout=2.0)  # a broker that hangs is not waited for
            if not stopping.done():
                stopping.cancel()
            elif stopping.exception() is not None:
                self.notes.append(f"the consumer did not end well: {stopping.exception()}")

    async def _find(self, consumer: AIOKafkaConsumer) -> None:
        there = await consumer.topics()  # of all topics: to ask for one by name can make it
        by_name = {f"{self._selection.prefix}.{topic.suffix}": topic for topic in self._selection.topics}
        self.notes += [f"there is no topic {name}" for name in by_name if name not in there]
        by_name = {name: topic for name, topic in by_name.items() if name in there}
        if not by_name:
            return
        await consumer._client.set_topics(by_name)  # from now on metadata is asked for these alone
        by_partition: dict[TopicPartition, Topic] = {}
        for name, topic in by_name.items():
            numbers = consumer.partitions_for_topic(name)
            if not numbers:
                raise NotConnected(f"topic {name} is there, but the broker does not say which partitions it has")
            by_partition.update({TopicPartition(name, number): topic for number in sorted(numbers)})
        consumer.assign(list(by_partition))
        starts = await consumer.beginning_offsets(list(by_partition))
        ends = await consumer.end_offsets(list(by_partition))
        since = self._selection.since_ms
        sought: dict[TopicPartition, Any] = {}
        if since is not None:
            sought = await consumer.offsets_for_times(dict.fromkeys(by_partition, max(0, since)))
        for partition, topic in by_partition.items():
            trimmed = "expired" if starts[partition] > 0 and not topic.compacted else ""
            start = starts[partition]
            if since is not None and not topic.compacted:
                start = sought[partition].offset if sought.get(partition) is not None else ends[partition]
                trimmed = "--since" if start > starts[partition] else trimmed
            consumer.seek(partition, start)
            name = f"{partition.topic}[{partition.partition}]"
            from_ms = since if trimmed == "--since" else None
            self._parts.append(_Part(partition, Place(name, f"{name}@", topic, "", trimmed, from_ms), start, ends[partition]))

    async def _some(self, consumer: AIOKafkaConsumer, part: _Part) -> list[ConsumerRecord]:
        """The next records of a partition; none when its end was reached without one (a transaction's mark)."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + _PATIENCE_SECONDS
        try:
            while True:
                found = await consumer.getmany(part.partition, timeout_ms=_ANSWER_MS, max_records=_RECORDS)
                if found or await consumer.position(part.partition) >= part.end:
                    records: list[ConsumerRecord] = found.get(part.partition, [])
                    return records
                if loop.time() > patience:
                    raise NotConnected(f"{part.place.name} gives nothing more at offset {await consumer.position(part.partition)}")
        except (kafka_errors.KafkaError, OSError) as error:
            raise _refusal(error) from error


def _raw(topic: Topic | None, record: ConsumerRecord) -> Raw:
    value, inside = unwrap(record.value or b"")
    beside = next((text for name, text in record.headers if name == "ce_id"), None)
    key = record.key.decode(errors="backslashreplace") if record.key is not None else None
    broker_time_ms = record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else None
    transport_id = beside.decode(errors="backslashreplace") if beside is not None else inside
    return Raw(topic, value, record.offset, key, transport_id, broker_time_ms)


def _compacted(place: Place) -> bool:
    return place.topic is not None and place.topic.compacted


def _refusal(error: BaseException) -> StreamerError:
    for kind, remedy in _REFUSALS:
        if isinstance(error, kind):
            return PermanentlyRefused(str(error), remedy=remedy)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return PermanentlyRefused(str(error), remedy="name the authority that signed the broker's certificate: ?ca=/path.pem")
    return NotConnected(str(error) or type(error).__name__)
