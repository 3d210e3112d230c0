"""A Kafka broker as in production, for what is timed in milliseconds: its own compiler, and warm.

One that the tests start is quick to start and slow to answer; a JVM's first thousand requests take several times as long as
those that follow, and a broker that runs has answered millions.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack
from typing import Final

from benchmarks.command import progress
from benchmarks.ends import KafkaEnd

_TOPIC: Final = "warm-up"
_ROUNDS: Final = 3000
_PAUSED_ROUNDS: Final = 100
_PAUSES_SECONDS: Final = (0.02, 0.06)
_MS: Final = 1e3


def warm_kafka(stack: ExitStack, partitions: int) -> tuple[KafkaEnd, list[float]]:
    """A broker that has answered some thousand requests of producers and consumers.

    And how long it takes, while nothing else happens, to acknowledge a record of which an idle consumer waits, ms.
    """
    from tests.support.brokers import KafkaServer

    class Server(KafkaServer):
        def command(self) -> list[str]:
            return [word for word in super().command() if word != "-XX:TieredStopAtLevel=1"]

    progress("a Kafka broker, warming up")
    end = KafkaEnd(stack.enter_context(Server()).address, partitions)
    return end, asyncio.run(_warm(end.url.partition("://")[2], partitions))


async def _warm(address: str, partitions: int) -> list[float]:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(_TOPIC, partitions, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True)
    consumer = AIOKafkaConsumer(_TOPIC, bootstrap_servers=address, enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    reading = asyncio.create_task(_read(consumer))
    took = []
    try:
        for number in range(_ROUNDS + _PAUSED_ROUNDS):
            if number >= _ROUNDS:
                await asyncio.sleep(random.uniform(*_PAUSES_SECONDS))
            began = time.monotonic()
            await producer.send_and_wait(_TOPIC, b"x" * 1000, partition=number % partitions)
            took.append((time.monotonic() - began) * _MS)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.stop()
        await producer.stop()
    return took[_ROUNDS:]


async def _read(consumer: object) -> None:
    while True:
        await consumer.getmany(timeout_ms=1000)  # type: ignore[attr-defined]  # aiokafka gives it no types
