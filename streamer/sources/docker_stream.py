"""The two ways between Docker and the event loop: a thread that reads events, a queue of containers to ask about."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from streamer.errors import NotConnected, StreamerError
from streamer.sources.docker_api import Event, EventLines

log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 1.0  # for the thread, at the end; a daemon that does not answer holds it until the time-out


class Version(NamedTuple):
    """What the daemon calls itself."""

    version: str
    api_version: str


class Opened(NamedTuple):
    """A stream of events. `chunks` blocks and ends with the connection; `stop` ends it from any thread; `close` frees it."""

    version: Version
    chunks: Iterator[bytes]
    stop: Callable[[], None]
    close: Callable[[], None]


class EventStream:
    """Reads events in a thread of its own and hands them to `hear`, in order, on the event loop.

    A daemon thread, not one of a pool: a pool's threads are waited for at the end of the process, and this one may
    wait for ever.

    connect  opens the stream; called in the thread. Raises NotConnected, PermanentlyRefused
    hear     is given what came at once, and how many lines of it were no events
    """

    def __init__(self, connect: Callable[[], Opened], hear: Callable[[Sequence[Event], int], None]) -> None:
        self._connect, self._hear = connect, hear
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Version] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Done when the stream is at its end and the thread too; why, in words."""
        self._lock = threading.Lock()
        self._closing = False
        self._stop: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._work, name="docker-events", daemon=True)

    async def open(self, within_seconds: float) -> Version:
        """Start, and wait until events flow.

        Raises:
            NotConnected, PermanentlyRefused: as `connect` did, or not within that time.
        """
        self._thread.start()
        await asyncio.wait({self._opened}, timeout=within_seconds)
        if not self._opened.done():
            raise NotConnected("the event stream did not open in time", remedy="look at the log of dockerd")
        return self._opened.result()

    async def close(self) -> None:
        """End the thread and wait for it, but not for one that a hanging daemon holds until its time-out."""
        with self._lock:
            self._closing = True
            if self._stop is not None:
                self._stop()
        if self._thread.ident is not None:
            await asyncio.wait({self.ended}, timeout=_PATIENCE_SECONDS)
        for future in (self._opened, self.ended):
            future.cancel()
            if not future.cancelled():
                future.exception()  # heard by whoever waited for it

    def _work(self) -> None:
        problem: Exception | None = None
        try:
            self._read()
        except Exception as error:  # noqa: BLE001  carried over to the loop, which raises it
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, problem)

    def _read(self) -> None:
        opened = self._connect()
        try:
            with self._lock:
                if self._closing:
                    return
                self._stop = opened.stop
            self._loop.call_soon_threadsafe(_settle, self._opened, opened.version)
            lines = EventLines()
            for chunk in opened.chunks:
                events, unreadable = lines.feed(chunk), lines.unreadable
                lines.unreadable = 0
                if events or unreadable:
                    self._loop.call_soon_threadsafe(self._deliver, events, unreadable)
        finally:
            with self._lock:
                self._stop = None
            opened.close()

    def _deliver(self, events: Sequence[Event], unreadable: int) -> None:
        if not self._closing:
            self._hear(events, unreadable)

    def _finish(self, problem: Exception | None) -> None:
        expected = self._closing or isinstance(problem, (StreamerError, ValueError))
        if problem is not None and not self._opened.done():
            self._opened.set_exception(problem)
        if not self.ended.done():
            if problem is None or expected:
                self.ended.set_result(str(problem or "Docker ended it"))
            else:
                self.ended.set_exception(problem)


def _settle(future: asyncio.Future[Version], version: Version) -> None:
    if not future.done():
        future.set_result(version)


class Wanted:
    """Containers to ask about: each once, however often it is wanted; what just happened goes before what was listed."""

    def __init__(self, retry_seconds: Sequence[float]) -> None:
        self._retry_seconds = retry_seconds
        self._urgent: dict[str, int] = {}  # id -> attempts that failed
        self._listed: dict[str, int] = {}
        self._some = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()

    def add(self, container_id: str, *, urgent: bool = True, attempt: int = 0) -> None:
        """Want a description. Asking again while an answer is on its way asks anew: that answer may be too old."""
        if urgent:
            self._listed.pop(container_id, None)
            self._urgent.setdefault(container_id, attempt)
        elif container_id not in self._urgent:
            self._listed.setdefault(container_id, attempt)
        self._some.set()

    def again(self, container_id: str, attempt: int) -> bool:
        """Want it again a little later, after a failure; False when it failed often enough."""
        if attempt >= len(self._retry_seconds):
            return False

        def due() -> None:
            self._timers.discard(timer)
            self.add(container_id, urgent=False, attempt=attempt + 1)

        timer = asyncio.get_running_loop().call_later(self._retry_seconds[attempt], due)
        self._timers.add(timer)
        return True

    async def next(self) -> tuple[str, int]:
        """The next container to ask about, and how often that failed before."""
        while not (self._urgent or self._listed):
            self._some.clear()
            await self._some.wait()
        queue = self._urgent or self._listed
        container_id = next(iter(queue))
        return container_id, queue.pop(container_id)

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
