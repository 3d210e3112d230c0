"""A memory with two hosts' worth of things to ask about, and the sidecar over it: in process or really listening."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import httpx
import pytest
import uvicorn.server

import streamer
from streamer.cadvisor.operations import Operations, Processes
from streamer.clock import SystemClock
from streamer.config import Http
from streamer.contracts import Clock, Status
from streamer.memory import Limits, Memory
from streamer.model import messages as m
from streamer.sidecar.application import application
from streamer.sidecar.context import Context
from streamer.sidecar.feed import Feed
from streamer.sidecar.prometheus import Exposition
from streamer.sidecar.server import Sidecar
from streamer.telemetry import Telemetry
from tests.support.certificates import Authority, Pair
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
DB = "4f6b" + "2" * 60
OLD = "9999" + "3" * 60

_HASTY: Final = types.SimpleNamespace(**{**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 100)})
"""asyncio for uvicorn's end, which pauses for 0.1 s, whoever is there, and looks ten times a second who is left."""


class House:
    """One agent's memory and numbers, and how to ask about them."""

    def __init__(self, processes: Processes | None = None, limits: Limits = Limits()) -> None:  # noqa: B008  a tuple
        self.memory = Memory(samples=60, limits=limits)
        self.tell = Teller(self.memory)
        self.telemetry = Telemetry()
        self.components = [Status("source.cgroup", "ok"), Status("sink.kafka", "ok")]
        self.context = Context(
            self.memory,
            self.telemetry,
            self.statuses,
            Exposition(self.telemetry, streamer.__version__),
            ("source.cgroup",),
            Operations(self.memory, SystemClock(), processes=processes),
            SystemClock(),
            asyncio.Lock(),
            Feed(self.memory),
        )
        self.app = application(self.context)
        self.clock: Clock = SystemClock()

    def statuses(self) -> list[Status]:
        return self.components

    def fill(self) -> None:
        """A running web server, a raw cgroup, a job that has ended in an OOM kill, host facts and a gap."""
        tell = self.tell
        tell.say(m.HOST)
        tell.created(WEB, name="web", aliases=["web"])
        tell.created("/a/raw one", runtime="raw", name="/a/raw one", cgroup_path="/a/raw one")
        killed = tell.created(OLD, name="job", aliases=["job"])
        for number in range(4):
            tell.sampled(WEB, cpu_usage_ns=number)
        tell.say(m.OOM, container_id=OLD, incarnation=killed.incarnation)  # type: ignore[attr-defined]
        tell.deleted(OLD, name="job", aliases=["job"])
        tell.say(m.CONTROL, "control.gap")

    def client(self) -> httpx.AsyncClient:
        """A client that calls the application in this process; an exception in it fails the test."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://sidecar")

    def sidecar(self, listen: str = "127.0.0.1:0", **http: Any) -> Sidecar:
        """`http`: further settings."""
        settings = Http(listen=listen, **http)
        return Sidecar(settings, self.memory, self.context.operations, self.telemetry, self.statuses, self.clock)

    @contextlib.asynccontextmanager
    async def serving(self, listen: str = "127.0.0.1:0", **http: Any) -> AsyncIterator[Sidecar]:
        """A sidecar that really listens, cancelled and waited for at the end."""
        sidecar = self.sidecar(listen, **http)
        sidecar.open()
        running = asyncio.create_task(sidecar.run())
        try:
            yield sidecar
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError), mock.patch.object(uvicorn.server, "asyncio", _HASTY):
                await running
            sidecar.close()  # when it was cancelled before its first step


@pytest.fixture
def house() -> House:
    """A filled house."""
    house = House()
    house.fill()
    return house


@pytest.fixture
def empty_house() -> House:
    """An agent that has just started: nothing was said yet."""
    return House()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "http.sock"


class Pki:
    """Two authorities: ours, and one that nobody here trusts."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.stranger = Authority(directory, "ours"), Authority(directory, "theirs")
        self.server: Pair = self.authority.sign("server")
        self.client: Pair = self.authority.sign("client")
        self.ended: Pair = self.authority.sign("ended", ended=True)
        self.foreign: Pair = self.stranger.sign("foreign")

    @property
    def tls(self) -> dict[str, str]:
        """Settings of a sidecar that speaks TLS."""
        return {"tls_cert_file": str(self.server.certificate), "tls_key_file": str(self.server.key)}

    @property
    def mutual(self) -> dict[str, str]:
        """Settings of one that wants certificates of its clients, too."""
        return {**self.tls, "tls_client_ca_file": str(self.authority.certificate)}


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))
