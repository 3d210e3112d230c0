"""The watcher on real cgroups: what is told when directories come and go faster than anybody should."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.clock import SystemClock
from streamer.kernel.hierarchy import detect
from streamer.model import observations as o
from streamer.sources.watcher import Watcher
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live, pytest.mark.v2]


class Watched:
    """A watcher driven by hand; `told` is everything it said of one folder."""

    def __init__(self, folder: CgroupFolder) -> None:
        self.folder = folder
        self.told: list[o.Observation] = []
        self.watcher = Watcher(detect(Path("/")), scope="containers", clock=SystemClock(), emit=self._hear)

    def _hear(self, observation: o.Observation) -> None:
        if getattr(observation, "path", self.folder.path).startswith(self.folder.path):
            self.told.append(observation)

    def of(self, name: str) -> list[str]:
        """What was told of a cgroup, as the names of the observations."""
        path = f"{self.folder.path}/{name}"
        return [type(told).__name__ for told in self.told if getattr(told, "path", "") == path]

    def until(self, condition: Callable[[], bool]) -> None:
        """Let it work until something is so."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.told
            self.watcher.wait(0.05)


@pytest.fixture
def watched(cgroups: CgroupFolder) -> Iterator[Watched]:
    with contextlib.closing((watched := Watched(cgroups)).watcher):
        watched.watcher.start()
        yield watched


def test_what_was_made_and_removed_before_anybody_looked_is_told_all_the_same(watched: Watched, cgroups: CgroupFolder) -> None:
    """Several of one name in a row: each is an identity of its own, told in order, or declared when it has none."""
    cgroups.make("quick")
    watched.until(lambda: "Appeared" in watched.of("quick"))
    for _ in range(3):
        cgroups.remove("quick")
        cgroups.make("quick")
    watched.until(
        lambda: len({told.inode for told in watched.told if isinstance(told, o.Appeared) and told.path.endswith("/quick")}) >= 2
    )
    life = [name for name in watched.of("quick") if name in ("Appeared", "Vanished")]
    assert life[::2] == ["Appeared"] * len(life[::2]) and life[1::2] == ["Vanished"] * len(life[1::2])
    lost = sum(told.count or 0 for told in watched.told if isinstance(told, o.Lost))
    assert life.count("Appeared") + lost >= 2  # those that shared a name within one look are one identity at most


def test_directories_made_below_a_new_one_are_seen_though_it_was_not_watched_yet(watched: Watched, cgroups: CgroupFolder) -> None:
    """A tree made at once, deeper than the events that are queued for it."""
    for name in ("a", "a/b", "a/b/c", "a/b/c/d"):
        cgroups.make(name)
    watched.until(lambda: all(watched.of(name).count("Appeared") == 1 for name in ("a", "a/b", "a/b/c", "a/b/c/d")))
    assert all(told.found == "live" for told in watched.told if isinstance(told, o.Appeared) and told.path != cgroups.path)


def test_the_end_of_the_last_process_is_seen_once_and_a_newcomer_takes_it_back(watched: Watched, cgroups: CgroupFolder) -> None:
    """Emptied when nobody is left; Joined when somebody comes again, and Emptied once more."""
    cgroups.make("job")
    watched.until(lambda: "Appeared" in watched.of("job"))
    for count in (1, 2):
        assert cgroups.run("job", "true").wait() == 0
        watched.until(lambda count=count: watched.of("job").count("Emptied") == count)
    told = [name for name in watched.of("job") if name in ("Joined", "Emptied")]
    assert told[-1] == "Emptied" and told.count("Emptied") == 2  # the process may be gone before it can be told of


def test_children_that_outlive_their_parent_are_followed_to_the_last(watched: Watched, cgroups: CgroupFolder) -> None:
    """A process that leaves a child behind does not empty its cgroup."""
    cgroups.make("family")
    cgroups.run("family", "sh", "-c", "sleep 1 & sleep 0.1").wait()
    watched.until(lambda: "Emptied" in watched.of("family"))
    (emptied,) = [told for told in watched.told if isinstance(told, o.Emptied)]
    (joined,) = [told for told in watched.told if isinstance(told, o.Joined)]
    assert emptied.sample.time_ns - joined.time_ns > 500_000_000


def test_a_scan_tells_what_was_missed_as_reconciled(watched: Watched, cgroups: CgroupFolder) -> None:
    """With its watches taken away, the watcher repairs itself by comparing the tree."""
    cgroups.make("gone")
    watched.until(lambda: "Appeared" in watched.of("gone"))
    assert watched.watcher._inotify is not None
    for descriptor in list(watched.watcher._watches):
        watched.watcher._inotify.remove(descriptor)
    cgroups.make("missed")
    cgroups.remove("gone")
    watched.watcher.scan()
    (vanished,) = [told for told in watched.told if isinstance(told, o.Vanished)]
    found = {told.path: told.found for told in watched.told if isinstance(told, o.Appeared)}
    assert found[f"{cgroups.path}/missed"] == "reconciled"
    assert 0 < vanished.not_before_ns <= vanished.time_ns
