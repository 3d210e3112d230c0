"""Answers that take their time, on a real server: events as they happen, large answers, clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from streamer.cadvisor import channel
from streamer.sidecar import application, connection, exchange, routes, slots
from streamer.sidecar.exchange import Pieces
from streamer.sidecar.route import Route

if TYPE_CHECKING:
    from streamer.sidecar.server import Sidecar
    from tests.sidecar.conftest import House

EVENTS = "/api/v1.3/events?stream=true&all_events=true&subcontainers=true"
LONG = "/long" * 1600
"""The name of a cgroup: a thousand events about it are more than sockets take."""
DEADLINE = 30.0
"""What hangs fails; nothing here waits for a time to pass."""


async def until(condition: Any) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


def place(sidecar: Sidecar) -> tuple[str, int]:
    host, port = sidecar.address.rsplit(":", 1)
    return host, int(port)


@contextlib.asynccontextmanager
async def connected(sidecar: Sidecar, sent: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*place(sidecar))
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def deaf(sidecar: Sidecar, path: str) -> AsyncIterator[socket.socket]:
    """A client that asks, and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, place(sidecar))
        client.send(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode())
        yield client


def get(path: str, version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nhost: localhost\r\n\r\n".encode()


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; nothing at its end."""
    async with asyncio.timeout(DEADLINE):
        size = int(await reader.readline(), 16)
        body = await reader.readexactly(size)
        await reader.readline()
    return body


# events


async def test_events_come_as_they_happen(house: House) -> None:
    """The head at once, then a line for each event; none of the past; until the client goes."""
    async with house.serving() as sidecar, connected(sidecar, get(EVENTS)) as (reader, _writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert b"transfer-encoding: chunked" in head
        for number in range(3):
            house.tell.created(f"{number:064x}", name=f"c{number}")
            line = await chunk(reader)
            assert line.endswith(b"\n")
            assert json.loads(line)["event_type"] == "containerCreation"
    assert not house.context.operations._channels


async def test_a_stream_ends_with_its_client(house: House) -> None:
    """Also when another request waits behind it on the same connection."""
    async with house.serving() as sidecar:
        for behind in (b"", get("/healthz")):
            async with connected(sidecar, get(EVENTS) + behind) as (reader, _):
                await reader.readuntil(b"\r\n\r\n")
                assert len(house.context.operations._channels) == 1
            await until(lambda: not house.context.operations._channels)


@pytest.mark.slow
async def test_a_stream_ends_with_the_server(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """In order: its last chunk is sent, and nothing is logged as a fault."""
    async with contextlib.AsyncExitStack() as stack:
        async with house.serving() as sidecar:
            reader, _ = await stack.enter_async_context(connected(sidecar, get(EVENTS)))
            untaken = await stack.enter_async_context(deaf(sidecar, EVENTS))
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: len(house.context.operations._channels) == 2)
            reading = asyncio.create_task(reader.read())
            for number in range(1500):
                house.tell.created(f"{number:064x}", cgroup_path=LONG)
                await asyncio.sleep(0)
            assert untaken.fileno() > 0
        assert (await reading).endswith(b"0\r\n\r\n")
    assert not house.context.operations._channels
    assert not caplog.records


@pytest.mark.slow
async def test_who_reads_slowly_gets_what_waited_and_the_end_and_delays_nobody(house: House) -> None:
    """More happens than one client may leave unread: another gets every event; it, what came first, whole, and an end in order."""
    happened = 3 * channel._MOST_WAITING
    async with (
        house.serving() as sidecar,
        connected(sidecar, get(EVENTS)) as (reader, _),
        deaf(sidecar, EVENTS) as slow,
        contextlib.AsyncExitStack() as stack,
    ):
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: len(house.context.operations._channels) == 2)
        seen: list[str] = []
        for number in range(happened):
            house.tell.created(f"{number:064x}", cgroup_path=f"{LONG}/{number}")
            seen += [json.loads(line)["container_name"] for line in (await chunk(reader)).splitlines()]
            assert seen[-1] == f"{LONG}/{number}"  # each before the next one happens
        assert seen == [f"{LONG}/{number}" for number in range(happened)]
        late, writer = await asyncio.open_connection(sock=slow)
        stack.callback(writer.close)
        await late.readuntil(b"\r\n\r\n")
        got: list[str] = []
        while part := await chunk(late):
            got += [json.loads(line)["container_name"] for line in part.splitlines()]
        assert channel._MOST_WAITING <= len(got) < happened
        assert got == seen[: len(got)]
        await until(lambda: len(house.context.operations._channels) == 1)
        assert house.telemetry.value("streamer_http_streams_dropped_total") == 1
        assert house.telemetry.value("streamer_http_events_dropped_total") == happened - len(got)
    assert not house.context.operations._channels


async def test_streams_are_counted_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told to come again; its watch is ended, the others go on."""
    monkeypatch.setattr(application, "MOST_STREAMS", 1)
    async with house.serving() as sidecar, connected(sidecar, get(EVENTS)) as (reader, _), httpx.AsyncClient() as client:
        await reader.readuntil(b"\r\n\r\n")
        refused = await client.get(f"http://{sidecar.address}{EVENTS}")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert len(house.context.operations._channels) == 1
        assert (await client.head(f"http://{sidecar.address}/healthz")).status_code == 200


async def test_a_stream_needs_chunks(house: House) -> None:
    """HTTP/1.0 has none: refused. What has an end is sent whole."""
    async with house.serving() as sidecar:
        async with connected(sidecar, get(EVENTS, "1.0")) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        async with connected(sidecar, get("/api/v1.3/subcontainers", "1.0")) as (reader, _):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert b"content-length: %d" % len(body) in head
            assert json.loads(body)


async def test_heads_of_long_answers_have_no_body(house: House) -> None:
    """HEAD ends at once, and the connection can be used again."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        for path in (EVENTS, "/api/v1.3/subcontainers", "/metrics"):
            got = await client.head(f"http://{sidecar.address}{path}")
            assert (got.status_code, got.content) == (200, b"")
    assert not house.context.operations._channels


# large answers


class Large:
    """A row whose answers are of any length: tells how much of each was made."""

    def __init__(self, pieces: int, size: int = 10_000) -> None:
        self.pieces, self.size = pieces, size
        self.made: list[int] = []
        self.begun: list[bool] = []

    def route(self) -> Route:
        return Route("/large", self.answer, heavy=True)

    def scraped(self) -> Route:
        return Route("/scraped", self.answer, heavy=True, scraped=True)

    def answer(self, _context: Any, _query: Any) -> Pieces:
        """An answer of any length, for tests."""
        self.made.append(0)
        return Pieces(self._make(len(self.made) - 1), "application/octet-stream")

    def _make(self, which: int) -> Iterator[bytes]:
        for _ in range(self.pieces):
            self.made[which] += 1
            yield b"x" * self.size


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Large:
    """100 MB an answer."""
    large = Large(10_000)
    monkeypatch.setattr(application, "ROUTES", (*routes.ROUTES, large.route(), large.scraped()))
    return large


async def test_what_is_not_read_is_not_made(house: House, large: Large) -> None:
    """Of 100 MB some hundred kilobytes are made for a client that does not read: what the sockets take and a part or two."""
    async with house.serving() as sidecar, deaf(sidecar, "/large") as client:
        await until(lambda: large.made and large.made[0] > 0)
        made = -1
        while made != large.made[0]:
            made = large.made[0]
            await asyncio.sleep(0.05)
        buffers = client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) + 4_200_000  # tcp_wmem's upper end
        assert made * large.size < buffers + 5 * exchange.PART_BYTES + 65_536


async def test_who_does_not_read_holds_up_nobody(house: House, large: Large) -> None:
    """As many as work at a time have stopped reading: others are answered all the same, in full."""
    async with contextlib.AsyncExitStack() as stack, house.serving() as sidecar, httpx.AsyncClient() as client:
        for _ in range(slots.AT_ONCE + 1):
            await stack.enter_async_context(deaf(sidecar, "/large"))
        await until(lambda: len(large.made) == slots.AT_ONCE + 1)
        for path in ("/api/v1.3/subcontainers", "/metrics", "/api/streamer/v1/containers", "/healthz"):
            assert (await client.get(f"http://{sidecar.address}{path}", timeout=DEADLINE)).status_code == 200
        await stack.aclose()
        await until(lambda: len(large.made) == slots.AT_ONCE + 1)
        large.pieces = 3
        assert len((await client.get(f"http://{sidecar.address}/large")).content) == 30_000


async def test_an_answer_ends_with_its_client(house: House, large: Large) -> None:
    """Who goes in the middle of it is not written for, and gives back the place."""
    async with house.serving() as sidecar:
        for _ in range(slots.BEGUN + 1):
            async with connected(sidecar, get("/large")) as (reader, _):
                await reader.readexactly(100_000)
        await until(lambda: len(large.made) == slots.BEGUN + 1)
        assert all(made < large.pieces for made in large.made)
        large.pieces = 1
        async with httpx.AsyncClient() as client:
            assert len((await client.get(f"http://{sidecar.address}/large")).content) == large.size


async def test_who_does_not_read_does_not_hold_up_a_scrape(house: House, large: Large) -> None:
    """All places of large answers are taken, but for those of scrapes."""
    async with house.serving() as sidecar, contextlib.AsyncExitStack() as stack, httpx.AsyncClient() as client:
        for _ in range(slots.BEGUN + 1):
            await stack.enter_async_context(deaf(sidecar, "/large"))
        await until(lambda: len(large.made) == slots.BEGUN)
        assert (await client.get(f"http://{sidecar.address}/metrics", timeout=DEADLINE)).status_code == 200
        assert len(large.made) == slots.BEGUN


async def test_scrapes_that_nobody_reads_make_room_for_others(house: House, large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """All places of scrapes are taken by clients that do not read: the next one's is made all the same."""
    monkeypatch.setattr(exchange, "HURRY_SECONDS", 0.01)
    async with house.serving() as sidecar, contextlib.AsyncExitStack() as stack, httpx.AsyncClient() as client:
        for _ in range(slots.SCRAPES_BEGUN):
            await stack.enter_async_context(deaf(sidecar, "/scraped"))
        await until(lambda: len(large.made) == slots.SCRAPES_BEGUN)
        large.pieces = 1
        got = await client.get(f"http://{sidecar.address}/scraped", timeout=connection.STALLED_SECONDS / 2)
        assert len(got.content) == large.size


async def test_a_scrape_is_not_hurried_for_nobody(house: House, large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads late gets all of it while there is room for others; what is no scrape may wait as long as it is allowed to."""
    monkeypatch.setattr(exchange, "HURRY_SECONDS", 0.001)
    looked, usual = [0], exchange.Exchange._hurry

    def look(answering: exchange.Exchange, turn: slots.Turn) -> None:
        looked[0] += 1
        usual(answering, turn)

    monkeypatch.setattr(exchange.Exchange, "_hurry", look)
    large.pieces = 1000
    async with house.serving() as sidecar:
        for path in ("/scraped", "/large"):
            async with connected(sidecar, get(path)) as (reader, writer):
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a connection
                until_looked = looked[0] + 3
                await until(lambda least=until_looked: looked[0] >= least)
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                await reader.readuntil(b"\r\n\r\n")
                size = 0
                while part := await chunk(reader):
                    size += len(part)
                assert size == large.pieces * large.size


class GivenUp:
    """A connection that breaks at the third write."""

    is_untaken = False

    def __init__(self) -> None:
        self.written = 0

    @property
    def is_closing(self) -> bool:
        return self.written >= 3

    def abort(self) -> None:
        raise AssertionError

    async def write(self, _message: Any) -> None:
        self.written += 1


async def test_nothing_is_written_to_a_connection_that_is_given_up() -> None:
    """Known before the event loop has gone round and told us: asyncio logs every write until then."""
    connection = GivenUp()
    scope = {"headers": [], "method": "GET", "http_version": "1.1", "extensions": {exchange.CONNECTION: connection}}
    never = asyncio.get_running_loop().create_future()
    answering = exchange.Exchange(scope, lambda: never, connection.write)
    pieces = iter([bytes(exchange.PART_BYTES)] * 100)
    async with slots.Slots().turn(answering.gone) as turn:
        await answering.send_pieces(Pieces(pieces), turn)
    await answering.close()
    assert connection.written == 3
    assert len(list(pieces)) >= 95


class Late(GivenUp):
    """A connection that takes what is written a step later."""

    is_untaken = True
    is_closing = False  # it stays

    async def write(self, _message: Any) -> None:
        await asyncio.sleep(0)
        self.written += 1


async def test_who_waits_for_a_turn_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has taken everything and waits for others to be worked for is no reason to make room."""
    monkeypatch.setattr(exchange, "HURRY_SECONDS", 0.0)
    connection, places = Late(), slots.Slots(at_once=1)
    scope = {"headers": [], "method": "GET", "http_version": "1.1", "extensions": {exchange.CONNECTION: connection}}
    never = asyncio.get_running_loop().create_future()
    answering = exchange.Exchange(scope, lambda: never, connection.write)
    hurried: list[int] = []
    monkeypatch.setattr(answering, "_hurry", lambda _: hurried.append(connection.written))
    async with places.turn(answering.gone, scrape=True) as turn, asyncio.TaskGroup() as group:
        group.create_task(answering.send_pieces(Pieces(iter([b""])), turn))
        await asyncio.sleep(0)
        await places.working.acquire(never)
        for _ in range(20):
            await asyncio.sleep(0)
        assert connection.written == 1
        assert 1 not in hurried
        places.working.release()
    await answering.close()


async def test_an_answer_does_not_take_for_ever(house: House, large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a little now and then is not stalled; in the end it is cut off all the same."""
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.05)
    async with house.serving() as sidecar, connected(sidecar, get("/large")) as (reader, _):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE):
                while await reader.read(65_536):
                    await asyncio.sleep(0.001)
        assert large.made[0] < large.pieces


async def test_the_line_has_an_end_and_says_when_to_come_again(house: House, large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After for one too many, in the words of either API; what needs no turn is answered."""
    monkeypatch.setattr(application, "Slots", lambda: slots.Slots(at_once=1, begun=1, most_waiting=0))
    async with house.serving() as sidecar, deaf(sidecar, "/large"), httpx.AsyncClient() as client:
        await until(lambda: large.made)
        own = await client.get(f"http://{sidecar.address}/api/streamer/v1/containers")
        assert (own.status_code, own.headers["retry-after"]) == (503, "1")
        assert own.json()["remedy"]
        old = await client.get(f"http://{sidecar.address}/api/v1.3/subcontainers")
        assert (old.status_code, old.headers["retry-after"]) == (503, "1")
        assert old.text.count("\n") == 1
        assert (await client.get(f"http://{sidecar.address}/api/v1.3/machine")).status_code == 200


async def test_the_event_loop_goes_round_while_an_answer_is_made(
    house: House, large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast its client reads, others run in between: many times, as each piece takes longer than a turn."""
    monkeypatch.setattr(exchange, "TURN_SECONDS", 0.0)
    large.pieces, rounds = 500, 0
    running = True

    async def others() -> None:
        nonlocal rounds
        while running:
            rounds += 1
            await asyncio.sleep(0)

    app = application.application(house.context)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sidecar") as client:
        counting = asyncio.create_task(others())
        got = await client.get("/large")
        running = False
        await counting
    assert len(got.content) == 500 * large.size
    assert rounds >= 500
