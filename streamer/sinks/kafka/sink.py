"""The Kafka sink: which record goes to which partition, and what becomes of those that the broker does not take.

The partition is Java's default partitioner's, so that other producers and consumers agree on where a container lives.
Each partition gets its batches one after the other, all partitions at once (`producer.py`). What is not much is packed on
the spot, a batch for each partition, and put together: a request per leader and nothing else, as long as all is stored.
What is left of it then, and much, goes partition by partition, the next batch packed while one is on its way.

What a broker refuses for good (too large, invalid) is found by halving the batch until the record is alone, and
rejected; those around it arrive, in order. What may pass within seconds, as when a leader moves, is tried again for
`_PATIENCE_SECONDS`, under the same sequence numbers, so that nothing is stored twice. Everything else ends the attempt
with the broker's words: `close` throws the producer away, `connect` makes a new one, which also asks the bootstrap
servers anew, and the outbox replays. What other partitions acknowledged meanwhile is remembered and not sent again; what
was on its way may be there twice, with the same `ce_id`.

All topics must be there and writable before anything is sent. One that is missing holds up the others on purpose: a
topic is missing while somebody sets the cluster up, when waiting loses nothing; sending samples of containers whose
`created` cannot be sent would break the order that is promised. Who wants to do without a topic says so in `types`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Self

from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.conn import create_conn

from streamer import brokers
from streamer.config import Publishing, SinkSettings, password
from streamer.contracts import Receipt
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import TOPICS, Lane
from streamer.model.wire import Entry
from streamer.sinks import wanted_types
from streamer.sinks.kafka import noise, refusals
from streamer.sinks.kafka.murmur import hashes
from streamer.sinks.kafka.producer import REQUEST_TIMEOUT_MS, Packed, Producer

_ALL_TYPES: Final = frozenset(topic.short for topic in TOPICS)
_BATCH_BYTES: Final = 900_000  # below the broker's default message.max.bytes (1 MiB), before compression
_SMALLEST_BATCH_BYTES: Final = 16_384
_TOPICS_SECONDS: Final = 4.0  # a broker that creates topics by itself needs a moment
_PATIENCE_SECONDS: Final = 5.0  # a leader moves within that; what lasts longer is said
_KNOWN_KEYS: Final = 20_000
_AT_ONCE_BYTES: Final = 1_000_000  # what so much holds up the event loop is 2 ms; threads and tasks would cost as much again

noise.quieten()


class _Tried(NamedTuple):
    """A batch that was put once and not stored: the broker's code, and until when (event loop's clock) it may pass."""

    packed: Packed
    code: int
    patience: float


class KafkaSink:
    """Publishes to one cluster through one producer at a time."""

    def __init__(
        self,
        url: brokers.BrokerUrl,
        host_id: str,
        *,
        prefix: str = "streamer",
        compression: str = "zstd",
        types: Collection[str] = _ALL_TYPES,
    ) -> None:
        """`types`: short names of the topics that will be sent, all of which must be there."""
        self.name = "kafka"
        self._url = url
        self._options: Final = {**brokers.kafka_options(url), "client_id": f"streamer-{host_id}"}
        self._compression: Final = compression
        self._topics: Final = {topic.short: f"{prefix}.{topic.suffix}" for topic in TOPICS}
        self._needed: Final = [name for short, name in self._topics.items() if short in types]
        self._producer: Producer | None = None
        self._timestamps, self._batch_bytes = True, _BATCH_BYTES
        self._hashes: dict[str, int] = {}
        self._through: dict[Lane, set[int]] = {"durable": set(), "stats": set()}  # positions a failed batch got stored

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
        self._timestamps, self._batch_bytes = True, _BATCH_BYTES
        self._producer = producer = Producer(self._options, self._needed, self._compression)
        try:
            await producer.start()
            await self._find_topics(producer)
        except kafka_errors.KafkaConnectionError as error:
            raise await self._why(error) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise refusals.refused(error) from error

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        producer = self._live()
        lane = batch[0].topic.lane if batch else "durable"
        known = self._through[lane]
        left: _Left = {place: (waiting, None) for place, waiting in self._places(producer, batch, known).items()}
        rejected: dict[int, str] = {}
        if sum(entry.size for entry in batch) <= _AT_ONCE_BYTES:
            left = await self._at_once(producer, left, known)
        if left:
            await self._one_by_one(producer, batch, left, known, rejected)
        newest = batch[-1].position if batch else 0
        self._through[lane] = {position for position in known if position > newest}
        if not rejected:
            return Receipt()
        return Receipt([(index, rejected[entry.position]) for index, entry in enumerate(batch) if entry.position in rejected])

    async def close(self) -> None:
        """Throw the producer away. What it has not been acknowledged is not flushed: the outbox has it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()

    async def _find_topics(self, producer: Producer) -> None:
        client = producer.client
        loop = asyncio.get_running_loop()
        patience = loop.time() + _TOPICS_SECONDS
        while True:
            await client.force_metadata_update()
            if hidden := client.cluster.unauthorized_topics.intersection(self._needed):
                raise refusals.not_allowed_to_see(", ".join(sorted(hidden)))
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
                connection = await create_conn(host, port, request_timeout_ms=REQUEST_TIMEOUT_MS, **options)
            except (kafka_errors.KafkaError, OSError, TimeoutError) as found:
                cause = found
            else:
                connection.close()
                return NotConnected(f"{host}:{port} answers, but not as a Kafka broker that is ready")
        return refusals.refused(cause)

    def _places(self, producer: Producer, batch: Sequence[Entry], known: set[int]) -> dict[TopicPartition, list[Entry]]:
        """What goes to which partition, in order, but for what is stored already."""
        hashed = self._hashed(batch)
        shares: dict[str, list[list[Entry]]] = {}  # by topic and number of the partition
        for entry in batch:
            if entry.position in known:
                continue
            share = shares.get(entry.topic.short)
            if share is None:
                partitions = producer.partitions(self._topics[entry.topic.short])
                share = shares[entry.topic.short] = [[] for _ in range(partitions)]
            share[hashed[entry.key] % len(share)].append(entry)
        return {
            TopicPartition(self._topics[short], partition): waiting
            for short, share in shares.items()
            for partition, waiting in enumerate(share)
            if waiting
        }

    def _hashed(self, batch: Sequence[Entry]) -> dict[str, int]:
        """Key -> hash, for all of a batch; kept, as the same keys come again and again."""
        if unknown := {entry.key for entry in batch}.difference(self._hashes):
            if len(self._hashes) >= _KNOWN_KEYS:  # containers come and go; the living ones are soon known again
                self._hashes.clear()
                unknown = {entry.key for entry in batch}
            self._hashes.update(hashes(unknown))
        return self._hashes

    async def _at_once(self, producer: Producer, places: _Left, known: set[int]) -> _Left:
        """Put a first batch of each partition, all together, and return what is left to do: nothing, at most times."""
        began = asyncio.get_running_loop().time()
        packed = [
            (place, producer.pack_here(waiting, producer.sequence(place), self._batch_bytes, timestamps=self._timestamps))
            for place, (waiting, _) in places.items()
        ]
        codes = [refusals.UNANSWERED] * len(packed)
        try:
            await producer.put_together(packed, codes)
        except BaseException:  # cancelled by a deadline: some may have answered
            for (place, one), code in zip(packed, codes, strict=True):
                if code in refusals.STORED:
                    known.update(entry.position for entry in places[place][0][: one.records])
            raise
        left: _Left = {}
        now = asyncio.get_running_loop().time()
        for (place, one), code in zip(packed, codes, strict=True):
            waiting, _ = places[place]
            if code not in refusals.STORED:
                # One leader's silence is not held against what another one said at once.
                patience = (began if code in refusals.LATE else now) + _PATIENCE_SECONDS
                left[place] = waiting, _Tried(one, code, patience)
            elif one.records < len(waiting):
                left[place] = waiting[one.records :], None
        return left

    async def _one_by_one(
        self, producer: Producer, batch: Sequence[Entry], left: _Left, known: set[int], rejected: dict[int, str]
    ) -> None:
        """Bring to each partition what is left for it; `known` gets the positions of all that is stored."""
        stored: list[int] = []
        waiting_still = {entry.position for waiting, _ in left.values() for entry in waiting}
        known.update(entry.position for entry in batch if entry.position not in waiting_still)
        try:
            outcomes = await asyncio.gather(
                *(self._fill(producer, place, *waiting, stored, rejected) for place, waiting in left.items()),
                return_exceptions=True,
            )
        finally:  # cancelled by a deadline, too
            known.update(stored)
        if failures := [outcome for outcome in outcomes if outcome is not None]:
            # One that waits for the operator is the one to be told of.
            raise next((failure for failure in failures if isinstance(failure, PermanentlyRefused)), failures[0])

    async def _fill(
        self,
        producer: Producer,
        place: TopicPartition,
        waiting: Sequence[Entry],
        tried: _Tried | None,
        stored: list[int],
        rejected: dict[int, str],
    ) -> None:
        """Bring all of `waiting` to its partition, batch after batch; the next is packed while one is on its way.

        `tried` is its first batch, put and not stored. `rejected`: by position, why.
        """
        done, most = 0, len(waiting)  # `most` records in a batch, fewer while a refused one is looked for
        if tried is None:
            packing = self._packing(producer, waiting, producer.sequence(place))
        else:
            packing = asyncio.get_running_loop().create_future()
            packing.set_result(tried.packed)
        try:
            while done < len(waiting):
                packed = await packing
                behind = done + packed.records
                if behind < len(waiting):
                    packing = self._packing(producer, waiting[behind : behind + most], producer.sequence(place) + packed.records)
                code = await self._stored(producer, place, packed, tried)
                tried = None
                if code in refusals.STORED:
                    stored += [entry.position for entry in waiting[done:behind]]
                    done, most = behind, most * 2
                    continue
                packing.cancel()
                if code == refusals.INVALID_TIMESTAMP and packed.stamped:
                    # Our clock or the broker's is wrong by more than message.timestamp.after.max.ms (1 h). The value has the time.
                    # Batches for other partitions may be on their way with theirs: each is told so, and packed anew.
                    self._timestamps = False
                elif code in refusals.TOO_LARGE | refusals.INVALID | {refusals.INVALID_TIMESTAMP} and packed.records > 1:
                    most = (packed.records + 1) // 2
                    if code in refusals.TOO_LARGE:
                        self._batch_bytes = max(min(self._batch_bytes, packed.raw_bytes) // 2, _SMALLEST_BATCH_BYTES)
                elif code in refusals.TOO_LARGE | refusals.INVALID | {refusals.INVALID_TIMESTAMP}:
                    rejected[waiting[done].position] = _why_rejected(code, waiting[done])
                    done += 1
                else:
                    raise refusals.answered(code, f"{place.topic}[{place.partition}] at {producer.leader(place)}")
                if done < len(waiting):
                    packing = self._packing(producer, waiting[done : done + most], producer.sequence(place))
        finally:
            packing.cancel()

    def _packing(self, producer: Producer, waiting: Sequence[Entry], sequence: int) -> asyncio.Future[Packed]:
        return asyncio.ensure_future(producer.pack(waiting, sequence, self._batch_bytes, timestamps=self._timestamps))

    async def _stored(self, producer: Producer, place: TopicPartition, packed: Packed, tried: _Tried | None) -> int:
        """Put a batch until the broker's answer is one that stays, or patience is at its end; `tried`: it was put before."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + _PATIENCE_SECONDS if tried is None else tried.patience
        code = await producer.put(place, packed) if tried is None else tried.code
        while code in refusals.TRANSIENT and loop.time() <= patience:
            await producer.refresh()
            code = await producer.put(place, packed)
        return code

    def _live(self) -> Producer:
        if self._producer is None:
            raise NotConnected("not connected")
        return self._producer


_Left = dict[TopicPartition, tuple[list[Entry], _Tried | None]]
"""By partition, what waits for it in order, and the first batch of it if that was tried."""


def _why_rejected(code: int, entry: Entry) -> str:
    if code in refusals.TOO_LARGE:
        return f"too large for the broker: {len(entry.value or b'')} bytes"
    return f"refused by the broker: {refusals.in_words(code)}"
