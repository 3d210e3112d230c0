"""Redis's replies (RESP2), parsed from whatever pieces they arrive in. Pure: bytes in, values out.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from typing import Final, NamedTuple

from streamer.errors import NotConnected

_DEEPEST: Final = 8  # XRANGE nests three lists
_MOST_ITEMS: Final = 1 << 20
_LONGEST_LINE: Final = 1 << 16


class ErrorReply(NamedTuple):
    """Redis answered `-text`."""

    text: str


Reply = bytes | int | None | ErrorReply | list["Reply"]


class _Incomplete(Exception):
    """More bytes are needed."""


class Replies:
    """Pieces in, replies out. Of a long list each item that is whole is parsed once.

    Raises:
        NotConnected: what came is no RESP.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._items: list[Reply] | None = None  # of the list that is being received
        self._wanted = 0
        self._reply: Reply = None
        self._ready = False

    def feed(self, data: bytes) -> None:
        """Bytes that came."""
        self._buffer += data

    def ready(self) -> bool:
        """Whether a whole reply is there, for `take`."""
        if self._ready:
            return True
        position = 0
        try:
            if self._items is None:
                if not self._buffer.startswith(b"*") or self._buffer.startswith(b"*-1"):
                    self._reply, position = _parse(self._buffer, 0)
                    self._ready = True
                    return True
                self._wanted, position = _count(self._buffer, 0)
                self._items = []
            while len(self._items) < self._wanted:
                item, position = _parse(self._buffer, position)
                self._items.append(item)
        except _Incomplete:
            return False
        else:
            self._reply, self._items, self._ready = self._items, None, True
            return True
        finally:
            self._buffer = self._buffer[position:]

    def take(self) -> Reply:
        """The reply that is ready."""
        reply, self._reply, self._ready = self._reply, None, False
        return reply


def _parse(data: bytes, at: int, depth: int = 0) -> tuple[Reply, int]:
    """The reply that begins at `at`, and where it ends."""
    kind = data[at : at + 1]
    if kind == b"$":  # first, as nearly all are
        size, at = _count(data, at)
        if size < 0:
            return None, at
        if len(data) < at + size + 2:
            raise _Incomplete
        return data[at : at + size], at + size + 2
    if kind == b"*":
        count, at = _count(data, at)
        if depth >= _DEEPEST:
            raise _no_resp(data, at)
        return _items(data, at, count, depth) if count >= 0 else (None, at)
    if kind == b":":
        return _count(data, at)
    return _line(data, at)


def _items(data: bytes, at: int, count: int, depth: int) -> tuple[Reply, int]:
    """The items of a list that begins at `at`."""
    items: list[Reply] = []
    received = len(data)
    for _ in range(count):
        if data.startswith(b"$", at):  # written out for the strings that nearly all items are: a third of the time
            end = data.find(b"\r\n", at)
            size = data[at + 1 : end]
            if end > 0 and size.isdigit() and len(size) < 10:
                stop = end + 2 + int(size)
                if received >= stop + 2:
                    items.append(data[end + 2 : stop])
                    at = stop + 2
                    continue
        item, at = _parse(data, at, depth + 1)
        items.append(item)
    return items, at


def _line(data: bytes, at: int) -> tuple[Reply, int]:
    """A simple string or an error."""
    kind, end = data[at : at + 1], data.find(b"\r\n", at)
    if kind not in {b"", b"+", b"-"} or (end < 0 and len(data) - at > _LONGEST_LINE):
        raise _no_resp(data, at)
    if end < 0:
        raise _Incomplete
    text = data[at + 1 : end]
    return (text if kind == b"+" else ErrorReply(text.decode(errors="replace"))), end + 2


def _count(data: bytes, at: int) -> tuple[int, int]:
    end = data.find(b"\r\n", at)
    if end < 0 and len(data) - at <= _LONGEST_LINE:
        raise _Incomplete
    text = data[at + 1 : end]
    if len(text) > 20 or not text.removeprefix(b"-").isdigit():
        raise _no_resp(data, at)
    number = int(text)
    if number > _MOST_ITEMS and data[at : at + 1] == b"*":
        raise _no_resp(data, at)
    return number, end + 2


def _no_resp(data: bytes, at: int) -> NotConnected:
    return NotConnected(f"the peer does not speak Redis's protocol: {data[at : at + 80]!r}")
