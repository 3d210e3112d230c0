"""One request and its answer, over ASGI: bodies with a bound, answers whole, piece by piece, or as long as something happens.

A large answer is made while it is sent. Nothing of it is made ahead: what the client has not taken yet waits in the
generator, but for a few tens of kilobytes. The event loop goes round whenever `TURN_SECONDS` were spent, so that
observing and other clients go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from streamer.sidecar.query import Answer
from streamer.sidecar.slots import Left, Turn
from streamer.sidecar.tls import Certificate

MOST_BODY_BYTES: Final = 65_536
_MOST_DISCARDED_BYTES: Final = 16 * MOST_BODY_BYTES
"""Of a body that is too large: a client that still sends when the connection is closed does not get to read why."""
PART_BYTES: Final = 32_768
TURN_SECONDS: Final = 0.002
"""How long one answer is worked at before others have the event loop."""

ANSWER_SECONDS: Final = 120.0
"""From the first byte of an answer in pieces to the last; who takes 64 KiB now and then is not stalled, and never done."""
HURRY_SECONDS: Final = 2.0
"""How long a scrape may take nothing while others wait for its place."""

CONNECTION: Final = "streamer.connection"
"""In a request's `extensions`: its `Connection`."""


class Connection(Protocol):
    """What a request and its answer need to know of their connection."""

    @property
    def certificate(self) -> Certificate | None:
        """The client's, where it brought one that was found good."""
        ...

    @property
    def is_untaken(self) -> bool:
        """Whether the client lets us wait."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether what is written goes nowhere: known a little before the client counts as gone."""
        ...

    def judged(self, *, is_known: bool) -> None:
        """Be told whether who asks has shown a right credential, or needs none."""
        ...

    async def taken(self) -> None:
        """Wait until the client has taken what was written."""
        ...

    def abort(self) -> None: ...

    def buffer_little(self) -> None:
        """Hold only some of what the client has not taken: for answers without an end."""
        ...


class BodyTooLarge(Exception):
    """More than `MOST_BODY_BYTES` were sent."""


class Pieces(NamedTuple):
    """An answer that is made while it is sent. What can be refused is refused before the first piece."""

    pieces: Iterator[bytes]
    content_type: str = "application/json"


class Lines(NamedTuple):
    """An answer that goes on until the client, or the server, ends it: a line for each thing that happens.

    `close` is called at the end, whatever it was.
    """

    lines: AsyncIterator[bytes]
    close: Callable[[], None]
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Exchange:
    """One request with its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._is_head = scope["method"] == "HEAD"
        self.chunks_understood = scope["http_version"] != "1.0"
        self._connection: Connection | None = scope.get("extensions", {}).get(CONNECTION)
        self._watch: asyncio.Task[None] | None = None
        self._hurrying: asyncio.TimerHandle

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the client has gone. Only for requests whose body was read or does not matter."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())
        return self._watch

    async def close(self) -> None:
        """Stop watching the client."""
        watch, self._watch = self._watch, None  # cancelled, it remembers where it stood, and so this: they would keep each other
        if watch is not None:
            watch.cancel()
            await asyncio.wait({watch})

    async def body(self) -> bytes:
        """The whole body of the request.

        Raises:
            BodyTooLarge: it goes on after `MOST_BODY_BYTES`.
            Left: the client went away before its end.
        """
        body = bytearray()
        discarded = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Left
            body += message.get("body", b"")
            if len(body) > MOST_BODY_BYTES:
                discarded += len(body)
                body.clear()
            if discarded > _MOST_DISCARDED_BYTES or (discarded and not message.get("more_body")):
                raise BodyTooLarge
            if not message.get("more_body"):
                return bytes(body)

    def header(self, name: bytes) -> str:
        """A header of the request, given in lower case; repeated ones joined."""
        return ",".join(value.decode("latin-1") for each, value in self._headers if each == name)

    def has_current(self, tag: str) -> bool:
        """Whether the client holds this version of the answer (RFC 9110, `If-None-Match`)."""
        held = self.header(b"if-none-match")
        return held.strip() == "*" or any(each.strip().removeprefix("W/") == tag for each in held.split(","))

    async def send_whole(self, answer: Answer, headers: Iterable[tuple[str, str]] = ()) -> None:
        length = () if answer.status == 304 else (("content-length", str(len(answer.body))),)
        await self._start(answer.status, answer.content_type, (*headers, *length))
        await self._send({"type": "http.response.body", "body": b"" if self._is_head else answer.body})

    async def send_pieces(self, answer: Pieces, turn: Turn, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Part by part, as the client takes it."""
        parts = _parts(answer.pieces)
        if not (self.chunks_understood or self._is_head):
            whole = b"".join([part async for part in parts])
            headers = (*headers, ("content-length", str(len(whole))))
            parts = _slices(whole)
        first = await anext(parts, b"")  # a fault in it is still a 500
        cutting = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._cut)
        try:
            await self._as_taken(self._start(200, answer.content_type, headers), turn)
            if not self._is_head:
                await self._as_taken(self._part(first), turn)
                async for part in parts:
                    await self._as_taken(self._part(part), turn)
            await self._as_taken(self._part(b"", last=True), turn)
        except Left:
            pass  # the connection has counted it where the client was cut off
        finally:
            cutting.cancel()

    async def send_lines(self, answer: Lines, ending: asyncio.Event) -> None:
        """Every line at once, until there are no more, the client goes, or `ending` is set."""
        if self._connection is not None:
            self._connection.buffer_little()
        await self._start(200, answer.content_type, answer.headers)
        if not self._is_head:
            ended = asyncio.ensure_future(ending.wait())
            try:
                await self._pass_on(answer.lines, {ended, self.gone})
            finally:
                ended.cancel()
        await self._part(b"", last=True)

    async def _pass_on(self, lines: AsyncIterator[bytes], until: set[asyncio.Future[Any]]) -> None:
        passing = asyncio.ensure_future(self._each(lines))  # one for all lines: a task for each would cost more than the line
        try:
            await asyncio.wait({passing, *until}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if passing.cancel():  # a part is written whole or not at all
                await asyncio.wait({passing})
        if not passing.cancelled():
            passing.result()

    async def _each(self, lines: AsyncIterator[bytes]) -> None:
        while (line := await anext(lines, None)) is not None:
            if self._connection is not None and self._connection.is_closing:
                return
            await self._part(line)
            del line  # nothing is held, and the next one not made, while the client takes it
            if self._connection is not None and self._connection.is_untaken:
                await self._connection.taken()

    async def _start(self, status: int, content_type: str, headers: Iterable[tuple[str, str]]) -> None:
        given = [("content-type", content_type), ("x-content-type-options", "nosniff"), *headers]
        if not any(name == "cache-control" for name, _ in given):
            given.append(("cache-control", "no-store"))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _part(self, part: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": not last})

    async def _as_taken(self, sending: Coroutine[Any, Any, None], turn: Turn) -> None:
        if self.gone.done() or (self._connection is not None and self._connection.is_closing):
            sending.close()
            raise Left
        if self._connection is not None and self._connection.is_untaken:
            await turn.lend(self._in_a_hurry(sending, turn))
        else:
            await sending

    async def _in_a_hurry(self, sending: Coroutine[Any, Any, None], turn: Turn) -> None:
        """Only as long as the client lets us wait: that a turn is not free at once is not its fault."""
        self._hurry_in(turn)
        try:
            await sending
        finally:
            self._hurrying.cancel()

    def _hurry_in(self, turn: Turn) -> None:
        self._hurrying = asyncio.get_running_loop().call_later(HURRY_SECONDS, self._hurry, turn)

    def _hurry(self, turn: Turn) -> None:
        """Cut off who takes nothing, once others wait for the place."""
        if turn.is_wanted:
            self._cut()
        else:
            self._hurry_in(turn)

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _parts(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces joined to parts worth a packet or more; the event loop goes round in between."""
    clock = asyncio.get_running_loop().time
    part: list[bytes] = []
    size, began = 0, clock()
    for piece in pieces:
        part.append(piece)
        size += len(piece)
        if clock() - began > TURN_SECONDS:
            await asyncio.sleep(0)
            began = clock()
        if size >= PART_BYTES:
            yield b"".join(part)
            part.clear()
            size = 0
    yield b"".join(part)


async def _slices(whole: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(whole), PART_BYTES):
        yield whole[start : start + PART_BYTES]


def tag_of(body: bytes) -> str:
    """A strong entity tag."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'
