"""The sampler on this machine's cgroups: what it adds to what the files of a cgroup tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from functools import partial
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.contracts import Look
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.sources.cgroup import CgroupSampler
from streamer.sources.filesystems import Filesystems
from streamer.sources.hardware import network_devices
from streamer.telemetry import Telemetry
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live, pytest.mark.v2]


@pytest.fixture
def host() -> Hierarchies:
    return detect(Path("/"))


def sampler_of(host: Hierarchies) -> CgroupSampler:
    clock = SystemClock()
    return CgroupSampler(
        host, host_root="/", clock=clock, telemetry=Telemetry(), descriptors=1000, network=True, filesystems=Filesystems("/", clock)
    )


def look_at(host: Hierarchies, path: str, pid: int = 0) -> Look:
    return Look(path, host.anchor, os.stat(host.directory(host.anchor, path)).st_ino, pid)


async def test_root_has_the_network_and_the_file_systems_of_the_host(host: Hierarchies) -> None:
    """Whatever process of its was seen; another cgroup of the host's network has none of it."""
    expected = [usage.mountpoint for usage in Filesystems("/", SystemClock()).measure()]
    with contextlib.closing(sampler_of(host)) as sampler:
        deadline = time.monotonic() + 20
        while True:
            (told,) = await sampler.read([look_at(host, "/", os.getpid())])
            if [usage.mountpoint for usage in told.sample.filesystems] == expected:
                break
            assert time.monotonic() < deadline, told
            await asyncio.sleep(0.01)
        assert {interface.name for interface in told.sample.interfaces} == {device.name for device in network_devices(Path("/"))}
        assert told.sample.get("memory_usage_bytes") > 0


async def test_a_cgroup_in_the_host_s_network_has_none_of_its_own(host: Hierarchies, cgroups: CgroupFolder) -> None:
    """Nor file systems."""
    process = cgroups.run("a", "sleep", "60") if cgroups.make("a") else None
    assert process is not None
    with contextlib.closing(sampler_of(host)) as sampler:
        (told,) = await sampler.read([look_at(host, f"{cgroups.path}/a", process.pid)])
    assert (told.sample.interfaces, told.sample.filesystems) == ((), ())


async def test_what_is_held_on_processes_is_not_held_on_files(host: Hierarchies, cgroups: CgroupFolder) -> None:
    """Of the descriptors that there are, those for which there is no other way come first, and are given back when it has passed."""
    cgroups.make("a")
    followed = 0
    with contextlib.closing(sampler_of(host)) as sampler:
        sampler.share_with(lambda: followed, lambda: 0)
        before = len(os.listdir("/proc/self/fd"))
        for followed in (0, 100_000, 0):
            (told,) = await sampler.read([look_at(host, f"{cgroups.path}/a")])
            assert told.sample.get("cpu_usage_ns") == 0
            assert (len(os.listdir("/proc/self/fd")) > before) == (followed == 0)


async def test_facts_have_their_turn_while_samples_are_read(
    host: Hierarchies, cgroups: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When something happens nothing is read for a moment; where it does all the time, everything is read all the same."""
    for name in "abcdefghijkl":
        cgroups.make(name)
    looks = [look_at(host, f"{cgroups.path}/{name}") for name in "abcdefghijkl"]
    waits: list[float] = []
    with contextlib.closing(sampler_of(host)) as sampler:
        monkeypatch.setattr(sampler._closing, "wait", waits.append)
        for stirs, expected in (([0] * 20, 0), ([0] * 5 + [1] * 20, 1), (list(range(40)), 10)):
            sampler.share_with(lambda: 0, partial(next, iter(stirs)))
            waits.clear()
            assert len(await sampler.read(looks)) == len(looks)
            assert len(waits) == expected
