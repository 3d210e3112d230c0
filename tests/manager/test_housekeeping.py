"""When containers are sampled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.manager.housekeeping import Pace, Schedule

SECOND = 1_000_000_000
STEADY = Pace(interval_ns=SECOND, max_interval_ns=8 * SECOND, dynamic=False, jitter=0.0)


def test_the_first_look_is_at_once_and_then_once_an_interval() -> None:
    """A new container is due immediately; after a random part of the first interval it keeps its pace."""
    schedule = Schedule(STEADY)
    schedule.add("a", 0)
    assert schedule.due(0, 0.3) == (["a"], 0)
    second = schedule.next_due()
    assert second is not None and 0 < second < SECOND
    assert schedule.due(second, 0.9) == (["a"], 0)
    assert schedule.next_due() == second + SECOND


def test_a_removed_container_is_never_due() -> None:
    """What has gone is not looked at, also when its turn was planned already."""
    schedule = Schedule(STEADY)
    schedule.add("a", 0)
    schedule.remove("a")
    assert schedule.next_due() is None
    assert schedule.due(10 * SECOND, 0.5) == ([], 0)
    schedule.seen("a", idle=True)
    assert len(schedule) == 0


def test_coming_late_leaves_samples_out_and_counts_them() -> None:
    """Three intervals late: one look now, the missed ones counted, no burst to catch up."""
    schedule = Schedule(STEADY)
    schedule.add("a", 0)
    schedule.due(0, 0.0)
    due = schedule.next_due()
    assert due is not None
    keys, skipped = schedule.due(due + 3 * SECOND, 0.0)
    assert (keys, skipped) == (["a"], 3)
    following = schedule.next_due()
    assert following is not None and following >= due + 3 * SECOND


def test_another_pace_holds_at_once_for_those_that_are_there() -> None:
    """Nobody waits for a turn that was planned at the old pace."""
    schedule = Schedule(STEADY._replace(interval_ns=100 * SECOND))
    schedule.add("a", 0)
    schedule.due(0, 0.9)
    schedule.set_pace(STEADY, SECOND)
    assert schedule.due(SECOND, 0.0) == (["a"], 0)
    assert (schedule.next_due() or 0) <= 2 * SECOND
    assert len(schedule) == 1


def test_an_idle_container_is_looked_at_less_often_until_it_does_something() -> None:
    """Each look that found nothing new doubles the interval up to the longest; activity restores the pace."""
    schedule = Schedule(STEADY._replace(dynamic=True))
    schedule.add("a", 0)
    gaps = []
    now = 0
    for _ in range(7):
        assert schedule.due(now, 0.0)[0] == ["a"]
        schedule.seen("a", idle=True)
        due = schedule.next_due()
        assert due is not None
        gaps.append(due - now)
        now = due
    assert gaps[-1] == 8 * SECOND
    schedule.due(now, 0.0)
    schedule.seen("a", idle=False)
    now = schedule.next_due() or 0
    schedule.due(now, 0.0)
    assert (schedule.next_due() or 0) - now == SECOND


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.floats(0, 1, exclude_max=True))
def test_whoever_is_there_is_due_within_an_interval_and_nobody_else(steps: list[tuple[str, bool]], spread: float) -> None:
    """However containers come and go, exactly those that are there are sampled within interval and jitter."""
    schedule = Schedule(STEADY._replace(jitter=0.5))
    there: set[str] = set()
    now = 0
    for key, add in steps:
        now += SECOND // 3
        if add:
            there.add(key)
            schedule.add(key, now)
        else:
            there.discard(key)
            schedule.remove(key)
        assert set(schedule.due(now, spread)[0]) <= there
    seen: set[str] = set()
    for _ in range(8):
        now += SECOND // 4
        seen.update(schedule.due(now, spread)[0])
    assert seen == there
    assert len(schedule) == len(there)


def test_who_is_hastened_is_looked_at_now_and_goes_on_at_its_pace() -> None:
    """Once, in place of the turn that was planned; one that is not there is left out."""
    schedule = Schedule(STEADY)
    schedule.add("a", 0)
    schedule.due(0, 0.9)
    schedule.hasten("a", 100)
    schedule.hasten("gone", 100)
    assert schedule.due(100, 0.0) == (["a"], 0)
    assert schedule.next_due() == 100 + SECOND
    assert len(schedule) == 1


def test_a_client_that_hastens_all_the_time_costs_no_memory() -> None:
    """Every turn that it replaces was planned for a minute later: they do not pile up until then."""
    schedule = Schedule(STEADY._replace(interval_ns=60 * SECOND))
    for key in "abc":
        schedule.add(key, 0)
    for now in range(10_000):
        schedule.hasten("a", now)
        assert "a" in schedule.due(now, 0.5)[0]
    assert schedule._waiting <= 2 * 3 + 101
    assert len(schedule) == 3
    assert set(schedule.due(61 * SECOND, 0.5)[0]) == set("abc")


def test_idle_since_a_moment_ago_is_not_idle() -> None:
    """Looks that were asked for come so close that nothing can have happened: the container keeps its pace."""
    schedule = Schedule(STEADY._replace(dynamic=True))
    schedule.add("a", 0)
    schedule.due(0, 0.0)
    schedule.seen("a", idle=False)
    for now in range(10):
        schedule.hasten("a", now)
        schedule.due(now, 0.0)
        schedule.seen("a", idle=True)
    assert schedule.next_due() == 9 + SECOND
    schedule.due(9 + SECOND, 0.0)
    schedule.seen("a", idle=True)
    schedule.due(9 + 2 * SECOND, 0.0)
    assert schedule.next_due() == 9 + 4 * SECOND
