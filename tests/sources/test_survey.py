"""The first look at what is there, on trees of directories."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.model import observations as o
from streamer.sources.cgroup import CgroupSource
from streamer.sources.processes import children
from streamer.telemetry import Telemetry
from tests.support.cgroups import CgroupFolder


def tree(root: Path) -> Hierarchies:
    return Hierarchies("v2", {"unified": str(root)}, ("unified",))


def test_children_are_directories_right_below(tmp_path: Path) -> None:
    """Files and what is further below are none; who has gone has none."""
    assert children(tree(tmp_path), "unified", "/") == []
    (tmp_path / "cgroup.procs").touch()
    assert children(tree(tmp_path), "unified", "/") == []
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert children(tree(tmp_path), "unified", "/") == ["/a"]
    assert children(tree(tmp_path), "unified", "/a") == ["/a/b"]
    assert children(tree(tmp_path), "unified", "/a/b/c") == []
    assert children(tree(tmp_path), "unified", "/gone") == []
    assert children(tree(tmp_path), "unified", "/cgroup.procs") == []


@pytest.mark.live
@pytest.mark.v2
def test_children_of_cgroups_as_they_come_and_go(cgroups: CgroupFolder) -> None:
    """The kernel counts them among a directory's links at once."""
    hierarchies = detect(Path("/"))
    cgroups.make("above")
    for _ in range(3):
        assert children(hierarchies, hierarchies.anchor, f"{cgroups.path}/above") == []
        cgroups.make("above/below")
        assert children(hierarchies, hierarchies.anchor, f"{cgroups.path}/above") == [f"{cgroups.path}/above/below"]
        cgroups.remove("above/below")


@pytest.mark.parametrize("count", [0, 3, 1005, 2500])
async def test_all_that_was_there_is_told_before_it_is_ready(count: int, tmp_path: Path) -> None:
    """However many; and what is made later is told one by one."""
    for number in range(count):
        (tmp_path / f"c{number}").mkdir()
    told: list[o.Observation] = []
    source = CgroupSource(tree(tmp_path), scope="containers", clock=SystemClock(), telemetry=Telemetry(), rescan_seconds=60)
    running = asyncio.create_task(source.run(told.append))
    async with asyncio.timeout(30):
        await source.wait_ready()
        there = {seen.path for seen in told if isinstance(seen, o.Appeared)}
        assert there == {f"/c{number}" for number in range(count)}
        assert sum(isinstance(seen, o.Surveyed) for seen in told) == 1
        (tmp_path / "late").mkdir()
        while not any(isinstance(seen, o.Appeared) and seen.path == "/late" for seen in told):
            await asyncio.sleep(0.005)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
