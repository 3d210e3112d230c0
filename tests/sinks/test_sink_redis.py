"""The Redis sink against a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from streamer.brokers import parse
from streamer.config import Publishing, SinkSettings
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import TOPICS
from streamer.model.wire import Entry, attributes
from streamer.sinks import make
from streamer.sinks.redis import RedisSink
from streamer.testing.contract import Kept, RemoteSinkContract
from streamer.testing.messages import Speaker, encoded
from tests.support.brokers import RedisServer
from tests.support.read_back import redis_client, stream_entries

STREAMS = [topic.short for topic in TOPICS if not topic.compacted]


class TestRedisContract(RemoteSinkContract):
    """What every sink must do."""

    replay_adds_nothing = True

    @pytest.fixture(autouse=True)
    def _peer(self, redis_server: RedisServer, host_id: str) -> Iterator[None]:
        self.server, self.host = redis_server, host_id
        yield
        redis_server.cli("FLUSHALL")

    async def make_sink(self) -> RedisSink:
        return RedisSink(parse(self.server.url), self.host)

    async def read_back(self) -> list[Kept]:
        return [
            Kept(short, entry.data)
            for short in STREAMS
            for entry in await stream_entries(self.server, f"streamer:{{{self.host}}}:{short}")
        ]

    async def read_state(self) -> dict[str, bytes]:
        async with redis_client(self.server) as client:
            state: Any = await client.hgetall(f"streamer:{{{self.host}}}:state")
            return {name.decode(): value for name, value in state.items()}

    async def stall(self) -> None:
        self.server.pause()

    async def resume(self) -> None:
        self.server.resume()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of redis-py's own, on an empty server."""
    async with redis_client(redis_server) as client:
        await client.flushall()
        yield client


async def _refused(
    sink: RedisSink, error: type[PermanentlyRefused] | type[NotConnected] = PermanentlyRefused
) -> PermanentlyRefused | NotConnected:
    with pytest.raises(error) as refused:
        await sink.connect()
    await sink.close()
    assert isinstance(refused.value, PermanentlyRefused | NotConnected)
    return refused.value


async def _sent(sink: RedisSink, batch: list[Entry]) -> None:
    await sink.connect()
    await sink.send(batch)
    await sink.close()


async def test_entries_have_the_outbox_position_as_id_and_the_attributes_as_fields(
    redis_server: RedisServer, client: Redis
) -> None:
    """`redis-cli` shows order_ms-position as id, the CloudEvents attributes, the content type, and the value as `data`."""
    (entry,) = encoded([Speaker("h").lifecycle("c1")], first_position=42)
    await _sent(RedisSink(parse(redis_server.url), "h"), [entry])
    ((entry_id, fields),) = json.loads(redis_server.cli("--json", "XRANGE", "streamer:{h}:lifecycle", "-", "+"))
    assert entry_id == f"{entry.order_ms}-42"
    assert dict(zip(fields[::2], fields[1::2], strict=True)) == {
        **{name: value.decode() for name, value in attributes(entry)},
        "data": (entry.value or b"").decode(),
    }
    assert fields[-2] == "data"


async def test_hosts_are_found_by_their_last_control_message(redis_server: RedisServer, client: Redis) -> None:
    """Control messages put the host, with their time, into the sorted set of hosts."""
    speaker = Speaker("h")
    batch = encoded([speaker.control(), speaker.control()])
    await _sent(RedisSink(parse(redis_server.url), "h", prefix="other"), batch)
    assert redis_server.cli("ZRANGE", "other:hosts", "0", "-1", "WITHSCORES").split() == ["h", str(batch[1].time_ms)]


async def test_the_stats_stream_is_trimmed_by_length_and_the_others_by_age(redis_server: RedisServer, client: Redis) -> None:
    """Stats keep about `stats_maxlen` entries; other streams lose what is older than the retention."""
    speaker = Speaker("h")
    sink = RedisSink(parse(redis_server.url), "h", stats_maxlen=100, retention_seconds=1)
    await _sent(sink, encoded([speaker.stats("c") for _ in range(1000)] + [speaker.oom("c") for _ in range(5000)]))
    stats, ooms = await client.xlen("streamer:{h}:stats"), await client.xlen("streamer:{h}:oom")
    assert 100 <= stats <= 200
    assert 1000 <= ooms <= 5000  # one a millisecond: those of the last batch are as young as its first entry

    await _sent(sink, encoded([speaker.oom("c")], first_position=10_000))
    assert await client.xlen("streamer:{h}:oom") <= 1200


async def test_a_batch_that_arrived_in_part_is_completed(redis_server: RedisServer, client: Redis) -> None:
    """Entries that Redis has are not added again, those behind them are, under their own ids."""
    batch = encoded([Speaker("h").stats("c") for _ in range(10)])
    sink = RedisSink(parse(redis_server.url), "h")
    await _sent(sink, batch[:4])
    await _sent(sink, batch)
    ids = [entry.id for entry in await stream_entries(redis_server, "streamer:{h}:stats")]
    assert ids == [f"{entry.order_ms}-{entry.position}" for entry in batch]


async def test_nothing_is_lost_when_the_clock_went_back(redis_server: RedisServer, client: Redis) -> None:
    """Entries whose ids are below the top of the stream but not in it are added behind the top, in order, all of them."""
    speaker = Speaker("h")
    early = encoded([speaker.stats("c") for _ in range(10)])
    late = encoded([speaker.stats("c") for _ in range(3)], first_position=100)
    sink = RedisSink(parse(redis_server.url), "h")
    await _sent(sink, late)
    await sink.connect()
    await sink.send(early[:5])
    await sink.send(early[5:])
    after = encoded([speaker.stats("c")], first_position=200)
    await sink.send(after)
    await sink.close()
    kept = await stream_entries(redis_server, "streamer:{h}:stats")
    assert [entry.data for entry in kept] == [entry.value for entry in late + early + after]
    assert kept[-1].id == f"{after[0].order_ms}-200"  # own ids again once they are past the top


async def test_another_writer_of_the_stream_is_met_by_connecting_again(redis_server: RedisServer, client: Redis) -> None:
    """An id that Redis finds too small though it was above the top is an error, and goes in after a new connection."""
    batch = encoded([Speaker("h").stats("c") for _ in range(3)])
    sink = RedisSink(parse(redis_server.url), "h")
    await sink.connect()
    await client.xadd("streamer:{h}:stats", {"data": "x"}, id=f"{batch[2].order_ms + 10}-1")
    with pytest.raises(NotConnected, match="equal or smaller"):
        await sink.send(batch)
    await sink.close()
    await _sent(sink, batch)
    kept = await stream_entries(redis_server, "streamer:{h}:stats")
    assert [entry.data for entry in kept[1:]] == [entry.value for entry in batch]


async def test_full_memory_passes(client: Redis, redis_server: RedisServer) -> None:
    """`OOM command not allowed` is retried, with a hint; afterwards the whole batch is there once."""
    batch = encoded([Speaker("h").stats("c") for _ in range(50)])
    sink = RedisSink(parse(redis_server.url), "h")
    await client.config_set("maxmemory", "1")
    try:
        await sink.connect()
        with pytest.raises(NotConnected, match="OOM") as refused:
            await sink.send(batch)
        assert "maxmemory" in refused.value.remedy
        await sink.close()
    finally:
        await client.config_set("maxmemory", "0")
    await _sent(sink, batch)
    assert await client.xlen("streamer:{h}:stats") == 50


async def test_a_key_of_another_kind_is_refused(redis_server: RedisServer, client: Redis) -> None:
    """A key that is no stream is the operator's matter."""
    await client.set("streamer:{h}:stats", "mine")
    refused = await _refused(RedisSink(parse(redis_server.url), "h"))
    assert "WRONGTYPE" in refused.problem
    assert "publishing.prefix" in refused.remedy


async def test_a_password_is_needed_and_checked() -> None:
    """With `requirepass`: none and a wrong one are refused with a remedy, the percent-encoded right one is let in."""
    with RedisServer("--requirepass", "p@ss/w:rd") as server:
        assert "NOAUTH" in (await _refused(RedisSink(parse(server.url), "h"))).problem
        wrong = RedisSink(parse(f"redis://:nope@{server.address}"), "h")
        refused = await _refused(wrong)
        assert "password" in refused.remedy
        assert "nope" not in f"{refused} {wrong.describe()}"
        right = RedisSink(parse(f"redis://:p%40ss%2Fw%3Ard@{server.address}/3"), "h")
        await _sent(right, encoded([Speaker("h").control()]))


async def test_a_user_needs_only_what_the_remedy_says(redis_server: RedisServer, client: Redis) -> None:
    """A user with the documented ACL can do everything the sink does; one without is told what to allow."""
    redis_server.cli("ACL", "SETUSER", "poor", "on", ">secret", "~*", "+ping")
    rights = ["~streamer:*", "+xadd", "+xrange", "+xinfo|stream", "+hset", "+hdel", "+zadd", "+ping", "+select"]
    redis_server.cli("ACL", "SETUSER", "agent", "on", ">secret", *rights)
    poor = RedisSink(parse(f"redis://poor:secret@{redis_server.address}"), "h")
    refused = await _refused(poor)
    assert "NOPERM" in refused.problem
    assert " ".join(rights) in refused.remedy
    batch = encoded(Speaker("h").some(300))
    sink = RedisSink(parse(f"redis://agent:secret@{redis_server.address}"), "h")
    await _sent(sink, batch)
    await _sent(sink, batch)


async def test_a_unix_socket_will_do(redis_server: RedisServer, client: Redis) -> None:
    """`unix:///path?db=n` reaches the same server."""
    settings = SinkSettings(url=f"unix://{redis_server.socket}?db=0")
    sink = make(settings, Publishing(), "h")
    await sink.connect()
    await sink.send(encoded([Speaker("h").stats("c")]))
    await sink.close()
    assert await client.xlen("streamer:{h}:stats") == 1


async def test_a_password_can_come_from_a_file(tmp_path: Path) -> None:
    """`password_file` stands in for the password of the URL."""
    (tmp_path / "secret").write_text("from-file\n")
    with RedisServer("--requirepass", "from-file") as server:
        settings = SinkSettings(url=server.url, password_file=str(tmp_path / "secret"))
        sink = make(settings, Publishing(), "h")
        await sink.connect()
        await sink.close()


async def test_nobody_listening_and_no_redis_are_told_apart_from_refusals(redis_server: RedisServer) -> None:
    """A dead port and a peer that speaks something else are retried."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" * 9)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sink = RedisSink(parse(f"redis://127.0.0.1:{port}"), "h")
    await _refused(sink, NotConnected)
    server.close()
    await server.wait_closed()
    await _refused(sink, NotConnected)


async def test_it_uses_what_it_expects_of_the_client_library(redis_server: RedisServer) -> None:
    """The parts of redis-py's connection that are not its public face are where the sink looks for them."""
    sink = RedisSink(parse(redis_server.url), "h")
    await sink.connect()
    connection = sink._connection
    assert connection is not None
    assert isinstance(connection._reader, asyncio.StreamReader)
    assert connection._writer is not None
    assert connection._writer.transport is not None
    await sink.close()
