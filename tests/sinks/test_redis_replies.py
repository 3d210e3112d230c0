"""Reading what Redis answers, however it is cut into pieces on its way."""

from __future__ import annotations

import asyncio

import pytest

from streamer.errors import NotConnected
from streamer.sinks.redis.resp import ErrorReply, Replies, added, command


def _replies(data: bytes, piece: int) -> Replies:
    """Replies that arrive `piece` bytes at a time, then the end."""

    class InPieces(asyncio.StreamReader):
        async def read(self, n: int = -1) -> bytes:
            return await super().read(piece)

    reader = InPieces()
    reader.feed_data(data)
    reader.feed_eof()
    return Replies(reader)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
async def test_what_is_as_expected_is_taken_at_once(piece: int) -> None:
    """Ids and counts, and then the reply behind them; that a field was there before makes no difference."""
    data = added(b"1-1") + b":0\r\n" + added(b"1700000000000-22")
    replies = _replies(data + b"+PONG\r\n", piece)
    assert await replies.are(data.replace(b":0", b":1"))
    assert await replies.take() == b"PONG"


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("text", [b"-E\r\n", b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_an_error_is_found_wherever_it_stands(piece: int, text: bytes, before: int) -> None:
    """Shorter or longer than what was expected, first, in the middle or last: nothing waits for ever, nothing is skipped."""
    good = [added(b"1-1"), added(b"1-2")]
    replies = _replies(b"".join([*good[:before], text, *good[before:]]), piece)
    assert not await replies.are(added(b"1-1") * 3)
    taken = [await replies.take() for _ in range(3)]
    assert taken.pop(before) == ErrorReply(text[1:-2].decode())
    assert taken == [b"1-1", b"1-2"]


async def test_arrays_and_nothing_are_read() -> None:
    """What XINFO and XRANGE answer: nested arrays, numbers, empty and absent values."""
    replies = _replies(b"*3\r\n$4\r\nname\r\n:7\r\n*2\r\n$-1\r\n*-1\r\n$0\r\n\r\n", 4)
    assert await replies.take() == [b"name", 7, [None, None]]
    assert await replies.take() == b""


async def test_an_end_and_another_language_are_errors() -> None:
    """The end of the connection, and lines that are no replies."""
    with pytest.raises(asyncio.IncompleteReadError):
        await _replies(b"$5\r\nab", 3).take()
    with pytest.raises(asyncio.IncompleteReadError):
        await _replies(b"$3\r\n1-", 3).are(added(b"1-1"))
    with pytest.raises(NotConnected, match="protocol"):
        await _replies(b"HTTP/1.1 400\r\n", 1000).take()
    with pytest.raises(NotConnected, match="protocol"):
        await _replies(b"x" * 100_000, 1000).take()


def test_a_command_counts_bytes() -> None:
    """Lengths are those of the bytes, not of the letters."""
    assert command(b"HSET", "é".encode()) == b"*2\r\n$4\r\nHSET\r\n$2\r\n\xc3\xa9\r\n"
