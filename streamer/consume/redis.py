"""Reads Redis Streams: those of each host one after the other, a few hundred entries at a time.

Connecting, TLS and authentication are redis-py's; replies are read here: its parser takes ten times as long.

Whether a stream's beginning is there: XADD's trimming (MAXLEN, MINID) leaves `max-deleted-entry-id` at 0-0, XDEL does not.
So a stream with fewer entries than were added has been trimmed, unless somebody has used XDEL: then nothing says what
went which way, and what is missing counts as missing. (Redis 7.0; older ones do not tell, and get the benefit.)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streamer import brokers
from streamer.consume import Batch, Place, Progress, Raw, Selection
from streamer.consume.resp import ErrorReply, Replies, Reply
from streamer.consume.values import unwrap
from streamer.errors import NotConnected, PermanentlyRefused, StreamerError
from streamer.model.messages import Topic

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_CONNECTIONS: Final[dict[str, type[AbstractConnection]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
_ENTRIES: Final = 500  # in one reply: some 600 KB of stats
_READ_BYTES: Final = 1 << 18
_ANSWER_SECONDS: Final = 30.0
_REFUSALS: Final[tuple[tuple[str, str], ...]] = (
    ("CERTIFICATE_VERIFY_FAILED", "name the authority that signed the server's certificate: ?ca=/path.pem"),
    ("NOAUTH", "give user and password in the URL, or --password-file"),
    ("WRONGPASS", "correct user and password"),
    ("NOPERM", "allow it: ACL SETUSER … ~{prefix}:* +xrange +xinfo|stream +hscan +zrange +scan +ping +select"),
    ("WRONGTYPE", "another program uses this key: correct the prefix"),
    ("MOVED", "this is one node of a cluster and the keys are on another: name that one"),
    ("ERR DB index", "correct the number of the database"),
)


class RedisReader:
    """`redis://host:port/db` and its kin: all hosts' streams on one server."""

    def __init__(self, url: brokers.BrokerUrl, selection: Selection) -> None:
        self.kind = "redis"
        self.notes: list[str] = []
        self._url, self._selection = url, selection
        self._options: Final = brokers.redis_options(url, key="URL")
        self._connection: AbstractConnection | None = None
        self._replies = Replies()
        self._streams: list[tuple[str, Topic, bytes]] = []  # host, topic, id of its last entry at the start
        self._hosts: list[str] = []
        self._done = self._total = 0

    @classmethod
    def from_url(cls, url: str, selection: Selection, *, password: str | None) -> Self:
        """`reader`'s entry. Raises ConfigError."""
        return cls(brokers.parse(url, password=password, key="URL"), selection)

    def describe(self) -> str:
        return self._url.shown

    async def open(self) -> None:
        await self._connect()
        self._hosts = [self._selection.host_id] if self._selection.host_id else await self._find_hosts()
        for host in self._hosts:
            for topic in self._selection.topics:
                if topic.compacted:
                    continue
                about = await self._about(self._key(host, topic))
                if about is None:  # nothing was ever said there: no process was short of memory
                    continue
                if about.get("max-deleted-entry-id", b"0-0") != b"0-0":
                    self.notes.append(
                        f"{self._key(host, topic)}: XDEL was used on it; what its beginning lacks is not put down to trimming"
                    )
                self._streams.append((host, topic, _bytes(about.get("last-generated-id"))))
                self._total += _int(about.get("length")) if self._selection.since_ms is None else 0

    async def batches(self) -> AsyncIterator[Batch]:
        for host, topic, last in self._streams:
            async for batch in self._stream(host, topic, last):
                yield batch
        for host in self._hosts:
            for topic in self._selection.topics:
                if topic.compacted:
                    async for batch in self._hash(host, topic):
                        yield batch

    def progress(self) -> Progress:
        return Progress(self._done, self._total, "records")

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection._writer is not None:  # a plain close waits for a peer that hangs
            connection._writer.transport.abort()
        await connection.disconnect(nowait=True)

    async def _connect(self) -> None:
        self._connection = connection = _CONNECTIONS[self._url.scheme](
            **self._options, protocol=2, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        except AuthenticationError as error:
            raise self._refusal(f"WRONGPASS {error}") from error
        except (RedisError, OSError) as error:
            raise self._refusal(str(error)) from error

    async def _find_hosts(self) -> list[str]:
        """The hosts in `<prefix>:hosts`, and those of which there are keys all the same."""
        prefix = self._selection.prefix
        hosts = dict.fromkeys(_text(name) for name in _list(await self._ask(b"ZRANGE", f"{prefix}:hosts".encode(), b"0", b"-1")))
        shorts = "|".join(topic.short for topic in self._selection.topics)
        key = re.compile(re.escape(f"{prefix}:{{") + r"(.*)" + re.escape("}:") + f"(?:{shorts})", re.DOTALL)
        cursor = b"0"
        while True:
            answer = _list(await self._ask(b"SCAN", cursor, b"MATCH", f"{prefix}:{{*}}:*".encode(), b"COUNT", b"1000"))
            for name in _list(answer[1]):
                if match := key.fullmatch(_text(name)):
                    hosts.setdefault(match[1])
            cursor = _bytes(answer[0])
            if cursor == b"0":
                return list(hosts)

    async def _stream(self, host: str, topic: Topic, last: bytes) -> AsyncIterator[Batch]:
        key = self._key(host, topic)
        since = self._selection.since_ms
        first = b"-" if since is None else b"%d" % max(0, since)
        place: Place | None = None
        while True:
            entries = _list(await self._ask(b"XRANGE", key.encode(), first, last, b"COUNT", b"%d" % _ENTRIES))
            if place is None:  # asked after the first entries were read: what goes meanwhile is not taken for missing
                trimmed = "--since" if since is not None else _trimmed(await self._about(key))
                place = Place(key, f"{key} ", topic, host, trimmed, since)
                yield Batch(place, [_raw(topic, entry) for entry in entries])
            elif entries:
                yield Batch(place, [_raw(topic, entry) for entry in entries])
            self._done += len(entries)
            if len(entries) < _ENTRIES:
                return
            first = b"(" + _bytes(_list(entries[-1])[0])

    async def _hash(self, host: str, topic: Topic) -> AsyncIterator[Batch]:
        key = self._key(host, topic)
        place = Place(key, f"{key} ", topic, host)
        cursor = b"0"
        while True:
            answer = _list(await self._ask(b"HSCAN", key.encode(), cursor, b"COUNT", b"%d" % _ENTRIES))
            items = _list(answer[1])
            records = []
            for field, data in zip(items[::2], items[1::2], strict=False):
                value, transport_id = unwrap(_bytes(data))
                records.append(Raw(topic, value, _text(field), f"{host}/{_text(field)}", transport_id))
            yield Batch(place, records)
            self._done += len(records)
            cursor = _bytes(answer[0])
            if cursor == b"0":
                return

    async def _about(self, key: str) -> Mapping[str, Reply] | None:
        """XINFO STREAM of a key; None when there is none."""
        reply = await self._ask(b"XINFO", b"STREAM", key.encode(), missing="no such key")
        if reply is None:
            return None
        items = _list(reply)
        return {_text(name): value for name, value in zip(items[::2], items[1::2], strict=False)}

    async def _ask(self, *words: bytes, missing: str = "") -> Reply:
        """The reply to a command; None for an error reply that says `missing`."""
        connection = self._connection
        if connection is None or not connection.is_connected or connection._reader is None:
            raise NotConnected("not connected")
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        try:
            await connection.send_packed_command(b"".join(parts), check_health=False)
            while not self._replies.ready():
                async with asyncio.timeout(_ANSWER_SECONDS):
                    data = await connection._reader.read(_READ_BYTES)
                if not data:
                    raise NotConnected("Redis closed the connection")
                self._replies.feed(data)
        except (RedisError, OSError, TimeoutError) as error:
            raise NotConnected(f"connection lost: {error}") from error
        reply = self._replies.take()
        if isinstance(reply, ErrorReply):
            if missing and missing in reply.text:
                return None
            raise self._refusal(reply.text)
        return reply

    def _key(self, host: str, topic: Topic) -> str:
        return f"{self._selection.prefix}:{{{host}}}:{topic.short}"

    def _refusal(self, text: str) -> StreamerError:
        for mark, remedy in _REFUSALS:
            if mark in text:
                return PermanentlyRefused(text, remedy=remedy.replace("{prefix}", self._selection.prefix))
        return NotConnected(text)


def _trimmed(about: Mapping[str, Reply] | None) -> str:
    """Why the beginning of a stream is not there; empty when it is, or when that is not trimming's doing."""
    if about is None:
        return ""
    if "entries-added" not in about:
        return "this Redis does not tell whether it trimmed the stream"
    gone = _int(about["entries-added"]) > _int(about.get("length"))
    return "trimmed" if gone and about.get("max-deleted-entry-id") == b"0-0" else ""


def _raw(topic: Topic, entry: Reply) -> Raw:
    entry_id, fields = _list(entry)[:2]
    named = {_bytes(name): text for name, text in zip(_list(fields)[::2], _list(fields)[1::2], strict=False)}
    value, inside = unwrap(_bytes(named.get(b"data")))
    beside = named.get(b"ce_id")
    return Raw(topic, value, _text(entry_id), None, _text(beside) if beside is not None else inside)


def _list(reply: Reply) -> Sequence[Reply]:
    if isinstance(reply, list):
        return reply
    raise NotConnected(f"Redis answered {reply!r:.80} where a list was expected")


def _bytes(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b""


def _text(reply: Reply) -> str:
    return _bytes(reply).decode(errors="backslashreplace")


def _int(reply: Reply) -> int:
    return reply if isinstance(reply, int) else 0
