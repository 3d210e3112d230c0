"""What one HTTP client may cost. uvicorn bounds none of this with httptools: a request head may go on for ever.

Descriptors matter most: the sampler holds thousands of them, and a client that collects idle connections must not be
the reason that a new container cannot be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from streamer.sidecar.exchange import CONNECTION
from streamer.sidecar.listen import address_of
from streamer.sidecar.places import Places
from streamer.sidecar.tls import Certificate

MOST_HEAD_BYTES: Final = 65_536
MOST_HEADERS: Final = 128
"""Fields of a head: each takes seventeen times the few bytes that it may be sent in."""
MOST_REQUEST_BYTES: Final = 8_000_000
"""More than any body is read of, were it sent in chunks of a byte; what comes behind a body is gathered by the parser, unasked."""
_SLICE_BYTES: Final = 8192
REQUEST_SECONDS: Final = 10.0
"""From the first byte (or the connection) to the end of a request. Between requests uvicorn's keep-alive time counts."""
STRANGER_KEEP_ALIVE_SECONDS: Final = 5
"""Between two requests, of who was not let in: long enough for a browser that asks its user for a password to be quick about it."""
STALLED_SECONDS: Final = 30.0
"""How long a client may leave an answer untaken before it is cut off."""

MOST_PIPELINED: Final = 32
"""Requests sent ahead of their answers: a packet may hold thousands, each of which takes some kilobytes until its turn."""
_OF_A_BODY: Final = (b"content-length", b"transfer-encoding")
_STREAM_BUFFER_BYTES: Final = 32_768
_KEEPALIVE_IDLE_SECONDS: Final = 60
_NO_LINGER: Final = struct.pack("ii", True, 0)
"""socket(7): on, for 0 s."""

Refuse = Callable[[str], None]
"""Told the status of a request that no route has seen, or `aborted` for an answer that was not taken."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with bounds on number, size and time."""

    def __init__(self, refused: Refuse, places: Places, **given: Any) -> None:
        super().__init__(**given)
        self._refused = refused
        self._places = places
        self._is_known = False
        self._head_bytes = 0
        self._in_head = True
        self._request_bytes = 0
        self._request_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self.certificate: Certificate | None = None
        self.beneath: asyncio.WriteTransport | None = None
        """Of a TLS connection the TCP connection, which has a buffer of its own."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        client = transport.get_extra_info("socket")
        if not self._places.enter(self, address_of(client), self.loop.time()):
            self._cut(503, b"Service Unavailable")
            return
        _notice_when_it_vanishes(client)
        self._start_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._places.leave(self)
        self._stop_request_timer()
        self._stop_stall_timer()
        if self._end_timer is not None:
            self._end_timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn lets it run after a reset, and all of us live on with it
        self._give_up_answer()  # uvicorn tells the newest request alone; with pipelining that is another one
        # A request knows its connection: who is gone would stay, with what it asked, until cycles are looked for.
        self.pipeline.clear()
        self._answering = self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.scope = None  # type: ignore[assignment]  # the same

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE_BYTES):  # a body may come in the same packet as its head
            if self.transport.is_closing():
                return
            part = data[start : start + _SLICE_BYTES]
            self._start_request_timer()
            self._request_bytes += len(part)
            if self._request_bytes > MOST_REQUEST_BYTES:
                self._cut(413, b"Content Too Large")
                return
            if self._in_head:
                self._head_bytes += len(part)
                if self._head_bytes > MOST_HEAD_BYTES:
                    self._cut(431, b"Request Header Fields Too Large")
                    return
            super().data_received(part)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes, self._request_bytes = True, 0, 0
        self._start_request_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raises ValueError, which ends the parsing with 400."""
        if not self._in_head:
            raise ValueError("fields behind a body: nobody reads them, and uvicorn takes them for those of the head")
        if len(self.headers) >= MOST_HEADERS:
            raise ValueError("too many fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests ahead of their answers")  # ends the parsing: 400
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        wants_upgrade = self.parser.should_upgrade()
        if wants_upgrade and any(name in _OF_A_BODY for name, _ in self.headers):
            raise ValueError("a body before another protocol: the parser takes it for the next request")
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # any value may stand there
        super().on_headers_complete()
        if wants_upgrade:  # to nothing that is spoken here; what follows may be of that protocol already
            self.cycle.keep_alive = False

    def _take_host_of_target(self) -> None:
        """`GET http://host/path`: that host is the one which is asked, whatever `Host` says (RFC 9112, 3.2.2)."""
        target = httptools.parse_url(self.url)  # an error in it ends the parsing: 400
        host = b"[%b]" % target.host if b":" in (target.host or b"") else target.host or b""
        self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]

    def on_message_complete(self) -> None:
        self._stop_request_timer()
        super().on_message_complete()
        self._stand()

    def send_400_response(self, msg: str) -> None:
        self._refused("400")
        if self._give_up_answer():
            self.transport.close()
        else:
            super().send_400_response(msg)
        self._end_soon()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stand()
        self._end_soon()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_soon()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stand()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALLED_SECONDS, self.abort)

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()
        self._stand()

    def _start_request_timer(self) -> None:
        if self._request_timer is None:
            self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._cut, 408, b"Request Timeout")

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def judged(self, *, is_known: bool) -> None:
        """Told of each request whether who asks has shown a right credential, or needs none."""
        self._is_known = is_known
        self.timeout_keep_alive = self.config.timeout_keep_alive if is_known else STRANGER_KEEP_ALIVE_SECONDS
        self._stand()

    def let_go(self) -> None:
        """Somebody else has the place."""
        self.transport.abort()

    def _stand(self) -> None:
        answering = self._answering
        is_answering = answering is not None and not answering.response_complete and not answering.more_body
        # Who asks on without a pause and takes nothing, or has shown no credential, would else have a place for good.
        is_busy = self._is_known and is_answering and not self.is_untaken
        self._places.stand(self, "busy" if is_busy else "idle" if self._is_known else "stranger", self.loop.time())

    @property
    def is_untaken(self) -> bool:
        """Whether what was written waits for the client."""
        return self.flow.write_paused

    @property
    def is_closing(self) -> bool:
        """Whether the connection is being given up; asyncio logs each write to it, for nobody."""
        return self.transport.is_closing()

    async def taken(self) -> None:
        """Wait until the client has taken what was written, or has gone."""
        await self.flow.drain()

    def abort(self) -> None:
        """Cut off a client that does not take its answer."""
        self._refused("aborted")
        self._reset()

    def buffer_little(self) -> None:
        """Let the kernel keep some tens of kilobytes for the client, not the megabytes that it grows to by itself."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER_BYTES)
        for transport in (self.transport, self.beneath):
            if transport is not None:
                transport.set_write_buffer_limits(1)  # not 0, by which TLS would pause for ever

    def _cut(self, status: int, reason: bytes) -> None:
        self._refused(str(status))
        if not self._give_up_answer():
            self.transport.write(b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, reason))
        self.transport.close()
        self._end_soon()

    def _end_soon(self) -> None:
        """A connection that is closing waits until the client has taken what was written, and asyncio would wait for ever."""
        if self.transport.is_closing() and self._end_timer is None:
            self._end_timer = self.loop.call_later(STALLED_SECONDS, self._reset)

    def _reset(self) -> None:
        """At once, with a reset: what the client did not take would stay in the kernel for minutes, to be offered again and again."""
        with contextlib.suppress(OSError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _give_up_answer(self) -> bool:
        """Whoever makes an answer now makes it for nobody. Whether it has begun: then bytes of ours would be taken for its own."""
        answering = self._answering
        if answering is None or answering.response_complete:
            return False
        answering.disconnected = True
        answering.message_event.set()
        return answering.response_started

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)


def _notice_when_it_vanishes(client: socket.socket) -> None:
    """A client that lost its power says nothing; one that only listens would keep its connection for ever."""
    if client.family in (socket.AF_INET, socket.AF_INET6):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
