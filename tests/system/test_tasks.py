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
    """As many with twenty cgroups, each sampled twice, as with one, but for what is done with them just now."""
    settings = Settings(state_dir="off", http=Http(listen="off"), docker=Docker(enabled=False))
    async with ContainerManager(settings) as manager:

        async def sampled(*names: str) -> tuple[int, int]:
            paths = [cgroups.make(name) for name in names]
            async with asyncio.timeout(60):
                while not all((known := manager.memory.by_path(path)) and len(known.samples) > 1 for path in paths):
                    await asyncio.sleep(0.05)
            return len(asyncio.all_tasks()), threading.active_count()

        before = await sampled("first")
        tasks, threads = await sampled(*(f"c{number}" for number in range(20)))
    assert tasks <= before[0] + 2
    assert threads <= before[1] + 1
