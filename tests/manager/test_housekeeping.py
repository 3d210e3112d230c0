"""When containers are sampled."""

from __future__ import annotations

import itertools

from hypothesis import example, given
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
    assert second is not None and 0 < second <= SECOND
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


def test_who_was_asked_for_and_comes_late_is_counted_like_all() -> None:
    """A look that hangs hides no samples that were left out, whoever had asked for one."""
    plain, asked = Schedule(STEADY), Schedule(STEADY)
    for schedule in (plain, asked):
        schedule.add("a", 0)
        schedule.due(0, 0.0)
        schedule.due(SECOND, 0.0)
        schedule.due(2 * SECOND, 0.0)
    asked.hasten("a", 2 * SECOND + SECOND // 10)
    assert plain.due(6 * SECOND + SECOND // 5, 0.0) == (["a"], 3)
    assert asked.due(6 * SECOND + SECOND // 5, 0.0) == (["a"], 4)


def test_another_pace_holds_at_once_for_those_that_are_there() -> None:
    """Nobody waits for a turn that was planned at the old pace."""
    for before, after in ((100 * SECOND, SECOND), (SECOND, SECOND // 10), (SECOND // 10, 3 * SECOND)):
        schedule = Schedule(STEADY._replace(interval_ns=before), phase=0.7)
        schedule.add("a", 0)
        schedule.due(0, 0.9)
        schedule.set_pace(STEADY._replace(interval_ns=after), SECOND)
        assert schedule.due(SECOND, 0.0) == (["a"], 0)
        following = schedule.next_due()
        assert following is not None and SECOND < following <= SECOND + after
        assert schedule.due(following, 0.0) == (["a"], 0)
        assert schedule.next_due() == following + after
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


@given(
    st.integers(10_000_000, 100 * SECOND),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9_000_000)), min_size=40, max_size=40),
)
@example(SECOND + 1, 0.0, [(0.0, 0)] * 40)
def test_samples_come_evenly_and_as_often_as_was_asked(interval_ns: int, jitter: float, turns: list[tuple[float, int]]) -> None:
    """Whatever the interval: a whole number of batches of a second at most, off by the jitter, though the looks come late."""
    pace = STEADY._replace(interval_ns=interval_ns, jitter=jitter)
    assert interval_ns - 100 < pace.batches * pace.batch_ns <= interval_ns
    assert pace.batch_ns <= SECOND and (pace.batches == 1 or 2 * interval_ns > pace.batches * SECOND)  # more than half of one
    schedule = Schedule(pace)
    schedule.add("a", 0)
    planned = []
    for spread, late_ns in turns:
        due = schedule.next_due()
        assert due is not None
        planned.append(due)
        assert schedule.due(due + late_ns, spread) == (["a"], 0)
    gaps = [after - before for before, after in itertools.pairwise(planned[1:])]
    assert all(gap % pace.batch_ns == 0 for gap in gaps)
    off_ns = int(jitter * interval_ns / 2)
    assert all(interval_ns - 100 - off_ns <= gap <= interval_ns + off_ns for gap in gaps)


def test_long_intervals_jitter_by_whole_batches() -> None:
    """A minute with a tenth of jitter: from 57 to 63 seconds, and not all the same; without any, always a minute."""
    for jitter, expected in ((0.1, {57, 58, 59, 60, 61, 62, 63}), (0.0, {60})):
        schedule = Schedule(STEADY._replace(interval_ns=60 * SECOND, jitter=jitter))
        schedule.add("a", 0)
        planned = []
        for turn in range(200):
            planned.append(schedule.next_due() or 0)
            schedule.due(planned[-1], turn * 0.29 % 1.0)
        seconds = {(after - before) // SECOND for before, after in itertools.pairwise(planned[1:])}
        assert seconds <= expected and {min(expected) + 1, max(expected) - 1} & expected <= seconds


def test_agents_are_not_in_step() -> None:
    """Each has a phase of its own; its batches are an interval apart all the same."""
    schedule = Schedule(STEADY, phase=0.25)
    schedule.add("a", 0)
    assert schedule.due(0, 0.5) == (["a"], 0)
    assert schedule.next_due() == SECOND // 4
    for turn in range(5):
        assert schedule.due(SECOND // 4 + turn * SECOND, 0.5) == (["a"], 0)
        assert schedule.next_due() == SECOND // 4 + (turn + 1) * SECOND


def test_who_fell_into_step_leaves_it() -> None:
    """All are asked for at once, or fall idle at once: afterwards they are spread over their interval again."""
    steady = Schedule(STEADY._replace(interval_ns=10 * SECOND))
    dynamic = Schedule(STEADY._replace(dynamic=True, max_interval_ns=10 * SECOND))
    for schedule in (steady, dynamic):
        for number in range(500):
            schedule.add(str(number), 0)
        schedule.due(0, 0.3)
        now = 0
        for turn in range(100):
            now = schedule.next_due() or 0
            if turn == 20 and schedule is steady:
                for number in range(500):
                    schedule.hasten(str(number), now)
            for key in schedule.due(now, turn * 0.37 % 1.0)[0]:
                schedule.seen(key, idle=True)
        counts = []
        while len(counts) < 10:
            counts.append(len(schedule.due(schedule.next_due() or 0, 0.5)[0]))
        assert sum(counts) == 500 and max(counts) < 150


def test_all_that_falls_into_a_second_is_looked_at_in_one_go() -> None:
    """However they came: a hundred containers are one batch a second, and each is in every one."""
    schedule = Schedule(STEADY._replace(jitter=0.1))
    keys = [str(number) for number in range(100)]
    for number, key in enumerate(keys):
        schedule.add(key, number * 7_000_000)
        assert schedule.due(number * 7_000_000, 0.3) == ([key], 0)
    for second in range(1, 20):
        assert schedule.next_due() == second * SECOND
        due, skipped = schedule.due(second * SECOND, 0.7)
        assert (sorted(due), skipped) == (sorted(keys), 0)


def test_those_with_a_long_interval_are_spread_over_its_seconds() -> None:
    """Found together, they are not read together."""
    schedule = Schedule(STEADY._replace(interval_ns=10 * SECOND))
    for number in range(1000):
        schedule.add(str(number), 0)
    schedule.due(0, 0.3)
    for _ in range(3):
        assert all(80 <= len(schedule.due(schedule.next_due() or 0, 0.5)[0]) <= 120 for _ in range(10))


def test_who_is_hastened_is_looked_at_now_and_goes_on_at_its_pace() -> None:
    """Once, in place of the turn that was planned; one that is not there is left out."""
    schedule = Schedule(STEADY)
    schedule.add("a", 0)
    schedule.due(0, 0.9)
    for asked in (SECOND // 10, SECOND * 6 // 10):
        schedule.hasten("a", asked)
        schedule.hasten("gone", asked)
        assert schedule.due(asked, 0.0) == (["a"], 0)
    assert schedule.next_due() == 2 * SECOND  # nearer to an interval than half a second would be
    assert schedule.due(2 * SECOND, 0.0) == (["a"], 0)
    assert schedule.next_due() == 3 * SECOND
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
    assert schedule.next_due() == SECOND
    schedule.due(SECOND, 0.0)
    schedule.seen("a", idle=True)
    assert schedule.next_due() == 2 * SECOND
    schedule.due(2 * SECOND, 0.4)  # of those that fell idle together, one that stays where it is
    assert schedule.next_due() == 4 * SECOND
