"""A TLS connection from its first byte until it speaks HTTP. It has its place from the first byte on.

The context is chosen for each connection, so that renewed certificates need no restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from streamer.errors import ConfigError
from streamer.sidecar.connection import Connection
from streamer.sidecar.listen import address_of
from streamer.sidecar.places import Places
from streamer.sidecar.tls import Tls, certificate_of

HANDSHAKE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 2.0


class Handshakes:
    """Those of one server."""

    def __init__(self, tls: Tls, places: Places, failed: Callable[[], None]) -> None:
        """`failed`: told of each that came to nothing."""
        self.tls, self.places, self.failed = tls, places, failed
        self.pending: dict[asyncio.Task[None], asyncio.Transport] = {}

    def begin(self, make: Callable[[], Connection]) -> asyncio.Protocol:
        """The protocol of a connection that was just accepted. `make`: the one that it becomes."""
        return _Handshake(self, make)

    def abort_all(self) -> None:
        for transport in self.pending.values():
            transport.abort()


class _Handshake(asyncio.Protocol):
    """First the protocol of a TCP connection, then of the TLS connection over it, until HTTP takes over."""

    def __init__(self, owner: Handshakes, make: Callable[[], Connection]) -> None:
        self._owner, self._make = owner, make
        self._early: list[bytes] = []
        self._lost = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a server's connections are these
        loop = asyncio.get_running_loop()
        self._transport = transport
        if not self._owner.places.enter(self, address_of(transport.get_extra_info("socket")), loop.time()):
            self._owner.failed()
            transport.abort()
            return
        transport.pause_reading()  # what comes belongs to TLS
        task = loop.create_task(self._greet(transport))
        self._owner.pending[task] = transport
        task.add_done_callback(self._owner.pending.pop)

    def data_received(self, data: bytes) -> None:
        """A request in the same packet as the end of the handshake."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def let_go(self) -> None:
        """Somebody else has the place."""
        if self._transport is not None:
            self._transport.abort()

    async def _greet(self, transport: asyncio.Transport) -> None:
        try:
            if not await self._become(transport):
                self._owner.failed()
                transport.abort()  # one that was not even greeted would stay open
        finally:
            self._owner.places.leave(self)

    async def _become(self, transport: asyncio.Transport) -> bool:
        """Greet, and hand over to HTTP. False: it came to nothing."""
        loop = asyncio.get_running_loop()
        try:
            greeting = self._owner.tls.greeting()
            secured = await loop.start_tls(
                transport,
                self,
                greeting.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except (OSError, ConfigError):  # TLS errors and time limits are among them, and no descriptor for a new context
            return False
        if secured is None or self._lost:  # left in the midst of it
            return False
        if secured.get_extra_info("ssl_object").session_reused:  # begun before the context was changed for another one
            secured.abort()
            return False
        connection = self._make()
        if not self._owner.places.hand_over(self, connection, loop.time()):
            secured.abort()
            return False
        connection.beneath = transport
        connection.certificate = certificate_of(secured.get_extra_info("peercert"), greeting)
        secured.set_protocol(connection)
        connection.connection_made(secured)
        if self._early and not secured.is_closing():
            connection.data_received(b"".join(self._early))
        return True
