"""What clients of `/events` cost that never read, and whether another one, who does, notices them.

Containers come and go meanwhile, so that there is something to tell: raw cgroups that are made and removed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from benchmarks import report
from benchmarks.agent import AgentProcess
from benchmarks.answers import at
from benchmarks.cgroups import wait_until

KINDS: Final = ("lifecycle,oom,control", "lifecycle,oom,control,stats")
"""What they ask for, and never read."""

_CHANGES_PER_SECOND: Final = 20
_LET_GO_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 5.0
_RECEIVE_BUFFER_BYTES: Final = 4096
_MB: Final = 1e6


class Seen(NamedTuple):
    """Of a window: resident memory at its end and the highest of it, CPU as a share of one processor, how many ms after they
    were told records reached a client who reads, sorted; sampling is counted beside it."""

    rss_bytes: int
    rss_peak_bytes: int
    cpu_percent: float
    latencies_ms: list[float]


class Turn(NamedTuple):
    """Clients of one kind: before there were any, while they were there, after they were let go."""

    types: str
    clients: int
    let_go: int
    let_go_seconds: float
    before: Seen
    during: Seen
    after: Seen
    pace_before: Any
    pace_during: Any


def measure(
    url: str,
    agent: AgentProcess,
    mounts: list[str],
    folder: str,
    clients: int,
    seconds: int,
    watched: Callable[[Callable[[], None]], Any],
) -> list[Turn]:
    """Clients of each kind in turn. `watched` does something and returns how regularly was sampled meanwhile."""
    turns = []
    with _Changes(mounts, folder), _Attentive(url) as attentive:
        for types in KINDS:
            time.sleep(_SETTLE_SECONDS)
            seen: dict[str, Seen] = {}

            def look(name: str, seen: dict[str, Seen] = seen) -> None:
                seen[name] = _window(agent, attentive, seconds)

            pace_before = watched(lambda: look("before"))
            with _Deaf(url, types, clients) as deaf:
                pace_during = watched(lambda: look("during"))
                let_go = wait_until(lambda: deaf.left() == 0, _LET_GO_SECONDS, every=0.2)
                ended = time.monotonic() - deaf.began if let_go else float("nan")
                left = deaf.left()
            time.sleep(_SETTLE_SECONDS)
            look("after")
            turns.append(
                Turn(types, clients, clients - left, ended, seen["before"], seen["during"], seen["after"], pace_before, pace_during)
            )
    return turns


def table(turns: list[Turn]) -> str:
    """A row for each window."""
    rows = []
    for turn in turns:
        for name, seen, pace in (
            ("before", turn.before, turn.pace_before),
            ("during", turn.during, turn.pace_during),
            ("after", turn.after, None),
        ):
            times = seen.latencies_ms
            rows.append(
                (
                    f"{turn.types}, {name}",
                    f"{seen.rss_bytes / _MB:.1f}",
                    f"{seen.rss_peak_bytes / _MB:.1f}",
                    f"{seen.cpu_percent:.1f}",
                    f"{statistics.median(times):.1f}" if times else "",
                    f"{at(times, 99):.1f}" if times else "",
                    len(times),
                    f"{pace.per_second:.3f}" if pace else "",
                    pace.p99_ms if pace else "",
                )
            )
    said = "\n".join(
        f"{turn.types}: {turn.let_go} of {turn.clients} were let go, the last after {turn.let_go_seconds:.0f} s" for turn in turns
    )
    head = (
        "never read",
        "RSS MB",
        "highest",
        "CPU %",
        "latency p50 ms",
        "p99",
        "events",
        "samples per cgroup and s",
        "apart p99 ms",
    )
    return report.table(head, rows) + "\n\n" + said


def figures(turns: list[Turn]) -> list[Any]:
    return [msgspec.to_builtins(turn._asdict()) for turn in turns]


def _window(agent: AgentProcess, attentive: _Attentive, seconds: float) -> Seen:
    attentive.take()
    before, peak, until = agent.usage(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        peak = max(peak, agent.rss_bytes())
    used = agent.usage().since(before)
    return Seen(agent.rss_bytes(), peak, 100 * used.cpu / used.at, sorted(attentive.take()))


class _Changes:
    """A cgroup that comes and goes, twenty changes a second, below the benchmark's folder."""

    def __init__(self, mounts: list[str], folder: str) -> None:
        self._paths = [Path(mount + folder, "changing") for mount in mounts]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._change)

    def __enter__(self) -> _Changes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _change(self) -> None:
        for number in itertools.count():
            for path in self._paths:
                path.with_name(f"changing-{number}").mkdir()
            ended = self._ending.wait(1 / _CHANGES_PER_SECOND)
            for path in self._paths:
                path.with_name(f"changing-{number}").rmdir()
            if ended or self._ending.wait(1 / _CHANGES_PER_SECOND):
                return


def _open(url: str, types: str, accept: str) -> socket.socket:
    place = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES if not accept else 1 << 20)
    client.connect((place.hostname, place.port))
    client.sendall(f"GET /events?types={types} HTTP/1.1\r\nhost: localhost\r\n{accept}\r\n".encode())
    return client


class _Told(msgspec.Struct):
    type: str
    time_ms: int = 0


class _Attentive:
    """A client that reads at once; by how much later than it says each record arrives."""

    def __init__(self, url: str) -> None:
        self._socket = _open(url, "lifecycle", "accept: application/x-ndjson\r\n")
        self._latencies: list[float] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> _Attentive:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def take(self) -> list[float]:
        """The latencies since the last time, in ms."""
        taken, self._latencies = self._latencies, []
        return taken

    def _read(self) -> None:
        for line, arrived_ms in _lines(self._socket):
            told = msgspec.json.decode(line, type=_Told)
            if told.type == "container.lifecycle":
                self._latencies.append(arrived_ms - told.time_ms)


def _lines(client: socket.socket) -> Iterator[tuple[bytes, float]]:
    """JSON lines with the time in ms at which they arrived; what frames the chunks of HTTP is passed over."""
    rest = b""
    while True:
        try:
            part = client.recv(1 << 16)
        except OSError:
            return
        if not part:
            return
        arrived_ms = time.time_ns() / 1e6
        *whole, rest = (rest + part).split(b"\n")
        yield from ((line, arrived_ms) for line in whole if line.startswith(b"{"))


class _Deaf:
    """Clients that ask, and never read."""

    def __init__(self, url: str, types: str, clients: int) -> None:
        self._given = (url, types, "")
        self._count = clients
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _Deaf:
        for _ in range(self._count):
            self._sockets.append(_open(*self._given))
        self.began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._sockets:
            client.close()

    def left(self) -> int:
        """How many have not been let go: TCP_INFO begins with the connection's state, 1 while it is established."""
        return sum(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1 for client in self._sockets)
