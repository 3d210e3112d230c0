"""A TLS connection from its first byte until it speaks HTTP. Bounded, as connections are only counted once they do.

The context is chosen for each connection, so that renewed certificates need no restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from streamer.sidecar.connection import Connection
from streamer.sidecar.tls import Tls, certificate_of

MOST_HANDSHAKES: Final = 64
HANDSHAKE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 2.0


class Handshakes:
    """Those of one server."""

    def __init__(self, tls: Tls, failed: Callable[[], None]) -> None:
        """`failed`: told of each that came to nothing."""
        self.tls, self.failed = tls, failed
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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a server's connections are these
        if len(self._owner.pending) >= MOST_HANDSHAKES:
            self._owner.failed()
            transport.abort()
            return
        transport.pause_reading()  # what comes belongs to TLS
        task = asyncio.get_running_loop().create_task(self._greet(transport))
        self._owner.pending[task] = transport
        task.add_done_callback(self._owner.pending.pop)

    def data_received(self, data: bytes) -> None:
        """A request in the same packet as the end of the handshake."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    async def _greet(self, transport: asyncio.Transport) -> None:
        greeting = self._owner.tls.greeting()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                greeting.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError:  # TLS errors and time limits are among them
            self._owner.failed()
            return
        if secured is None or self._lost:  # left in the midst of it
            self._owner.failed()
            return
        connection = self._make()
        connection.certificate = certificate_of(secured.get_extra_info("peercert"), greeting)
        secured.set_protocol(connection)
        connection.connection_made(secured)
        if self._early and not secured.is_closing():
            connection.data_received(b"".join(self._early))
