"""The guest is what the tests on cgroup v2 take it for."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.support.cgroups import CgroupFolder

pytestmark = pytest.mark.v2

ROOT = Path("/sys/fs/cgroup")


def test_every_controller_is_there_and_handed_down() -> None:
    """One hierarchy with the four controllers that the agent reads."""
    assert {"cpu", "io", "memory", "pids"} <= set((ROOT / "cgroup.controllers").read_text().split())
    assert {"cpu", "io", "memory", "pids"} <= set((ROOT / "cgroup.subtree_control").read_text().split())


def test_the_kernel_kills_at_the_limit_and_says_so(cgroups: CgroupFolder) -> None:
    """A process over memory.max is killed; the kernel log names both cgroups, memory.events counts it."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(log, 0, os.SEEK_END)
        path = cgroups.make("greedy", memory_limit_bytes=20 << 20)
        process = cgroups.run("greedy", "tail", "/dev/zero")
        assert process.wait() == -signal.SIGKILL
        expected = f"oom_memcg={path},task_memcg={path},task=tail,pid={process.pid},"
        assert any(expected in record for record in until(log, expected))
    finally:
        os.close(log)
    events = dict(line.split() for line in (ROOT / path[1:] / "memory.events").read_text().splitlines())
    assert events["oom_kill"] == "1"


def until(log: int, expected: str) -> list[str]:
    """The records of the kernel log up to the expected one, which comes within a minute."""
    records: list[str] = []
    deadline = time.monotonic() + 60
    while not any(expected in record for record in records):
        assert select.select([log], [], [], max(0.0, deadline - time.monotonic()))[0], f"{expected} not within a minute: {records}"
        records.append(os.read(log, 8192).decode())
    return records


def test_writing_to_the_scratch_disk_is_accounted(cgroups: CgroupFolder) -> None:
    """Direct writes to the guest's own block device show in io.stat."""
    path = cgroups.make("writer")
    disk = os.environ["GUEST_DISK"]
    command = ("dd", "if=/dev/zero", f"of={disk}", "bs=64k", "count=16", "oflag=direct", "status=none")
    assert cgroups.run("writer", *command).wait() == 0
    assert "wbytes=1048576" in (ROOT / path[1:] / "io.stat").read_text()
