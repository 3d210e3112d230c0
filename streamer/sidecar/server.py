"""The embedded HTTP server: bound early, served until cancelled, ended within seconds whatever its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Final

import uvicorn

import streamer
from streamer.cadvisor.operations import Operations
from streamer.config import Http, Metrics
from streamer.contracts import Clock, Status
from streamer.memory import Memory
from streamer.sidecar import listen, loop_delay
from streamer.sidecar.api import Context
from streamer.sidecar.application import UNROUTED, application
from streamer.sidecar.connection import Connection
from streamer.sidecar.prometheus import Exposition
from streamer.telemetry import Telemetry

_GRACE_SECONDS: Final = 1
"""For answers under way at the end; with uvicorn's own pauses the whole end takes less than two seconds."""
_TICK_SECONDS: Final = 1.0
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the scrape interval in general use, so that a scraper keeps its connection."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def main_loop(self) -> None:
        """Woken once a second, for the `date` header, and by the end; uvicorn's own is ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signals to the application."""
        yield


class Sidecar:
    """Answers queries about recent state over HTTP.

    `open` binds and may raise, at a time when that is still the operator's business; `run` serves until cancelled;
    `close` gives the address back.
    """

    def __init__(
        self,
        settings: Http,
        memory: Memory,
        operations: Operations,
        telemetry: Telemetry,
        statuses: Callable[[], list[Status]],
        clock: Clock,
        *,
        metrics: Metrics | None = None,
        essential: Sequence[str] = ("source.cgroup",),
    ) -> None:
        """`essential`: components that must work for `/readyz` to say ready. `operations`: what cAdvisor's API asks.

        Raises:
            ConfigError: `http.listen` cannot be used, or others could reach it and `http.insecure` is not set.
        """
        self._settings = settings
        self._listen = listen.allowed(settings)
        self._clock = clock
        self._telemetry = telemetry
        self._context = Context(
            memory,
            telemetry,
            statuses,
            Exposition(telemetry, streamer.__version__, metrics, clock),
            essential,
            operations,
            clock,
            asyncio.Lock(),
        )
        self._ending = asyncio.Event()
        self._socket: socket.socket | None = None
        self._inode = 0
        self._state = "off" if self._listen is None else "starting"
        self._since_ms = clock.wall_ns() // 1_000_000

    @property
    def address(self) -> str:
        """Where it answers: `127.0.0.1:8080` with the real port, `[::1]:8080`, `unix:/path`, `off`; as configured until `open`."""
        if self._listen is None or self._listen.path or self._socket is None:
            return self._settings.listen
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def status(self) -> Status:
        """How it is: `starting`, `ok`, `down` after its end, `off`."""
        return Status("sidecar", self._state, since_ms=self._since_ms)

    def open(self) -> None:
        """Bind the address. Clients may connect from here on; they are answered once `run` runs.

        Raises:
            ConfigError: the address cannot be had.
        """
        if self._listen is None or self._socket is not None:
            return
        self._socket = listen.bind(self._listen, self._settings.listen)
        self._socket.setblocking(False)
        self._inode = listen.inode_of(self._listen.path) if self._listen.path else 0

    def close(self) -> None:
        """Give the address back. `run` does it at its end; whoever called `open` and never got to `run` has to."""
        if self._listen is None or self._socket is None:
            return
        self._socket.close()
        self._socket = None
        listen.release(self._listen.path, self._inode)
        self._set_state("down")

    async def run(self) -> None:
        """Serve until cancelled, then let answers under way end.

        Raises:
            ConfigError: see `open`, unless that was called before.
        """
        self.open()
        if self._socket is None:
            await asyncio.get_running_loop().create_future()  # off: there is nothing to do until cancelled
            return
        server = _Server(self._uvicorn_config(), self._ending)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="sidecar.http")
        watching = asyncio.create_task(loop_delay.watch(self._telemetry, self._clock), name="sidecar.loop_delay")
        self._set_state("ok")
        try:
            await asyncio.shield(serving)
        finally:
            watching.cancel()
            server.should_exit = True
            self._ending.set()
            # uvicorn would cancel what is left a moment later, and log each as an error
            asyncio.get_running_loop().call_later(_GRACE_SECONDS * 0.8, _abort_all, server)
            try:
                await asyncio.gather(serving, return_exceptions=True)  # a failure has left the `try` above already
            finally:
                serving.cancel()
                _abort_all(server)
                self.close()

    def _set_state(self, state: str) -> None:
        self._state, self._since_ms = state, self._clock.wall_ns() // 1_000_000

    def _uvicorn_config(self) -> uvicorn.Config:
        def refused(status: str) -> None:
            self._telemetry.count("streamer_http_requests_total", UNROUTED, status)

        return uvicorn.Config(
            application(self._context, self._ending),
            http=functools.partial(Connection, refused),  # type: ignore[arg-type]  # called, never subclassed
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",  # what clients do wrong is counted, not logged
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )


def _abort_all(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        connection.transport.abort()
