"""Statistics of the last minute, hour and day, against the same worked out from all samples at once."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from streamer.memory.summary import DAY_NS, HOUR_NS, MINUTE_NS, Derived, Span, Summary, Usage, percentile, usage

SECOND_NS = 1_000_000_000
START_NS = 1_763_976_000_417_902_633

Raw = tuple[int, Any, Any]  # time, CPU time, working set


@pytest.mark.parametrize(
    ("last", "hundredths", "expected"),
    [(100, 90, 90), (105, 90, 95), (105, 70, 74), (105, 20, 21), (1, 50, 1), (2, 95, 2), (3, 50, 2), (19, 95, 19), (9, 5, 1)],
)
def test_percentiles(last: int, hundredths: int, expected: int) -> None:
    """Of 1, 2, … last."""
    assert percentile(range(1, last + 1), hundredths) == expected


def test_large_values_that_are_alike_have_an_exact_spread() -> None:
    """Floats would lose it."""
    assert usage([2**60, 2**60 + 2, 2**60 + 4]).std == 2
    assert usage([7]) == Usage(True, 7, 0, 7, 7, 7, 7, 1)
    assert usage([]) == Usage()


def test_before_the_first_minute_is_over_it_is_shown_as_far_as_it_goes() -> None:
    """Of a container as young as that, its hour and day are not known."""
    summary = Summary()
    assert summary.derived() == Derived()
    for second in range(31):
        summary.add(START_NS + second * SECOND_NS, second * SECOND_NS // 4, 100 + second)
    said = summary.derived()
    assert (said.time_ns, said.latest_cpu_millicores, said.latest_memory_bytes) == (START_NS + 30 * SECOND_NS, 250, 130)
    assert said.minute == Span(50, Usage(True, 250, 0, 250, 250, 250, 250, 30), usage(range(100, 131)))
    assert said.hour == said.day == Span()


def test_a_steady_container_after_a_day() -> None:
    """Everything is complete and the same; what is kept is bounded."""
    summary = Summary()
    sizes = []
    for second in range(0, 90_000, 5):
        summary.add(START_NS + second * SECOND_NS, second * SECOND_NS // 2, 4096)
        if second % 3600 == 0:
            sizes.append(summary.size)
    said = summary.derived()
    for span, count in ((said.minute, 12), (said.hour, 60), (said.day, 25)):
        assert span.percent_complete == 100
        assert span.cpu == Usage(True, 500, 0, 500, 500, 500, 500, count)
        assert span.memory == Usage(True, 4096, 0, 4096, 4096, 4096, 4096, count)
    assert sizes[-1] < 10_000


def test_a_pause_keeps_the_mean_right_and_is_not_called_complete() -> None:
    """Samples are missing for half of the hour, in which the CPU ran: the counter tells; the hour is half complete."""
    summary = Summary()
    time_ns, cpu_ns = START_NS, 0
    summary.add(time_ns, cpu_ns, 1)
    time_ns, cpu_ns = time_ns + 1800 * SECOND_NS, cpu_ns + 900 * SECOND_NS
    summary.add(time_ns, cpu_ns, 1)
    assert summary.derived().minute.cpu == Usage(True, 500, 0, 500, 500, 500, 500, 1)
    for _ in range(1770):
        time_ns, cpu_ns = time_ns + SECOND_NS, cpu_ns + SECOND_NS // 2
        summary.add(time_ns, cpu_ns, 1)
    assert summary.derived().hour.percent_complete == (60 + 29 * 60) * 100 // 3600
    assert summary.derived().hour.cpu.mean == 500


def test_a_clock_that_is_set_back_changes_nothing_but_the_time_that_is_told() -> None:
    """By an hour, in the middle of three: no rate is made up, minutes and hours go on ending."""
    summary, steady = Summary(), Summary()
    for second in range(0, 10_800, 5):
        back = 3600 if second >= 5400 else 0
        summary.add(START_NS + (second - back) * SECOND_NS, second * SECOND_NS // 4, second)
        steady.add(START_NS + second * SECOND_NS, second * SECOND_NS // 4, second)
    said, expected = summary.derived(), steady.derived()
    assert (said.time_ns, expected.time_ns) == (START_NS + 7195 * SECOND_NS, START_NS + 10_795 * SECOND_NS)
    assert (said.minute.percent_complete, said.hour.percent_complete) == (100, 100)
    for span in (said.minute, said.hour, said.day):
        assert (span.cpu.mean, span.cpu.max, span.cpu.std) == (250, 250, 0)
    assert said.minute.memory.max > 10_700
    assert said.day.memory.count == expected.day.memory.count == 3


def test_what_is_not_measured_is_not_present() -> None:
    """A cgroup without memory controller has CPU statistics, and the other way round; a pair too close gives no rate."""
    summary, other = Summary(), Summary()
    for second in range(70):
        summary.add(START_NS + second * SECOND_NS, second * SECOND_NS, UNSET)
        other.add(START_NS + second * SECOND_NS, UNSET, 5)
    other.add(START_NS + 70 * SECOND_NS, 10**9, 5)
    other.add(START_NS + 70 * SECOND_NS + 9_999_999, 10**10, 5)
    assert other.derived().latest_cpu_millicores == 0
    other.add(START_NS + 70 * SECOND_NS + 10_000_000, 10**9 + 10**7, 5)
    assert other.derived().latest_cpu_millicores == 1000
    for said in (summary.derived(), other.derived()):
        for span in (said.minute, said.hour, said.day):
            assert (span.cpu.present, span.memory.present) == (said.latest_memory_bytes == 0, said.latest_memory_bytes == 5)


def spread(values: list[int]) -> int:
    """Sample standard deviation, rounded down."""
    if len(values) < 2:
        return 0
    mean = Fraction(sum(values), len(values))
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.isqrt(math.floor(variance))


def at(values: list[int], share: Fraction) -> int:
    """A percentile by its definition."""
    place = share * (len(values) + 1)
    place = max(Fraction(1), min(Fraction(len(values)), place))
    ordered = sorted(values)
    low, high = ordered[math.floor(place) - 1], ordered[math.ceil(place) - 1]
    return math.floor(low + (high - low) * (place - math.floor(place)))


def stated(values: list[int], mean: Fraction, highest: int) -> Usage:
    p50, p90, p95 = (at(values, Fraction(percent, 100)) for percent in (50, 90, 95))
    return Usage(True, math.floor(mean), spread(values), highest, p50, p90, p95, len(values))


def recomputed(samples: list[Raw]) -> list[tuple[int, Span]]:
    """All minutes: when each ended, and its statistics."""
    minutes: list[tuple[int, Span]] = []
    rates: list[int] = []
    memories: list[int] = []
    used = passed = covered = 0
    began = samples[0][0]
    base: tuple[int, int] | None = None
    for index, (time_ns, cpu, memory) in enumerate(samples):
        covered += min(MINUTE_NS, time_ns - samples[index - 1][0]) if index else 0
        if cpu is not UNSET:
            if base is not None and cpu >= base[1] and time_ns - base[0] >= 10_000_000:
                rates.append((cpu - base[1]) * 1000 // (time_ns - base[0]))
                used, passed = used + cpu - base[1], passed + time_ns - base[0]
                base = (time_ns, cpu)
            elif base is None or cpu < base[1]:
                base = (time_ns, cpu)
        if memory is not UNSET:
            memories.append(memory)
        if time_ns - began >= MINUTE_NS:
            minutes.append(
                (
                    time_ns,
                    Span(
                        min(100, covered * 100 // MINUTE_NS),
                        stated(rates, Fraction(used * 1000, passed), max(rates)) if rates else Usage(),
                        stated(memories, Fraction(sum(memories), len(memories)), max(memories)) if memories else Usage(),
                    ),
                )
            )
            began, rates, memories, used, passed, covered = time_ns, [], [], 0, 0, 0
    return minutes


@settings(max_examples=6 * settings().max_examples // 10)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 5 * SECOND_NS), st.integers(20 * SECOND_NS, 200 * SECOND_NS)),
            st.one_of(st.just(UNSET), st.integers(0, 10**12)),
            st.one_of(st.just(UNSET), st.integers(0, 2**63)),
        ),
        max_size=300,
    )
)
def test_minutes_are_what_their_samples_say(steps: list[tuple[int, Any, Any]]) -> None:
    """Whatever comes at whatever times: the last minute is the one worked out from all samples."""
    summary, samples, time_ns = Summary(), [], START_NS
    for pause, cpu, memory in steps:
        time_ns += pause
        samples.append((time_ns, cpu, memory))
        summary.add(*samples[-1])
        if minutes := recomputed(samples):
            assert summary.derived().minute == minutes[-1][1]


@settings(max_examples=2 * settings().max_examples)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(SECOND_NS), st.integers(1, 200 * SECOND_NS), st.integers(-5 * SECOND_NS, 0)),
            st.one_of(st.just(UNSET), st.just(0), st.integers(0, 10**9), st.integers(-(10**12), 10**15)),
            st.one_of(st.just(UNSET), st.just(7), st.integers(0, 2**63)),
            st.sampled_from([1, 1, 2, 50]),
        ),
        max_size=40,
    ),
    st.integers(0, 40),
)
def test_it_does_not_matter_when_somebody_asks(steps: list[tuple[int, Any, Any, int]], turn: int) -> None:
    """What is taken in together comes to the same as one by one: clocks set back, counters that begin again, values that come and go."""
    asked, unasked = Summary(), Summary(turn)
    time_ns, cpu = START_NS, 10**15
    for pause, used, memory, times in steps:
        for _ in range(times):
            time_ns += pause
            cpu = cpu if used is UNSET else max(0, cpu + used)
            sample = (time_ns, used if used is UNSET else cpu, memory)
            asked.add(*sample)
            asked.derived()
            unasked.add(*sample)
    assert unasked.derived() == asked.derived()


@pytest.mark.parametrize("pause", [10 * SECOND_NS, 45 * SECOND_NS, 75 * SECOND_NS, 700 * SECOND_NS])
def test_hours_and_days_are_what_their_minutes_say(pause: int) -> None:
    """Evenly sampled for 30 hours at several paces: hours of the last 60 minutes, days of the last hours."""
    samples: list[Raw] = []
    cpu = 0
    for step in range(30 * HOUR_NS // pause):
        cpu += (step * 7919 % 1000) * pause // 1000
        samples.append((START_NS + step * pause, cpu, step * 104_729 % 10_000))
    summary = Summary()
    for sample in samples:
        summary.add(*sample)
    minutes = recomputed(samples)
    now = minutes[-1][0]
    hour = [span for end, span in minutes if end > now - HOUR_NS]
    said = summary.derived()
    for kind in ("cpu", "memory"):
        mine: list[Usage] = [getattr(span, kind) for span in hour]
        mean = Fraction(sum(u.mean for u in mine), len(mine))
        assert getattr(said.hour, kind) == stated([u.ninety for u in mine], mean, max(u.max for u in mine))
        of_hours, hours, began = [], [], START_NS
        for end, span in minutes:
            of_hours.append(getattr(span, kind))
            if end - began >= HOUR_NS:
                hours.append((end, at([u.ninety for u in of_hours], Fraction(9, 10)), max(u.max for u in of_hours)))
                of_hours, began = [], end
        hours = [known for known in hours if known[0] > now - DAY_NS]
        if of_hours:
            hours.append((now, at([u.ninety for u in of_hours], Fraction(9, 10)), max(u.max for u in of_hours)))
        told: Usage = getattr(said.day, kind)
        ninety = [value for _, value, _ in hours]
        assert told == stated(ninety, Fraction(told.mean), max(highest for *_, highest in hours))
        day = [getattr(span, kind).mean for end, span in minutes if end > now - DAY_NS]
        assert told.mean == pytest.approx(sum(day) / len(day), rel=0.05)
    assert (said.hour.percent_complete == 100) == (pause <= MINUTE_NS)
