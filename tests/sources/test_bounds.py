"""Lists that are too long for a message: they are cut, and that is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.contracts import Look
from streamer.kernel.hierarchy import Hierarchies
from streamer.model import observations as o
from streamer.sources import cgroup, machine
from streamer.sources.bounds import Bounds
from streamer.sources.cgroup import CgroupSampler
from streamer.sources.filesystems import Filesystems
from streamer.sources.machine import MachineSource
from streamer.telemetry import Telemetry


def io_stat(devices: int) -> str:
    return "".join(f"8:{n} rbytes={n} wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n" for n in range(1, devices + 1))


async def test_block_devices_beyond_the_bound_are_counted_in_the_totals_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with the lowest numbers are listed, how many are not is known until they fit, or their cgroup ends."""
    monkeypatch.setattr(cgroup, "MOST", 2)
    directory = tmp_path / "cgroup/a"
    directory.mkdir(parents=True)
    clock, bounds = SystemClock(), Bounds()
    hierarchies = Hierarchies("v2", {"unified": str(tmp_path / "cgroup")}, ("unified",))
    look = Look("/a", "unified", os.stat(directory).st_ino, 0)
    sampler = CgroupSampler(
        hierarchies, host_root="/", clock=clock, telemetry=Telemetry(), descriptors=100, network=False,
        filesystems=Filesystems(str(tmp_path), clock), bounds=bounds,
    )  # fmt: skip
    with contextlib.closing(sampler):
        (directory / "io.stat").write_text(io_stat(5))
        for _ in range(2):
            (told,) = await sampler.read([look])
            assert [device.minor for device in told.sample.devices] == [1, 2]
            assert told.sample.get("io_read_bytes") == 1 + 2 + 3 + 4 + 5
            assert bounds.beyond() == {"io_devices": 3}
        (directory / "io.stat").write_text(io_stat(2))
        (told,) = await sampler.read([look])
        assert (len(told.sample.devices), bounds.beyond()) == (2, {})
        (directory / "io.stat").write_text(io_stat(3))
        await sampler.read([look])
        sampler.forget("/a")
        await sampler.read([])
        assert bounds.beyond() == {}


async def test_it_is_said_until_all_is_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, whatever the numbers do, which the metric tells; again when another list is cut too."""
    monkeypatch.setattr(machine, "_LOOK_SECONDS", 0.001)
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b")
    clock, bounds, telemetry = SystemClock(), Bounds(), Telemetry()
    source = MachineSource(str(tmp_path), "v1", clock, Filesystems(str(tmp_path), clock), None, bounds, telemetry)
    heard: list[o.Observation] = []

    async def until_left_out(**expected: int) -> None:
        deadline = time.monotonic() + 20
        while dict(telemetry_left_out(telemetry)) != expected:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)

    bounds.note("io_devices", "/", 3)
    task = asyncio.create_task(source.run(heard.append))
    await until_left_out(io_devices=3)
    assert (source.status().state, telemetry.value("streamer_source_up", "source.machine")) == ("degraded", 0)
    bounds.note("io_devices", "/", 4)
    bounds.note("io_devices", "/a", 1)
    await until_left_out(io_devices=5)
    bounds.note("filesystems", "/", 7)
    await until_left_out(filesystems=7, io_devices=5)
    for what, path in (("io_devices", "/"), ("io_devices", "/a"), ("filesystems", "/")):
        bounds.note(what, path, 0)
    await until_left_out()
    assert (source.status().state, telemetry.value("streamer_source_up", "source.machine")) == ("ok", 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    said = [(one.reason if isinstance(one, o.Degraded) else "") for one in heard if not isinstance(one, o.HostDescribed)]
    assert [reason.rpartition(": ")[2] for reason in said if reason] == ["io_devices", "filesystems, io_devices"]
    assert said[-1] == ""


def telemetry_left_out(telemetry: Telemetry) -> list[tuple[str, float]]:
    return [
        (labels[0], value)
        for metric, series in telemetry.snapshot()
        if metric.name == "streamer_left_out"
        for labels, value in series.items()
    ]
