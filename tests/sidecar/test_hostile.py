"""What comes over a socket from somebody who means harm, or is broken: refused, closed, forgotten; the server goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import re
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest

from streamer.sidecar import connection, places
from streamer.sidecar.application import UNROUTED
from tests.sidecar.test_server import raw

if TYPE_CHECKING:
    from streamer.sidecar.server import Sidecar
    from tests.sidecar.conftest import House

DEADLINE = 30.0
POST = b"POST /api/v1.3/containers HTTP/1.1\r\nhost: localhost\r\n"
HIDDEN = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
"""A request that two parsers could disagree about: it must not be answered."""

SMUGGLED = {
    "length and chunks": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 40\r\n\r\n{}" + HIDDEN,
    "a list of lengths": POST + b"content-length: 2, 40\r\n\r\n{}" + HIDDEN,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + HIDDEN,
    "a length with a sign": POST + b"content-length: +2\r\n\r\n{}" + HIDDEN,
    "a length beyond 64 bits": POST + b"content-length: 99999999999999999999\r\n\r\n" + HIDDEN,
    "a chunk of no size": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n" + HIDDEN,
    "a chunk of a negative size": POST + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that is longer": POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "chunks not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"x: a\r\n transfer-encoding: chunked\r\n\r\n" + HIDDEN,
    "a blank before the colon": POST + b"content-length : 2\r\n\r\n{}" + HIDDEN,
    "a header without a colon": POST + b"content-length\r\n\r\n" + HIDDEN,
    "a null byte": POST + b"x: a\0b\r\n\r\n" + HIDDEN,
    "fields behind a body": POST + b"transfer-encoding: chunked\r\n\r\n0\r\nauthorization: Bearer x\r\n\r\n" + HIDDEN,
    "a bare carriage return": POST + b"x: a\rcontent-length: 2\r\n\r\n" + HIDDEN,
}


@contextlib.asynccontextmanager
async def unharmed(house: House) -> AsyncIterator[Sidecar]:
    """A server that afterwards answers as before, holds no connection, descriptor or memory more."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        assert (await client.get(f"http://{sidecar.address}/healthz")).text == "ok"
        gc.freeze()  # what there was before is not looked through each time: with all that tests import, that takes the most time
        descriptors = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            yield sidecar
            assert (await client.get(f"http://{sidecar.address}/healthz")).text == "ok"
            async with asyncio.timeout(DEADLINE):
                while len(os.listdir("/proc/self/fd")) > descriptors:
                    await asyncio.sleep(0.01)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            gc.unfreeze()
        assert grown < 500_000


def place(sidecar: Sidecar) -> tuple[str, int]:
    host, port = sidecar.address.rsplit(":", 1)
    return host, int(port)


async def test_what_can_be_read_in_two_ways_is_refused(house: House) -> None:
    """400 and closed; what may be hidden in it is not answered."""
    async with house.serving() as sidecar:
        for name, sent in SMUGGLED.items():
            answered = await raw(sidecar.address, sent)
            assert answered.startswith(b"HTTP/1.1 400 "), (name, answered)
            assert answered.count(b"HTTP/1.1 ") == 1, name
            assert b"connection: close" in answered, name


@pytest.mark.parametrize("asked", [b"GET /healthz", b"HEAD /healthz", b"POST /api/v1.3/containers", b"OPTIONS /healthz"])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0", b"x"])
@pytest.mark.parametrize("of_a_body", [b"", b"content-length: %d\r\n" % len(HIDDEN), b"transfer-encoding: chunked\r\n"])
async def test_nothing_follows_a_wish_for_another_protocol(house: House, asked: bytes, protocol: bytes, of_a_body: bytes) -> None:
    """A proxy that passes the wish on takes what follows for the body, or for that protocol; the parser, for the next request."""
    head = asked + b" HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: " + protocol + b"\r\n" + of_a_body + b"\r\n"
    async with house.serving() as sidecar:
        for parts in ((head, HIDDEN), (head + HIDDEN, HIDDEN), (HIDDEN, head, HIDDEN)):
            reader, writer = await asyncio.open_connection(*place(sidecar))
            for part in parts:
                writer.write(part)
                for _ in range(3):  # packets of their own
                    await asyncio.sleep(0.001)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(DEADLINE):
                    answered = await reader.read()  # until it is closed
                assert answered.count(b"HTTP/1.1 ") == 1 + (parts[0] == HIDDEN), answered
            writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # the beginning of TLS
        b"*1\r\n$4\r\nPING\r\n",
        b"\r\n" * 40_000,
        b"A" * 70_000,
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + b"a:b\r\n" * 200 + b"\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\n0\r\na: " + b"b" * 9_000_000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
async def test_what_is_no_request_is_closed(house: House, sent: bytes) -> None:
    """4xx, or nothing to say; never a fault, and not for long."""
    async with unharmed(house) as sidecar:
        with contextlib.suppress(ConnectionError):
            answered = await raw(sidecar.address, sent + HIDDEN.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            assert b"HTTP/1.1 5" not in answered
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "500") == 0


async def test_garbage(house: House) -> None:
    """Hundreds of clients with any bytes, some after a beginning that looks well."""
    chance = random.Random(7)
    async with unharmed(house) as sidecar:
        for number in range(300):
            sent = chance.randbytes(chance.randrange(1, 3000))
            begun = (b"", POST, b"GET /api/v1.3/", b"GET /healthz HTTP/1.1\r\n")[number % 4]
            with contextlib.suppress(ConnectionError):
                answered = await raw(sidecar.address, begun + sent + b"\r\n\r\n\r\n\0")
                assert b"HTTP/1.1 5" not in answered


@pytest.mark.slow
async def test_thousands_of_connections(house: House) -> None:
    """Opened at once, idle, half said, cut off in the middle, reset: in the end they are all gone."""
    async with unharmed(house) as sidecar:
        for _ in range(8):
            clients = [socket.socket() for _ in range(places.MOST_CONNECTIONS + 50)]
            for client in clients:
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    client.connect(place(sidecar))
            await asyncio.sleep(0.05)
            for number, client in enumerate(clients):
                with contextlib.suppress(OSError):
                    client.send((b"", b"GET /heal", POST + b"content-length: 9\r\n\r\n1", HIDDEN)[number % 4])
            await asyncio.sleep(0.05)
            for number, client in enumerate(clients):
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends a reset
                client.close()
    assert house.telemetry.value("streamer_http_let_go_total", "stranger") > 0


async def test_half_closed_connections_are_let_go(house: House) -> None:
    """Whoever says that it will say no more is not kept, not by a stream either."""
    stream = b"GET /api/v1.3/events?stream=true&all_events=true HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with unharmed(house) as sidecar:
        for sent in (b"", b"GET /hea", POST + b"content-length: 9\r\n\r\n1", HIDDEN, stream, stream + HIDDEN):
            reader, writer = await asyncio.open_connection(*place(sidecar))
            writer.write(sent)
            if sent.startswith(stream):
                await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            async with asyncio.timeout(DEADLINE):
                await reader.read()
            writer.close()
    assert not house.context.operations._channels


async def test_requests_ahead_of_their_answers(house: House) -> None:
    """A few are answered in order; thousands are not kept in mind until their turn."""
    async with unharmed(house) as sidecar:
        paths = ["/healthz", "/api/v1.3/subcontainers", "/api/v9/x", "/metrics", "/healthz"]
        asked = b"".join(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode() for path in paths)
        answered = await raw(sidecar.address, asked + HIDDEN.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answered)]
        assert statuses == [200, 200, 404, 200, 200, 200]
        for _ in range(10):
            with contextlib.suppress(ConnectionError):
                answered = await raw(sidecar.address, HIDDEN * 10_000)
                assert answered.count(b"HTTP/1.1 200") <= connection.MOST_PIPELINED + 1
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "400") == 10


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n%b\r\n" % (b" " * 65_536)),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000, marks=pytest.mark.slow),
        (b"content-length: 100000000000\r\n\r\n", b" " * 65_536),
    ],
    ids=["large chunks", "small chunks", "a length"],
)
async def test_a_body_without_end_is_cut(house: House, head: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is sent: at some point nobody reads on, and not because it took too long."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 600)
    async with unharmed(house) as sidecar:
        _, writer = await asyncio.open_connection(*place(sidecar))
        writer.write(POST + head)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(8 * DEADLINE):
                while True:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()
    assert house.telemetry.value("streamer_http_requests_total", "/api/v1.3/containers/{name}", "413") == 1


async def test_who_sends_a_little_too_much_is_told(house: House) -> None:
    """The rest is read, so that the answer is not lost with the connection; as much as is allowed may come in one packet."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        for size, status in ((200_000, 413), (65_536, 200), (65_537, 413)):
            got = await client.post(f"http://{sidecar.address}/api/v1.3/containers", content=b" " * size)
            assert got.status_code == status


@pytest.mark.slow
async def test_ten_clients_that_hammer_cost_no_memory(house: House) -> None:
    """Large answers over and over on kept connections: every one is whole, and nothing stays behind."""
    for number in range(20):
        path = f"/lab/n{number}"
        house.tell.created(path, runtime="raw", name=path, aliases=[], cgroup_path=path)
        for _ in range(5):
            house.tell.sampled(path, runtime="raw", name=path, aliases=[], cgroup_path=path)

    async def hammer(sidecar: Sidecar) -> None:
        async with httpx.AsyncClient() as client:
            for path in ("/metrics", "/api/v1.3/subcontainers", "/api/v2.1/stats?recursive=true"):
                got = await client.get(f"http://{sidecar.address}{path}", timeout=DEADLINE)
                assert got.status_code == 200
                if path != "/metrics":
                    got.json()

    async with house.serving() as warm:
        await hammer(warm)
    async with unharmed(house) as sidecar:
        await asyncio.gather(*(hammer(sidecar) for _ in range(10)))
