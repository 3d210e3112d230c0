"""A connection that is closing and its client: how long it may take what was written. Timers are looked at, not waited for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from streamer.sidecar import connection
from streamer.sidecar.connection import Connection
from streamer.sidecar.places import Places


class Timer:
    """One that was asked for."""

    def __init__(self, delay: float, callback: Callable[..., None], given: tuple[Any, ...]) -> None:
        self.delay, self._callback, self._given = delay, callback, given
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        assert not self.cancelled
        self._callback(*self._given)


class Loop:
    """The running one, but for its timers."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, delay: float, callback: Callable[..., None], *given: Any) -> Timer:
        self.timers.append(Timer(delay, callback, given))
        return self.timers[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


class Transport(asyncio.Transport):
    """A client that takes nothing: closing it is never done with."""

    def __init__(self) -> None:
        super().__init__({"socket": socket.socket(socket.AF_UNIX)})
        self.written = b""
        self.closing = self.aborted = False
        self.high: int | None = None

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = self.closing = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: Any) -> None:
        self.written += bytes(data)


class Client:
    """A connection with its client, and the timers that make an end of it."""

    def __init__(self) -> None:
        self.loop, self.transport = Loop(), Transport()
        self.refused: list[str] = []
        self.places = Places(lambda _: None, most=1)
        self.answer = asyncio.Event()
        self.answer.set()
        config = uvicorn.Config(
            self._answer, http=Connection, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False
        )
        config.load()
        self.connection = Connection(
            self.refused.append, self.places, config=config, server_state=ServerState(), app_state={}, _loop=self.loop
        )  # fmt: skip
        self.connection.connection_made(self.transport)

    async def _answer(self, _scope: Any, _receive: Any, send: Any) -> None:
        await self.answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def says(self, data: bytes) -> None:
        self.connection.data_received(data)
        for _ in range(10):
            await asyncio.sleep(0)

    def fire(self, delay: float) -> None:
        """The timer of this length that is set."""
        (timer,) = [timer for timer in self.loop.timers if timer.delay == delay and not timer.cancelled]
        timer.fire()

    @property
    def ends(self) -> list[Timer]:
        """Those that cut off a client that does not take what was written."""
        return [timer for timer in self.loop.timers if timer.delay == connection.STALLED_SECONDS and not timer.cancelled]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    client.transport.get_extra_info("socket").close()


class Next:
    """Somebody else who wants a place."""

    def let_go(self) -> None:
        raise AssertionError


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n%b\r\n"


async def _malformed(client: Client) -> None:
    await client.says(b"\0\r\n\r\n")
    assert client.transport.written.startswith(b"HTTP/1.1 400 ")


async def _malformed_later(client: Client) -> None:
    await client.says(GET % b"" + b"\0\r\n\r\n")


async def _too_large(client: Client) -> None:
    await client.says(b"GET / HTTP/1.1\r\nx: " + b"x" * 2 * connection.MOST_HEAD_BYTES)
    assert client.refused == ["431"]


async def _too_late(client: Client) -> None:
    await client.says(b"GET / HT")
    client.fire(connection.REQUEST_SECONDS)
    assert client.refused == ["408"]


async def _last_answer(client: Client) -> None:
    await client.says(GET % b"connection: close\r\n")
    assert client.transport.written.endswith(b"ok")


async def _idle(client: Client) -> None:
    await client.says(GET % b"")
    assert not client.transport.closing
    client.connection.timeout_keep_alive_handler()


@pytest.mark.parametrize("close", [_malformed, _malformed_later, _too_large, _too_late, _last_answer, _idle])
async def test_who_does_not_take_the_last_of_it_is_cut_off(client: Client, close: Callable[[Client], Any]) -> None:
    """However the connection came to be closed, one timer is set, which makes an end of it."""
    await close(client)
    assert (client.transport.closing, client.transport.aborted, len(client.ends)) == (True, False, 1)
    client.ends[0].fire()
    assert client.transport.aborted


async def test_who_has_taken_it_is_not_waited_for(client: Client) -> None:
    """The connection is over, and with it its timer."""
    await _last_answer(client)
    client.connection.connection_lost(None)
    assert client.ends == []


async def test_a_connection_that_stays_has_no_end(client: Client) -> None:
    """Between answers nothing is closing, however many there were."""
    for _ in range(3):
        await client.says(GET % b"")
    assert (client.transport.closing, client.ends) == (False, [])
    assert client.transport.written.count(b"200 OK") == 3


async def test_closed_twice_it_ends_once(client: Client) -> None:
    """Whatever comes after the first reason does not put the end off."""
    await _too_large(client)
    (end,) = client.ends
    client.connection.timeout_keep_alive_handler()
    await client.says(b"\0\r\n\r\n")
    assert client.ends == [end]


async def test_next_to_nothing_is_buffered_for_a_stream(client: Client) -> None:
    """In the kernel, in the transport, and below TLS: a part that was not taken stops the next one."""
    client.connection.buffer_little()
    assert client.transport.high == 1
    sender = client.transport.get_extra_info("socket")
    assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 65_536
    client.connection.beneath = Transport()
    client.connection.buffer_little()
    assert client.connection.beneath.high == 1
    client.connection.beneath.get_extra_info("socket").close()


@pytest.mark.parametrize(("is_known", "keeps_it"), [(True, True), (False, False)], ids=["known", "a stranger"])
async def test_only_who_is_known_keeps_his_place_while_he_is_answered(client: Client, is_known: bool, keeps_it: bool) -> None:
    """An answer under way is no credential: a stranger gives way to the next one in the midst of it."""
    client.answer.clear()
    await client.says(GET % b"")
    client.connection.judged(is_known=is_known)
    assert client.places.enter(Next(), "another address", 0.0) is not keeps_it
    assert client.transport.aborted is not keeps_it
    client.answer.set()
