"""The Redis sink while its server cannot or will not take what it is sent, or has lost what it took: a real server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from streamer.brokers import parse
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.wire import Entry
from streamer.sinks.redis import RedisSink
from streamer.testing.messages import Speaker, encoded
from tests.support.brokers import RedisServer, free_port
from tests.support.read_back import stream_entries

STATS = "streamer:{h}:stats"


def _sink(server: RedisServer) -> RedisSink:
    return RedisSink(parse(server.url), "h")


def _batch(count: int = 20, first_position: int = 1) -> list[Entry]:
    speaker = Speaker("h", epoch=1_700_000_000_000 + first_position * 1000)
    return encoded([speaker.stats("c") for _ in range(count)], first_position=first_position)


async def _kept(server: RedisServer) -> list[bytes]:
    return [entry.data for entry in await stream_entries(server, STATS)]


async def _sent(sink: RedisSink, batch: list[Entry]) -> list[str]:
    try:
        await sink.connect()
        return [lapse.reason for lapse in (await sink.send(batch)).lapses]
    finally:
        await sink.close()


async def _refused(sink: RedisSink, batch: list[Entry]) -> NotConnected | PermanentlyRefused:
    with pytest.raises((NotConnected, PermanentlyRefused)) as refused:
        await _sent(sink, batch)
    assert isinstance(refused.value, NotConnected | PermanentlyRefused)
    return refused.value


async def test_a_primary_that_became_a_replica_is_waited_for() -> None:
    """READONLY after a failover, on a living connection: the batch waits, and is there once when the server takes it again."""
    with RedisServer() as server:
        sink, batch = _sink(server), _batch()
        await sink.connect()
        await sink.send(batch[:10])
        server.cli("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(NotConnected, match="READONLY") as refused:
            await sink.send(batch[10:])
        assert "primary" in refused.value.remedy
        await sink.close()
        server.cli("REPLICAOF", "NO", "ONE")
        await _sent(sink, batch[10:])
        assert await _kept(server) == [entry.value for entry in batch]


async def test_a_server_that_reads_its_data_is_waited_for() -> None:
    """LOADING passes: refused with what it is, and taken afterwards."""
    arguments = ("--loading-process-events-interval-bytes", "1024", "--key-load-delay", "1000", "--dbfilename", "dump.rdb")
    with RedisServer(*arguments) as server:
        server.cli("EVAL", "for i = 1, 3000 do redis.call('SET', 'key' .. i, string.rep('x', 50) .. i) end", "0")
        server.cli("SAVE")
        server.kill()
        server.launch()
        sink, batch = _sink(server), _batch()
        deadline = time.monotonic() + 20
        while "LOADING" not in (problem := (await _refused(sink, batch)).problem).upper():
            assert time.monotonic() < deadline, problem  # before it listens, it refuses the connection
            await asyncio.sleep(0.01)
        server.wait_until_it_answers()
        await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]


async def test_a_server_that_cannot_save_is_waited_for(tmp_path: Path) -> None:
    """MISCONF after a failed save: named with a remedy; once it can save again the batch is there once."""
    with RedisServer("--enable-protected-configs", "yes") as server:
        lost = tmp_path / "lost"
        lost.mkdir()
        server.cli("CONFIG", "SET", "dir", str(lost))
        lost.rmdir()
        server.cli("CONFIG", "SET", "save", "3600 1000000")
        server.cli("BGSAVE")
        sink, batch = _sink(server), _batch()
        await _until(server, "rdb_last_bgsave_status:err")
        refused = await _refused(sink, batch)
        assert refused.problem.startswith("MISCONF")
        assert "its log" in refused.remedy
        server.cli("CONFIG", "SET", "dir", str(server.directory))
        server.cli("BGSAVE")
        await _until(server, "rdb_last_bgsave_status:ok")
        await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]


async def _until(server: RedisServer, line: str) -> None:
    async with asyncio.timeout(20):
        while line not in server.cli("INFO", "persistence"):
            await asyncio.sleep(0.05)


async def test_missing_replicas_are_waited_for() -> None:
    """NOREPLICAS names the setting; the batch is there once when it is met."""
    with RedisServer("--min-replicas-to-write", "1") as server:
        sink, batch = _sink(server), _batch()
        refused = await _refused(sink, batch)
        assert refused.problem.startswith("NOREPLICAS")
        assert "min-replicas-to-write" in refused.remedy
        server.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]


async def test_a_cluster_that_is_down_is_waited_for_and_another_node_is_named() -> None:
    """CLUSTERDOWN passes; MOVED is the operator's, who named a node that has not got the keys of this host."""
    buses = [str(free_port()), str(free_port())]
    clustered = [RedisServer("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
    with clustered[0] as server, clustered[1] as other:
        sink, batch = _sink(server), _batch()
        refused = await _refused(sink, batch)
        assert "CLUSTERDOWN" in refused.problem
        assert isinstance(refused, NotConnected)
        server.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        async with asyncio.timeout(20):
            while "cluster_state:ok" not in server.cli("CLUSTER", "INFO"):
                await asyncio.sleep(0.05)
        await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]
        server.cli("CLUSTER", "MEET", "127.0.0.1", str(other.port), buses[1])
        identity = other.cli("CLUSTER", "MYID").strip()
        async with asyncio.timeout(20):
            while f"{identity} 127.0.0.1" not in (nodes := server.cli("CLUSTER", "NODES")) or "handshake" in nodes:
                await asyncio.sleep(0.05)
        server.cli("DEL", STATS)
        server.cli("CLUSTER", "SETSLOT", server.cli("CLUSTER", "KEYSLOT", STATS).strip(), "NODE", identity)
        moved = await _refused(sink, batch)
        assert "MOVED" in moved.problem
        assert isinstance(moved, PermanentlyRefused)


async def test_a_connection_that_is_cut_loses_nothing() -> None:
    """Cut by the server in between: the next batch ends in NotConnected, and sent again it is there once."""
    with RedisServer() as server:
        sink, batch = _sink(server), _batch()
        await sink.connect()
        await sink.send(batch[:10])
        server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(NotConnected):
            await sink.send(batch[10:])
        await sink.close()
        await _sent(sink, batch[10:])
        assert await _kept(server) == [entry.value for entry in batch]


async def test_a_password_that_is_set_meanwhile_is_asked_for() -> None:
    """NOAUTH at the next connection is the operator's matter."""
    with RedisServer() as server:
        sink = _sink(server)
        await _sent(sink, _batch())
        server.cli("CONFIG", "SET", "requirepass", "new")
        refused = await _refused(sink, _batch())
        assert "NOAUTH" in refused.problem
        assert isinstance(refused, PermanentlyRefused)


async def test_an_error_in_the_middle_of_a_batch_leaves_no_hole() -> None:
    """The memory gives out within a batch: what got in is found at the replay, the rest follows, each once and in order."""
    with RedisServer() as server:
        sink, batch = _sink(server), _batch(3000)
        used = int(server.cli("INFO", "memory").split("used_memory:")[1].split()[0])
        server.cli("CONFIG", "SET", "maxmemory", str(used + 1_500_000))
        refused = await _refused(sink, batch)
        assert refused.problem.startswith("OOM")
        assert 0 < len(await _kept(server)) < len(batch)
        server.cli("CONFIG", "SET", "maxmemory", "0")
        await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]


async def test_a_server_that_came_back_empty_is_told_of() -> None:
    """Restarted without its data: the notice says where the stream ends and how far we were; the rest goes on, and once."""
    with RedisServer() as server:
        sink, first, second = _sink(server), _batch(), _batch(5, first_position=100)
        assert not await _sent(sink, first)
        server.kill()
        server.start()
        (notice,) = await _sent(sink, second)
        top = f"{first[-1].order_ms}-{first[-1].position}"
        assert notice.startswith(f"Redis has lost data: {STATS} ends at its beginning, we had put entries up to {top} there")
        assert "20 entries of 20" in notice
        assert await _kept(server) == [entry.value for entry in second]
        assert not await _sent(sink, _batch(5, first_position=200))


async def test_a_replica_that_lagged_behind_is_told_of() -> None:
    """A stream that ends earlier than what was acknowledged (an old copy was restored): the notice says from where to where."""
    with RedisServer("--dbfilename", "dump.rdb") as server:
        sink, first, second = _sink(server), _batch(), _batch(5, first_position=100)
        await _sent(sink, first)
        server.cli("SAVE")
        await _sent(sink, second)
        server.kill()
        server.start()
        (notice,) = await _sent(sink, _batch(5, first_position=200))
        assert f"ends at {first[-1].order_ms}-{first[-1].position}, we had put entries up to {second[-1].order_ms}-" in notice
        assert "5 entries of 25 are gone" in notice


async def test_a_flush_under_a_living_connection_is_told_of_with_the_next_heartbeat() -> None:
    """FLUSHALL breaks no connection: the count of entries shows it when control messages are sent."""
    with RedisServer() as server:
        sink, speaker = _sink(server), Speaker("h")
        await sink.connect()
        await sink.send(_batch())
        assert not (await sink.send(encoded([speaker.control()], first_position=50))).lapses
        server.cli("FLUSHALL")
        assert not (await sink.send(_batch(5, first_position=100))).lapses
        receipt = await sink.send(encoded([speaker.control()], first_position=200))
        assert [lapse.reason.split()[4] for lapse in receipt.lapses] == [STATS, "streamer:{h}:control"]
        assert [(lapse.topic.short, lapse.last_seq) for lapse in receipt.lapses] == [("stats", 5), ("control", 2)]
        assert not (await sink.send(encoded([speaker.control()], first_position=201))).lapses
        await sink.close()


async def test_trimming_is_no_loss() -> None:
    """A stream that was trimmed, by anybody, counts on: no notice, and a replay of what was trimmed is not refused."""
    with RedisServer() as server:
        sink, batch = _sink(server), _batch()
        await _sent(sink, batch)
        server.cli("XTRIM", STATS, "MAXLEN", "0")
        assert not await _sent(sink, batch)
        assert await _kept(server) == [entry.value for entry in batch]
