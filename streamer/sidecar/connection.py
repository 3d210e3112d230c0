"""What one HTTP client may cost. uvicorn bounds none of this with httptools: a request head may go on for ever.

Descriptors matter most: the sampler holds thousands of them, and a client that collects idle connections must not be
the reason that a new container cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_CONNECTIONS: Final = 128
MOST_HEAD_BYTES: Final = 65_536
REQUEST_SECONDS: Final = 10.0
"""From the first byte (or the connection) to the end of a request. Between requests uvicorn's keep-alive time counts."""
STALLED_SECONDS: Final = 30.0
"""How long a client may leave an answer untaken before it is cut off."""

Refuse = Callable[[str], None]
"""Told the status of a request that no route has seen, or `aborted` for an answer that was not taken."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with bounds on number, size and time."""

    def __init__(self, refused: Refuse, **given: Any) -> None:
        super().__init__(**given)
        self._refused = refused
        self._head_bytes = 0
        self._in_head = True
        self._request_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._cut(503, b"Service Unavailable")
            return
        self._start_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_request_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._start_request_timer()
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._cut(431, b"Request Header Fields Too Large")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._start_request_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_request_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refused("400")
        super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALLED_SECONDS, self._abort)

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()

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

    def _abort(self) -> None:
        self._refused("aborted")
        self.transport.abort()

    def _cut(self, status: int, reason: bytes) -> None:
        self._refused(str(status))
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:  # otherwise these bytes would land within another answer
            self.transport.write(b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, reason))
        self.transport.close()
