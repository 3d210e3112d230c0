"""An inotify queue that is too short: only where the limit is this kernel's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent
from tests.support.cgroups import CgroupFolder

pytestmark = pytest.mark.v2

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def test_an_overflow_is_declared_and_repaired_by_a_scan(cgroups: CgroupFolder) -> None:
    """More events at once than the queue holds: a gap without a count, and every cgroup that is there is known."""
    before = QUEUE.read_text()
    QUEUE.write_text("16")
    try:
        with Agent("--listen", "off", environment={"STREAMER_DOCKER__ENABLED": "false"}) as agent:
            agent.ready()

            def overflows() -> list[dict[str, Any]]:  # beside others: what was gone before anybody looked
                return [gap for gap in agent.said(kind="gap", component="source.cgroup") if "overflow" in gap["reason"]]

            for _ in range(20):
                for number in range(100):
                    cgroups.make(f"c{number}")
                if overflows():
                    break
                for number in range(100):
                    cgroups.remove(f"c{number}")
            (gap, *_) = agent.until(overflows, "no overflow was said")
            assert "gap_count" not in gap
            there = {f"{cgroups.path}/c{number}" for number in range(100)}
            agent.until(lambda: there <= {line["container_id"] for line in agent.said(event="created")}, "not all were found")
            assert agent.stop() == 0
    finally:
        QUEUE.write_text(before)
