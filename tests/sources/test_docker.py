"""The Docker source beside a real engine; a daemon of our own making only where a fault must come at an exact point."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.clock import SystemClock
from streamer.config.settings import Docker
from streamer.model import observations as o
from streamer.sources.docker import DockerSource
from streamer.sources.docker_api import nanoseconds
from streamer.telemetry import Telemetry
from tests.support.docker_engine import IMAGE, DockerEngine

NS = 1_000_000_000


class Listening:
    """A running source, and what it said."""

    def __init__(
        self, host: str = "", host_root: str = "/", *, timeout: str = "60s", relist: str = "60s", resume_after_ns: int | None = None
    ) -> None:
        settings = Docker(host=host, timeout=timeout, relist=relist)
        self.source = DockerSource(settings, host_root, SystemClock(), Telemetry(), resume_after_ns)
        self.heard: list[o.Observation] = []

    async def __aenter__(self) -> Listening:
        self._task = asyncio.create_task(self.source.run(self.heard.append))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._task.done():
                self._task.result()
            if time.monotonic() > deadline:
                pytest.fail("did not come to be; heard:\n" + "\n".join(map(str, self.heard)))
            await asyncio.sleep(0.005)

    async def until_ok(self) -> None:
        await self.until(lambda: self.source.status().state == "ok")

    def of(self, kind: type[Any], container_id: str = "") -> list[Any]:
        return [x for x in self.heard if isinstance(x, kind) and (not container_id or x.container_id == container_id)]

    def actions(self, container_id: str) -> list[str]:
        return [told.action for told in self.of(o.RuntimeEvent, container_id) if told.action != "listed"]

    def latest(self, container_id: str) -> o.Described | None:
        return next(iter(self.of(o.Described, container_id)[::-1]), None)


@pytest.fixture(autouse=True)
def no_docker_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set where the tests run must not decide them."""
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own_engine() -> Iterator[DockerEngine]:
    """An engine that may be stopped and killed. Start it on the test's own thread: it ends with the one that started it."""
    with DockerEngine() as engine:
        yield engine


# a real engine

live = pytest.mark.live


@live
@pytest.mark.v2
async def test_a_container_s_life_is_told_in_order(docker_engine: DockerEngine) -> None:
    """Create, start, pause, rename, update, exec, commit, stop, start, kill and remove: each once, in Docker's order."""
    cli = docker_engine.cli
    async with Listening(docker_engine.host) as listening:
        await listening.until_ok()
        id_ = cli("create", "--network", "none", "--stop-timeout", "1", "--label", "tier=front", IMAGE, "sleep", "600")
        await listening.until(lambda: listening.latest(id_))
        created = listening.latest(id_)
        assert created is not None
        assert (created.state, created.pid, created.started_at_ns, created.exit_code) == ("created", 0, None, None)
        assert (created.image, created.labels) == (IMAGE, {"tier": "front"})
        for command in (["start", id_], ["pause", id_], ["unpause", id_], ["rename", id_, "told-anew"]):
            cli(*command)
        cli("update", "--memory", "64m", "--memory-swap", "64m", id_)
        cli("exec", id_, "true")
        await listening.until(lambda: (told := listening.latest(id_)) and told.name == "told-anew" and told.pid)
        for command in (["stop", id_], ["start", id_], ["kill", id_], ["rm", id_]):
            cli(*command)
        await listening.until(lambda: "destroy" in listening.actions(id_))
        assert listening.actions(id_) == [
            "create", "start", "pause", "unpause", "rename", "update", "die", "start", "die", "destroy",
        ]  # fmt: skip
        codes = [told.exit_code for told in listening.of(o.RuntimeEvent, id_) if told.action == "die"]
        assert codes == [137, 137]
        times = [told.time_ns for told in listening.of(o.RuntimeEvent, id_)]
        assert times == sorted(times)


@live
async def test_what_runs_already_is_described_after_connecting(docker_engine: DockerEngine) -> None:
    """With pid and start time, also when it is paused; what has ended is not."""
    running, paused = docker_engine.run(), docker_engine.run()
    ended = docker_engine.cli("run", "-d", "--network", "none", IMAGE, "true")
    docker_engine.cli("wait", ended)
    docker_engine.cli("pause", paused)
    async with Listening(docker_engine.host) as listening:
        await listening.until(lambda: listening.latest(running) and listening.latest(paused))
        for id_, state in ((running, "running"), (paused, "paused")):
            told = listening.latest(id_)
            assert told is not None
            assert told.state == state
            assert Path("/proc", str(told.pid)).exists()
            assert told.started_at_ns is not None and 0 < told.started_at_ns < time.time_ns()
        assert listening.latest(ended) is None
        assert listening.source.version() is not None
    docker_engine.cli("unpause", paused)
    docker_engine.cli("rm", "-f", running, paused, ended)


@live
async def test_a_job_that_removes_itself_is_named_and_has_its_exit_code(docker_engine: DockerEngine) -> None:
    """However short it is."""
    async with Listening(docker_engine.host) as listening:
        await listening.until_ok()
        with pytest.raises(subprocess.CalledProcessError):
            docker_engine.cli("run", "--rm", "--network", "none", "--name", "brief", IMAGE, "sh", "-c", "exit 9")
        await listening.until(lambda: any(e.action == "destroy" and e.name == "brief" for e in listening.of(o.RuntimeEvent)))
        id_ = next(e.container_id for e in listening.of(o.RuntimeEvent) if e.name == "brief")
        assert listening.actions(id_) == ["create", "start", "die", "destroy"]
        assert [e.exit_code for e in listening.of(o.RuntimeEvent, id_)] == [None, None, 9, None]
        assert {(e.name, e.image) for e in listening.of(o.RuntimeEvent, id_)} == {("brief", IMAGE)}


@live
async def test_a_restart_policy_is_start_and_die_for_each_run(docker_engine: DockerEngine) -> None:
    """Three runs of one container; the last description has the restart count."""
    async with Listening(docker_engine.host) as listening:
        await listening.until_ok()
        id_ = docker_engine.run("--restart", "on-failure:2", command=("sh", "-c", "exit 7"))
        await listening.until(lambda: listening.actions(id_).count("die") == 3)
        assert listening.actions(id_) == ["create", "start", "die", "start", "die", "start", "die"]
        listening.source.request(id_)
        await listening.until(lambda: (told := listening.latest(id_)) and told.state == "exited")
        told = listening.latest(id_)
        assert told is not None
        assert (told.exit_code, told.restart_count) == (7, 2)
        docker_engine.cli("rm", id_)


@live
async def test_an_oom_kill_is_an_event_of_its_own(docker_engine: DockerEngine) -> None:
    """Docker loses it now and then when the container ends by the kill, or is just starting; this one goes on."""
    async with Listening(docker_engine.host) as listening:
        await listening.until_ok()
        id_ = docker_engine.run("-m", "20m", command=("sh", "-c", "sleep 1; tail /dev/zero; sleep 600"))
        await listening.until(lambda: "oom" in listening.actions(id_))
        assert listening.actions(id_) == ["create", "start", "oom"]
        docker_engine.cli("rm", "-f", id_)


@live
async def test_whose_network_a_container_uses(docker_engine: DockerEngine) -> None:
    """Its own, the host's, or another container's."""
    own = docker_engine.run()
    host = docker_engine.cli("run", "-d", "--network", "host", IMAGE, "sleep", "600")
    shared = docker_engine.cli("run", "-d", "--network", f"container:{own}", IMAGE, "sleep", "600")
    async with Listening(docker_engine.host) as listening:
        ids = [own, host, shared]
        await listening.until(lambda: all(listening.latest(id_) for id_ in ids))
        assert [told.network_shared for id_ in ids if (told := listening.latest(id_))] == [False, True, True]
    docker_engine.cli("rm", "-f", *ids)


@live
async def test_twenty_at_once_are_all_told(docker_engine: DockerEngine) -> None:
    """Every one has its four events in order."""
    names = [f"twenty-{i}" for i in range(20)]
    command = ["docker", "--host", docker_engine.host, "run", "--rm", "--network", "none"]
    async with Listening(docker_engine.host) as listening:
        await listening.until_ok()
        jobs = [subprocess.Popen([*command, "--name", name, IMAGE, "sleep", "0.2"]) for name in names]
        await listening.until(lambda: sum(e.action == "destroy" for e in listening.of(o.RuntimeEvent)) >= 20, 240)
        assert [await asyncio.to_thread(job.wait) for job in jobs] == [0] * 20
        ids = {e.name: e.container_id for e in listening.of(o.RuntimeEvent) if e.name in names}
        assert set(ids) == set(names)
        for id_ in ids.values():
            assert listening.actions(id_) == ["create", "start", "die", "destroy"]


@live
async def test_what_happens_between_the_start_and_the_first_connection_is_told(docker_engine: DockerEngine) -> None:
    """A job that came and went in that moment, and nothing of what was before it."""
    cli = docker_engine.cli
    earlier = cli("run", "-d", "--network", "none", IMAGE, "true")
    cli("wait", earlier)
    cli("rm", earlier)
    listening = Listening(docker_engine.host)
    job = cli("run", "-d", "--network", "none", "--name", "quick", IMAGE, "sh", "-c", "exit 9")
    cli("wait", job)
    cli("rm", job)
    async with listening:
        await listening.until_ok()
        assert listening.actions(job) == ["create", "start", "die", "destroy"]
        assert [e.exit_code for e in listening.of(o.RuntimeEvent, job) if e.action == "die"] == [9]
        assert listening.actions(earlier) == []
        assert listening.of(o.Lost) == []


@live
async def test_what_happened_while_nobody_listened_is_told_by_the_next_run(docker_engine: DockerEngine) -> None:
    """A container that ended, with its exit code, and one that came and went; each event once in the two runs together."""
    cli = docker_engine.cli
    ended = docker_engine.run(command=("sh", "-c", "sleep 600 & trap 'exit 5' TERM; wait"))
    async with Listening(docker_engine.host) as before:
        await before.until_ok()
        running = docker_engine.run()
        await before.until(lambda: before.actions(running) == ["create", "start"])
    cursor = before.source.last_event_ns
    assert cursor is not None and cursor == max(told.time_ns for told in before.of(o.RuntimeEvent) if told.action != "listed")
    cli("kill", "--signal", "TERM", ended)
    cli("wait", ended)
    cli("rm", ended)
    brief = cli("run", "-d", "--network", "none", IMAGE, "sh", "-c", "exit 9")
    cli("wait", brief)
    cli("rm", brief)
    async with Listening(docker_engine.host, resume_after_ns=cursor) as after:
        await after.until_ok()
        await after.until(lambda: "destroy" in after.actions(brief))
        assert after.actions(ended) == ["die", "destroy"]
        assert after.actions(brief) == ["create", "start", "die", "destroy"]
        assert after.actions(running) == []
        codes = {told.container_id: told.exit_code for told in after.of(o.RuntimeEvent) if told.action == "die"}
        assert (codes[ended], codes[brief]) == (5, 9)
        assert after.of(o.Lost) == []
        cli("rm", "-f", running)
        await after.until(lambda: "destroy" in after.actions(running))
    assert (after.source.last_event_ns or 0) > cursor


@live
async def test_more_than_docker_remembers_is_declared_by_the_next_run(docker_engine: DockerEngine) -> None:
    """From the last event of the earlier run to the oldest that Docker still has; the newest are told."""
    async with Listening(docker_engine.host) as before:
        await before.until_ok()
        id_ = docker_engine.run()
        await before.until(lambda: before.actions(id_) == ["create", "start"])
    cursor = before.source.last_event_ns
    with contextlib.closing(docker_engine.client()) as client:
        container = client.containers.get(id_)
        # not pause and unpause: containerd tells of each once more, and dockerd takes a word that comes late for the present
        for number in range(280):
            container.rename(f"renamed-{number}")
    docker_engine.cli("rm", "-f", id_)
    async with Listening(docker_engine.host, resume_after_ns=cursor) as after:
        await after.until(lambda: "destroy" in after.actions(id_))
        await after.until_ok()
        (lost,) = after.of(o.Lost)
        assert lost.count is None
        assert nanoseconds(lost.first) == cursor
        oldest_ns = after.of(o.RuntimeEvent, id_)[0].time_ns
        assert cursor is not None and cursor < (nanoseconds(lost.last) or 0) <= oldest_ns
        assert 200 < len(after.actions(id_)) < 280


@live
async def test_a_daemon_that_was_restarted_between_two_runs_is_declared(own_engine: DockerEngine) -> None:
    """What it knew went with it."""
    async with Listening(own_engine.host) as before:
        await before.until_ok()
        id_ = own_engine.run()
        await before.until(lambda: before.actions(id_) == ["create", "start"])
    own_engine.restart()
    async with Listening(own_engine.host, resume_after_ns=before.source.last_event_ns) as after:
        await after.until_ok()
        (lost,) = after.of(o.Lost)
        assert nanoseconds(lost.first) == before.source.last_event_ns
    async with Listening(own_engine.host) as fresh:
        await fresh.until_ok()
        assert fresh.of(o.Lost) == []


@live
async def test_a_daemon_that_stops_and_starts_is_said_once_each(own_engine: DockerEngine) -> None:
    """Degraded once, Recovered once, the loss declared, and what changed meanwhile described."""
    id_ = own_engine.run("--restart", "always")
    async with Listening(own_engine.host) as listening:
        await listening.until(lambda: (told := listening.latest(id_)) and told.pid)
        before = listening.latest(id_)
        said = len(listening.of(o.Recovered))
        await asyncio.to_thread(own_engine.stop)
        await listening.until(lambda: listening.of(o.Degraded))
        degraded = listening.of(o.Degraded)[0]
        assert degraded.component == "source.docker"
        assert "start Docker" in degraded.remedy
        assert listening.source.status().state == "degraded"
        own_engine.start()
        await listening.until(lambda: len(listening.of(o.Recovered)) == said + 1)
        await listening.until(lambda: (told := listening.latest(id_)) and before and told.pid not in (0, before.pid))
        assert len(listening.of(o.Degraded)) == 1
        (lost,) = listening.of(o.Lost)
        assert (lost.component, lost.count) == ("source.docker", None)
        assert lost.first < lost.last


@live
async def test_a_daemon_that_is_killed_is_followed_again(own_engine: DockerEngine) -> None:
    """Also when nothing of an orderly end was said."""
    async with Listening(own_engine.host) as listening:
        await listening.until_ok()
        await asyncio.to_thread(own_engine.kill)
        await listening.until(lambda: listening.of(o.Degraded))
        own_engine.start()
        await listening.until_ok()
        id_ = own_engine.run()
        await listening.until(lambda: listening.actions(id_) == ["create", "start"])
        assert len(listening.of(o.Degraded)) == 1


@live
async def test_a_daemon_that_hangs_is_said_and_does_not_hold_up_the_end(own_engine: DockerEngine) -> None:
    """It accepts connections and answers nothing; once it goes on, so do we."""
    async with Listening(own_engine.host, timeout="2s") as listening:
        with own_engine.frozen():
            await listening.until(lambda: listening.of(o.Degraded))
            assert "no answer in time" in listening.of(o.Degraded)[0].reason
        await listening.until_ok()
        with own_engine.frozen():
            listening.source.request("0" * 64)


@live
async def test_a_socket_that_comes_later_is_found(
    own_engine: DockerEngine, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the host's own absolute link, below the host's root; until then the state is `off`, said once."""
    monkeypatch.setattr("streamer.sources.docker._BACK_OFF_SECONDS", (0.0, 0.05))
    (short_path / "run").mkdir()
    (short_path / "var").mkdir()
    (short_path / "var/run").symlink_to("/run")
    async with Listening(host_root=str(short_path)) as listening:
        await listening.until(lambda: listening.source.status().state == "off")
        assert [degraded.component for degraded in listening.of(o.Degraded)] == ["source.docker"]
        Path(short_path, "run/docker.sock").hardlink_to(own_engine.socket)
        await listening.until_ok()
        assert len(listening.of(o.Degraded)) == 1


# a daemon of our own making

ID = "a" * 64


def event(action: str, time_ns: int) -> dict[str, Any]:
    return {"Type": "container", "Action": action, "Actor": {"ID": ID, "Attributes": {"name": "web"}}, "timeNano": time_ns}


class Daemon:
    """Speaks as much of the Engine API as the source asks for; `events` writes the event stream and may do so wrongly."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "docker.sock"
        self.host = f"unix://{self.path}"
        self.containers: dict[str, str] = {}  # id -> state
        self.history: list[dict[str, Any]] = []
        self.replayed: list[dict[str, Any]] = []  # at the beginning of every stream
        self.live: list[asyncio.StreamWriter] = []
        self.asked: list[str] = []
        self.refused: dict[str, int] = {}  # part of a path -> status
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Daemon:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def say(self, *lines: dict[str, Any] | bytes) -> None:
        """Send events to whoever listens."""
        for writer in self.live:
            await _chunk(writer, b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines))

    def drop(self) -> None:
        """End the streams of events, as a proxy does with idle ones."""
        for writer in self.live:
            writer.close()
        self.live.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                while (await reader.readline()).strip():
                    pass
                self.asked.append(path)
                await self._answer(path, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side or the test has ended
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        for part, status in self.refused.items():
            if part in path:
                return await _reply(writer, status, {"message": "no"})
        if "/events" in path and "until=" in path:
            return await _reply(writer, 200, b"".join(json.dumps(e).encode() + b"\n" for e in self.history))
        if "/events" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            await writer.drain()
            for line in self.replayed:
                await _chunk(writer, json.dumps(line).encode() + b"\n")
            self.live.append(writer)
            return None
        if "/version" in path:
            return await _reply(writer, 200, {"Version": "1.0", "ApiVersion": "1.41"})
        if "/containers/json" in path:
            listed = [{"Id": i, "Names": ["/web"], "State": s} for i, s in self.containers.items()]
            return await _reply(writer, 200, listed)
        id_ = path.split("/")[3]
        if id_ not in self.containers:
            return await _reply(writer, 404, {"message": "no such container"})
        state = {"Status": self.containers[id_], "Pid": 1, "StartedAt": "2026-11-23T19:08:19.5Z"}
        return await _reply(writer, 200, {"Id": id_, "Name": "/web", "Config": {"Image": "i"}, "State": state})


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def _reply(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = b"application/json"
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(data), data))
    await writer.drain()


async def followed(listening: Listening, daemon: Daemon) -> None:
    await listening.until_ok()
    await listening.until(lambda: daemon.live)


async def test_a_stream_that_a_proxy_ends_is_taken_up_where_it_ended(short_path: Path) -> None:
    """No `Degraded`, no `Lost`, and the events of the meantime, each once."""
    first, second = event("create", 5), event("start", 6)
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        await daemon.say(first)
        await listening.until(lambda: listening.actions(ID) == ["create"])
        daemon.history = [first, second]
        daemon.drop()
        await listening.until(lambda: daemon.live)
        assert any("since=0.000000005" in path for path in daemon.asked if "until" not in path)
        await daemon.say(first, second)
        await listening.until(lambda: listening.actions(ID) == ["create", "start"])
        await listening.until(lambda: sum("/containers/json" in path for path in daemon.asked) == 2)
        assert not listening.of(o.Degraded) and not listening.of(o.Lost)


async def test_events_that_docker_forgot_are_declared(short_path: Path) -> None:
    """The last event seen is gone from a ring that was filled anew since the connection was lost."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        await daemon.say(event("start", 5))
        await listening.until(lambda: listening.actions(ID) == ["start"])
        daemon.history = [event("exec_die", time.time_ns() + 60 * NS + i) for i in range(256)]
        daemon.drop()
        await listening.until(lambda: listening.of(o.Lost))
        assert listening.of(o.Lost)[0].count is None


async def test_a_later_run_goes_on_after_the_event_that_was_taken_in(short_path: Path) -> None:
    """That one is not told again; what came after it is, once, however it comes."""
    async with Daemon(short_path) as daemon, Listening(daemon.host, resume_after_ns=5) as listening:
        assert listening.source.last_event_ns == 5
        daemon.history = daemon.replayed = [event("start", 5), event("die", 6)]
        await followed(listening, daemon)
        await listening.until(lambda: listening.actions(ID) == ["die"])
        await daemon.say(event("start", 7))
        await listening.until(lambda: listening.actions(ID) == ["die", "start"])
        assert listening.source.last_event_ns == 7
        assert listening.of(o.Lost) == []
        assert any("since=0.000000005" in path for path in daemon.asked if "until" not in path)


async def test_a_later_run_whose_daemon_forgot_declares_it_once_connected(short_path: Path) -> None:
    """Also when the first attempts fail; what is left is told."""
    async with Daemon(short_path) as daemon:
        daemon.refused["until"] = 500
        daemon.history = [event("die", 8 * NS)]
        async with Listening(daemon.host, resume_after_ns=5 * NS) as listening:
            await listening.until(lambda: listening.of(o.Degraded))
            assert listening.of(o.Lost) == []
            daemon.refused.clear()
            await listening.until_ok()
            (lost,) = listening.of(o.Lost)
            assert (lost.first, lost.last) == ("1970-01-01T00:00:05.000000000Z", "1970-01-01T00:00:08.000000000Z")
            assert listening.actions(ID) == ["die"]


async def test_events_that_the_stream_skipped_are_taken_from_what_docker_remembers(short_path: Path) -> None:
    """It leaves out listeners that are slow and tells nobody."""
    async with Daemon(short_path) as daemon, Listening(daemon.host, relist="100ms") as listening:
        await followed(listening, daemon)
        now_ns = time.time_ns()
        await daemon.say(event("start", now_ns))
        await listening.until(lambda: listening.actions(ID) == ["start"])
        daemon.history = [event("start", now_ns), event("die", now_ns + 1)]
        await listening.until(lambda: listening.actions(ID) == ["start", "die"])
        await daemon.say(event("die", now_ns + 1), event("start", now_ns + 2))
        await listening.until(lambda: listening.actions(ID) == ["start", "die", "start"])
        assert listening.of(o.Lost) == []


async def test_what_the_stream_replays_does_not_hide_a_loss(short_path: Path) -> None:
    """Newer events come at once after a reconnect; what is missing before them is still found missing."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        await daemon.say(event("start", 5))
        await listening.until(lambda: listening.actions(ID) == ["start"])
        newer = event("die", 9)
        daemon.history = [newer]
        daemon.refused["until"] = 500  # the first look back fails, after the stream has replayed
        daemon.replayed = [newer]
        daemon.drop()
        await listening.until(lambda: "die" in listening.actions(ID))
        daemon.refused.clear()
        await listening.until(lambda: listening.of(o.Lost))
        assert listening.actions(ID) == ["start", "die"]


async def test_lines_that_are_no_events_are_counted_as_lost(short_path: Path) -> None:
    """And the next event is heard."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        await daemon.say(b"nonsense\n", b'{"Type":"container"}\n', event("start", 5))
        await listening.until(lambda: listening.actions(ID) == ["start"])
        assert [lost.count for lost in listening.of(o.Lost)] == [2]


async def test_a_stream_that_never_ends_its_line_is_taken_up_anew(short_path: Path) -> None:
    """Memory is bounded."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        with contextlib.suppress(ConnectionError):  # it hangs up in the middle
            await daemon.say(b"x" * (1 << 21))
        await listening.until(lambda: sum("/events" in path and "until" not in path for path in daemon.asked) == 2)
        assert listening.actions(ID) == []


async def test_a_proxy_that_refuses_is_degraded_with_a_remedy(short_path: Path) -> None:
    """Of a socket proxy that allows neither events nor lists."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        daemon.refused["/containers/json"] = 403
        await listening.until(lambda: listening.of(o.Degraded))
        assert "403" in listening.of(o.Degraded)[0].reason
        assert "/containers" in listening.of(o.Degraded)[0].remedy
        daemon.refused.clear()
        await listening.until_ok()
        assert len(listening.of(o.Degraded)) == 1


async def test_a_socket_without_permission_has_its_own_remedy(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may use every socket, so the system call's answer is put in."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("docker.transport.unixconn.UnixHTTPConnection.connect", refuse)
    async with Listening(f"unix://{short_path}/docker.sock") as listening:
        await listening.until(lambda: listening.of(o.Degraded))
        assert "group" in listening.of(o.Degraded)[0].remedy


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "gopher://x", "unix://" + "/x" * 100])
async def test_an_address_without_a_daemon_is_degraded(host: str) -> None:
    """Whatever is wrong with it, the source goes on."""
    async with Listening(host) as listening:
        await listening.until(lambda: listening.of(o.Degraded))
        assert listening.source.status().state == "degraded"
        assert listening.of(o.Degraded)[0].remedy


def _python(code: str, **environ: str) -> str:
    """What a new Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "STREAMER_STATE_DIR": "off", **environ},
    )  # fmt: skip
    return done.stdout.strip()


@live
def test_what_containers_want_is_loaded_before_the_watch_is_set() -> None:
    """The client, and who measures what they take on disk; beside it the watching thread would be late for the first jobs."""
    code = """
import asyncio, os, sys
from streamer import cli
from streamer.sources.docker import DockerSource
from streamer.sources.watcher import Watcher

def start(watcher):
    print("docker.api" in sys.modules, "psutil" in sys.modules, flush=True)
    os._exit(0)

Watcher.start = start
DockerSource.run = lambda source, emit: asyncio.sleep(3600)  # it would load it, too, sooner or later
cli.main(["run", "--listen", "off", "--sink", "file:///dev/null"])
"""
    assert _python(code, DOCKER_HOST="unix:///nobody.sock") == "True True"


def test_where_there_is_no_engine_no_client_is_loaded(tmp_path: Path) -> None:
    """It would be paid for in memory and in time until the agent is ready."""
    code = f"""
import sys
from streamer.clock import SystemClock
from streamer.config.settings import Docker
from streamer.sources.docker import DockerSource
from streamer.telemetry import Telemetry

for host in ("", "unix:///nobody.sock"):
    DockerSource(Docker(host=host), {str(tmp_path)!r}, SystemClock(), Telemetry()).load()
    print("docker.api" in sys.modules)
"""
    assert _python(code).split() == ["False", "True"]


async def test_a_description_that_failed_is_asked_for_again(short_path: Path) -> None:
    """A busy daemon's error is not the last word."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        daemon.containers[ID] = "running"
        daemon.refused[f"/containers/{ID}"] = 500
        await listening.until(lambda: any(ID in path for path in daemon.asked))
        daemon.refused.clear()
        await listening.until(lambda: listening.latest(ID))
        assert sum(path.endswith(f"/containers/{ID}/json") for path in daemon.asked) > 1


async def test_the_list_repairs_what_lost_events_hid(short_path: Path) -> None:
    """A container that appeared and one that ended without an event are described at the next list."""
    other = "b" * 64
    async with Daemon(short_path) as daemon, Listening(daemon.host, relist="100ms") as listening:
        daemon.containers[ID] = "running"
        await listening.until(lambda: listening.latest(ID))
        daemon.containers = {ID: "exited", other: "running"}
        await listening.until(lambda: listening.latest(other) and (told := listening.latest(ID)) and told.state == "exited")
        assert listening.actions(ID) == listening.actions(other) == []  # no event said so


async def test_many_requests_are_one_question(short_path: Path) -> None:
    """Asked for while it waits its turn, a container is asked about once."""
    async with Daemon(short_path) as daemon, Listening(daemon.host) as listening:
        await followed(listening, daemon)
        daemon.containers[ID] = "running"
        for _ in range(100):
            listening.source.request(ID)
        await listening.until(lambda: listening.latest(ID))
        assert sum(ID in path for path in daemon.asked) == 1


async def one_run(daemon: Daemon) -> None:
    async with Listening(daemon.host) as listening:
        await listening.until(lambda: listening.latest(ID))


async def test_the_source_ends_at_once_and_can_run_again(short_path: Path) -> None:
    """In whatever it was doing."""
    async with Daemon(short_path) as daemon:
        daemon.containers[ID] = "running"
        for _ in range(3):
            await one_run(daemon)
        async with Listening(daemon.host) as listening:
            await asyncio.sleep(0)
        assert listening.latest(ID) is None
