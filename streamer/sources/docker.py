"""Follows a Docker Engine: names, images, labels, exit codes. The cgroup watch is the truth, this is the second witness.

Subscribe, then list, then merge, so that nothing falls between. Events come through one thread; descriptions are asked
for by two others, off the events' way, once per container however often they are wanted. The only importer of `docker`.

Docker ends idle streams, forgets all but 256 events, numbers none of them and skips listeners that are slow: a stream
that ends is connected again where it ended, also across runs of the agent; repeated events are dropped; every minute
what Docker remembers and what it lists repair the rest; and what may be missing for good is said as `Lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

from streamer.clock import rfc3339
from streamer.config.settings import Docker, seconds
from streamer.contracts import Clock, Emit, Status
from streamer.errors import Gone, NotConnected, PermanentlyRefused, StreamerError
from streamer.model import observations as o
from streamer.sources import docker_api as api
from streamer.sources.docker_known import Known
from streamer.sources.docker_stream import EventStream, Opened, Version, Wanted
from streamer.telemetry import Telemetry

log = logging.getLogger(__name__)

_INSPECTORS: Final = 2
_BACK_OFF_SECONDS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
_STEADY_NS: Final = 5_000_000_000  # a connection that held for less does not reset the back-off
_INSPECT_AGAIN_SECONDS: Final = (0.2, 1.0, 5.0)  # after that the next list asks again
_OPENING_STEPS: Final = 3  # connect, version, events: each may take the time-out
_OVERLAP_NS: Final = 1_000_000_000
_PATIENCE_SECONDS: Final = 1.0  # for answers on their way, at the end

T = TypeVar("T")


class DockerSource:
    """Emits `RuntimeEvent` for each event of a container's life, and `Described` for what runs and whatever is asked for.

    Emits `Degraded` once while there is no Engine, `Recovered` when there is one, `Lost` when events may be missing:
    `first` and `last` are the times between which they happened.

    resume_after_ns  `last_event_ns` of an earlier run: the events since then are told first, those that Docker still has
                     (they may be of containers that have ended meanwhile). None: only what comes from now on
    """

    name = "source.docker"

    def __init__(
        self, settings: Docker, host_root: str, clock: Clock, telemetry: Telemetry, resume_after_ns: int | None = None
    ) -> None:
        self._settings, self._host_root = settings, host_root
        self._relist, self._timeout = seconds(settings.relist), seconds(settings.timeout)
        self._clock, self._telemetry = clock, telemetry
        self._emit: Emit = _nobody
        self._began_ns = clock.wall_ns()
        self._status = Status(self.name, "starting", since_ms=self._began_ns // 1_000_000)
        self._version: Version | None = None
        self._wanted: Wanted | None = None  # while connected
        self._known = Known()
        self._resume_after_ns = resume_after_ns
        self._left_off = _LeftOff(resumed_ns=resume_after_ns or 0)

    @property
    def last_event_ns(self) -> int | None:
        """When the newest event that was taken in happened (Docker's clock): all before it was told. None: there was none."""
        return self._resume_after_ns if self._known.last is None else self._known.last.time_ns

    def status(self) -> Status:
        return self._status

    def version(self) -> Version | None:
        """Of the daemon, as it said at the last connect; None before."""
        return self._version

    def place(self, container_id: str) -> api.Place | None:
        """Where a container's files are on the host; None: not known (yet). For any thread."""
        return self._known.place(container_id)

    def request(self, container_id: str) -> None:
        """Ask for a full description soon; coalesced, answered by `Described`.

        Without a connection this does nothing: all that runs is described after connecting.
        """
        if self._wanted is not None:
            self._wanted.add(container_id)

    def load(self) -> None:
        """Load what containers of an Engine will want, where there is one. Before the cgroups are watched: see the guide."""
        if self._address() is not None:
            import docker  # noqa: F401  loaded is what is wanted
            import psutil  # noqa: F401  the same: the first of them is the first whose disk usage is measured

    async def run(self, emit: Emit) -> None:
        """Until cancelled; its threads and connections end with it."""
        self._emit = emit
        failures = 0
        while True:
            address = self._address()
            if address is None:
                self._degraded(api.ABSENT, api.remedy(""), state="degraded" if self._version else "off")
                await asyncio.sleep(_BACK_OFF_SECONDS[-1])
                continue
            began_ns = self._clock.monotonic_ns()
            try:
                await self._session(address)
            except (NotConnected, PermanentlyRefused) as problem:
                self._degraded(str(problem), problem.remedy)
            failures = 0 if self._clock.monotonic_ns() - began_ns > _STEADY_NS and self._status.state == "ok" else failures + 1
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS)) - 1] if failures else 0)

    def _address(self) -> str | None:
        return api.address(self._settings.host, os.environ.get("DOCKER_HOST", ""), self._host_root)

    # one connection

    async def _session(self, address: str) -> None:
        """From connecting until the stream ends.

        Raises:
            NotConnected, PermanentlyRefused: no connection came about, or the daemon no longer answers.
        """
        engine = _Engine(address, self._timeout)
        stream = EventStream(lambda: engine.events(self._left_off.since()), self._hear)
        try:
            self._telemetry.count("streamer_docker_requests_total", "events")
            opening_ns = self._clock.wall_ns()
            self._version = await stream.open(_OPENING_STEPS * self._timeout)
            await self._look_back(engine, opening_ns)
            try:
                await self._stay(engine, stream)
            finally:
                self._left_off = _LeftOff(self._known.last, self._clock.wall_ns())
        finally:
            await stream.close()
            await engine.close()

    async def _stay(self, engine: _Engine, stream: EventStream) -> None:
        wanted = self._wanted = Wanted(_INSPECT_AGAIN_SECONDS)
        try:
            async with asyncio.TaskGroup() as group:
                inspectors = [group.create_task(self._inspect(engine, wanted)) for _ in range(_INSPECTORS)]
                problem = await self._follow(engine, stream, wanted)
                for task in inspectors:
                    task.cancel()
        finally:
            self._wanted = None
            wanted.close()
        if problem is not None:
            raise problem

    async def _follow(self, engine: _Engine, stream: EventStream, wanted: Wanted) -> NotConnected | PermanentlyRefused | None:
        """List now and then until the stream ends (None) or Docker no longer answers (why; raising it is the caller's)."""
        everything, heard_until_ns = True, self._clock.wall_ns()
        while not stream.ended.done():
            try:
                await self._merge(engine, wanted, everything=everything)
            except (NotConnected, PermanentlyRefused) as problem:
                return problem
            if everything:
                self._working()
            everything = False
            await asyncio.wait({stream.ended}, timeout=self._relist)
            if not stream.ended.done():
                since_ns, heard_until_ns = heard_until_ns, self._clock.wall_ns()
                try:
                    self._hear(await self._history(engine, since_ns), 0)  # Docker skips listeners that are slow
                except (NotConnected, PermanentlyRefused) as problem:
                    return problem
        log.info("docker: the event stream ended: %s", stream.ended.result())
        return None

    async def _look_back(self, engine: _Engine, opening_ns: int) -> None:
        """Take in what happened while there was no connection; where Docker no longer has all of it, say so."""
        left = self._left_off
        now_ns = self._clock.wall_ns()
        history = await self._history(engine, left.resumed_ns or (left.last.time_ns if left.last else 1))
        began_ns = left.resumed_ns or left.lost_ns
        if began_ns and not left.complete(history, connected=self._status.state == "ok"):
            reason = "there was no connection, and Docker no longer has the events of that time"
            oldest_ns = min((event.time_ns for event in history), default=now_ns)  # from there on it has them
            self._lost(reason, None, rfc3339(min(began_ns, oldest_ns)), rfc3339(max(began_ns, oldest_ns)))
        self._left_off = _LeftOff()  # from here on nothing is missing
        # of the first connection: a job may begin and end between the agent's start and that
        self._hear(history if began_ns else [event for event in history if event.time_ns >= self._began_ns], 0)
        for event in history:
            if event.time_ns < opening_ns:  # what came since is yet to be heard
                self._known.newest(event)

    async def _history(self, engine: _Engine, since_ns: int) -> Sequence[api.Event]:
        self._telemetry.count("streamer_docker_requests_total", "events")
        now_ns = self._clock.wall_ns()
        return await engine.history(api.since(min(since_ns, now_ns)), api.since(now_ns))  # the clock may have been set back

    # what Docker says

    def _hear(self, events: Sequence[api.Event], unreadable: int) -> None:
        if unreadable:
            self._lost("Docker sent lines that are no events", unreadable)
        for event in events:
            told = api.runtime_event(event) if self._known.is_new(event) else None
            if told is None or event.time_ns == self._resume_after_ns:  # that one the earlier run took in
                continue
            self._known.heard(told, self._clock.monotonic_ns())
            self._emit(told)
            if told.action in api.INSPECT_AFTER:
                self.request(told.container_id)

    async def _merge(self, engine: _Engine, wanted: Wanted, *, everything: bool) -> None:
        asked_ns = self._clock.monotonic_ns()
        self._telemetry.count("streamer_docker_requests_total", "list")
        entries = await engine.list()
        for entry in entries:
            # A busy daemon answers for a container only once it has started it: what the list says of it comes before that.
            if entry.name and entry.state not in api.ENDED and not self._known.has(entry.id):
                self._emit(api.listed(entry, self._clock.wall_ns()))
        for container_id in self._known.listed(entries, asked_ns, everything=everything):
            wanted.add(container_id, urgent=False)

    async def _inspect(self, engine: _Engine, wanted: Wanted) -> None:
        while True:
            container_id, attempt = await wanted.next()
            asked_ns = self._clock.monotonic_ns()
            self._known.asked(container_id, asked_ns)
            self._telemetry.count("streamer_docker_requests_total", "inspect")
            try:
                told, place = await engine.inspect(container_id, self._clock)
            except Gone:
                continue
            except NotConnected as problem:
                if not wanted.again(container_id, attempt):
                    log.warning("docker: no description of %s: %s", container_id, problem)
                continue
            except PermanentlyRefused as problem:
                self._degraded(str(problem), problem.remedy)
                continue
            answer = self._known.answered(told, asked_ns)
            self._known.placed(container_id, place)
            if answer.ask_again:
                wanted.add(container_id)
            if answer.told is not None:
                self._emit(answer.told)

    # how it is

    def _working(self) -> None:
        if self._status.state != "ok":  # also the first time: from now on an unknown name is worth only a short wait
            self._set_status("ok")
            self._emit(o.Recovered(self.name, self._clock.wall_ns()))

    def _degraded(self, reason: str, remedy: str, state: str = "degraded") -> None:
        if self._status.state not in ("degraded", "off"):
            self._emit(o.Degraded(self.name, self._clock.wall_ns(), reason, remedy))
        if (self._status.state, self._status.reason) != (state, reason):
            self._set_status(state, reason, remedy)

    def _set_status(self, state: str, reason: str = "", remedy: str = "") -> None:
        self._telemetry.set("streamer_source_up", 1 if state == "ok" else 0, self.name)
        self._status = Status(self.name, state, reason, remedy, self._clock.wall_ns() // 1_000_000)

    def _lost(self, reason: str, count: int | None, first: str = "", last: str = "") -> None:
        self._emit(o.Lost(self.name, self._clock.wall_ns(), reason, count, first, last))


class _LeftOff(NamedTuple):
    """Where a connection was lost: the newest event until then, and when; 0 while nothing is missing.

    resumed_ns  before the first connection: when the newest event of an earlier run happened
    """

    last: api.Event | None = None
    lost_ns: int = 0
    resumed_ns: int = 0

    def since(self) -> str | None:
        """From where to take up the events again; they may repeat."""
        if self.resumed_ns or self.last is not None:
            return api.since(self.resumed_ns or (self.last.time_ns if self.last else 0))
        return api.since(self.lost_ns - _OVERLAP_NS) if self.lost_ns else None

    def complete(self, history: Sequence[api.Event], *, connected: bool) -> bool:
        """Whether what Docker remembers, from the last event on, is all that happened since. `connected`: a moment ago still."""
        if self.resumed_ns:
            return any(event.time_ns == self.resumed_ns for event in history)
        return api.reaches_back(history, self.last, self.lost_ns) if self.last else connected


def _nobody(_: o.Observation) -> None:
    raise AssertionError("a source emits while it runs")  # a bug of ours


class _Engine:
    """One Docker Engine, asked through docker-py: each thread has a client of its own, they are not safe to share.

    Everything raises NotConnected (try again), PermanentlyRefused (it answered no) or Gone (no such container).
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url, self._timeout = url, timeout
        self._pool = ThreadPoolExecutor(_INSPECTORS, thread_name_prefix="docker-ask")
        self._own = threading.local()
        self._clients: list[Any] = []
        self._asked: set[asyncio.Future[Any]] = set()
        self._api_version: str | None = None

    # in a thread

    def events(self, since: str | None) -> Opened:
        """Open the stream of events."""
        with self._errors():
            client = self._client()
            said = client.version()
            stream = client.events(since=since, filters={"type": "container", "event": list(api.ACTIONS)})
        return Opened(
            Version(str(said.get("Version", "")), client.api_version),
            self._chunks(stream),
            stop=lambda: _stop(stream),
            close=client.close,
        )

    def _chunks(self, stream: Any) -> Iterator[bytes]:
        with self._errors():
            yield from stream  # docker-py ends it silently when the connection breaks

    def _client(self) -> Any:
        import docker
        from docker.utils import kwargs_from_env

        where = kwargs_from_env({**os.environ, "DOCKER_HOST": self._url})  # DOCKER_TLS_VERIFY, DOCKER_CERT_PATH count too
        client = docker.APIClient(**where, version=self._api_version or "auto", timeout=self._timeout)
        self._api_version = client.api_version  # asked for once per connection
        if self._url.startswith("unix:"):
            client.trust_env = False  # proxies and .netrc are looked up for every request otherwise
        return client

    # on the event loop

    async def list(self) -> Sequence[api.Listed]:
        """All containers, by one call that describes none of them."""
        return await self._ask(lambda client: api.containers(client.containers(all=True)))

    async def inspect(self, container_id: str, clock: Clock) -> tuple[o.Described, api.Place]:
        """The full description of one container, and where its files are."""

        def ask(client: Any) -> tuple[o.Described, api.Place]:
            from docker.errors import NotFound

            try:
                answer = client.inspect_container(container_id)
                return api.described(answer, clock.wall_ns()), api.place(answer)
            except NotFound as error:
                raise Gone(container_id) from error

        return await self._ask(ask)

    async def history(self, since: str, until: str) -> Sequence[api.Event]:
        """The events of every kind that Docker still has."""

        def ask(client: Any) -> list[api.Event]:
            # Not `client.events`: that waits for ever, also for the first byte.
            url = f"{client.base_url}/v{client.api_version}/events"
            answer = client.get(url, params={"since": since, "until": until}, timeout=self._timeout)
            answer.raise_for_status()
            return api.EventLines().feed(answer.content)

        return await self._ask(ask)

    async def _ask(self, question: Callable[[Any], T]) -> T:
        def work() -> T:
            with self._errors():
                if not hasattr(self._own, "client"):
                    self._own.client = self._client()
                    self._clients.append(self._own.client)
                return question(self._own.client)

        answer = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._asked.add(answer)
        answer.add_done_callback(self._answered)
        return await asyncio.shield(answer)  # who stops waiting does not stop the thread: `close` waits for it

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._asked.discard(answer)
        if not answer.cancelled():
            answer.exception()  # raised to whoever still waits

    async def close(self) -> None:
        """Let go of threads and connections. A daemon that hangs holds a thread until the time-out, but not us."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._asked:
            await asyncio.wait(self._asked, timeout=_PATIENCE_SECONDS)
        for client in self._clients:
            client.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What docker-py, requests, urllib3 and http.client raise, as one of ours."""
        import docker.errors
        import urllib3.exceptions

        try:
            yield
        except StreamerError:
            raise
        except docker.errors.APIError as error:
            if error.is_client_error():
                raise PermanentlyRefused(f"Docker refuses: {error}", remedy=api.REFUSED_REMEDY) from error
            raise NotConnected(f"Docker answers with an error: {error}", remedy=api.remedy(self._url)) from error
        except (
            docker.errors.DockerException,
            OSError,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            ValueError,
        ) as error:
            reason, remedy = api.explain(error, self._url)
            raise NotConnected(reason, remedy=remedy) from error


def _stop(stream: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):  # it has ended by itself at this very moment
        stream.close()
