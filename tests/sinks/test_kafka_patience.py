"""How long the Kafka sink tries a batch again: a made-up producer with two leaders, on an event loop whose clock is set."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition

from streamer.brokers import parse
from streamer.errors import NotConnected
from streamer.model.wire import Entry
from streamer.sinks.kafka import KafkaSink, refusals
from streamer.sinks.kafka.producer import REQUEST_TIMEOUT_MS, Packed
from streamer.testing.messages import Speaker, encoded

STORED = 0
QUICK, SLOW = 0, 1
"""Partitions, each with a leader of its own: one answers at once, the other one when a request's time is over."""


class TwoLeaders:
    """A producer that is told what each partition's leader answers to the first attempt; to others it says that it has stored it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: dict[int, int]) -> None:
        self._first, self._now = first, 0.0
        self.again: list[int] = []
        """Partitions that something was put to again."""
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self._now)

    def partitions(self, _topic: str) -> int:
        return 2

    def leader(self, place: TopicPartition) -> str:
        return f"leader-{place.partition}:9092"

    def sequence(self, _place: TopicPartition) -> int:
        return 0

    def pack_here(self, waiting: Sequence[Entry], _sequence: int, _batch_bytes: int, *, timestamps: bool) -> Packed:
        return Packed(b"", len(waiting), 0, timestamps)

    async def put_together(self, batches: Sequence[tuple[TopicPartition, Packed]], codes: list[int]) -> None:
        for index, (place, _) in enumerate(batches):
            codes[index] = self._first[place.partition]
        self._now += REQUEST_TIMEOUT_MS / 1000

    async def refresh(self) -> None: ...

    async def put(self, place: TopicPartition, _packed: Packed) -> int:
        self.again.append(place.partition)
        return STORED


def a_sink(producer: TwoLeaders) -> KafkaSink:
    sink = KafkaSink(parse("kafka://leader-0:9092"), "h")
    sink._producer = producer  # type: ignore[assignment]  # as far as it is used
    return sink


def a_batch() -> list[Entry]:
    """For both partitions."""
    speaker = Speaker("h")
    return encoded([speaker.stats(f"c{number}") for number in range(20)])


@pytest.mark.parametrize("code", [refusals.CONNECTION_LOST, 6, refusals.NO_LEADER])
async def test_one_leaders_silence_is_not_held_against_another(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What one said at once may pass within seconds, and is tried again, though another one took longer than that."""
    producer = TwoLeaders(monkeypatch, {QUICK: code, SLOW: STORED})
    assert not (await a_sink(producer).send(a_batch())).rejected
    assert producer.again == [QUICK]


@pytest.mark.parametrize(("late", "words"), [(refusals.UNANSWERED, "no answer in time"), (7, "replicas did not answer in time")])
async def test_who_was_late_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, late: int, words: str) -> None:
    """Patience with it is over with its request, and it is named; what is for the other one is stored, once."""
    producer = TwoLeaders(monkeypatch, {QUICK: refusals.CONNECTION_LOST, SLOW: late})
    sink, batch = a_sink(producer), a_batch()
    with pytest.raises(NotConnected, match=rf"\[1\] at leader-1:9092: .*{words}"):
        await sink.send(batch)
    assert producer.again == [QUICK]
    replaying = TwoLeaders(monkeypatch, {SLOW: STORED})
    sink._producer = replaying  # type: ignore[assignment]  # as above; nothing is expected for the other partition
    assert not (await sink.send(batch)).rejected
