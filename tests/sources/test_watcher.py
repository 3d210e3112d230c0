"""The watcher on real cgroups: what is told when directories come and go faster than anybody should."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from streamer.clock import SystemClock
from streamer.errors import Unsupported
from streamer.kernel.hierarchy import detect
from streamer.model import observations as o
from streamer.sources.docker_api import nanoseconds
from streamer.sources.unseen import BLIND, OVERFLOWED
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
        deadline = time.monotonic() + 30
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


def test_whose_process_it_is_that_joined(watched: Watched, cgroups: CgroupFolder) -> None:
    """A folder is told of one in a cgroup below without its number; of one of its own with it, also later."""
    cgroups.make("folder")
    cgroups.make("folder/inner")

    def joined(name: str) -> list[int]:
        return [told.pid for told in watched.told if isinstance(told, o.Joined) and told.path == f"{cgroups.path}/{name}"]

    below = cgroups.run("folder/inner", "sleep", "60")
    watched.until(lambda: joined("folder/inner") == [below.pid])
    watched.watcher.scan()
    watched.until(lambda: joined("folder") == [0])
    assert joined("folder/inner") == [below.pid]
    if cgroups.v2:
        return  # there no cgroup has both
    own = cgroups.run("folder", "sleep", "60")
    below.kill()
    below.wait()
    watched.until(lambda: joined("folder") == [0, own.pid])


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
    cgroups.run("family", "sh", "-c", "sleep 600 & sleep 0.1").wait()
    watched.until(lambda: "Joined" in watched.of("family"))
    for _ in range(10):
        watched.watcher.wait(0.05)
    assert "Emptied" not in watched.of("family")
    began_ns = time.time_ns()
    (child,) = cgroups.pids("family")
    os.kill(child, signal.SIGKILL)
    watched.until(lambda: "Emptied" in watched.of("family"))
    (emptied,) = [told for told in watched.told if isinstance(told, o.Emptied)]
    assert emptied.sample.time_ns > began_ns and watched.of("family").count("Joined") == 1


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


# what cannot be seen is declared


class Range(NamedTuple):
    """What a `Lost` covers."""

    first_ns: int
    last_ns: int


def declared(watched: Watched, reason: str = "") -> list[Range]:
    """The times of what was said to be lost."""
    return [
        Range(nanoseconds(lost.first) or 0, nanoseconds(lost.last) or 0)
        for lost in watched.told
        if isinstance(lost, o.Lost) and lost.reason.startswith(reason)
    ]


def unseen(watched: Watched) -> int:
    return sum(lost.count or 0 for lost in watched.told if isinstance(lost, o.Lost))


QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@contextlib.contextmanager
def short_queued(folder: CgroupFolder) -> Iterator[Watched]:
    """A started watcher whose queue holds 16 events: the limit is the one of the moment in which it is made."""
    watched = Watched(folder)
    before = QUEUE.read_text()
    try:
        QUEUE.write_text("16")
        watched.watcher.start()
    finally:
        QUEUE.write_text(before)
    with contextlib.closing(watched.watcher):
        yield watched


def test_everything_that_was_there_is_told_and_then_that_it_is_all(watched: Watched, cgroups: CgroupFolder) -> None:
    """Once, after the last that was there at the start and before anything live."""
    cgroups.make("later")
    watched.until(lambda: "Appeared" in watched.of("later"))
    kinds = [told.found if isinstance(told, o.Appeared) else type(told).__name__ for told in watched.told]
    assert kinds.count("Surveyed") == 1
    at = kinds.index("Surveyed")
    assert "startup" in kinds[:at] and "startup" not in kinds[at:] and "live" not in kinds[:at]


def test_whatever_comes_and_goes_while_the_queue_overflows_is_told_or_lies_in_a_declared_range(cgroups: CgroupFolder) -> None:
    """A queue of 16 events, hundreds of cgroups, some of them made in others, some for good, some of a name used before."""
    lives: list[tuple[str, int, int]] = []  # path, before it was made, after it was removed
    with short_queued(cgroups) as watched:
        cgroups.make("kept")
        watched.until(lambda: "Appeared" in watched.of("kept"))
        for number in range(400):
            began_ns = time.time_ns()
            name = f"c{number % 150}"
            cgroups.make(name)
            cgroups.make(f"{name}/in")
            if number % 20 == 0:
                watched.watcher.wait(0)  # now and then somebody looks
            cgroups.remove(f"{name}/in")
            cgroups.remove(name)
            ended_ns = time.time_ns()
            lives += [(f"{cgroups.path}/{n}", began_ns, ended_ns) for n in (name, f"{name}/in")]
        cgroups.make("new")
        cgroups.make("new/in")
        there = {f"{cgroups.path}/{name}" for name in ("kept", "new", "new/in")}
        watched.until(lambda: "Appeared" in watched.of("new/in") and watched.watcher._overflow_ns == 0)
        assert {path for path in watched.watcher._known if path.startswith(f"{cgroups.path}/")} == there
        cgroups.make("new/in/after")  # what was made during the overflow is watched
        watched.until(lambda: "Appeared" in watched.of("new/in/after"))
    ranges = declared(watched)
    assert declared(watched, OVERFLOWED)
    told: dict[str, list[Range]] = {}
    for seen in watched.told:
        if isinstance(seen, o.Appeared):
            told.setdefault(seen.path, []).append(Range(seen.time_ns, seen.time_ns))
    for path, began_ns, ended_ns in lives:
        covered = any(span.first_ns <= began_ns and ended_ns <= span.last_ns for span in ranges)
        assert covered or any(began_ns <= seen.first_ns <= ended_ns for seen in told.get(path, [])), (path, began_ns, ended_ns)
    for path in told.keys() - there - {cgroups.path, f"{cgroups.path}/new/in/after"}:
        names = [type(seen).__name__ for seen in watched.told if getattr(seen, "path", "") == path]
        assert names.count("Appeared") == names.count("Vanished")


@pytest.mark.parametrize("removed", ["before the flood", "in the flood"])
def test_what_began_before_the_queue_overflowed_and_was_never_told_of_lies_in_the_declared_range(
    removed: str, cgroups: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first event was read when the queue was whole; nobody could look at it any more; its end is told late or lost."""
    with short_queued(cgroups) as watched:
        watched.watcher.wait(0)
        poll = watched.watcher._poll

        def poll_and_flood(timeout: float) -> None:
            poll(timeout)
            if watched.watcher._events:
                monkeypatch.undo()
                for number in range(20):
                    cgroups.make(f"c{number}")
                if removed == "in the flood":
                    cgroups.remove("early")  # its event finds no room

        monkeypatch.setattr(watched.watcher, "_poll", poll_and_flood)
        began_ns = time.time_ns()
        cgroups.make("early")
        if removed == "before the flood":
            cgroups.remove("early")
        watched.until(lambda: watched.watcher.scans > 0 and declared(watched, OVERFLOWED))
        assert not watched.of("early")
        (span,) = declared(watched, OVERFLOWED)
        assert span.first_ns <= began_ns


def test_an_overflow_is_declared_once_after_what_the_comparison_found(cgroups: CgroupFolder) -> None:
    """From the last moment at which the queue was known to be empty; an end that went unseen lies within that time too."""
    with short_queued(cgroups) as watched:
        cgroups.make("gone")
        watched.until(lambda: "Appeared" in watched.of("gone"))
        watched.watcher.wait(0)
        before_ns = time.time_ns()
        for number in range(20):
            cgroups.make(f"c{number}")
        cgroups.remove("gone")
        cgroups.make("gone")  # another one of that name
        watched.until(lambda: watched.watcher.scans > 0 and declared(watched))
        after_ns = time.time_ns()
        (span,) = declared(watched)
        assert before_ns - 10**10 < span.first_ns <= before_ns < span.last_ns <= after_ns
        (vanished,) = [told for told in watched.told if isinstance(told, o.Vanished)]
        assert span.first_ns <= vanished.not_before_ns <= before_ns < vanished.time_ns <= span.last_ns
        assert watched.of("gone").count("Appeared") == 2
        assert isinstance(watched.told[-1], o.Lost)
        cgroups.make("gone/in")  # it has a watch of its own, not that of the first
        watched.until(lambda: "Appeared" in watched.of("gone/in"))
        assert next(told for told in watched.told if isinstance(told, o.Appeared) and told.path.endswith("/in")).found == "live"


def test_totals_that_changed_unseen_are_read_again(cgroups: CgroupFolder) -> None:
    """Somebody joined and ended while events were lost: what was read before was not the last."""
    with short_queued(cgroups) as watched:
        cgroups.make("job")
        watched.until(lambda: "Appeared" in watched.of("job"))
        assert cgroups.run("job", "true").wait() == 0
        watched.until(lambda: "Emptied" in watched.of("job"))
        watched.watcher.wait(0)
        for number in range(20):
            cgroups.make(f"c{number}")
        assert cgroups.run("job", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").wait() == 0
        watched.until(lambda: watched.of("job").count("Emptied") == 2)
        first, second = (told.sample for told in watched.told if isinstance(told, o.Emptied) and told.path.endswith("/job"))
        assert second.time_ns > first.time_ns and second != first


def test_one_that_is_gone_before_anybody_looks_is_declared_once(watched: Watched, cgroups: CgroupFolder) -> None:
    """Though it was in every hierarchy; with the time within which it was."""
    watched.watcher.wait(0)
    began_ns = time.time_ns()
    cgroups.make("brief")
    cgroups.remove("brief")
    ended_ns = time.time_ns()
    watched.until(lambda: unseen(watched))
    cgroups.make("mark")
    watched.until(lambda: "Appeared" in watched.of("mark"))
    (span,) = declared(watched)
    assert unseen(watched) == 1
    assert span.first_ns <= began_ns and ended_ns <= span.last_ns
    assert watched.of("brief") == []


def test_many_that_went_unseen_are_few_declarations(cgroups: CgroupFolder) -> None:
    """One a second at most, and none is left out of the count; the rest is said at the end."""
    with contextlib.closing((watched := Watched(cgroups)).watcher):
        watched.watcher.start()
        for number in range(300):
            cgroups.make(f"c{number}")
            cgroups.remove(f"c{number}")
        cgroups.make("mark")
        watched.until(lambda: "Appeared" in watched.of("mark"))
    assert unseen(watched) + sum(isinstance(told, o.Appeared) and "/c" in told.path for told in watched.told) == 300, [
        t for t in watched.told if not isinstance(t, o.SpecRead)
    ]
    assert len(declared(watched)) < 30


def test_directories_that_cannot_be_watched_are_declared_until_they_can(
    watched: Watched, cgroups: CgroupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No watches are left, then there are some again."""
    add = watched.watcher._inotify.add if watched.watcher._inotify else None
    assert add is not None

    def refuse(path: str, mask: int) -> int:
        if "refused" in path:
            raise Unsupported("no inotify watches are left")
        return add(path, mask)

    monkeypatch.setattr(watched.watcher._inotify, "add", refuse)
    cgroups.make("refused")
    watched.until(lambda: any(isinstance(told, o.Degraded) for told in watched.told))
    began_ns = time.time_ns()
    cgroups.make("refused/in")
    cgroups.remove("refused/in")
    ended_ns = time.time_ns()
    watched.watcher.scan()
    assert declared(watched) == []
    monkeypatch.setattr(watched.watcher._inotify, "add", add)
    watched.watcher.scan()
    (span,) = declared(watched, BLIND)
    assert span.first_ns <= began_ns and ended_ns <= span.last_ns
    assert watched.watcher.blind == ""
    assert [type(told) for told in watched.told if isinstance(told, o.Degraded | o.Recovered)][-2:] == [o.Degraded, o.Recovered]
