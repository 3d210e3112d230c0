"""What every sink must do, as tests. A sink's own test file makes a class of them and fills in the hooks:

class TestMySink(SinkContract):
    async def make_sink(self): return MySink(…)          # not connected; again and again to the same place
    async def read_back(self): return [Kept(…), …]       # all that is there, in the order of each key and topic
"""
# ruff: noqa: S101  asserts are what a test is made of

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pytest

from streamer.contracts import Sink
from streamer.errors import NotConnected
from streamer.model.messages import TOPICS
from streamer.model.wire import Entry
from streamer.testing.messages import Speaker, encoded

DEADLINE_SECONDS = 30.0


class Kept(NamedTuple):
    """A message as it lies at the peer: topic by its short name, the value as it was sent."""

    topic: str
    value: bytes


class SinkContract:
    """Tests for one sink. They share nothing but what the hooks make."""

    replay_adds_nothing = False
    """Whether the peer itself drops a batch that it has."""

    async def make_sink(self) -> Sink:
        """A new sink, not connected, to the place of this test."""
        raise NotImplementedError

    async def read_back(self) -> list[Kept]:
        """All that is there but state: within a topic and key in the order it was stored."""
        raise NotImplementedError

    async def read_state(self) -> dict[str, bytes] | None:
        """Container id -> state that is not deleted; None for a sink without state."""
        raise NotImplementedError

    @pytest.fixture
    def host_id(self, request: pytest.FixtureRequest) -> str:
        """The host that the test's messages are about: one per test, so that they do not meet at a shared peer."""
        return f"host-{abs(hash(request.node.nodeid)):x}"

    async def test_keeps_what_it_was_sent_in_order_and_once(self, host_id: str) -> None:
        """Everything that was sent is there, once, and in order within a topic and container."""
        batch = encoded(Speaker(host_id).some(400))
        sink = await self._connected()
        for start in range(0, len(batch), 100):
            receipt = await sink.send(batch[start : start + 100])
            assert not receipt.rejected
        await sink.close()
        _same(await self.read_back(), batch)

    async def test_keeps_what_is_replayed(self, host_id: str) -> None:
        """A batch that is sent again after a new connection is there, whole, and not twice where the peer can tell."""
        batch = encoded(Speaker(host_id).some(200))
        sink = await self._connected()
        await sink.send(batch)
        await sink.close()
        await sink.connect()
        await sink.send(batch)
        await sink.close()
        kept = await self.read_back()
        if self.replay_adds_nothing:
            _same(kept, batch)
        assert {one.value for one in kept} == {entry.value for entry in batch if _is_event(entry)}

    async def test_goes_on_after_it_was_closed(self, host_id: str) -> None:
        """A closed sink connects again, as does one that was not closed."""
        batch = encoded(Speaker(host_id).some(60))
        sink = await self._connected()
        await sink.send(batch[:20])
        await sink.close()
        await sink.connect()
        await sink.send(batch[20:40])
        await sink.connect()
        await sink.send(batch[40:])
        await sink.close()
        _same(await self.read_back(), batch)

    async def test_refuses_to_send_when_it_is_not_connected(self, host_id: str) -> None:
        """Before `connect` and after `close`, `send` raises NotConnected; `close` can be called at any time."""
        batch = encoded(Speaker(host_id).some(1))
        sink = await self.make_sink()
        await sink.close()
        with pytest.raises(NotConnected):
            await sink.send(batch)
        await sink.connect()
        await sink.close()
        await sink.close()
        with pytest.raises(NotConnected):
            await sink.send(batch)

    async def test_keeps_the_present_state(self, host_id: str) -> None:
        """Of the state topic the latest value per container is kept, and none after its tombstone."""
        speaker = Speaker(host_id)
        messages = [speaker.state("gone"), speaker.state("there"), speaker.tombstone("gone"), speaker.state("there", pid=7)]
        batch = encoded(messages)
        sink = await self._connected()
        await sink.send(batch[:2])
        await sink.send(batch[2:])
        await sink.close()
        state = await self.read_state()
        assert state is None or state == {"there": batch[3].value}

    async def test_takes_a_big_batch(self, host_id: str) -> None:
        """5000 messages of all topics in one batch arrive like any other."""
        batch = encoded(Speaker(host_id).some(5000))
        sink = await self._connected()
        receipt = await sink.send(batch)
        await sink.close()
        assert not receipt.rejected
        _same(await self.read_back(), batch)

    async def test_keeps_any_text(self, host_id: str) -> None:
        """Text of any script, line ends and NUL come back as they were sent."""
        speaker = Speaker(host_id)
        texts = ["naïve ☕", "数据", "🦀", "a\nb\r\nc", "nul\0nul", '"quoted" \\ back', "\u2028", "x" * 20_000]
        batch = encoded([speaker.lifecycle("c", name=text, labels={text[:50]: text}) for text in texts])
        sink = await self._connected()
        await sink.send(batch)
        await sink.close()
        kept = await self.read_back()
        assert [msgspec.json.decode(one.value)["name"] for one in kept] == texts

    async def _connected(self) -> Sink:
        sink = await self.make_sink()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await sink.connect()
        return sink


class RemoteSinkContract(SinkContract):
    """The same, and what a sink must do whose peer can hang."""

    async def stall(self) -> None:
        """Make the peer hang: it keeps its connections and does not answer."""
        raise NotImplementedError

    async def resume(self) -> None:
        """End `stall`."""
        raise NotImplementedError

    async def test_lets_go_of_a_peer_that_hangs(self, host_id: str) -> None:
        """While the peer hangs, a send can be cancelled and `close` returns; afterwards the batch can be replayed."""
        batch = encoded(Speaker(host_id).some(2000))
        sink = await self._connected()
        await sink.send(batch[:10])
        await self.stall()
        try:
            sending = asyncio.ensure_future(sink.send(batch[10:]))
            await asyncio.wait([sending], timeout=0.5)
            assert not sending.done()
            sending.cancel()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.wait([sending])
                await sink.close()
        finally:
            await self.resume()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await sink.connect()
            await sink.send(batch[10:])
        await sink.close()
        kept = await self.read_back()
        assert {one.value for one in kept} == {entry.value for entry in batch if _is_event(entry)}


def _is_event(entry: Entry) -> bool:
    return not entry.topic.compacted


def _same(kept: Sequence[Kept], sent: Sequence[Entry]) -> None:
    """All of `sent` but state, each once, and each topic and container in the order of `sent`."""
    assert _by_key([(one.topic, one.value) for one in kept]) == _by_key(
        [(entry.topic.short, entry.value or b"") for entry in sent if _is_event(entry)]
    )


def _by_key(messages: Sequence[tuple[str, bytes]]) -> dict[tuple[str, str], list[bytes]]:
    known = {topic.short for topic in TOPICS}
    by_key: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for topic, value in messages:
        assert topic in known
        record = msgspec.json.decode(value)
        by_key[topic, record.get("container_id", record["host_id"])].append(value)
    return dict(by_key)
