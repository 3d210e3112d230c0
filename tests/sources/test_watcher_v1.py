"""Cgroup v1: containers that are in some hierarchies only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.model import observations as o
from streamer.sources.watcher import Watcher
from tests.support.cgroups import CgroupFolder


@pytest.fixture
def hierarchies() -> Hierarchies:
    """Of this host, which has several."""
    found = detect(Path("/"))
    assert len(found.watched) > 1
    return found


class Told:
    """A started watcher, and what it told."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self.all: list[o.Observation] = []
        self.watcher = Watcher(hierarchies, scope="containers", clock=SystemClock(), emit=self.all.append)
        self.watcher.start()
        self.watcher.wait(0)

    def settle(self) -> None:
        """Deal with everything, timers included, and end: what was not said yet is said now."""
        deadline, rounds = time.monotonic() + 0.2, 0
        while rounds < 20 or time.monotonic() < deadline:
            self.watcher.wait(0.01)
            rounds += 1
        self.watcher.close()

    def lost(self, word: str) -> list[o.Lost]:
        return [told for told in self.all if isinstance(told, o.Lost) and word in told.reason]

    def of(self, path: str) -> list[str]:
        return [type(told).__name__ for told in self.all if getattr(told, "path", "") == path]


@pytest.fixture
def folder(cgroups: CgroupFolder) -> Iterator[CgroupFolder]:
    with contextlib.closing(cgroups):
        yield cgroups


def directory(hierarchies: Hierarchies, hierarchy: str, path: str) -> Path:
    return Path(hierarchies.directory(hierarchy, path))


def test_one_that_is_in_another_hierarchy_only_and_gone_at_once_is_declared(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """Before it was clear that it would not appear in the first."""
    told = Told(hierarchies)
    path = f"{folder.path}/brief"
    elsewhere = directory(hierarchies, hierarchies.watched[1], path)
    elsewhere.mkdir()
    told.watcher.wait(0)
    elsewhere.rmdir()
    told.settle()
    (lost,) = told.lost(path)
    assert lost.count == 1
    assert told.of(path) == []


def test_one_that_is_told_through_the_first_is_not_declared_for_the_others(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """In whatever order its directories go."""
    told = Told(hierarchies)
    for name, order in (("up", 1), ("down", -1)):
        folder.make(name)
        for _ in range(3):
            told.watcher.wait(0)
        for hierarchy in hierarchies.watched[::order]:
            directory(hierarchies, hierarchy, f"{folder.path}/{name}").rmdir()
        told.watcher.wait(0)
    told.settle()
    for name in ("up", "down"):
        assert told.of(f"{folder.path}/{name}")[0] == "Appeared" and told.of(f"{folder.path}/{name}")[-1] == "Vanished"
        assert told.lost(f"{folder.path}/{name}") == []


def test_a_runtime_s_container_counts_in_the_first_hierarchy_alone(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """One that was gone at once is one, not one for each."""
    told = Told(hierarchies)
    path = f"{folder.path}/{'a' * 64}"
    for hierarchy in hierarchies.watched:
        directory(hierarchies, hierarchy, path).mkdir()
    for hierarchy in hierarchies.watched:
        directory(hierarchies, hierarchy, path).rmdir()
    told.settle()
    assert sum(lost.count or 0 for lost in told.lost(path)) == 1


def test_one_that_is_in_another_hierarchy_only_and_stays_is_told(hierarchies: Hierarchies, folder: CgroupFolder) -> None:
    """A moment later, with that one's identity; its end too."""
    told = Told(hierarchies)
    path = f"{folder.path}/odd"
    elsewhere = directory(hierarchies, hierarchies.watched[1], path)
    elsewhere.mkdir()
    deadline = time.monotonic() + 10
    while not told.of(path):
        assert time.monotonic() < deadline
        told.watcher.wait(0.01)
    elsewhere.rmdir()
    told.settle()
    appeared = next(seen for seen in told.all if isinstance(seen, o.Appeared) and seen.path == path)
    assert appeared.hierarchy == hierarchies.watched[1]
    assert told.of(path)[-1] == "Vanished"
    assert told.lost(path) == []
