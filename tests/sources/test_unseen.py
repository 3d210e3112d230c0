"""What went past the watcher: counted once, whatever the order of events, and said in few words."""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from streamer.model.observations import Lost
from streamer.sources.unseen import Lives, Unseen

NS: Final = 1_000_000_000
ANCHOR: Final = "memory"


class Life(NamedTuple):
    """One cgroup of a name: where it is made, in this order; where it is removed, in that; whether it could be looked at."""

    made: list[str]
    removed: list[str]
    looked_at: bool


@st.composite
def lives(draw: st.DrawFn) -> Life:
    made = draw(st.lists(st.sampled_from([ANCHOR, "cpu", "pids"]), min_size=1, unique=True))
    return Life(made, draw(st.permutations(made)), draw(st.booleans()))


@given(st.lists(lives(), max_size=8))
def test_every_life_is_told_of_or_declared_and_never_both(history: list[Life]) -> None:
    """In one hierarchy or several, removed in any order, again and again under one name."""
    counting = Lives()
    time_ns = 1
    for life in history:
        known = False
        since_ns = time_ns
        for hierarchy in life.made:
            time_ns += 1
            counting.made("/x", hierarchy, since_ns, known=known)
            if life.looked_at and not known:
                counting.told("/x")
                known = True
        identity = ANCHOR if ANCHOR in life.made else life.made[0]
        declared = []
        for hierarchy in life.removed:
            time_ns += 1
            ends = known and hierarchy == identity
            untold_ns = counting.untold_ns
            declared.append(counting.removed("/x", hierarchy, time_ns, ends=ends, stands=False, known=known))
            assert not declared[-1] or untold_ns == declared[-1]
            known = known and not ends
        assert sum(map(bool, declared)) == (0 if life.looked_at else 1)
        assert all(began <= since_ns for began in declared if began)
        assert len(counting) == 0


def test_one_of_a_name_that_was_looked_at_ahead_of_its_events_hides_none_before_it() -> None:
    """When the first event was dealt with, the third directory stood there."""
    counting = Lives()
    counting.made("/x", ANCHOR, 5, known=False)
    counting.told("/x")  # it is the third that was seen
    began = []
    for since_ns, stands in ((6, True), (8, True), (10, False)):
        began.append(counting.removed("/x", ANCHOR, since_ns, ends=not stands, stands=stands, known=True))
        counting.made("/x", ANCHOR, since_ns + 1, known=True)
    assert began == [5, 7, 0]


def test_a_removal_that_nothing_is_known_of_is_one_that_went_unseen() -> None:
    """It was made before its parent was watched and removed before that was listed; not so what is told of."""
    counting = Lives()
    assert counting.removed("/x", ANCHOR, 7, ends=False, stands=False, known=False) == 7
    assert counting.removed("/x", ANCHOR, 7, ends=True, stands=False, known=True) == 0
    assert counting.removed("/x", ANCHOR, 7, ends=False, stands=True, known=True) == 7


def test_what_may_have_been_removed_unseen_is_forgotten() -> None:
    """But for what is known to be there."""
    counting = Lives()
    for path, since_ns in (("/told", 1), ("/a", 2), ("/b", 3)):
        counting.made(path, ANCHOR, since_ns, known=False)
    counting.told("/told")
    assert counting.forget(but={"/b"}) == 2  # what may be missing began then
    assert len(counting) == 1
    assert counting.untold_ns == 3
    assert counting.removed("/b", ANCHOR, 5, ends=False, stands=False, known=False) == 3
    assert counting.untold_ns == counting.forget() > time.time_ns()  # there is none


def test_the_first_is_said_at_once_and_the_others_once_a_second() -> None:
    """With how many they were, when, and the first few names."""
    unseen = Unseen("source.cgroup")
    assert unseen.due_s == math.inf
    unseen.cgroup("/a", 1 * NS, 2 * NS, 10.0)
    assert unseen.due_s == 10.0
    assert unseen.take(2 * NS, 10.0) == [
        Lost(
            "source.cgroup", 2 * NS, "a cgroup was removed, with whatever was below it, before it could be looked at: /a", 1,
            "1970-01-01T00:00:01.000000000Z", "1970-01-01T00:00:02.000000000Z",
        )
    ]  # fmt: skip
    for number in range(7):
        unseen.cgroup(f"/{number % 5}", (20 - number) * NS, (30 + number) * NS, 10.2)
    assert unseen.due_s == 11.0
    (lost,) = unseen.take(40 * NS, 11.0)
    assert (lost.count, lost.first, lost.last) == (7, "1970-01-01T00:00:14.000000000Z", "1970-01-01T00:00:36.000000000Z")
    assert lost.reason.endswith(": /0, /1, /2, …")
    assert unseen.due_s == math.inf


def test_times_in_which_something_may_be_missing_are_joined() -> None:
    """By reason; while more is to come that is waited for, up to a second; a clock that was set back makes no range run backwards."""
    unseen = Unseen("source.cgroup")
    unseen.range("full", 5 * NS, 6 * NS, 10.0, more_to_come=True)
    assert unseen.due_s == 11.0
    unseen.range("full", 4 * NS, 7 * NS, 10.1)
    unseen.range("blind", 9 * NS, 8 * NS, 10.1)
    full, blind = unseen.take(9 * NS, 11.0)
    assert (full.reason, full.count) == ("full", None)
    assert (full.first, full.last) == ("1970-01-01T00:00:04.000000000Z", "1970-01-01T00:00:07.000000000Z")
    assert (blind.reason, blind.first, blind.last) == ("blind", "1970-01-01T00:00:08.000000000Z", "1970-01-01T00:00:08.000000000Z")


def test_several_are_said_without_dots_when_all_are_named() -> None:
    """Two of them, or one name twice."""
    unseen = Unseen("source.cgroup")
    for path in ("/a", "/b"):
        unseen.cgroup(path, NS, NS, 1.0)
    assert unseen.take(NS, 1.0)[0].reason.endswith("looked at: /a, /b")
