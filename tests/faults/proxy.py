"""A TCP proxy that injects faults, for brokers that clients are to lose sight of. Only the standard library.

It runs on a thread of its own; every method may be called from any other thread and returns when it holds.

    with FaultProxy(server_port, port=proxy_port) as proxy:
        proxy.blackhole()      connections are accepted, what is sent disappears: a peer that is gone without a word
        proxy.forward()        all is well again

What a client or a server can meet:

    forward         bytes go through
    refuse          nobody listens; what was connected is reset
    hold            nothing is read: the sender's buffers fill up, and later all of it arrives (a cable pulled and put back)
    blackhole       everything is taken and thrown away (half-open)
    drop            the same in one direction only: requests arrive and their answers do not, or the other way round
    slow            a delay for each piece, a number of bytes a second for each connection and direction
    reset           every connection ends with RST now
    cut_after       the connection that sends the next N bytes to the server is reset right behind them, once

A connection that has lost bytes cannot go on: it is reset as soon as bytes flow again, as by a peer that was started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, TypeVar

Direction = Literal["to_server", "to_client"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("to_server", "to_client")

_PIECE_BYTES: Final = 65_536
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: socket(7)
_BIND_SECONDS: Final = 5.0
_T = TypeVar("_T")


class Behaviour(NamedTuple):
    """What happens to connections and bytes. `dropped`: the directions in which bytes disappear."""

    listening: bool = True
    held: bool = False
    dropped: frozenset[Direction] = frozenset()
    delay_seconds: float = 0.0
    bytes_per_second: float = 0.0


@dataclass
class Statistics:
    """What the proxy has done since it was made."""

    connections: int = 0
    unreachable: int = 0
    resets: int = 0
    passed_bytes: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    dropped_bytes: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS, 0))


class _Connection:
    """A client's socket and the one to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.lost_bytes = False
        self.tasks: list[asyncio.Task[None]] = []

    def close(self, *, reset: bool) -> None:
        for end in (self.client, self.server):
            if reset:
                with contextlib.suppress(OSError):  # it was closed already
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            end.close()


class FaultProxy:
    """Listens on `port` (0: any free one) of 127.0.0.1 and connects each client to `server_port`."""

    def __init__(self, server_port: int, *, port: int = 0) -> None:
        self.port = port
        self._server_port = server_port
        self._behaviour = Behaviour()
        self._changed = asyncio.Event()  # set and replaced whenever the behaviour is another one
        self._cut_after: int | None = None
        self._connections: set[_Connection] = set()
        self._statistics = Statistics()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._listen)
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._do(self._close)
        self._end_thread()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def behaviour(self) -> Behaviour:
        """The present one."""
        return self._behaviour

    def statistics(self) -> Statistics:
        """A copy of what was counted."""
        return self._do(
            lambda: replace(
                self._statistics,
                passed_bytes=dict(self._statistics.passed_bytes),
                dropped_bytes=dict(self._statistics.dropped_bytes),
            )
        )

    # faults

    def forward(self) -> None:
        """Let everything through; connections that have lost bytes are reset."""
        self._do(lambda: self._behave(Behaviour()))

    def refuse(self) -> None:
        """Reset every connection and let nobody in."""
        self._do(lambda: self._behave(Behaviour(listening=False)))
        self._do(self._reset_all)

    def hold(self) -> None:
        """Keep every connection, read nothing."""
        self._do(lambda: self._behave(Behaviour(held=True)))

    def blackhole(self) -> None:
        """Take everything, deliver nothing, in both directions."""
        self._do(lambda: self._behave(Behaviour(dropped=frozenset(DIRECTIONS))))

    def drop(self, direction: Direction) -> None:
        """Throw away what goes in one direction."""
        self._do(lambda: self._behave(Behaviour(dropped=frozenset({direction}))))

    def slow(self, *, delay_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        """Deliver each piece later, or so many bytes a second; 0 is no limit."""
        self._do(lambda: self._behave(Behaviour(delay_seconds=delay_seconds, bytes_per_second=bytes_per_second)))

    def reset(self) -> None:
        """Reset every connection; what holds for bytes stays."""
        self._do(self._reset_all)

    def cut_after(self, count: int) -> None:
        """Reset the connection that carries the `count`th byte to the server from now on."""

        def set_() -> None:
            self._cut_after = count

        self._do(set_)

    # on the loop's thread

    def _do(self, act: Callable[[], _T]) -> _T:
        async def call() -> _T:
            result = act()
            await asyncio.sleep(0)
            return result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(timeout=30)

    def _behave(self, new: Behaviour) -> None:
        healed = self._behaviour.dropped - new.dropped
        self._behaviour = new
        if healed:
            for connection in [c for c in self._connections if c.lost_bytes]:
                self._end(connection, reset=True)
        if new.listening and self._listener is None:
            self._listen()
        elif not new.listening:
            self._stop_listening()
        self._changed.set()
        self._changed = asyncio.Event()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = self._loop.time() + _BIND_SECONDS
        while True:
            try:
                listener.bind(("127.0.0.1", self.port))
                break
            except OSError:  # another process has the port for a moment, as its own end of some connection
                if self._loop.time() > deadline:
                    listener.close()
                    raise
                time.sleep(0.02)  # nothing else has to happen on this thread until it listens
        listener.listen(128)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener))

    def _stop_listening(self) -> None:
        if self._accepting is not None and self._listener is not None:
            self._accepting.cancel()
            self._loop.remove_reader(self._listener)
            self._listener.close()
        self._accepting = self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        connecting: set[asyncio.Task[None]] = set()
        try:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                client.setblocking(False)
                task = self._loop.create_task(self._connect(client))
                connecting.add(task)
                task.add_done_callback(connecting.discard)
        finally:
            for task in connecting:
                task.cancel()

    async def _connect(self, client: socket.socket) -> None:
        self._statistics.connections += 1
        server = socket.socket()
        server.setblocking(False)
        connection = _Connection(client, server)
        try:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(server, ("127.0.0.1", self._server_port))
        except BaseException as error:
            connection.close(reset=True)
            if not isinstance(error, OSError):
                raise
            self._statistics.unreachable += 1
            return
        self._connections.add(connection)
        pairs = ((client, server, DIRECTIONS[0]), (server, client, DIRECTIONS[1]))
        connection.tasks = [self._loop.create_task(self._carry(connection, *pair)) for pair in pairs]

    async def _carry(self, connection: _Connection, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        try:
            while True:
                await self._while_held()
                piece = await self._loop.sock_recv(source, _PIECE_BYTES)
                await self._while_held()
                if not piece:
                    break
                await self._pass(connection, target, direction, piece)
            if not self._behaviour.dropped:
                target.shutdown(socket.SHUT_WR)
        except OSError:  # either end is gone: the other one hears of it at once
            self._end(connection, reset=True)
            return
        if all(task.done() or task is asyncio.current_task() for task in connection.tasks):
            self._end(connection, reset=False)

    async def _while_held(self) -> None:
        while self._behaviour.held:
            await self._changed.wait()

    async def _pass(self, connection: _Connection, target: socket.socket, direction: Direction, piece: bytes) -> None:
        behaviour = self._behaviour
        if direction in behaviour.dropped or connection.lost_bytes:
            connection.lost_bytes = True
            self._statistics.dropped_bytes[direction] += len(piece)
            return
        cut = False
        if direction == "to_server" and self._cut_after is not None:
            piece, left = piece[: self._cut_after], self._cut_after - len(piece)
            cut = left <= 0
            self._cut_after = None if cut else left
        if behaviour.delay_seconds:
            await asyncio.sleep(behaviour.delay_seconds)
        if behaviour.bytes_per_second:
            await self._trickle(target, direction, piece, behaviour)
        else:
            await self._loop.sock_sendall(target, piece)
            self._statistics.passed_bytes[direction] += len(piece)
        if cut:
            self._end(connection, reset=True)

    async def _trickle(self, target: socket.socket, direction: Direction, piece: bytes, behaviour: Behaviour) -> None:
        """Twenty times a second a little, until all of it is sent or another behaviour holds."""
        step = max(1, int(behaviour.bytes_per_second / 20))
        while piece:
            if self._behaviour is not behaviour:
                step = len(piece)
            await self._loop.sock_sendall(target, piece[:step])
            self._statistics.passed_bytes[direction] += len(piece[:step])
            piece = piece[step:]
            if piece:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 1 / 20)

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            self._end(connection, reset=True)

    def _end(self, connection: _Connection, *, reset: bool) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._statistics.resets += reset
        for end in (connection.client, connection.server):
            self._loop.remove_reader(end)
            self._loop.remove_writer(end)
        connection.close(reset=reset)
        current = asyncio.current_task(self._loop)
        for task in connection.tasks:
            if task is not current:
                task.cancel()

    def _close(self) -> None:
        self._stop_listening()
        self._reset_all()

    def _end_thread(self) -> None:
        async def finish() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
