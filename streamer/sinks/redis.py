"""Redis Streams: one stream per topic and host, the present state in a hash, the hosts in a sorted set.

    streamer:{<host id>}:lifecycle|oom|stats|host|control   streams; fields: the CloudEvents attributes and `data`
    streamer:{<host id>}:state                              hash: container id -> ContainerState
    streamer:hosts                                          sorted set: host id by the time of its last control message

The braces are a hash tag: all keys of a host live in one slot of a cluster. Each stream has one writer, so it gives its
own, increasing entry ids, `order_ms-position`, the same at every replay. `connect` reads the top of each stream; a
batch that begins at or below it may be there already, and then `send` looks before it adds. What is not found is added:

- above the top under its own id;
- below the top (trimmed since, or the clock went back) right behind the top, so that nothing is lost. A consumer that
  has seen it before drops it by its `ce_id`. (Not under `*`: a server whose clock is ahead would keep the top there.)

Commands are packed here, once per batch, and the replies read here: redis-py's pipeline spends 20 us on a command, this
6 us. Connecting, TLS and authentication are redis-py's. An error reply in the middle of a batch does not stop the rest
of it; the whole batch is then sent again, and what did arrive is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streamer import brokers
from streamer.config import Publishing, SinkSettings, password, seconds
from streamer.contracts import Receipt
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import CONTROL, STATE, STATS, TOPICS
from streamer.model.wire import Entry, attributes

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_CONNECTIONS: Final[dict[str, type[AbstractConnection]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}

_REFUSALS: Final[tuple[tuple[str, str], ...]] = (
    ("CERTIFICATE_VERIFY_FAILED", "name the authority that signed the server's certificate: ?ca=/path.pem"),
    ("NOAUTH", "give user and password in the URL, or password_file"),
    ("WRONGPASS", "correct user and password"),
    ("NOPERM", "allow it: ACL SETUSER … ~{prefix}:* +xadd +xrange +xinfo|stream +hset +hdel +zadd +ping +select"),
    ("WRONGTYPE", "another program uses this key: delete it, or set publishing.prefix"),
    ("MOVED", "this is one node of a cluster and the keys of this host are on another: name that one"),
    ("ERR unknown command", "streams with MINID need Redis 6.2 or newer"),
    ("ERR syntax error", "streams with MINID need Redis 6.2 or newer"),
    ("ERR DB index", "correct the number of the database"),
)
"""What stands in an error that stays until the operator acts, and what to do."""

_PASSING: Final[tuple[tuple[str, str], ...]] = (
    ("OOM", "raise Redis's maxmemory, or lower publishing.redis_stats_maxlen or redis_retention"),
    ("READONLY", "name the primary"),
    ("MISCONF", "Redis cannot save to its disk: see its log"),
    ("NOREPLICAS", "too few replicas are connected: min-replicas-to-write"),
)
"""Error replies that pass by themselves or when Redis is mended, with a hint. Others without one: LOADING, MASTERDOWN,
CLUSTERDOWN, TRYAGAIN, BUSY, and whatever we do not know: it is retried with back-off, and nothing is lost meanwhile."""

_STORED: Final = b""  # stands for the id of an entry that need not be added any more


class ErrorReply(NamedTuple):
    """Redis answered `-text`."""

    text: str


Reply = bytes | int | None | ErrorReply | list["Reply"]


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
        self._keys: Final = {topic.short: f"{prefix}:{{{host_id}}}:{topic.short}".encode() for topic in TOPICS}
        self._connection: AbstractConnection | None = None
        self._tops: dict[str, tuple[int, int]] = {}

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
            raise _refusal(f"WRONGPASS {error}", self._prefix) from error
        except (RedisError, OSError) as error:
            raise _refusal(str(error), self._prefix) from error
        streams = [topic for topic in TOPICS if not topic.compacted]
        replies = await self._ask([_command(b"XINFO", b"STREAM", self._keys[topic.short]) for topic in streams])
        self._tops = {topic.short: _top(reply, self._prefix) for topic, reply in zip(streams, replies, strict=True)}

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        ids = await self._ids(batch)
        commands: list[bytes] = []
        added: list[str] = []  # which stream each command adds to; "" for one that adds to none
        minid = str(batch[0].order_ms - self._retention_ms).encode()
        for entry, entry_id in zip(batch, ids, strict=True):
            if entry_id is not _STORED:
                commands.append(self._add(entry, entry_id, minid))
                added.append("" if entry.topic is STATE else entry.topic.short)
        if last := max((entry.time_ms for entry in batch if entry.topic is CONTROL), default=0):
            commands.append(_command(b"ZADD", self._hosts_key, str(last).encode(), self._host_id))
            added.append("")
        replies = await self._ask(commands)
        for short, reply in zip(added, replies, strict=True):
            if isinstance(reply, ErrorReply):
                raise _refusal(reply.text, self._prefix)
            if short and isinstance(reply, bytes):
                self._tops[short] = _parsed(reply)
        return Receipt()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection._writer is not None:  # a plain close keeps the socket until a hung peer has read all
            connection._writer.transport.abort()
        await connection.disconnect(nowait=True)

    async def _ids(self, batch: Sequence[Entry]) -> list[bytes]:
        """The entry id for each entry: its own, one right behind the top, or `_STORED` when Redis has it."""
        ids = {entry.position: b"%d-%d" % (entry.order_ms, entry.position) for entry in batch}
        streams: dict[str, list[Entry]] = {}
        for entry in batch:
            streams.setdefault(entry.topic.short, []).append(entry)
        for short, entries in streams.items():
            top = self._tops.get(short, (0, 0))
            if entries[0].topic.compacted or _id(entries[0]) > top:
                continue
            stored = await self._stored(short, entries)
            # When one must go behind the top, all after it must too, to stay in order.
            late = any(_id(entry) <= top and entry.position not in stored for entry in entries)
            for behind, entry in enumerate(entries, 1):
                if entry.position in stored:
                    ids[entry.position] = _STORED
                elif late:
                    ids[entry.position] = b"%d-%d" % (top[0], top[1] + behind)
        return list(ids.values())

    async def _stored(self, short: str, entries: list[Entry]) -> set[int]:
        """The positions of those that are in the stream, with the same value, under their own id."""
        first, last = _id(entries[0]), _id(entries[-1])
        (reply,) = await self._ask([_command(b"XRANGE", self._keys[short], b"%d-%d" % first, b"%d-%d" % last)])
        if isinstance(reply, ErrorReply):
            raise _refusal(reply.text, self._prefix)
        found: dict[tuple[int, int], bytes] = {}
        for item in reply if isinstance(reply, list) else []:
            match item:
                case [bytes() as entry_id, [*fields]]:
                    data = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"data")
                    found[_parsed(entry_id)] = data if isinstance(data, bytes) else b""
        return {entry.position for entry in entries if found.get(_id(entry)) == entry.value}

    def _add(self, entry: Entry, entry_id: bytes, minid: bytes) -> bytes:
        key = self._keys[entry.topic.short]
        if entry.topic is STATE:
            subject = entry.subject.encode()
            return _command(b"HDEL", key, subject) if entry.value is None else _command(b"HSET", key, subject, entry.value)
        trim = (b"MAXLEN", b"~", self._stats_maxlen) if entry.topic is STATS else (b"MINID", b"~", minid)
        return _xadd((key, *trim, entry_id), attributes(entry), entry.value or b"")

    async def _ask(self, commands: list[bytes]) -> list[Reply]:
        """Send all, then read as many replies."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise NotConnected("not connected")
        try:
            await connection.send_packed_command(b"".join(commands), check_health=False)
            reader = connection._reader  # its own parser takes 8 us for each reply
            return [await _read(reader) for _ in commands] if reader is not None else []
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            raise NotConnected(f"connection lost: {error}") from error


def _command(*words: bytes) -> bytes:
    """A command in RESP: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def _xadd(words: tuple[bytes, ...], beside: list[tuple[str, bytes]], data: bytes) -> bytes:
    """`_command` for XADD; the fields' names, the same in all of them, are packed once."""
    parts = [b"*%d\r\n$4\r\nXADD\r\n" % (len(words) + 2 * len(beside) + 3)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    parts += [b"%b$%d\r\n%b\r\n" % (_packed(name), len(value), value) for name, value in beside]
    parts.append(b"$4\r\ndata\r\n$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@cache
def _packed(name: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(name), name.encode())


async def _read(reader: asyncio.StreamReader) -> Reply:
    """One RESP2 reply.

    Raises:
        asyncio.IncompleteReadError, OSError: the connection is gone.
        NotConnected: what came is no RESP.
    """
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":  # first, as nearly all are
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    match kind:
        case b":":
            return int(rest)
        case b"+":
            return rest
        case b"-":
            return ErrorReply(rest.decode(errors="replace"))
        case b"*":
            return None if rest == b"-1" else [await _read(reader) for _ in range(int(rest))]
    raise NotConnected(f"the peer does not speak Redis's protocol: {line[:80]!r}")


def _id(entry: Entry) -> tuple[int, int]:
    return entry.order_ms, entry.position


def _parsed(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _top(reply: Reply, prefix: str) -> tuple[int, int]:
    """The last id a stream gave out, also when that entry is gone: from XINFO STREAM."""
    match reply:
        case ErrorReply(text) if "no such key" in text:
            return 0, 0
        case ErrorReply(text):
            raise _refusal(text, prefix)
        case [*items]:
            last = dict(zip(items[::2], items[1::2], strict=True)).get(b"last-generated-id")
            if isinstance(last, bytes):
                return _parsed(last)
    raise NotConnected(f"XINFO STREAM answered {reply!r:.80}")


def _refusal(text: str, prefix: str) -> NotConnected | PermanentlyRefused:
    for mark, remedy in _REFUSALS:
        if mark in text:
            return PermanentlyRefused(text, remedy=remedy.replace("{prefix}", prefix))
    for beginning, remedy in _PASSING:
        if text.startswith(beginning):
            return NotConnected(text, remedy=remedy)
    return NotConnected(text)
