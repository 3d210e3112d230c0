"""What lies at a broker, read with its own client library."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis

from tests.support.brokers import KafkaServer, RedisServer


class StreamEntry(NamedTuple):
    """An entry of a Redis stream."""

    id: str
    fields: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return self.fields["data"]


def redis_client(server: RedisServer) -> Redis:
    """A client of redis-py's own."""
    return Redis(host="127.0.0.1", port=server.port, protocol=2)


async def stream_entries(server: RedisServer, key: str) -> list[StreamEntry]:
    """All entries of a stream."""
    async with redis_client(server) as client:
        entries: Any = await client.xrange(key)
        return [StreamEntry(id_.decode(), {name.decode(): value for name, value in fields.items()}) for id_, fields in entries]


async def records(server: KafkaServer, *topics: str) -> list[ConsumerRecord]:
    """All records of these topics, each partition in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=server.address, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client.set_topics(topics)
        async with asyncio.timeout(60):
            while not all(consumer.partitions_for_topic(topic) for topic in topics):  # nobody had time for the question
                await consumer._client.force_metadata_update()
        places = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[ConsumerRecord] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for some in (await consumer.getmany(timeout_ms=200)).values():
                found += some
        return found
    finally:
        await consumer.stop()
