"""An idempotent producer: one id, sequence numbers per partition, and requests, on top of aiokafka's client.

aiokafka's own producer is not used: it tries again for ever and tells nobody why, waits for ever in `stop()`, and stays
dead after a sequence error. Its client (connections, TLS, authentication, metadata) and its record batches are.

A partition has one batch on its way at most. Then a refused batch leaves no hole in the sequence, nothing behind it
can be stored before it, and an attempt whose answer was lost can be repeated: the broker knows its number. Other
partitions, and packing the next batch, fill the time. Batches that are ready together share a request per broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.protocol.transaction import InitProducerIdRequest

from streamer.errors import NotConnected
from streamer.model.wire import Entry
from streamer.sinks.kafka import refusals
from streamer.sinks.kafka.produce import Produce
from streamer.sinks.kafka.records import Packer

REQUEST_TIMEOUT_MS: Final = 10_000
_METADATA_AGE_MS: Final = 60_000  # how long a new partition of a topic may stay unnoticed
_STOP_SECONDS: Final = 0.5
_START_TRIES: Final = 20
_BACKOFF_SECONDS: Final = 0.1
_ALL_REPLICAS: Final = -1
_IN_A_THREAD_BYTES: Final = 65_536  # compressing less than that takes less than handing it over
_REQUEST_BYTES: Final = 262_144  # a request is sent when it has so much: the broker works on it while the next is packed
_SEQUENCES: Final = 1 << 31  # they begin anew after the highest


class Packed(NamedTuple):
    """A record batch: so many `records` in `data`, `raw_bytes` before compression; `stamped`: they have timestamps."""

    data: bytes
    records: int
    raw_bytes: int
    stamped: bool


class Producer:
    """Makes record batches and brings them to the partitions' leaders. `start`, then `pack` and `put`, then `close`."""

    def __init__(self, options: dict[str, Any], topics: Sequence[str], compression: str) -> None:
        """`options`: of aiokafka's clients."""
        self.client: Final = AIOKafkaClient(**options, request_timeout_ms=REQUEST_TIMEOUT_MS, metadata_max_age_ms=_METADATA_AGE_MS)
        # Without this, metadata is asked for all topics of the cluster.
        self.client.set_topics(topics)
        self._packer: Final = Packer(compression)
        self._id, self._epoch = -1, -1
        self._sequences: dict[TopicPartition, int] = {}
        self._outgoing: dict[int, list[tuple[TopicPartition, bytes, asyncio.Future[int]]]] = {}
        self._outgoing_bytes: dict[int, int] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._packing: Final = ThreadPoolExecutor(1, thread_name_prefix="sink.kafka")

    async def start(self) -> None:
        """Connect, and get a producer id.

        Raises:
            KafkaError, OSError: as aiokafka says it.
        """
        await self.client.bootstrap()
        code = refusals.UNANSWERED
        for _ in range(_START_TRIES):
            node = self.client.get_random_node()
            if node is not None:
                answer = await self.client.send(
                    node, InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=0x7FFFFFFF)
                )
                code = answer.error_code
                if code == 0:
                    self._id, self._epoch = answer.producer_id, answer.producer_epoch
                    return
                if not kafka_errors.for_code(code).retriable and code not in (14, 15):  # its coordinator is still being loaded
                    break
            await asyncio.sleep(_BACKOFF_SECONDS)
            await self.client.force_metadata_update()
        raise refusals.answered(code, "producer id")

    def sequence(self, place: TopicPartition) -> int:
        """The number of the next record for a partition."""
        return self._sequences.get(place, 0)

    async def pack(self, waiting: Sequence[Entry], sequence: int, batch_bytes: int, *, timestamps: bool) -> Packed:
        """A batch of the first entries of `waiting`, `batch_bytes` at most but one entry at least, numbered from `sequence`."""
        raw = self._packer.append(waiting, batch_bytes, timestamps=timestamps)
        state = self._id, self._epoch, sequence % _SEQUENCES
        if len(raw.data) < _IN_A_THREAD_BYTES:
            return Packed(self._packer.finish(raw, *state), raw.records, len(raw.data), timestamps)
        data = await asyncio.get_running_loop().run_in_executor(self._packing, self._packer.finish, raw, *state)
        return Packed(data, raw.records, len(raw.data), timestamps)

    def pack_here(self, waiting: Sequence[Entry], sequence: int, batch_bytes: int, *, timestamps: bool) -> Packed:
        """The same, done when it returns: for little, as it holds up the event loop."""
        raw = self._packer.append(waiting, batch_bytes, timestamps=timestamps)
        data = self._packer.finish(raw, self._id, self._epoch, sequence % _SEQUENCES)
        return Packed(data, raw.records, len(raw.data), timestamps)

    async def put(self, place: TopicPartition, packed: Packed) -> int:
        """One attempt to store a batch; returns the broker's code, or one that stands for not having got any.

        After a code of `refusals.STORED` the sequence goes on behind this batch; else the same one may be put again, or
        another one packed in its place.
        """
        leader = self._leader(place)
        if leader is None:
            return refusals.NO_LEADER
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[int] = loop.create_future()
        together = self._outgoing.setdefault(leader, [])
        if not together:
            loop.call_soon(self._flush, leader)  # behind those who are about to put theirs
        together.append((place, packed.data, outcome))
        self._outgoing_bytes[leader] = size = self._outgoing_bytes.get(leader, 0) + len(packed.data)
        if size >= _REQUEST_BYTES:
            self._flush(leader)
        return self._told(place, packed, await outcome)

    async def put_together(self, batches: Sequence[tuple[TopicPartition, Packed]], codes: list[int]) -> None:
        """As `put`, for batches of different partitions: one request to each leader. `codes`, as long, is filled in as they answer."""
        by_leader: dict[int | None, list[int]] = {}
        for index, (place, _) in enumerate(batches):
            by_leader.setdefault(self._leader(place), []).append(index)

        async def ask(leader: int, indexes: list[int]) -> None:
            told = await self._ask(leader, [(batches[index][0], batches[index][1].data) for index in indexes])
            for index, code in zip(indexes, told, strict=True):
                codes[index] = self._told(*batches[index], code)

        for index in by_leader.pop(None, ()):
            codes[index] = refusals.NO_LEADER
        asking = [ask(leader, indexes) for leader, indexes in by_leader.items() if leader is not None]
        if len(asking) == 1:  # without a task
            await asking[0]
        else:
            async with asyncio.TaskGroup() as group:  # a bug in one ends the others before it is told
                for each in asking:
                    group.create_task(each)

    async def refresh(self) -> None:
        """Ask who leads now."""
        await asyncio.sleep(_BACKOFF_SECONDS)
        await self.client.force_metadata_update()

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has at the moment.

        Raises:
            NotConnected: there is no such topic any more.
        """
        partitions = self.client.cluster.partitions_for_topic(topic)
        if not partitions:
            raise NotConnected(f"topic {topic} has gone")
        return len(partitions)

    def leader(self, place: TopicPartition) -> str:
        """The address of a partition's leader, for people."""
        node = self._leader(place)
        broker = None if node is None else self.client.cluster.broker_metadata(node)
        return f"{broker.host}:{broker.port}" if broker else "nobody"

    def _leader(self, place: TopicPartition) -> int | None:
        leader: int | None = self.client.cluster.leader_for_partition(place)
        return None if leader is None or leader < 0 else leader

    def _told(self, place: TopicPartition, packed: Packed, code: int) -> int:
        if code in refusals.STORED:
            self._sequences[place] = (self.sequence(place) + packed.records) % _SEQUENCES
        return code

    async def close(self) -> None:
        """Let go of everything at once: what is not acknowledged, the outbox has."""
        for request in self._requests:
            request.cancel()
        if self._requests:
            await asyncio.wait(self._requests, timeout=_STOP_SECONDS)
        for connection in self.client._conns.values():
            if connection._writer is not None:  # a plain close keeps the socket until a hung peer has read all
                connection._writer.transport.abort()
        closing = asyncio.ensure_future(self.client.close())
        await asyncio.wait([closing], timeout=_STOP_SECONDS)
        closing.cancel()
        update = self.client._md_update_fut
        if update is not None and not update.done():  # nobody will update metadata any more: let go who waits for it
            update.set_result(False)
        self._packing.shutdown(wait=False)

    def _flush(self, leader: int) -> None:
        together = self._outgoing.pop(leader, [])
        self._outgoing_bytes.pop(leader, None)
        if together:
            request = asyncio.get_running_loop().create_task(self._request(leader, together))
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _request(self, leader: int, together: list[tuple[TopicPartition, bytes, asyncio.Future[int]]]) -> None:
        """Send batches to a broker and tell each one's outcome."""
        codes = [refusals.CONNECTION_LOST] * len(together)
        try:
            codes = await self._ask(leader, [(place, data) for place, data, _ in together])
        finally:  # cancelled, too
            for (_, _, outcome), code in zip(together, codes, strict=True):
                if not outcome.done():
                    outcome.set_result(code)

    async def _ask(self, leader: int, together: Sequence[tuple[TopicPartition, bytes]]) -> list[int]:
        """Send batches to a broker; its code for each."""
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for place, data in together:
            topics.setdefault(place.topic, []).append((place.partition, data))
        codes: dict[tuple[str, int], int] = {}
        missing = refusals.CONNECTION_LOST
        try:
            answer = await self.client.send(leader, Produce(_ALL_REPLICAS, REQUEST_TIMEOUT_MS, list(topics.items())))
            codes = {(topic, partition[0]): partition[1] for topic, partitions in answer.topics for partition in partitions}
        except kafka_errors.RequestTimedOutError:
            missing = refusals.UNANSWERED
        except (kafka_errors.KafkaError, OSError):
            pass
        return [codes.get((place.topic, place.partition), missing) for place, _ in together]
