"""Kafka: a record per message, keyed by container, CloudEvents attributes as headers (Kafka protocol binding 1.0, binary mode).

Records are put into batches here, one per partition, and handed to aiokafka whole: 6 us a record instead of 50. The
partition is Java's default partitioner's, so that other producers and consumers agree on where a container lives.

aiokafka's idempotent producer never gives up: with a broker gone it waits for ever, also in `stop()`, and after a
sequence error it stays dead. So it is never waited for without a deadline (the outbox's), and never mended: `close`
throws it away and `connect` makes a new one, which also asks the bootstrap servers anew. Then the outbox replays: within
a producer each record is stored once, at such a seam it may be twice, with the same `ce_id`.

All topics must be there and writable before anything is sent. One that is missing holds up the others on purpose: a
topic is missing while somebody sets the cluster up, when waiting loses nothing; sending samples of containers whose
`created` cannot be sent would break the order that is promised. Who wants to do without a topic says so in `types`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.partitioner import murmur2

from streamer import brokers
from streamer.config import Publishing, SinkSettings, password
from streamer.contracts import Receipt
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import TOPICS, Topic
from streamer.model.wire import Entry, attributes
from streamer.sinks import wanted_types

_ALL_TYPES: Final = frozenset(topic.short for topic in TOPICS)
_BATCH_BYTES: Final = 900_000  # below the broker's default message.max.bytes (1 MiB), before compression
_SMALLEST_BATCH_BYTES: Final = 16_384
_REQUEST_TIMEOUT_MS: Final = 10_000
_METADATA_AGE_MS: Final = 60_000  # how long a new partition of a topic may stay unnoticed
_TOPICS_SECONDS: Final = 4.0  # a broker that creates topics by itself needs a moment
_STOP_SECONDS: Final = 0.5
_KNOWN_KEYS: Final = 20_000
_NO_TIMESTAMP: Final = -1  # Kafka's own value for a record without one

_TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
_AUTHORIZE: Final = "allow the agent's user to write, describe and write idempotently: kafka-acls --producer --idempotent --topic …"
_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (kafka_errors.TopicAuthorizationFailedError, _AUTHORIZE),
    (kafka_errors.ClusterAuthorizationFailedError, _AUTHORIZE),
    (kafka_errors.SaslAuthenticationFailed, "correct user and password"),
    (kafka_errors.AuthenticationFailedError, "correct user and password"),
    (kafka_errors.UnsupportedSaslMechanismError, "choose one that the broker offers: ?sasl=…"),
    (kafka_errors.IllegalSaslStateError, "the listener wants no SASL: name one that does, or leave user and password out"),
    (kafka_errors.InvalidTopicError, "correct publishing.prefix"),
    (kafka_errors.PolicyViolationError, "see the cluster's policy"),
    (kafka_errors.InvalidRequiredAcksError, "let the topic take acks=all"),
)
"""Errors that stay until the operator acts, and what to do."""

Pending = dict[tuple[str, int], list[tuple[int, Entry]]]
"""(topic, partition) -> what is still to be acknowledged there: (index in the outbox's batch, entry), in order."""


class KafkaSink:
    """Publishes to one cluster through one producer at a time."""

    def __init__(
        self,
        url: brokers.BrokerUrl,
        host_id: str,
        *,
        prefix: str = "streamer",
        compression: str = "lz4",
        types: Collection[str] = _ALL_TYPES,
    ) -> None:
        """`types`: short names of the topics that will be sent, all of which must be there."""
        self.name = "kafka"
        self._url = url
        self._options: Final = {
            **brokers.kafka_options(url),
            "client_id": f"streamer-{host_id}",
            "compression_type": None if compression == "none" else compression,
        }
        self._topics: Final = {topic.short: f"{prefix}.{topic.suffix}" for topic in TOPICS}
        self._needed: Final = [name for short, name in self._topics.items() if short in types]
        self._producer: AIOKafkaProducer | None = None
        self._batch_bytes = _BATCH_BYTES
        self._timestamps = True
        self._keys: dict[str, tuple[bytes, int]] = {}

    @classmethod
    def from_settings(cls, settings: SinkSettings, publishing: Publishing, host_id: str) -> Self:
        """`make`'s entry. Raises ConfigError."""
        return cls(
            brokers.parse(settings.url, password=password(settings)),
            host_id,
            prefix=publishing.prefix,
            compression=publishing.kafka_compression,
            types=wanted_types(settings.url, settings.types),
        )

    def describe(self) -> str:
        return self._url.shown

    async def connect(self) -> None:
        """Make a producer and see that every topic is there."""
        await self.close()
        self._timestamps = True
        await self._renew()

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        rejected: list[tuple[int, str]] = []
        pending: Pending = {}
        partitions = {short: self._partitions(short) for short in {entry.topic.short for entry in batch}}
        for index, entry in enumerate(batch):
            topic, count = partitions[entry.topic.short]
            pending.setdefault((topic, self._key(entry.key)[1] % count), []).append((index, entry))
        most: dict[tuple[str, int], int] = {}  # records in the next batch for a partition that refused a larger one
        while pending:
            await self._round(pending, most, rejected)
        return Receipt(sorted(rejected))

    async def close(self) -> None:
        """Throw the producer away. What it has not been acknowledged is not flushed: the outbox has it."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer._closed = True  # or its __del__ complains that stop(), which flushes, was not called
        sender = producer._sender.sender_task
        for _ in range(2):  # the first cancel makes it wait for requests to a broker that may hang, the second ends that
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait([sender], timeout=_STOP_SECONDS)
        closing = asyncio.ensure_future(producer.client.close())
        await asyncio.wait([closing], timeout=_STOP_SECONDS)
        closing.cancel()
        update = producer.client._md_update_fut
        if update is not None and not update.done():  # nobody will update metadata any more: let go who waits for it
            update.set_result(False)

    async def _renew(self) -> None:
        await self.close()
        self._producer = producer = AIOKafkaProducer(
            **self._options,
            enable_idempotence=True,
            acks="all",
            max_batch_size=self._batch_bytes,
            linger_ms=0,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=_METADATA_AGE_MS,
        )
        # Without this, metadata is asked for all topics of the cluster.
        producer.client.set_topics(self._needed)
        try:
            await producer.start()
            await self._find_topics(producer.client)
        except kafka_errors.KafkaConnectionError as error:
            raise await self._why(error) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise _refusal(error) from error

    async def _find_topics(self, client: Any) -> None:
        loop = asyncio.get_running_loop()
        patience = loop.time() + _TOPICS_SECONDS
        while True:
            await client.force_metadata_update()
            if refused := client.cluster.unauthorized_topics.intersection(self._needed):
                raise PermanentlyRefused(f"not allowed to see {', '.join(sorted(refused))}", remedy=_AUTHORIZE)
            missing = [name for name in self._needed if not client.cluster.partitions_for_topic(name)]
            if not missing:
                return
            if loop.time() > patience:
                remedy = f"create them: streamer topics create {self._url.shown}"
                raise PermanentlyRefused(f"no such topic: {', '.join(missing)}", remedy=remedy)
            await asyncio.sleep(0.1)

    async def _why(self, error: Exception) -> NotConnected | PermanentlyRefused:
        """aiokafka logs why it cannot connect and raises only that it cannot: ask again, one server at a time."""
        wanted = ("client_id", "security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
        options = {name: value for name, value in self._options.items() if name in wanted}
        cause: Exception = error
        for host, port in self._url.servers:
            try:
                connection = await create_conn(host, port, request_timeout_ms=_REQUEST_TIMEOUT_MS, **options)
            except (kafka_errors.KafkaError, OSError, TimeoutError) as found:
                cause = found
            else:
                connection.close()
                return NotConnected(f"{host}:{port} answers, but not as a Kafka broker that is ready")
        return _refusal(cause)

    def _partitions(self, short: str) -> tuple[str, int]:
        """The name of a topic, and how many partitions it has at the moment."""
        topic = self._topics[short]
        partitions = self._live().client.cluster.partitions_for_topic(topic)
        if not partitions:
            raise NotConnected(f"topic {topic} has gone")
        return topic, len(partitions)

    def _key(self, key: str) -> tuple[bytes, int]:
        """The key's bytes and hash; the hash takes 24 us for a container id, so it is kept."""
        known = self._keys.get(key)
        if known is None:
            if len(self._keys) >= _KNOWN_KEYS:  # containers come and go; the living ones are soon known again
                self._keys.clear()
            encoded = key.encode()
            known = self._keys[key] = encoded, murmur2(encoded) & 0x7FFFFFFF
        return known

    async def _round(self, pending: Pending, most: dict[tuple[str, int], int], rejected: list[tuple[int, str]]) -> None:
        """Send one batch to each partition and strike out what became of it."""
        sent = {place: self._build(waiting[: most.get(place)]) for place, waiting in pending.items()}
        outcomes = await self._acknowledged(sent)
        renew = False
        for (place, builder), outcome in zip(sent.items(), outcomes, strict=True):
            count = builder.record_count()
            if isinstance(outcome, kafka_errors.InvalidTimestampError) and self._timestamps:
                # Our clock or the broker's is wrong by more than message.timestamp.after.max.ms (1 h). The value has the time.
                self._timestamps, renew = False, True
            elif isinstance(outcome, _TOO_LARGE) and count > 1:
                self._batch_bytes = max(min(self._batch_bytes, builder.size()) // 2, _SMALLEST_BATCH_BYTES)
                most[place], renew = (count + 1) // 2, True
            elif isinstance(outcome, _TOO_LARGE):
                index, entry = pending[place].pop(0)
                rejected.append((index, f"too large for the broker: {len(entry.value or b'')} bytes"))
                renew = True
            elif outcome is not None:
                raise _refusal(outcome) from outcome
            else:
                del pending[place][:count]
                if place in most:
                    most[place] *= 2
            if not pending[place]:
                del pending[place]
        if renew:  # the refused batch has used up sequence numbers: the broker takes no more from this producer
            await self._renew()

    def _build(self, waiting: list[tuple[int, Entry]]) -> Any:
        builder = self._live().create_batch()
        for _, entry in waiting:
            timestamp = entry.time_ms if self._timestamps else _NO_TIMESTAMP
            if (
                builder.append(timestamp=timestamp, key=self._key(entry.key)[0], value=entry.value, headers=attributes(entry))
                is None
            ):
                break  # full; the first one always goes in
        builder.close()
        return builder

    async def _acknowledged(self, sent: dict[tuple[str, int], Any]) -> list[BaseException | None]:
        """Hand all batches over at once, so that they share requests, and wait for the outcome of each."""
        producer = self._live()
        try:
            futures = [
                await producer.send_batch(builder, topic, partition=partition) for (topic, partition), builder in sent.items()
            ]
        except (kafka_errors.KafkaError, AssertionError) as error:  # the assertion: that partition is no longer known
            raise NotConnected(f"metadata lost: {error}") from error
        outcomes = asyncio.gather(*futures, return_exceptions=True)
        # When the producer's own task dies, not all of the futures learn of it.
        await asyncio.wait([outcomes, producer._sender.sender_task], return_when=asyncio.FIRST_COMPLETED)
        if not outcomes.done():
            outcomes.cancel()
            raise NotConnected("the producer gave up")
        return [outcome if isinstance(outcome, BaseException) else None for outcome in outcomes.result()]

    def _live(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise NotConnected("not connected")
        return self._producer


def _refusal(error: BaseException) -> NotConnected | PermanentlyRefused:
    for kind, remedy in _REFUSALS:
        if isinstance(error, kind):
            return PermanentlyRefused(str(error), remedy=remedy)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return PermanentlyRefused(str(error), remedy="name the authority that signed the broker's certificate: ?ca=/path.pem")
    return NotConnected(str(error) or type(error).__name__)


class TopicReport(NamedTuple):
    """What `create_topics` found or did. `differences`: `name is …, wanted …`, or why the topic was refused."""

    name: str
    outcome: Literal["created", "exists", "refused"]
    differences: tuple[str, ...] = ()


async def create_topics(
    url: str, prefix: str = "streamer", *, password: str | None = None, partitions: int = 6, replication: int | None = None
) -> list[TopicReport]:
    """Create the topics of `prefix` that are not there, and say how those that are differ; they are left as they are.

    `replication` None: 3, or as many as there are brokers.

    Raises:
        ConfigError: a URL that is none of Kafka's.
        NotConnected, PermanentlyRefused: the cluster cannot be reached, or does not let us.
    """
    parsed = brokers.parse(url, password=password)
    admin = AIOKafkaAdminClient(**brokers.kafka_options(parsed), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        copies = replication or min(3, len((await admin.describe_cluster())["brokers"]))
        wanted = {f"{prefix}.{topic.suffix}": _topic_settings(topic) for topic in TOPICS}
        there = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        new = [NewTopic(name, partitions, copies, topic_configs=settings) for name, settings in wanted.items() if name not in there]
        refused: dict[str, str] = {}
        if new:
            for name, code, text in (await admin.create_topics(new)).topic_errors:
                if code:
                    refused[name] = text or kafka_errors.for_code(code).description
        differences = await _differences(admin, {name: wanted[name] for name in there if name in wanted})
        for name in differences:
            if there[name] != partitions:
                differences[name].append(f"partitions is {there[name]}, wanted {partitions}")
        return [_report(name, refused.get(name), differences.get(name)) for name in wanted]
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise _refusal(error) from error
    finally:
        await admin.close()


def _topic_settings(topic: Topic) -> dict[str, str]:
    if topic.compacted:
        return {"cleanup.policy": "compact"}
    days = 1 if topic.lane == "stats" else 7
    return {"cleanup.policy": "delete", "retention.ms": str(days * 86_400_000)}


async def _differences(admin: AIOKafkaAdminClient, wanted: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in wanted}
    if not wanted:
        return found
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]):
        for code, text, _, name, entries in answer.resources:
            if code:
                found[name].append(text or kafka_errors.for_code(code).description)
                continue
            settings = {entry[0]: entry[1] for entry in entries}
            found[name] += [
                f"{key} is {settings.get(key)}, wanted {value}" for key, value in wanted[name].items() if settings.get(key) != value
            ]
    return found


def _report(name: str, refused: str | None, differences: list[str] | None) -> TopicReport:
    if refused is not None:
        return TopicReport(name, "refused", (refused,))
    return TopicReport(name, "created") if differences is None else TopicReport(name, "exists", tuple(differences))


class _Seldom(logging.Filter):
    """Lets a kind of message through once in 30 s: without its broker aiokafka logs 40 lines a second."""

    EVERY_SECONDS: Final = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.name, str(record.msg)
        if record.created - self._last.get(kind, 0.0) < self.EVERY_SECONDS:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._last[kind] = record.created
        if left_out := self._left_out.pop(kind, 0):
            record.msg = f"{record.msg} ({left_out} more like this were left out)"
        return True


def _quieten() -> None:
    seldom = _Seldom()
    for name in ("client", "cluster", "conn", "producer.producer", "producer.sender", "producer.message_accumulator"):
        # A filter of a logger is not asked about its children's records: each needs it.
        logging.getLogger(f"aiokafka.{name}").addFilter(seldom)


_quieten()
