"""The Redis sink: entry ids, replays, and what a server has lost.

Each stream has one writer, so it gives its own, increasing entry ids, `order_ms-position`, the same at every replay.
`connect` reads the top of each stream; a batch that begins at or below it may be there already, and then `send` looks
before it adds. What is not found is added:

- above the top under its own id;
- below the top (trimmed since, or the clock went back) right behind the top, so that nothing is lost. A consumer that
  has seen it before drops it by its `ce_id`. (Not under `*`: a server whose clock is ahead would keep the top there.)

An error reply in the middle of a batch does not stop the rest of it; the whole batch is then sent again, and what did
arrive is found.

A server can lose what it acknowledged: restarted without its data, flushed, a replica promoted that lagged behind. Then a
stream ends below what this process has put there, or counts fewer entries than it has taken (Redis 7 counts them). That
is looked for at every connect and with every batch that holds control messages, and said in `Receipt.lapses`.

Connecting, TLS and authentication are redis-py's; the bytes are ours (`resp.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streamer import brokers
from streamer.config import Publishing, SinkSettings, password, seconds
from streamer.contracts import Lapse, Receipt
from streamer.errors import NotConnected
from streamer.model.messages import CONTROL, STATE, STATS, TOPICS
from streamer.model.wire import Entry
from streamer.sinks.redis.refusals import refused
from streamer.sinks.redis.resp import ErrorReply, Replies, Reply, Stream, added, command

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_CONNECTIONS: Final[dict[str, type[AbstractConnection]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
_CHUNK_COMMANDS: Final = 64  # Redis works on these while the next are packed
_WRITE_BUFFER_BYTES: Final = 1 << 20  # what may wait for Redis to read it before packing pauses
_STORED: Final = b""  # stands for the id of an entry that need not be added any more
_DONE: Final = b":1\r\n"
_TRIM_WORDS: Final = 3

Id = tuple[int, int]


_TOPIC: Final = {topic.short: topic for topic in TOPICS}


class _Top(NamedTuple):
    """Where a stream ends: the last id it gave out, and how many entries it has taken (-1: this Redis does not say)."""

    last: Id = (0, 0)
    added: int = -1


class RedisSink:
    """Publishes to one Redis server over one connection."""

    def __init__(
        self,
        url: brokers.BrokerUrl,
        host_id: str,
        *,
        prefix: str = "streamer",
        stats_maxlen: int = 100_000,
        retention_seconds: float = 86_400,
    ) -> None:
        self.name = "redis"
        self._url, self._host_id = url, host_id.encode()
        self._options: Final = brokers.redis_options(url)
        self._prefix: Final = prefix
        self._stats_maxlen: Final = str(stats_maxlen).encode()
        self._retention_ms: Final = int(retention_seconds * 1000)
        self._hosts_key: Final = f"{prefix}:hosts".encode()
        self._streams: Final = {topic.short: Stream(_key(prefix, host_id, topic.short)) for topic in TOPICS if not topic.compacted}
        self._state_key: Final = _key(prefix, host_id, STATE.short)
        self._connection: AbstractConnection | None = None
        self._replies: Replies | None = None
        self._tops: dict[str, _Top] = {}
        self._put: dict[str, Entry] = {}  # by topic: the last entry that was acknowledged
        self._lapses: list[Lapse] = []

    @classmethod
    def from_settings(cls, settings: SinkSettings, publishing: Publishing, host_id: str) -> Self:
        """`make`'s entry. Raises ConfigError."""
        return cls(
            brokers.parse(settings.url, password=password(settings)),
            host_id,
            prefix=publishing.prefix,
            stats_maxlen=publishing.redis_stats_maxlen,
            retention_seconds=seconds(publishing.redis_retention),
        )

    def describe(self) -> str:
        return self._url.shown

    async def connect(self) -> None:
        """Connect, authenticate, and read the top of each stream."""
        await self.close()
        # Its default retry sends a command again whose reply was lost: twice in the stream. Deadlines are the outbox's.
        self._connection = connection = _CONNECTIONS[self._url.scheme](
            **self._options, protocol=2, socket_timeout=None, socket_connect_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        except AuthenticationError as error:
            raise refused(f"WRONGPASS {error}", self._prefix) from error
        except (RedisError, OSError) as error:
            raise refused(str(error), self._prefix) from error
        if connection._reader is None or connection._writer is None:
            raise NotConnected("the connection was lost at once")
        self._replies = Replies(connection._reader)  # its own parser takes 8 us for each reply
        connection._writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        await self._look_at_tops()

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        replies, writer = self._live()
        moved = await self._replayed(batch)
        try:
            chunk: list[bytes] = []
            expected: list[bytes] = []
            for start in range(0, len(batch), _CHUNK_COMMANDS):
                self._pack(chunk, expected, batch[start : start + _CHUNK_COMMANDS], batch[0], moved)
                writer.write(b"".join(chunk))
                chunk.clear()
                await writer.drain()
            seen = max((entry.time_ms for entry in batch if entry.topic is CONTROL), default=0)
            if seen:
                writer.write(command(b"ZADD", self._hosts_key, b"%d" % seen, self._host_id))
                expected.append(_DONE)
            if not await replies.are(b"".join(expected)):
                await self._read_each(replies, len(expected))
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            raise NotConnected(f"connection lost: {error}") from error
        self._count(batch, moved)
        if seen:
            await self._look_at_tops()
        lapses, self._lapses = self._lapses, []
        return Receipt(lapses=lapses)

    async def close(self) -> None:
        connection, self._connection, self._replies = self._connection, None, None
        if connection is None:
            return
        if connection._writer is not None:  # a plain close keeps the socket until a hung peer has read all
            connection._writer.transport.abort()
        await connection.disconnect(nowait=True)

    def _pack(
        self, parts: list[bytes], expected: list[bytes], entries: Sequence[Entry], oldest: Entry, moved: dict[int, bytes]
    ) -> None:
        """Append the commands for these entries, and the replies that they will have."""
        minid = b"%d" % (oldest.order_ms - self._retention_ms)
        begin = {
            short: stream.begin((b"MAXLEN", b"~", self._stats_maxlen) if short == STATS.short else (b"MINID", b"~", minid))
            for short, stream in self._streams.items()
        }
        for entry in entries:
            if entry.topic is STATE:
                subject = entry.subject.encode()
                parts.append(
                    command(b"HDEL", self._state_key, subject)
                    if entry.value is None
                    else command(b"HSET", self._state_key, subject, entry.value)
                )
                expected.append(_DONE)
                continue
            entry_id = moved.get(entry.position) if moved else None
            if entry_id is None:
                entry_id = b"%d-%d" % (entry.order_ms, entry.position)
            elif entry_id is _STORED:
                continue
            short = entry.topic.short
            self._streams[short].add(parts, begin[short], _TRIM_WORDS, entry, entry_id)
            expected.append(added(entry_id))

    async def _read_each(self, replies: Replies, count: int) -> None:
        """Find out what is not as expected among so many replies, and raise it."""
        answers = [await replies.take() for _ in range(count)]
        for answer in answers:
            if isinstance(answer, ErrorReply):
                raise refused(answer.text, self._prefix)
        raise NotConnected(f"replies that were not asked for: {answers[:3]!r:.200}")

    def _count(self, batch: Sequence[Entry], moved: dict[int, bytes]) -> None:
        """All of it is acknowledged: move the tops."""
        new: dict[str, tuple[Id, int]] = {}
        for entry in batch:
            if entry.topic is STATE:
                continue
            self._put[entry.topic.short] = entry
            entry_id = moved.get(entry.position) if moved else None
            if entry_id is not _STORED:
                _, count = new.get(entry.topic.short, ((0, 0), 0))
                new[entry.topic.short] = _parsed(entry_id) if entry_id else _id(entry), count + 1
        for short, (last, count) in new.items():
            top = self._tops[short]
            self._tops[short] = _Top(last, top.added + count if top.added >= 0 else -1)

    async def _replayed(self, batch: Sequence[Entry]) -> dict[int, bytes]:
        """For entries that may be there already, by position: an id right behind the top, or `_STORED`; empty at most times."""
        first: dict[str, Entry] = {}
        for entry in batch:
            if entry.topic.short not in first:
                first[entry.topic.short] = entry
        ids: dict[int, bytes] = {}
        for short, oldest in first.items():
            top = self._tops.get(short, _Top()).last
            if oldest.topic.compacted or _id(oldest) > top:
                continue
            entries = [entry for entry in batch if entry.topic.short == short]
            stored = await self._stored(short, entries)
            # When one must go behind the top, all after it must too, to stay in order.
            late = any(_id(entry) <= top and entry.position not in stored for entry in entries)
            for behind, entry in enumerate(entries, 1):
                if entry.position in stored:
                    ids[entry.position] = _STORED
                elif late:
                    ids[entry.position] = b"%d-%d" % (top[0], top[1] + behind)
        return ids

    async def _stored(self, short: str, entries: list[Entry]) -> set[int]:
        """The positions of those that are in the stream, with the same value, under their own id."""
        first, last = _id(entries[0]), _id(entries[-1])
        (reply,) = await self._ask([command(b"XRANGE", self._streams[short].key, b"%d-%d" % first, b"%d-%d" % last)])
        if isinstance(reply, ErrorReply):
            raise refused(reply.text, self._prefix)
        found: dict[Id, bytes] = {}
        for item in reply if isinstance(reply, list) else []:
            match item:
                case [bytes() as entry_id, [*fields]]:
                    data = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"data")
                    found[_parsed(entry_id)] = data if isinstance(data, bytes) else b""
        return {entry.position for entry in entries if found.get(_id(entry)) == entry.value}

    async def _look_at_tops(self) -> None:
        """Where the streams end; a lapse for each that ends before what this process has put there."""
        replies = await self._ask([command(b"XINFO", b"STREAM", stream.key) for stream in self._streams.values()])
        for (short, stream), reply in zip(self._streams.items(), replies, strict=True):
            before, now = self._tops.get(short, _Top()), _top(reply, self._prefix)
            self._tops[short] = now
            if now.last < before.last or 0 <= now.added < before.added:
                gone = f", {before.added - now.added} entries of {before.added} are gone" if 0 <= now.added < before.added else ""
                reason = (
                    f"Redis has lost data: {stream.key.decode()} ends at {_text(now.last)}, "
                    f"we had put entries up to {_text(before.last)} there{gone}"
                )
                put = self._put.get(short)
                self._lapses.append(Lapse(_TOPIC[short], put.epoch if put else 0, put.seq if put else 0, reason))

    async def _ask(self, commands: list[bytes]) -> list[Reply]:
        """Send all, then read as many replies."""
        replies, writer = self._live()
        try:
            writer.write(b"".join(commands))
            await writer.drain()
            return [await replies.take() for _ in commands]
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            raise NotConnected(f"connection lost: {error}") from error

    def _live(self) -> tuple[Replies, asyncio.StreamWriter]:
        if self._connection is None or self._replies is None or self._connection._writer is None:
            raise NotConnected("not connected")
        return self._replies, self._connection._writer


def _key(prefix: str, host_id: str, short: str) -> bytes:
    return f"{prefix}:{{{host_id}}}:{short}".encode()


def _text(entry_id: Id) -> str:
    return f"{entry_id[0]}-{entry_id[1]}" if entry_id > (0, 0) else "its beginning"


def _id(entry: Entry) -> Id:
    return entry.order_ms, entry.position


def _parsed(entry_id: bytes) -> Id:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _top(reply: Reply, prefix: str) -> _Top:
    """The end of a stream, also when its last entry is gone: from XINFO STREAM."""
    match reply:
        case ErrorReply(text) if "no such key" in text:
            return _Top(added=0)
        case ErrorReply(text):
            raise refused(text, prefix)
        case [*items]:
            told = dict(zip(items[::2], items[1::2], strict=True))
            last, count = told.get(b"last-generated-id"), told.get(b"entries-added")
            if isinstance(last, bytes):
                return _Top(_parsed(last), count if isinstance(count, int) else -1)
    raise NotConnected(f"XINFO STREAM answered {reply!r:.80}")
