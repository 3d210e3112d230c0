"""What all tests share: the real parts as fixtures, small helpers, and the rule that a test leaves nothing behind.

Markers: without one a test is pure (no root, no network beyond this process); `live` needs this machine's real parts;
`v2` runs inside the cgroup v2 guest. A test with both runs on both hosts. Who uses a real part is `live` without saying so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import psutil
import pytest

# One fixture module per real part: `redis_server` and `kafka`, `cgroups`, `docker_engine`.
pytest_plugins = ["tests.support.brokers", "tests.support.cgroups", "tests.support.docker_engine"]

_REAL_FIXTURES: Final = {"cgroups", "docker_engine", "kafka", "redis_server"}
_REAL_PARTS: Final = {"CgroupFolder", "DockerEngine", "KafkaServer", "RedisServer"}  # imported: the whole file is live

_GRACE_SECONDS: Final = 20.0  # threads and children that were told to end need a moment to do it
_CGROUPS: Final = Path("/sys/fs/cgroup")

sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # httpcore looks for it on the whole path at each request

hypothesis.settings.register_profile(
    "streamer",
    deadline=None,  # a slow machine is not a failure
    database=None,  # a failure prints how to repeat it; nothing is kept between runs, and two hosts do not share a folder
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("streamer"), max_examples=10)
hypothesis.settings.load_profile("streamer")


# Nothing left behind


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Descriptors, children and threads are after a live test what they were before it.

    Looked at outside of the test's other fixtures and inside those of the session, which may hold what they like.
    """
    if not (request.node.get_closest_marker("live") or request.node.get_closest_marker("v2")):
        yield
        return
    before = _held()
    yield
    deadline = time.monotonic() + _GRACE_SECONDS
    while left := _held() - before:
        gc.collect()
        if time.monotonic() > deadline:
            pytest.fail("the test left behind: " + ", ".join(sorted(left.elements())), pytrace=False)
        time.sleep(0.02)  # the pace of looking; the deadline is above


def _held() -> Counter[str]:
    held = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # ended while we looked
            held[f"process {child.name()}"] += 1  # by name: a server of the session may have been started anew
    for entry in os.scandir("/proc/self/fd"):
        if entry.name in {"0", "1", "2"}:  # pytest's own to swap
            continue
        with contextlib.suppress(OSError):  # closed while we looked
            target = os.readlink(entry.path)
            if not re.fullmatch(r"/proc/(self|\d+)/fd", target):  # the descriptor of this very listing
                held[f"descriptor {entry.name} {target}"] += 1
    return held


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses real parts, and let every async test fail when tasks that it started are still there at its end."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        marked = item.get_closest_marker("live") or item.get_closest_marker("v2")
        if not marked and (_REAL_FIXTURES & set(item.fixturenames) or _REAL_PARTS & set(vars(item.module))):
            item.add_marker("live")
        if inspect.iscoroutinefunction(item.obj):
            item.obj = _no_task_left(item.obj)


def _no_task_left(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def watched(*arguments: Any, **fixtures: Any) -> None:
        before = asyncio.all_tasks()  # this test, and what its fixtures run
        await test(*arguments, **fixtures)
        for _ in range(20):  # a cancelled task ends within a few turns of the loop
            left = asyncio.all_tasks() - before
            if not left:
                return
            await asyncio.sleep(0)
        names = ", ".join(sorted(f"{task.get_name()} {task.get_coro()}" for task in left))
        pytest.fail(f"the test left tasks running: {names}", pytrace=False)

    return watched


@pytest.fixture(scope="session", autouse=True)
def sweep_cgroups() -> None:
    """Removes the cgroups of test runs that were killed. Only ours, by the run's pid in the name, and only empty ones."""
    for left in {*_CGROUPS.glob("streamer-test-*"), *_CGROUPS.glob("*/streamer-test-*")}:
        match = re.match(r"streamer-test-(\d+)-", left.name)
        if match and not Path("/proc", match[1]).exists():
            for directory, _, _ in os.walk(left, topdown=False):
                with contextlib.suppress(OSError):  # not empty: somebody still runs there
                    Path(directory).rmdir()


# Helpers


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory whose path leaves room for the name of a unix socket (107 bytes in all, unix(7))."""
    directory = Path(tempfile.mkdtemp(prefix="st-"))
    yield directory
    shutil.rmtree(directory)
