"""The proxy itself: each fault against a server that echoes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Direction, FaultProxy


class Echo:
    """Sends back what it is sent, one thread for each connection; `heard` is what arrived in all."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.heard = bytearray()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.heard += data
                connection.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with contextlib.closing(Echo()) as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as proxy:
        yield proxy


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(client: socket.socket, data: bytes) -> bytes:
    """Send and read as much back."""
    client.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = client.recv(len(data))
        assert piece, "the connection ended"
        answer += piece
    return answer


def is_reset(client: socket.socket) -> bool:
    """Whether it ends by RST, after whatever still comes."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def silent(client: socket.socket) -> bool:
    """Nothing comes for a while."""
    client.settimeout(0.2)
    try:
        return not client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


def test_bytes_go_through_both_ways_and_are_counted(proxy: FaultProxy) -> None:
    """More than any buffer holds, whole and in order, on two connections; a client's end reaches the server."""
    data = bytes(range(256)) * 4096
    with connect(proxy) as one, connect(proxy) as other:
        assert ask(other, b"hello") == b"hello"
        sender = threading.Thread(target=one.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += one.recv(65536)
        sender.join()
        one.shutdown(socket.SHUT_WR)
        assert received == data and one.recv(1) == b""
    told = proxy.statistics()
    assert told.connections == 2 and told.passed_bytes == dict.fromkeys(("to_server", "to_client"), len(data) + 5)


def test_refused_is_reset_and_nobody_listens_until_forward(proxy: FaultProxy) -> None:
    """Existing connections get RST, new ones are refused, on the same port it works again."""
    with connect(proxy) as client:
        assert ask(client, b"a") == b"a"
        proxy.refuse()
        assert is_reset(client)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.forward()
    with connect(proxy) as client:
        assert ask(client, b"b") == b"b"


def test_held_bytes_arrive_later_whole(proxy: FaultProxy, echo: Echo) -> None:
    """Nothing moves meanwhile; afterwards the same connection goes on."""
    with connect(proxy) as client:
        assert ask(client, b"a") == b"a"
        proxy.hold()
        client.sendall(b"later")
        assert silent(client) and bytes(echo.heard) == b"a"
        proxy.forward()
        assert client.recv(5) == b"later"


def test_half_open_takes_connections_and_bytes_and_resets_them_when_it_heals(proxy: FaultProxy, echo: Echo) -> None:
    """A new connection is accepted too, and neither is told anything."""
    with connect(proxy) as old:
        assert ask(old, b"a") == b"a"
        proxy.blackhole()
        with connect(proxy) as new:
            new.sendall(b"lost")
            old.sendall(b"lost")
            swallowed(proxy, "to_server", 8)
            assert silent(new) and silent(old) and bytes(echo.heard) == b"a"
            proxy.forward()
            assert is_reset(new) and is_reset(old)
    assert proxy.statistics().dropped_bytes["to_server"] == 8


@pytest.mark.parametrize(("direction", "arrived"), [("to_server", b""), ("to_client", b"ask")])
def test_one_way_loses_one_direction(proxy: FaultProxy, echo: Echo, direction: Direction, arrived: bytes) -> None:
    """Either the request is lost, or it is done and its answer is lost."""
    with connect(proxy) as client:
        proxy.drop(direction)
        client.sendall(b"ask")
        swallowed(proxy, direction, 3)
        assert silent(client) and bytes(echo.heard) == arrived
        proxy.forward()
        assert is_reset(client)


def swallowed(proxy: FaultProxy, direction: Direction, count: int) -> None:
    """Wait until the proxy has lost so many bytes: silence before that is of those who have had no processor."""
    deadline = time.monotonic() + 20
    while proxy.statistics().dropped_bytes[direction] < count:
        assert time.monotonic() < deadline, proxy.statistics()
        time.sleep(0.005)  # the pace of asking; the deadline is above


def test_reset_ends_what_is_there_and_lets_new_ones_in(proxy: FaultProxy) -> None:
    """RST for all, no other change."""
    with connect(proxy) as client:
        assert ask(client, b"a") == b"a"
        proxy.reset()
        assert is_reset(client)
    with connect(proxy) as client:
        assert ask(client, b"b") == b"b"
    assert proxy.statistics().resets == 1


def test_cut_after_lets_exactly_so_many_bytes_arrive(proxy: FaultProxy, echo: Echo) -> None:
    """The rest of the request is lost with its connection; the next connection is whole."""
    proxy.cut_after(5)
    with connect(proxy) as client:
        client.sendall(b"0123456789")
        assert is_reset(client)
    with connect(proxy) as client:
        assert ask(client, b"whole") == b"whole"
    # RST may overtake what the server has not read; the first connection may be read after the second
    assert bytes(echo.heard) in (b"whole", b"01234whole", b"whole01234")


def test_slow_delays_and_throttles_and_loses_nothing(proxy: FaultProxy) -> None:
    """At 40 kB/s in each direction 8 kB are whole but not there at once; healed, the rest comes without waiting."""
    with connect(proxy) as client:
        proxy.slow(delay_seconds=0.05)
        began = time.monotonic()
        assert ask(client, b"a") == b"a"
        assert time.monotonic() - began >= 0.1
        proxy.slow(bytes_per_second=40_000)
        client.sendall(b"x" * 8000)
        first = client.recv(8000)
        assert 0 < len(first) <= 2000
        proxy.forward()
        rest = b""
        while len(first) + len(rest) < 8000:
            rest += client.recv(8000)
        assert first + rest == b"x" * 8000


def test_without_a_server_the_client_is_reset(echo: Echo) -> None:
    """A proxy in front of a dead server lets in and resets, as a load balancer does."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy(unused.getsockname()[1]) as proxy:
            with contextlib.suppress(ConnectionResetError), connect(proxy) as client:  # so quick that `connect` may see it
                assert is_reset(client)
            assert proxy.statistics().unreachable == 1
