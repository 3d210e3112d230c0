"""How much disk containers take: of a real engine, and of directories made up for what happens seldom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.clock import SystemClock
from streamer.config.settings import Docker
from streamer.contracts import Look
from streamer.kernel.hierarchy import detect
from streamer.model.stats import FilesystemUsage
from streamer.sources import disk_usage
from streamer.sources.cgroup import CgroupSampler
from streamer.sources.disk_usage import DiskUsage, walked
from streamer.sources.docker import DockerSource
from streamer.sources.docker_api import Place, place
from streamer.sources.filesystems import Filesystems
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock
from tests.support.docker_engine import DockerEngine

MB = 1_000_000
ID = "ab" * 32
PATH = f"/docker/{ID}"


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


# a real engine


class Watched:
    """The samples of a container, taken as the agent does while a Docker source is connected."""

    def __init__(self, engine: DockerEngine, container_id: str) -> None:
        clock, telemetry, host = SystemClock(), Telemetry(), detect(Path("/"))
        self.source = DockerSource(Docker(host=engine.host), "/", clock, telemetry)
        self._usage = DiskUsage("/", clock, 0.02, self.source.place)
        self._sampler = CgroupSampler(
            host, host_root="/", clock=clock, telemetry=telemetry, descriptors=100, network=False,
            filesystems=Filesystems("/", clock), disk_usage=self._usage,
        )  # fmt: skip
        path = f"/docker/{container_id}"
        self._look = Look(path, host.anchor, os.stat(host.directory(host.anchor, path)).st_ino, 0)

    async def __aenter__(self) -> Watched:
        self._task = asyncio.create_task(self.source.run(lambda _: None))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._sampler.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until(self, condition: Callable[[FilesystemUsage], bool]) -> FilesystemUsage:
        deadline, last = time.monotonic() + 30, None
        while time.monotonic() < deadline:
            (told,) = await self._sampler.read([self._look])
            for last in told.sample.filesystems:
                if condition(last):
                    return last
            await asyncio.sleep(0.005)
        pytest.fail(f"did not come to be; last {last}")


async def test_what_a_container_writes_is_counted(docker_engine: DockerEngine) -> None:
    """In its layer, a file with two names once; in its log, beside the layer; and what it removes is gone again."""
    if docker_engine.cli("info", "--format", "{{.Driver}}") != "overlay2":
        pytest.skip("the engine has no overlays here")
    id_ = docker_engine.run(command=("sh", "-c", "while :; do cat /say 2>/dev/null && rm /say; sleep 0.02; done"))
    async with Watched(docker_engine, id_) as watched:
        before = await watched.until(lambda _: True)
        assert before.layer_bytes is not None and before.inodes_used
        docker_engine.cli("exec", id_, "sh", "-c", "dd if=/dev/urandom of=/file bs=1000000 count=5 && ln /file /again && sync")
        after = await watched.until(lambda now: bool(now.layer_bytes) and now.layer_bytes >= before.layer_bytes + 5 * MB)
        assert after.layer_bytes < before.layer_bytes + 9 * MB
        assert after.inodes_used == before.inodes_used + 1
        assert after.usage_bytes - before.usage_bytes >= 5 * MB
        docker_engine.cli("exec", id_, "rm", "/file", "/again")
        await watched.until(lambda now: now.layer_bytes < after.layer_bytes - 4 * MB)
        docker_engine.cli("exec", id_, "sh", "-c", "head -c 1500000 /dev/zero | tr '\\0' 'x' | fold >/s && mv /s /say")
        logged = await watched.until(lambda now: now.usage_bytes - now.layer_bytes > 1.5 * MB > now.layer_bytes)
        assert (logged.capacity_bytes, logged.device) == (after.capacity_bytes, after.device)
    size, number = os.statvfs(docker_engine.directory), os.stat(docker_engine.directory).st_dev
    assert after.capacity_bytes == size.f_blocks * size.f_frsize
    if os.major(number):
        assert os.stat(str(after.device)).st_rdev == number
    assert after.fstype


# walking


def test_everything_counts_once_and_on_this_file_system_only(tmp_path: Path) -> None:
    """As du(1) says; links are not followed."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_bytes(b"x" * 300_000)
    (tmp_path / "a/b/twin").hardlink_to(tmp_path / "a/file")
    (tmp_path / "elsewhere").symlink_to("/")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**9)
    everything = [tmp_path, *tmp_path.rglob("*")]
    once = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in everything}
    found = walked(tmp_path)
    assert found == (sum(once.values()), len(everything) - 1)
    assert 300_000 <= found.bytes < 10**8


@pytest.mark.live
def test_what_is_mounted_within_is_left_out(tmp_path: Path) -> None:
    """Its mount point, too."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    before = walked(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "test", tmp_path / "b"], check=True)
    try:
        (tmp_path / "b/file").write_bytes(b"x" * 100_000)
        assert walked(tmp_path).inodes == before.inodes - 1
        assert walked(tmp_path / "b").inodes == 2
    finally:
        subprocess.run(["umount", tmp_path / "b"], check=True)


def test_a_walk_can_rest_at_each_directory_and_among_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are only empty directories: somebody's container may hold a million of them."""
    monkeypatch.setattr(disk_usage, "_ENTRIES_A_STEP", 10)
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    steps: list[None] = []
    assert walked(tmp_path, lambda: steps.append(None)).inodes == 31
    assert len(steps) == 1 + 3 + 30


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Rather than nothing in it."""
    with pytest.raises(FileNotFoundError):
        walked(tmp_path / "none")


# pace


class Engine:
    """Places of containers, as told by an engine, below a root of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places: dict[str, Place] = {}
        self.asked = 0
        (root / "proc/1").mkdir(parents=True)
        (root / "proc/1/mountinfo").write_text(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /var/lib rw - xfs /dev/sda2 rw\n3 1 8:3 / /var/lib/other rw - xfs /dev/sda3 rw\n"
        )

    def of(self, container_id: str) -> Place | None:
        self.asked += 1
        return self.places.get(container_id)

    def add(self, *, size: int, log: int = 0) -> None:
        layer, home = self.root / "var/lib/docker/overlay2/l1/diff", self.root / f"var/lib/docker/containers/{ID}"
        for directory, name, bytes_ in ((layer, "file", size), (home, "log", log)):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(b"x" * bytes_)
        self.places[ID] = Place("/var/lib/docker/overlay2/l1/diff")


def threads() -> int:
    return sum(thread.name == "disk-usage" for thread in threading.enumerate())


def test_a_container_is_measured_once_an_interval_and_told_once(tmp_path: Path) -> None:
    """From when the engine has said where its files are; below the host's root."""
    clock, engine = FakeClock(), Engine(tmp_path)
    usage = DiskUsage(str(tmp_path), clock, 60, engine.of)
    assert usage.fresh(PATH) == ()
    engine.add(size=MB, log=MB // 2)
    assert usage.fresh(PATH) == ()
    assert engine.asked == 1
    clock.advance(1)
    assert usage.fresh(PATH) == ()
    (first,) = until(lambda: usage.fresh(PATH))
    assert (first.device, first.fstype) == ("/dev/sda2", "xfs")
    assert MB <= first.layer_bytes < 1.1 * MB < 1.5 * MB <= first.usage_bytes
    assert first.inodes_used == 2
    until(lambda: not threads())
    clock.advance(59)
    assert usage.fresh(PATH) == usage.fresh(PATH) == ()
    assert not threads() and engine.asked == 2
    clock.advance(1)
    usage.fresh(PATH)
    assert until(lambda: usage.fresh(PATH)) == (first,)


def test_what_is_not_docker_s_is_never_asked_about(tmp_path: Path) -> None:
    """Nor what has no layer in a directory: that is looked for less and less often."""
    clock, engine = FakeClock(), Engine(tmp_path)
    usage = DiskUsage(str(tmp_path), clock, 60, engine.of)
    for path in ("/a", f"/libpod-{ID}", "/"):
        assert usage.fresh(path) == ()
    assert engine.asked == 0
    engine.places[ID] = Place(pid=12)
    asked = []
    for _ in range(240):
        assert usage.fresh(PATH) == ()
        until(lambda: not threads())
        asked.append(engine.asked)
        clock.advance(60)
    minutes = [minute for minute, (before, now) in enumerate(itertools.pairwise([0, *asked])) if now > before]
    assert minutes[:7] == [0, 2, 6, 14, 30, 50, 70]


def test_long_walks_are_made_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait doubles up to twenty minutes, and is the interval again once a walk is short."""
    clock, engine, walks = FakeClock(), Engine(tmp_path), iter([3.0] * 6 + [0.0] * 2)
    engine.add(size=10)
    measured = disk_usage._measured

    def slow(*arguments: Any) -> Any:
        clock.advance(next(walks))
        return measured(*arguments)

    monkeypatch.setattr(disk_usage, "_measured", slow)
    monkeypatch.setattr(disk_usage, "_RESTS", 0)
    usage = DiskUsage(str(tmp_path), clock, 60, engine.of)
    waits = []
    usage.fresh(PATH)
    for _ in range(7):
        until(lambda: usage.fresh(PATH))
        waited, asked = 0, engine.asked
        while engine.asked == asked:
            clock.advance(10)
            waited += 10
            usage.fresh(PATH)
        waits.append(waited)
    until(lambda: not threads())
    assert waits == [120, 240, 480, 960, 1200, 1200, 60]


def test_a_walk_ends_when_nobody_wants_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its container has ended, or the agent is about to."""
    monkeypatch.setattr(disk_usage, "_WORK_NS", 0)  # rests at each step
    monkeypatch.setattr(disk_usage, "_ENTRIES_A_STEP", 1)
    for end in ("forget", "close"):
        engine, steps = Engine(tmp_path / end), 0
        engine.add(size=1)
        for number in range(300):
            (tmp_path / end / "var/lib/docker/overlay2/l1/diff" / str(number)).mkdir()
        usage = DiskUsage(str(tmp_path / end), SystemClock(), 60, engine.of)

        def rest(*_: object) -> None:
            nonlocal steps
            steps += 1
            if steps == 10:
                usage.forget(PATH) if end == "forget" else usage.close()  # noqa: B023  called within the round

        monkeypatch.setattr(usage._stopping, "wait", rest)
        usage.fresh(PATH)
        until(lambda: not threads())
        assert steps == 10
        assert usage.fresh(PATH) == ()
        usage.close()
        until(lambda: not threads())


# where the files are


def inspected(**fields: Any) -> dict[str, Any]:
    home = f"/var/lib/docker/containers/{ID}"
    return {
        "Id": ID,
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/overlay2/1/diff", "WorkDir": "/w"}},
        "LogPath": f"{home}/{ID}-json.log",
        "HostnamePath": f"{home}/hostname",
        "ResolvConfPath": f"{home}/resolv.conf",
        "State": {"Pid": 7},
        **fields,
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (inspected(), Place("/var/lib/docker/overlay2/1/diff", f"/var/lib/docker/containers/{ID}", 7)),
        (inspected(LogPath=""), Place("/var/lib/docker/overlay2/1/diff", f"/var/lib/docker/containers/{ID}", 7)),
        (
            inspected(GraphDriver={"Name": "vfs", "Data": None}, LogPath="/x/log", HostnamePath="/y/h", ResolvConfPath=""),
            Place(pid=7),
        ),
        (inspected(GraphDriver={"Name": "x", "Data": {"UpperDir": 7}}), Place("", f"/var/lib/docker/containers/{ID}", 7)),
        (inspected(GraphDriver=None), Place("", f"/var/lib/docker/containers/{ID}", 7)),
        (inspected(State="?"), Place()),
        ([], Place()),
    ],
)
def test_the_engine_says_where(answer: Any, expected: Place) -> None:
    """Also when it uses another log driver, another storage driver, or shares another container's network."""
    assert place(answer) == expected


def test_the_layer_is_found_by_the_container_s_own_root(tmp_path: Path) -> None:
    """Where the engine does not say it, as with containerd's snapshots."""
    engine = Engine(tmp_path)
    engine.add(size=MB)
    shutil.move(tmp_path / "var/lib/docker/overlay2/l1/diff", tmp_path / "snapshot")
    (tmp_path / "proc/7").mkdir()
    (tmp_path / "proc/7/mountinfo").write_text(
        "9 1 0:40 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/snapshot,workdir=/w\n10 9 0:41 / /proc rw - proc proc rw\n"
    )
    engine.places[ID] = Place(pid=7)
    usage = DiskUsage(str(tmp_path), SystemClock(), 60, engine.of)
    (found,) = until(lambda: usage.fresh(PATH))
    assert (found.device, found.inodes_used) == ("/dev/sda1", 2)
