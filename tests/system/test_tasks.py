"""What the agent has for each container: nothing that a scheduler knows of."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamer.config import Docker, Http, Settings
from streamer.embed import ContainerManager
from tests.support.cgroups import CgroupFolder


@pytest.mark.live
@pytest.mark.v2
async def test_no_container_has_a_task_or_a_thread(cgroups: CgroupFolder) -> None:
    """As many with twenty cgroups, each sampled twice, as with none, but for what is done with them just now."""
    settings = Settings(state_dir="off", http=Http(listen="off"), docker=Docker(enabled=False))
    async with ContainerManager(settings) as manager:
        before = len(asyncio.all_tasks()), threading.active_count()
        paths = [cgroups.make(f"c{number}") for number in range(20)]
        deadline = asyncio.get_running_loop().time() + 30
        while not all((known := manager.memory.by_path(path)) and len(known.samples) > 1 for path in paths):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    assert tasks <= before[0] + 2
    assert threads <= before[1] + 1
