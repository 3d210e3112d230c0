"""Cgroup v1: the kernel's notice that a cgroup is out of memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.model import observations as o
from streamer.sources.cgroup import CgroupSource
from streamer.sources.oom_notices import OomNotices
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock
from tests.support.cgroups import CgroupFolder

LIMIT_BYTES = 4 << 20
SECONDS = 20


@pytest.fixture
def hierarchies() -> Hierarchies:
    """Of this host, which is v1."""
    found = detect(Path("/"))
    assert found.mode != "v2"
    return found


@pytest.fixture
def folder(cgroups: CgroupFolder) -> Iterator[CgroupFolder]:
    with contextlib.closing(cgroups):
        yield cgroups


def _comes(notices: OomNotices, seconds: float) -> bool:
    return bool(select.select([notices.fd], [], [], seconds)[0])


def test_a_kill_is_given_notice_of_and_so_is_one_by_the_limit_above(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """Once it is taken, none is left."""
    with contextlib.closing(OomNotices(hierarchies, SystemClock())) as notices:
        notices.ask(folder.make("limited", memory_limit_bytes=LIMIT_BYTES))
        folder.make("above", memory_limit_bytes=LIMIT_BYTES)
        notices.ask(folder.make("above/below"))
        assert not _comes(notices, 0)
        for name in ("limited", "above/below"):
            assert folder.run(name, "tail", "/dev/zero").wait(SECONDS) == -9
            assert _comes(notices, 0), name
            assert notices.take()
            assert not _comes(notices, 0)


def test_where_nothing_can_be_had_nothing_is_said(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """A cgroup that has gone, the root, v2; no descriptor is left behind."""
    before = len(os.listdir("/proc/self/fd"))
    for where in (hierarchies, Hierarchies("v2", {"unified": "/sys/fs/cgroup/memory"}, ("unified",))):
        with contextlib.closing(OomNotices(where, SystemClock())) as notices:
            notices.ask(f"{folder.path}/gone")
            notices.ask("/")
            assert not notices.take()
            assert not _comes(notices, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_removal_s_notice_is_told_from_a_kill_s(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """By its number. One that comes long after is taken for a kill's."""
    clock = FakeClock(monotonic_ns=SECONDS * 1_000_000_000)
    with contextlib.closing(OomNotices(hierarchies, clock)) as notices:
        for name in ("gone", "too", "late", "killed"):
            notices.ask(folder.make(name, memory_limit_bytes=LIMIT_BYTES))
        for name in ("gone", "too"):
            folder.remove(name)
            notices.removed(f"{folder.path}/{name}")
        assert _comes(notices, SECONDS)
        while notices._removed and _comes(notices, SECONDS):  # the kernel tells of each removal when it gets to it
            notices.take()
        assert not notices._removed
        assert folder.run("killed", "tail", "/dev/zero").wait(SECONDS) == -9
        assert notices.take()
        notices.removed(f"{folder.path}/late")
        clock.advance(1)
        folder.remove("late")
        assert _comes(notices, SECONDS)
        assert notices.take()
        notices.removed(f"{folder.path}/never asked for")
        assert not notices._removed


async def test_who_waits_for_kills_hears_of_each_container_s(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """Of those that are there at the start, and of those that come."""
    heard: list[str] = []
    noticed = asyncio.Event()
    old = folder.make("old", memory_limit_bytes=LIMIT_BYTES)

    def emit(observation: o.Observation) -> None:
        if isinstance(observation, o.Appeared):
            heard.append(observation.path)

    source = CgroupSource(
        hierarchies, scope="all", clock=SystemClock(), telemetry=Telemetry(), rescan_seconds=60, on_oom=noticed.set
    )
    task = asyncio.create_task(source.run(emit))
    try:
        async with asyncio.timeout(SECONDS):
            await source.wait_ready()
            new = folder.make("new", memory_limit_bytes=LIMIT_BYTES)
            while new not in heard:
                await asyncio.sleep(0.002)
            for path in (old, new):
                noticed.clear()
                folder.run(path.rpartition("/")[2], "tail", "/dev/zero")
                await noticed.wait()
        assert {old, new} <= set(heard) and noticed.is_set()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_hears_of_a_container_has_his_turn_before_notice_is_asked_for(
    hierarchies: Hierarchies, folder: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking is half a dozen system calls."""
    done: list[str] = []
    path = folder.make("one")
    loop = asyncio.get_running_loop()

    def emit(observation: o.Observation) -> None:
        if isinstance(observation, o.Appeared) and observation.path == path:
            loop.call_soon(done.append, "heard")

    def ask(notices: OomNotices, asked: str) -> None:
        if asked == path:
            done.append("asked")

    monkeypatch.setattr(OomNotices, "ask", ask)
    source = CgroupSource(
        hierarchies, scope="all", clock=SystemClock(), telemetry=Telemetry(), rescan_seconds=60, on_oom=lambda: None
    )
    task = asyncio.create_task(source.run(emit))
    try:
        async with asyncio.timeout(SECONDS):
            while len(done) < 2:
                await asyncio.sleep(0.002)
        assert done == ["heard", "asked"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_has_ended_asks_for_nothing(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """Its number may be another descriptor's by then."""
    notices = OomNotices(hierarchies, SystemClock())
    notices.close()
    other = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        assert other == notices.fd
        notices.ask(folder.make("limited", memory_limit_bytes=LIMIT_BYTES))
        folder.remove("limited")
        assert not select.select([other], [], [], 0.2)[0]
    finally:
        os.close(other)


async def test_a_removal_heard_of_in_the_turn_of_its_own_notice_is_none_of_memory(
    hierarchies: Hierarchies, folder: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that was busy finds both: the end of the directory, and the kernel's notice of it."""
    alarms = 0
    heard: list[o.Observation] = []
    given: list[OomNotices] = []
    listen = CgroupSource._listen

    def listening(source: CgroupSource, loop: asyncio.AbstractEventLoop) -> OomNotices | None:
        notices = listen(source, loop)
        assert notices is not None
        given.append(notices)
        return notices

    def alarm() -> None:
        nonlocal alarms
        alarms += 1

    monkeypatch.setattr(CgroupSource, "_listen", listening)
    source = CgroupSource(hierarchies, scope="all", clock=SystemClock(), telemetry=Telemetry(), rescan_seconds=60, on_oom=alarm)
    task = asyncio.create_task(source.run(heard.append))
    try:
        async with asyncio.timeout(SECONDS):
            await source.wait_ready()
            path = folder.make("short")
            while path not in given[0]._asked:
                await asyncio.sleep(0.002)
            folder.remove("short")
            while not any(isinstance(each, o.Vanished) and each.path == path for each in tuple(source._seen)):
                time.sleep(0.001)
            assert _comes(given[0], SECONDS)
            while not any(isinstance(each, o.Vanished) and each.path == path for each in heard):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not given[0]._removed
        assert alarms == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_that_is_made_anew_before_it_is_asked_for_is_asked_for_once(
    hierarchies: Hierarchies, folder: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice would be two notices of each kill, and of its end, of which one is expected."""
    asked: list[str] = []
    heard: list[o.Observation] = []
    monkeypatch.setattr(OomNotices, "ask", lambda _, path: asked.append(path))
    source = CgroupSource(
        hierarchies, scope="all", clock=SystemClock(), telemetry=Telemetry(), rescan_seconds=60, on_oom=lambda: None
    )
    task = asyncio.create_task(source.run(heard.append))
    try:
        async with asyncio.timeout(SECONDS):
            await source.wait_ready()
            path = f"{folder.path}/short"

            def times(kind: type[o.Appeared | o.Vanished], seen: Iterable[o.Observation]) -> int:
                return sum(isinstance(each, kind) and each.path == path for each in tuple(seen))

            for turn in (1, 2):
                folder.make("short")
                while times(o.Appeared, source._seen) < turn:
                    time.sleep(0.001)
                folder.remove("short")
                while times(o.Vanished, source._seen) < turn:
                    time.sleep(0.001)
            folder.make("short")
            while times(o.Appeared, heard) < 3:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0)
        assert asked.count(path) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
