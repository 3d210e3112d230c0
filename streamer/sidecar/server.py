"""The embedded HTTP server: bound early, served until cancelled, ended within seconds whatever its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import uvicorn

import streamer
from streamer.cadvisor.operations import Operations
from streamer.clock import to_next
from streamer.config import Http, Metrics, exposed
from streamer.contracts import Clock, Status
from streamer.memory import Memory
from streamer.sidecar import listen, loop_delay
from streamer.sidecar.access import policy
from streamer.sidecar.application import UNROUTED, application
from streamer.sidecar.connection import Connection
from streamer.sidecar.context import Context
from streamer.sidecar.feed import Feed
from streamer.sidecar.gate import Gate
from streamer.sidecar.handshake import Handshakes
from streamer.sidecar.places import Places
from streamer.sidecar.prometheus import Exposition
from streamer.sidecar.routes import ROUTES
from streamer.sidecar.tls import Tls
from streamer.sidecar.tokens import Tokens
from streamer.telemetry import Telemetry

_GRACE_SECONDS: Final = 1
"""For answers under way at the end; with uvicorn's own pauses the whole end takes less than two seconds."""
_TICK_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 10.0
"""How long trouble with a file of tokens or certificates may go unnoticed while nobody asks."""
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the scrape interval in general use, so that a scraper keeps its connection."""


_EXPOSED: Final = "insecure: whoever reaches {} may ask everything about this host's containers"
_EXPOSED_REMEDY: Final = "set http.token_file or http.tls_client_ca_file, or listen on 127.0.0.1 or unix:PATH"

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def main_loop(self) -> None:
        """Woken once a second, for the `date` header, and by the end; uvicorn's own is ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(to_next(_TICK_SECONDS, asyncio.get_running_loop().time())):
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
            ConfigError: `http.listen` cannot be used, or others could reach it and nobody is asked who they are; a file of
                tokens or certificates cannot be used.
        """
        self._settings = settings
        self._listen = listen.allowed(settings)
        self._exposed = exposed(settings)
        on = self._listen is not None
        self._tokens = Tokens(settings.token_file, clock) if on and settings.token_file else None
        self._tls = Tls(settings, clock) if on and settings.tls_cert_file else None
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
            Feed(memory),
        )
        self._ending = asyncio.Event()
        self._socket: socket.socket | None = None
        self._inode = 0
        self._reason = ""
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
        """How it is: `starting`, `ok`, `degraded`, `down` after its end, `off`.

        It is degraded while everybody may ask everything from other machines, or a file of tokens or certificates cannot be used.
        """
        if self._state != "ok":
            return Status("sidecar", self._state, since_ms=self._since_ms)
        reason, remedy = self._trouble()
        if reason != self._reason:
            self._reason, self._since_ms = reason, self._clock.wall_ns() // 1_000_000
        return Status("sidecar", "degraded" if reason else "ok", reason, remedy, self._since_ms)

    def _trouble(self) -> tuple[str, str]:
        self._look_at_files()
        found = [part.trouble for _, part in self._files() if part.trouble]
        if found:
            problem, _, remedy = "; ".join(found).partition("\n  remedy: ")
            return problem, remedy
        return (_EXPOSED.format(self.address), _EXPOSED_REMEDY) if self._exposed else ("", "")

    def open(self) -> None:
        """Bind the address. Clients may connect from here on; they are answered once `run` runs.

        Raises:
            ConfigError: the address cannot be had.
        """
        if self._listen is None or self._socket is not None:
            return
        self._socket = listen.bind(self._listen, self._settings)
        self._socket.setblocking(False)
        self._inode = listen.inode_of(self._listen.path) if self._listen.path else 0
        self._telemetry.set("streamer_http_insecure", int(self._exposed))
        if self._exposed:
            log.warning("%s; %s", _EXPOSED.format(self.address), _EXPOSED_REMEDY)
        elif self._tokens is not None and self._tls is None and not self._listen.loopback:
            log.warning("tokens travel to %s as clear text: set http.tls_cert_file, or have a proxy speak TLS", self.address)

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
        places = Places(functools.partial(self._telemetry.count, "streamer_http_let_go_total"))
        handshakes = None if self._tls is None else Handshakes(self._tls, places, self._count_handshake)
        server = _Server(self._uvicorn_config(places, handshakes), self._ending)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="sidecar.http")
        watching = asyncio.create_task(loop_delay.watch(self._telemetry, self._clock), name="sidecar.loop_delay")
        looking = asyncio.create_task(self._look(), name="sidecar.files")
        self._set_state("ok")
        try:
            await asyncio.shield(serving)
        finally:
            watching.cancel()
            looking.cancel()
            server.should_exit = True
            self._ending.set()
            # uvicorn would cancel what is left a moment later, and log each as an error
            asyncio.get_running_loop().call_later(_GRACE_SECONDS * 0.8, _abort_all, server, handshakes)
            try:
                await asyncio.gather(serving, return_exceptions=True)  # a failure has left the `try` above already
            finally:
                serving.cancel()
                _abort_all(server, handshakes)
                self.close()

    def _set_state(self, state: str) -> None:
        self._state, self._since_ms = state, self._clock.wall_ns() // 1_000_000

    async def _look(self) -> None:
        while True:
            self.status()
            await asyncio.sleep(to_next(_LOOK_SECONDS, self._clock.monotonic_ns() / 1e9))

    def _look_at_files(self) -> None:
        for name, part in self._files():
            part.look()
            self._telemetry.set("streamer_http_files_unusable", int(bool(part.trouble)), name)

    def _files(self) -> list[tuple[str, Tokens | Tls]]:
        return [(name, part) for name, part in (("tokens", self._tokens), ("certificates", self._tls)) if part is not None]

    def _count_handshake(self) -> None:
        self._telemetry.count("streamer_http_refused_total", "handshake")

    def _uvicorn_config(self, places: Places, handshakes: Handshakes | None) -> uvicorn.Config:
        def refused(status: str) -> None:
            self._telemetry.count("streamer_http_requests_total", UNROUTED, status)

        def protocol(**given: Any) -> asyncio.Protocol:
            make = functools.partial(Connection, refused, places, **given)
            return make() if handshakes is None else handshakes.begin(make)

        app = application(self._context, self._ending)
        rules = ((path, route.access) for route in ROUTES for path in route.paths)
        allowed = policy(self._settings, rules, listen.own_names())
        return uvicorn.Config(
            Gate(app, allowed, self._telemetry, self._clock, self._tokens, self._tls),
            http=protocol,  # type: ignore[arg-type]  # called, never subclassed
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",  # what clients do wrong is counted, not logged
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=listen.BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )


def _abort_all(server: uvicorn.Server, handshakes: Handshakes | None) -> None:
    if handshakes is not None:
        handshakes.abort_all()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
