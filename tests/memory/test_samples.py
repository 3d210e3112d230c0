"""The recent samples of a container: whatever goes in comes out, in whatever way it was packed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from streamer.memory.layout import COLUMNS, INDEX, StatsSample
from streamer.memory.samples import LONGEST_GAP_NS, Samples
from streamer.model.stats import NETWORK, STATS, IoDevice, NetworkInterface

START_NS = 1_763_976_000_417_902_633
SECOND_NS = 1_000_000_000
FLOATS = tuple(INDEX[row.name] for row in STATS if row.number is float)

U64 = st.integers(0, 2**64 - 1)
SHARES = st.one_of(st.integers(0, 10_000).map(lambda number: number / 100), st.floats(allow_nan=False))


def kept(most: int, samples: list[StatsSample]) -> Samples:
    packed = Samples(most)
    for sample in samples:
        packed.add(sample.time_ns, sample.values, sample.interfaces, sample.devices)
    return packed


def sums(values: tuple[Any, ...]) -> StatsSample:
    """With one interface and one device, whose counters are those of the columns, as is the rule."""
    network = [values[INDEX[f"network_{suffix}"]] for suffix, _ in NETWORK]
    io = [values[INDEX[f"io_{field}"]] for field in IoDevice.__struct_fields__[2:]]
    return StatsSample(START_NS, values, (NetworkInterface("eth0", *network),), (IoDevice(8, 0, *io),))


CHANGES = st.one_of(
    st.just(("nothing", 0, 0)),
    st.tuples(st.just("number"), st.integers(0, len(COLUMNS) - 1), U64),
    st.tuples(st.just("share"), st.sampled_from(FLOATS), SHARES),
    st.tuples(st.just("gone"), st.integers(0, len(COLUMNS) - 1), st.just(UNSET)),
    st.tuples(st.just("interfaces"), st.integers(0, 3), U64),
    st.tuples(st.just("devices"), st.integers(0, 3), U64),
    st.tuples(st.just("sums"), st.integers(0, 1), st.just(0)),
)


def made_by(changes: list[tuple[str, int, Any]]) -> list[StatsSample]:
    """Each sample differs from the one before in one thing, or in nothing."""
    values: list[Any] = [0.0 if position in FLOATS else 0 for position in range(len(COLUMNS))]
    interfaces: tuple[NetworkInterface, ...] = ()
    devices: tuple[IoDevice, ...] = ()
    made: list[StatsSample] = []
    alone = 0
    for number, (change, which, value) in enumerate(changes):
        if change == "interfaces":
            interfaces = tuple(NetworkInterface(f"eth{at}", value, *range(at, at + 7)) for at in range(which))
        elif change == "devices":
            devices = tuple(IoDevice(8, at, value, 1, 2, 3) for at in range(which))
        elif change == "sums":
            alone = which
        elif change != "number" or which not in FLOATS:
            values[which] = value if change != "nothing" else values[which]
        sample = StatsSample(START_NS, tuple(values), interfaces, devices)
        if alone and UNSET not in values:
            sample = sums(tuple(values))
        made.append(structs.replace(sample, time_ns=START_NS + number * SECOND_NS + number * number))
    return made


def samples() -> st.SearchStrategy[list[StatsSample]]:
    """Long runs in which little changes, and some changes of everything."""
    runs = st.lists(st.tuples(CHANGES, st.sampled_from([1, 1, 2, 20])), max_size=30)
    return runs.map(lambda told: made_by([change for change, times in told for _ in range(times)]))


@settings(max_examples=2 * settings().max_examples)
@given(samples(), st.integers(1, 70), st.integers(0, 40))
def test_whatever_goes_in_comes_out(made: list[StatsSample], most: int, turn: int) -> None:
    """The newest `most` of any samples, exactly, after every one of them, whenever they are packed."""
    packed = Samples(most, turn)
    for count, sample in enumerate(made, 1):
        packed.add(sample.time_ns, sample.values, sample.interfaces, sample.devices)
        assert len(packed) == min(most, count)
        assert packed.newest(3) == made[max(0, count - min(most, 3)) : count]
    assert packed.newest() == made[-most:]
    for before, after in zip(made[-most:], packed.newest(), strict=True):  # equal is not enough: 1 == 1.0
        assert [type(value) for value in before.values] == [type(value) for value in after.values]


@given(samples(), st.integers(1, 70), st.integers(-1, 80), st.lists(st.sampled_from([*{*INDEX.values()} - {*FLOATS}]), min_size=1))
def test_some_columns_are_those_of_the_samples(made: list[StatsSample], most: int, count: int, columns: list[int]) -> None:
    """Whatever layouts the samples have, one column or many, one twice."""
    packed = kept(most, made)
    expected = [(sample.time_ns, tuple(sample.values[column] for column in columns)) for sample in packed.newest(count)]
    assert packed.columns(columns, count) == expected


@given(samples(), st.integers(1, 70), st.integers(-1, 70), st.integers(0, 70), st.integers(0, 70))
def test_what_is_asked_for_is_answered(made: list[StatsSample], most: int, count: int, first: int, last: int) -> None:
    """So many, from then to then, the bounds included; 0 is no bound."""
    start_ns, end_ns = ((made[at].time_ns if at < len(made) else 0) for at in (first, last))
    expected = [s for s in made[-most:] if s.time_ns >= start_ns and (not end_ns or s.time_ns <= end_ns)]
    if count >= 0:
        expected = expected[len(expected) - min(count, len(expected)) :]
    assert kept(most, made).newest(count, start_ns, end_ns) == expected


@given(samples(), st.integers(1, 70))
def test_a_thin_answer_has_every_change_and_nothing_that_never_was(made: list[StatsSample], most: int) -> None:
    """Whether blocks are looked into or told by what is said beside them: of those kept, what differs from the one before is there."""
    thin, whole = kept(most, made).newest(thin=True), made[-most:]
    assert [sample for sample in whole if sample in thin] == thin
    moved = [after for before, after in itertools.pairwise(whole) if after != structs.replace(before, time_ns=after.time_ns)]
    assert all(sample in thin for sample in (*moved, made[-1])) if made else not thin


def busy(count: int) -> list[StatsSample]:
    """Every number moves, one way and the other."""
    return [
        structs.replace(
            sums(
                tuple(
                    (number * 37 + position) % 9000 / 100 if position in FLOATS else 2**40 + (number * 7919 * position) % 10_007
                    for position in range(len(COLUMNS))
                )
            ),
            time_ns=START_NS + number * SECOND_NS,
        )
        for number in range(count)
    ]


def test_they_take_little() -> None:
    """What is held is bounded by how many are kept, not by how many there were; samples that change nothing take next to nothing.

    Here every number moves, at random; usually a dozen do.
    """
    some, many = kept(120, busy(140)).size, kept(120, busy(1000)).size
    assert many < some * 1.2
    assert many < 120 * 450
    still = [structs.replace(busy(1)[0], time_ns=START_NS + number * SECOND_NS) for number in range(1000)]
    assert kept(120, still).size < 5000
    one = kept(1, busy(1000))
    assert (len(one), one.newest()) == (1, busy(1000)[-1:])
    assert one.size < 10_000


def test_those_that_begin_together_do_not_pack_together() -> None:
    """Nor later: a burst would be felt by whoever waits for the event loop."""
    together = [Samples(120, turn) for turn in range(64)]
    for sample in busy(100):
        waiting = [len(samples._rows) for samples in together]
        assert all(waiting.count(count) <= 4 for count in range(1, 16)) or sample.time_ns < START_NS + 16 * SECOND_NS
        for samples in together:
            samples.add(sample.time_ns, sample.values, sample.interfaces, sample.devices)
    assert max(waiting) == 15


def test_a_number_that_no_kernel_tells_is_refused_and_changes_nothing() -> None:
    """Beyond 64 bits."""
    made = busy(3)
    packed = kept(5, made[:2])
    with pytest.raises(OverflowError):
        packed.add(made[2].time_ns, (2**64, *made[2].values[1:]))
    assert packed.newest() == made[:2]
    packed.add(made[2].time_ns, made[2].values, made[2].interfaces, made[2].devices)
    assert packed.newest() == made


def test_a_look_that_changes_every_time_is_bounded_too() -> None:
    """Columns that come and go with every sample: dear, but whole and bounded."""
    made = busy(300)
    for number in range(0, 300, 2):
        made[number] = structs.replace(made[number], values=(UNSET, *made[number].values[1:]), devices=())
    packed = kept(120, made)
    assert packed.newest() == made[-120:]
    assert packed.size < 100_000


def test_thin_answers_leave_out_what_says_nothing_new() -> None:
    """At first the next sample, then one twice as far away each time, to a minute; from a change on, from the beginning."""
    offsets = range(400)
    still = [structs.replace(busy(2)[number >= 300], time_ns=START_NS + number * SECOND_NS) for number in offsets]
    shown = [(sample.time_ns - START_NS) // SECOND_NS for sample in kept(400, still).newest(thin=True)]
    run = [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert shown == [*run, 300, 301, 303, 307, 315, 331, 363, 399]
    assert [(s.time_ns - START_NS) // SECOND_NS for s in kept(400, still).newest(4, thin=True)] == [315, 331, 363, 399]
    assert kept(400, still).newest(thin=True)[-1] == still[-1]


def test_thin_answers_take_the_nearest_sample() -> None:
    """Samples do not come to the millisecond: one that comes a little early is not passed over."""
    late = {number: number % 3 * 90_000_000 for number in range(40)}
    still = [structs.replace(busy(1)[0], time_ns=START_NS + number * SECOND_NS - late[number]) for number in range(40)]
    shown = [round((sample.time_ns - START_NS) / SECOND_NS) for sample in kept(40, still).newest(thin=True)]
    assert shown == [0, 1, 3, 7, 14, 29, 39]


def test_thin_answers_stay_the_same_while_the_window_moves() -> None:
    """Which samples are left out is decided once: what was told does not turn into other samples."""
    packed, told = Samples(50), set()
    for number in range(500):
        packed.add(START_NS + number * SECOND_NS + number % 7 * 9_000_000, busy(1)[0].values)
        times = [sample.time_ns for sample in packed.newest(thin=True)]
        assert set(times[:-1]) <= told | set(times[-2:-1])
        told |= set(times)
        assert len(times) <= 10


def test_seldom_samples_are_never_thin() -> None:
    """There is no more than one a minute to leave out."""
    made = [structs.replace(busy(1)[0], time_ns=START_NS + number * 3 * LONGEST_GAP_NS) for number in range(20)]
    assert kept(20, made).newest(thin=True) == made


def test_shares_of_any_precision_come_back_exactly() -> None:
    """Differences of floats would not add up again."""
    shares = (0.1, 0.1 + 0.2, 1 / 3, 1e-300, 1e300, 12.34, 100.01, -0.5, 2 / 3, 2 / 3)
    made = [
        structs.replace(sample, values=tuple(shares[number] if at in FLOATS else v for at, v in enumerate(sample.values)))
        for number, sample in enumerate(busy(len(shares)))
    ]
    assert kept(20, made).newest() == made


@pytest.mark.parametrize("position", [0, FLOATS[0]])
def test_a_column_that_appears_is_noticed(position: int) -> None:
    """The shape of the sample before says that it is not there."""
    whole = busy(3)
    made = [structs.replace(whole[0], values=tuple(UNSET if at == position else v for at, v in enumerate(whole[0].values)))]
    made += [whole[1], structs.replace(made[0], time_ns=whole[2].time_ns)]
    assert kept(3, made).newest() == made
