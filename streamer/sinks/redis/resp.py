"""RESP2, as far as the sink speaks it: https://redis.io/docs/latest/develop/reference/protocol-spec/

Commands are packed here, and the replies read here: redis-py spends 20 us on a command in a pipeline. What all entries of a
stream have in common is packed once; replies that are what they should be are compared as they lie, not parsed.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from streamer.errors import NotConnected
from streamer.model.wire import Entry, attributes, fixed, varying

_LENGTHS: Final = tuple(b"$%d\r\n" % length for length in range(8192))
_READ_BYTES: Final = 1 << 18
_LONGEST_LINE: Final = 65_536
_DONE: Final = b":1\r\n"
_DONE_BEFORE: Final = b":0\r\n"


class ErrorReply(NamedTuple):
    """Redis answered `-text`."""

    text: str


Reply = bytes | int | None | ErrorReply | list["Reply"]


def command(*words: bytes) -> bytes:
    """A command."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(word, words)))


def word(data: bytes) -> bytes:
    """One word of a command."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Stream:
    """Packs the entries of one topic for its stream; `trim` are the words that bound its length."""

    def __init__(self, key: bytes) -> None:
        self.key: Final = key
        self._host_id = ""
        self._names: list[bytes] = []
        self._fields = 0

    def begin(self, trim: tuple[bytes, ...]) -> bytes:
        """What the commands of a batch begin with, after their number of words."""
        return b"".join(map(word, (b"XADD", self.key, *trim)))

    def add(self, parts: list[bytes], begin: bytes, trim_words: int, entry: Entry, entry_id: bytes) -> None:
        """Append a command that adds an entry."""
        value = entry.value or b""
        if entry.structured or entry.value is None:
            about = b"".join(word(name.encode()) + word(text) for name, text in attributes(entry))
            words = 3 + trim_words + 2 * len(attributes(entry)) + 2
            parts.append(b"*%d\r\n%b%b%b" % (words, begin, word(entry_id), about))
        else:
            if self._host_id != entry.host_id:
                self._learn(entry)
            id_, subject, time, number = varying(entry)
            before, after_id, after_subject, after_time, behind = self._names
            parts.append(
                b"*%d\r\n%b$%d\r\n%b%b$%d\r\n%b%b$%d\r\n%b%b$%d\r\n%b%b$%d\r\n%b%b"
                % (
                    3 + trim_words + self._fields, begin, len(entry_id), entry_id, before, len(id_), id_, after_id,
                    len(subject), subject, after_subject, len(time), time, after_time, len(number), number, behind,
                )
            )  # fmt: skip
        length = _LENGTHS[len(value)] if len(value) < len(_LENGTHS) else b"$%d\r\n" % len(value)
        parts += (b"$4\r\ndata\r\n", length, value, b"\r\n")

    def _learn(self, entry: Entry) -> None:
        names = fixed(entry, lambda name, text: word(name.encode()) + word(text), lambda name: word(name.encode()))
        self._names = [b"\r\n" + name for name in names]
        self._fields = 2 * len(attributes(entry)) + 2
        self._host_id = entry.host_id


def added(entry_id: bytes) -> bytes:
    """The reply to adding an entry under this id."""
    return b"$%d\r\n%b\r\n" % (len(entry_id), entry_id)


class Replies:
    """What a server answers, in order."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader: Final = reader
        self._buffer = bytearray()

    async def are(self, expected: bytes) -> bool:
        """Whether the next replies are these; a `:0` counts as a `:1`. If not, none of them is taken.

        Raises:
            asyncio.IncompleteReadError, OSError: the connection is gone.
        """
        looked = 0
        while len(self._buffer) < len(expected):
            # A reply of another kind may be shorter, and then nothing more comes: it is at the beginning of a line.
            if self._buffer[:1] == b"-" or self._buffer.find(b"\n-", max(0, looked - 1)) >= 0:
                return False
            looked = len(self._buffer)
            await self._fill()
        if bytes(self._buffer[: len(expected)]).replace(_DONE_BEFORE, _DONE) != expected:
            return False
        del self._buffer[: len(expected)]
        return True

    async def take(self) -> Reply:
        """The next reply.

        Raises:
            asyncio.IncompleteReadError, OSError: the connection is gone.
            NotConnected: what came is no RESP.
        """
        line = await self._line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"$":
                return None if rest == b"-1" else await self._exactly(int(rest))
            case b":":
                return int(rest)
            case b"+":
                return rest
            case b"-":
                return ErrorReply(rest.decode(errors="replace"))
            case b"*":
                return None if rest == b"-1" else [await self.take() for _ in range(int(rest))]
        raise NotConnected(f"the peer does not speak Redis's protocol: {line[:80]!r}")

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE:
                raise NotConnected(f"the peer does not speak Redis's protocol: {bytes(self._buffer[:80])!r}")
            await self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length + 2:
            await self._fill()
        data = bytes(self._buffer[:length])
        del self._buffer[: length + 2]
        return data

    async def _fill(self) -> None:
        more = await self._reader.read(_READ_BYTES)
        if not more:
            raise asyncio.IncompleteReadError(b"", None)
        self._buffer += more
