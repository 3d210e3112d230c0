"""An attacker takes as many connections as there are, in every way there is; those who may ask get in all the same."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from streamer.sidecar import places, server
from streamer.sidecar.application import UNROUTED
from streamer.sidecar.places import Places
from tests.sidecar.test_server import raw

if TYPE_CHECKING:
    from streamer.sidecar.server import Sidecar
    from tests.sidecar.conftest import House, Pki

TOKEN: Final = "right-" + "t" * 40
MORE: Final = 100
"""So many come too many."""
MANY: Final = places.MOST_CONNECTIONS + MORE
DEADLINE: Final = 60.0

ASKING = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
WAYS_TO_HOLD = {
    "silent": b"",
    "half a head": b"GET /metrics HTTP/1.1\r\nhost: local",
    "half a body": b"POST /api/v1.3/containers HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{",
    "what is open": ASKING,
    "what is not": b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a wrong token": b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer x\r\n\r\n",
    "another host": b"GET /metrics HTTP/1.1\r\nhost: evil.example\r\n\r\n",
    "a request after the other": ASKING * 20,
}
WINDOW: Final = 16
"""Requests ahead of their answers, of who asks without a pause."""
HALF_A_GREETING = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.fixture
def token(tmp_path: Path) -> dict[str, str]:
    """Settings that ask for a token."""
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(TOKEN)
    return {"token_file": str(file)}


@pytest.fixture(params=["few places", pytest.param("all places", marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many come where there are fewer places, in the same proportions, or as many as there really are."""
    if request.param == "all places":
        return MANY
    few = functools.partial(Places, most=48, most_of_one_address=40, most_strangers=8)
    monkeypatch.setattr(server, "Places", few)
    return few.keywords["most"] + MORE


def place(sidecar: Sidecar) -> tuple[str, int]:
    host, port = sidecar.address.rsplit(":", 1)
    return host, int(port)


async def connect(sidecar: Sidecar, sent: bytes, source: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.bind((source, 0))
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, place(sidecar))
        await loop.sock_sendall(client, sent)
    except ConnectionError:
        pass  # let go already
    except asyncio.CancelledError:
        client.close()
        raise
    return client


@contextlib.asynccontextmanager
async def crowd(sidecar: Sidecar, sent: bytes, number: int = MANY) -> AsyncIterator[list[socket.socket]]:
    """So many connections, on each of which this was sent, and of which none is given up."""
    held: list[socket.socket] = []
    try:
        for begin in range(0, number, 50):
            held += await asyncio.gather(*(connect(sidecar, sent) for _ in range(begin, min(begin + 50, number))))
        yield held
    finally:
        for client in held:
            client.close()


@contextlib.asynccontextmanager
async def attack(sidecar: Sidecar, sent: bytes) -> AsyncIterator[list[int]]:
    """A crowd that fills up again what it loses, without a pause."""
    begun = [0]

    async def press() -> None:
        while True:
            with contextlib.suppress(OSError):
                client = await connect(sidecar, sent)
                begun[0] += 1
                held.append(client)
                if len(held) > MANY:
                    held.pop(0).close()
            await asyncio.sleep(0)

    async with crowd(sidecar, sent) as held:
        pressing = [asyncio.create_task(press()) for _ in range(4)]
        try:
            yield begun
        finally:
            for task in pressing:
                task.cancel()
            await asyncio.gather(*pressing, return_exceptions=True)


def client(sidecar: Sidecar, source: str, verify: ssl.SSLContext | bool = False) -> httpx.AsyncClient:
    scheme = "https" if verify else "http"
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(local_address=source, verify=verify),
        base_url=f"{scheme}://{sidecar.address}",
        headers={"authorization": f"Bearer {TOKEN}"},
        timeout=DEADLINE,
    )


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE):
        head = await reader.readuntil(b"\r\n\r\n")
        if (at := head.lower().find(b"content-length: ")) >= 0:
            await reader.readexactly(int(head[at + 16 :].split(b"\r\n")[0]))
    return head


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"], ids=["from the attacker's address", "from another one"])
@pytest.mark.parametrize("way", WAYS_TO_HOLD)
async def test_strangers_keep_nobody_out(house: House, token: dict[str, str], way: str, source: str, many: int) -> None:
    """Whatever they hold connections by: who has a token gets in, keeps the connection between requests, and hears of events."""
    async with house.serving(**token) as sidecar, contextlib.AsyncExitStack() as stack:
        scraper = await asyncio.open_connection(*place(sidecar))
        stack.callback(scraper[1].close)
        assert b" 200 " in await ask(*scraper, "/readyz")
        listener = await asyncio.open_connection(*place(sidecar))
        stack.callback(listener[1].close)
        assert b" 200 " in await ask(*listener, "/api/v1.3/events?stream=true&all_events=true&subcontainers=true")
        await stack.enter_async_context(crowd(sidecar, WAYS_TO_HOLD[way], many))
        for path in ("/metrics", "/readyz", "/api/v1.3/machine"):
            async with client(sidecar, source) as rightful:
                assert (await rightful.get(path)).status_code in (200, 404)
        assert b" 200 " in await ask(*scraper, "/readyz")
        house.tell.created("a" * 64, cgroup_path="/heard")
        async with asyncio.timeout(DEADLINE):
            assert b"/heard" in await listener[0].readuntil(b"}\n")
    assert house.telemetry.value("streamer_http_let_go_total", "stranger") > 0
    assert house.telemetry.value("streamer_http_let_go_total", "idle") == 0
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "503") == 0


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_who_presses_on_keeps_nobody_out(house: House, token: dict[str, str], source: str) -> None:
    """Not with a new connection for each that is lost either; and descriptors do not become more."""
    async with house.serving(**token) as sidecar, attack(sidecar, b"GET /") as begun:
        for _ in range(10):
            before = begun[0]
            async with client(sidecar, source) as rightful:
                assert (await rightful.get("/metrics")).status_code == 200
            while begun[0] < before + 50:
                await asyncio.sleep(0)
        ours = len(os.listdir("/proc/self/fd")) - MANY
        assert ours < places.MOST_CONNECTIONS + 100
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "503") == 0


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("sent", [b"", HALF_A_GREETING, b"GET / HTTP/1.1\r\n\r\n"], ids=["silent", "half a greeting", "no TLS"])
async def test_greetings_keep_nobody_out(
    house: House, pki: Pki, token: dict[str, str], sent: bytes, source: str, many: int
) -> None:
    """Of those who only begin to greet the oldest goes: with a token, or a certificate, one gets in."""
    async with house.serving(**pki.mutual, **token) as sidecar, crowd(sidecar, sent, many):
        async with client(sidecar, source, pki.authority.trust()) as rightful:
            assert (await rightful.get("/metrics")).status_code == 200
        async with client(sidecar, source, pki.authority.trust(pki.client)) as rightful:
            rightful.headers.pop("authorization")
            assert (await rightful.get("/metrics")).status_code == 200
    assert house.telemetry.value("streamer_http_refused_total", "handshake") >= MORE


async def test_greeted_strangers_keep_nobody_out(house: House, pki: Pki, token: dict[str, str], many: int) -> None:
    """A whole handshake and nothing behind it is worth no more."""
    trust = pki.authority.trust()
    held: list[asyncio.StreamWriter] = []
    async with house.serving(**pki.mutual, **token) as sidecar:

        async def greet() -> None:
            with contextlib.suppress(OSError):
                held.append((await asyncio.open_connection(*place(sidecar), ssl=trust, server_hostname="localhost"))[1])

        for _ in range(0, many, 20):
            await asyncio.gather(*(greet() for _ in range(20)))
        async with client(sidecar, "127.0.0.1", trust) as rightful:
            assert (await rightful.get("/metrics")).status_code == 200
        for writer in held:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    assert house.telemetry.value("streamer_http_let_go_total", "stranger") > 0


async def test_where_nobody_is_asked_the_idle_give_way(house: House) -> None:
    """Whoever has had his answer and keeps the connection: the one who did so longest."""
    async with house.serving() as sidecar, crowd(sidecar, ASKING) as held:
        async with client(sidecar, "127.0.0.1") as another:
            assert (await another.get("/metrics")).status_code == 200
        held[0].setblocking(True)
        held[0].settimeout(DEADLINE)
        while await asyncio.to_thread(held[0].recv, 4096):
            pass
        await asyncio.get_running_loop().sock_sendall(held[-1], b"")
    assert house.telemetry.value("streamer_http_let_go_total", "idle") > 0
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "503") == 0


async def test_one_address_does_not_have_all_places(house: House) -> None:
    """Not even with answers that never end: the next from there is told so, those from elsewhere get in."""
    stream = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with house.serving() as sidecar, crowd(sidecar, stream, places.MOST_OF_ONE_ADDRESS):
        while house.telemetry.value("streamer_http_streams") < 256:
            await asyncio.sleep(0.01)
        async with client(sidecar, "127.0.0.2") as another:
            assert (await another.get("/readyz")).status_code == 200


async def test_when_all_are_answered_the_next_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 at once, and nobody is cut off for it."""
    monkeypatch.setattr(server, "Places", functools.partial(Places, most=2))
    async with house.serving() as sidecar, crowd(sidecar, b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n", 2):
        while house.telemetry.value("streamer_http_streams") < 2:
            await asyncio.sleep(0.01)
        assert (await raw(sidecar.address, b"")).startswith(b"HTTP/1.1 503 ")
        assert house.telemetry.value("streamer_http_streams") == 2
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "503") == 1


async def test_who_takes_no_answer_has_no_place_for_good(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking on and on is being answered only as long as the answers are taken."""
    monkeypatch.setattr(server, "Places", functools.partial(Places, most=2))
    for number in range(300):
        house.tell.created(f"{number:064x}")
        house.tell.sampled(f"{number:064x}")
    asked = b"GET /api/streamer/v1/containers HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20
    async with house.serving() as sidecar, crowd(sidecar, asked, 2), asyncio.timeout(DEADLINE):
        while not (answered := await raw(sidecar.address, ASKING[:-2] + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
            assert answered.startswith(b"HTTP/1.1 503 ")
            await asyncio.sleep(0.01)
    assert house.telemetry.value("streamer_http_let_go_total", "idle") == 1
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "aborted") == 0


@contextlib.asynccontextmanager
async def always_answered(sidecar: Sidecar, request: bytes, number: int) -> AsyncIterator[list[int]]:
    """So many who ask on as they are answered, without a pause, and come again when they are let go; how often they were answered."""
    answers = [0]
    loop = asyncio.get_running_loop()

    async def ask_on() -> None:
        while True:
            with await connect(sidecar, request * WINDOW) as asking, contextlib.suppress(OSError):
                while part := await loop.sock_recv(asking, 65_536):
                    answered = part.count(b"HTTP/1.1 ")
                    answers[0] += answered
                    await loop.sock_sendall(asking, request * answered)

    tasks = [asyncio.create_task(ask_on()) for _ in range(number)]
    try:
        yield answers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("way", ["what is open", "what is not"])
async def test_strangers_who_are_always_answered_keep_nobody_out(
    house: House, token: dict[str, str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Asking in a row what needs no credential, or is refused: whenever somebody comes, all of them have an answer under way."""
    monkeypatch.setattr(server, "Places", functools.partial(Places, most=4))
    async with house.serving(**token) as sidecar, always_answered(sidecar, WAYS_TO_HOLD[way], 4) as answers:
        for _ in range(20):
            before = answers[0]
            while answers[0] < before + 4 * WINDOW:
                await asyncio.sleep(0)
            async with client(sidecar, "127.0.0.1") as rightful:
                assert (await rightful.get("/readyz")).status_code == 200
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "503") == 0


async def test_who_is_not_let_in_is_not_kept_for_long(house: House, token: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two requests: a scraper's connection is kept from one scrape to the next, a stranger's is not."""
    monkeypatch.setattr("streamer.sidecar.connection.STRANGER_KEEP_ALIVE_SECONDS", 0.05)
    async with house.serving(**token) as sidecar:
        known = await asyncio.open_connection(*place(sidecar))
        assert b" 200 " in await ask(*known, "/readyz")
        for path in (b"/healthz", b"/metrics"):
            await raw(sidecar.address, ASKING.replace(b"/healthz", path))  # until the server closes
        assert b" 200 " in await ask(*known, "/readyz")
        known[1].close()
