"""Parsers of kernel files: the numbers as written, and no crash on any bytes."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.kernel.files import Parser, Wanted, parse_flat, parse_single, parser
from streamer.model.stats import ABSENT, FILES, STATS, Layout

LAYOUTS: Final[list[Layout]] = ["single", "flat", "nested", "operations", "pressure", "lines"]

MEMORY_STAT_V1: Final = b"""\
cache 9535488
rss 9547776
inactive_file 176128
hierarchical_memory_limit 9223372036854771712
total_cache 77484032
total_rss 17846272
total_swap 0
total_pgfault 1664084
total_inactive_file 51879936
total_unevictable 17100800
"""


def wanted_of(layout: Layout) -> list[Wanted]:
    """All that the table wants of files of that layout."""
    rows = [(stat.v2, stat.scale_v2, stat.number) for stat in STATS] + [(stat.v1, stat.scale_v1, stat.number) for stat in STATS]
    addresses = [(address.partition(":"), scale, number) for address, scale, number in rows if address]
    return [Wanted(key, scale, number) for (file, _, key), scale, number in addresses if FILES[file].layout == layout]


PIECES: Final = st.sampled_from(
    [
        b"total_rss",
        b"anon",
        b"8:0",
        b" ",
        b"\n",
        b"Read",
        b"Total",
        b"rbytes=",
        b"some",
        b"avg10=",
        b"total=",
        b"0.00",
        b"7",
        b"max",
        b"-1",
        b"_",
    ]
)
NEARLY: Final = st.binary() | st.lists(PIECES | st.binary(max_size=3)).map(b"".join)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(files=st.lists(NEARLY, max_size=4))
def test_any_bytes_give_one_number_or_absent_for_each_key(layout: Layout, files: list[bytes]) -> None:
    """Also when the parser has learnt from other bytes before."""
    parse = parser(layout, wanted_of(layout))
    for raw in files:
        numbers = parse(raw)
        assert len(numbers) == len(wanted_of(layout))
        assert all(number is ABSENT or isinstance(number, int | float) for number in numbers)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2**64 - 1)), max_size=12).flatmap(st.permutations))
def test_what_was_learnt_of_a_layout_never_changes_an_answer(lines: list[tuple[str, int]]) -> None:
    """A file in any order of lines reads the same with a parser that knows another order as with a new one."""
    unique = list(dict(lines).items())
    wanted = [Wanted("c"), Wanted("a", 1000), Wanted("h")]
    raw = "".join(f"{key} {number}\n" for key, number in unique).encode()
    shuffled = "".join(f"{key} {number}\n" for key, number in reversed(unique)).encode()
    experienced = parser("flat", wanted)
    experienced(shuffled)
    found = dict(unique)
    expected = [found[key] * scale if key in found else ABSENT for key, scale, _ in wanted]
    for _ in range(2):  # learning, then by what was learnt
        assert list(experienced(raw)) == expected
        assert list(experienced(shuffled)) == expected


def test_flat_file_is_read_by_key_and_scaled() -> None:
    """Wanted numbers come in the order asked for, times their scale."""
    parse = parser("flat", [Wanted("total_rss"), Wanted("total_cache", 1000), Wanted("total_pgfault")])
    for _ in range(3):
        assert list(parse(MEMORY_STAT_V1)) == [17846272, 77484032000, 1664084]


def test_flat_file_that_gains_and_loses_lines_is_learnt_again() -> None:
    """A key that appears (a controller was enabled) is found, one that went is absent, whatever was learnt before."""
    parse = parser("flat", [Wanted("usage_usec", 1000), Wanted("nr_periods")])
    short, long = b"usage_usec 5\nuser_usec 3\n", b"usage_usec 6\nuser_usec 3\nnr_periods 4\n"
    for _ in range(2):
        assert list(parse(short)) == [5000, ABSENT]
        assert list(parse(long)) == [6000, 4]
    assert list(parse(b"user_usec 3\nusage_usec 7\n")) == [7000, ABSENT]


def test_broken_line_of_a_known_layout_makes_only_that_value_absent() -> None:
    """The file was learnt; then one number is none."""
    parse = parser("flat", [Wanted("total_rss"), Wanted("total_swap")])
    parse(MEMORY_STAT_V1)
    assert list(parse(MEMORY_STAT_V1.replace(b"total_rss 17846272", b"total_rss x"))) == [ABSENT, 0]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"123\n", 123),
        (b"0\n", 0),
        (b"18446744073709551615\n", 2**64 - 1),
        (b"max\n", ABSENT),
        (b"", ABSENT),
        (b"-1\n", ABSENT),
        (b"1 2\n", ABSENT),
    ],
)
def test_single_number(raw: bytes, expected: Any) -> None:
    """A number is itself; `max` and what is no number are absent."""
    assert parse_single(raw) == expected
    assert list(parser("single", [Wanted("")])(raw)) == [expected]


@given(st.binary())
def test_flat_dictionary_takes_any_bytes(raw: bytes) -> None:
    """Only `key number` lines are in it."""
    assert all(isinstance(number, int) for number in parse_flat(raw).values())


IO: Final = [Wanted("rbytes"), Wanted("wbytes"), Wanted("rios")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n", [11, 22, 4]),
        (b"", [0, 0, 0]),
        (b"254:1 254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n", [10, 20, 1]),
        (b"253:0 \n8:0 rbytes=10 wbytes=20 rios=1\n", [10, 20, 1]),
        (b"8:0 rbytes=10 wbytes=20 rios=1 cost.usage=7 cost.vrate=100.00\n", [10, 20, 1]),
        (b"rubbish\n", [ABSENT, ABSENT, ABSENT]),
        (b"rubbish rbytes=9\n8:0 rbytes=10 wbytes=20 rios=1\n", [10, 20, 1]),
    ],
)
def test_nested_file_is_summed_over_devices(raw: bytes, expected: list[Any]) -> None:
    """Also where an older kernel leaves out the line end of a device without numbers; no device at all sums up to 0."""
    assert list(parser("nested", IO)(raw)) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n8:16 Read 1\n8:16 Total 1\nTotal 31\n", [11, 20]),
        (b"Total 0\n", [0, 0]),
        (b"", [0, 0]),
        (b"8:0 Read x\n8:0 Write 5\nTotal 5\n", [0, 5]),
        (b"rubbish\n", [ABSENT, ABSENT]),
    ],
)
def test_operations_are_summed_over_devices(raw: bytes, expected: list[Any]) -> None:
    """`Total` alone is a sum over no device."""
    assert list(parser("operations", [Wanted("Read"), Wanted("Write")])(raw)) == expected


def pressure() -> Parser:
    return parser(
        "pressure",
        [Wanted("some.total", 1000), Wanted("some.avg10", 1, float), Wanted("full.total", 1000), Wanted("full.avg10", 1, float)],
    )


def test_pressure_of_both_shares() -> None:
    """Totals in ns, averages as the kernel writes them."""
    raw = b"some avg10=1.53 avg60=0.40 avg300=0.10 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert list(pressure()(raw)) == [12345000, 1.53, 7000, 0.0]


def test_pressure_without_a_full_line() -> None:
    """cpu.pressure had none before Linux 5.13."""
    assert list(pressure()(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n")) == [5000, 0.0, ABSENT, ABSENT]


def test_pressure_of_another_form_is_absent() -> None:
    """Rather than wrong."""
    assert list(pressure()(b"some avg10=0.00 avg60=0.00\n")) == [ABSENT] * 4
    assert list(pressure()(b"")) == [ABSENT] * 4


def test_lines_are_counted() -> None:
    """One process a line."""
    assert list(parser("lines", [Wanted("")])(b"1\n22\n333\n")) == [3]


def test_every_key_of_the_table_can_be_parsed_in_its_layout() -> None:
    """No row of the table asks a layout for what it does not have."""
    for stat in STATS:
        for address in filter(None, (stat.v2, stat.v1)):
            file, _, key = address.partition(":")
            layout = FILES[file].layout
            assert bool(key) == (layout not in ("single", "lines")), address
            assert layout != "pressure" or re.fullmatch(r"(some|full)\.(total|avg10)", key)
