"""Times, durations and truth values as Go writes and reads them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.cadvisor import go


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
        (1_699_999_999_999_999_999, "2023-11-14T22:13:19.999999999Z"),
    ],
)
def test_times_are_written_without_trailing_zeros(time_ns: int, text: str) -> None:
    """RFC3339Nano: a fraction only as long as it has to be."""
    assert go.rfc3339(time_ns) == text
    assert go.parse_time(text) == time_ns


@given(st.integers(1, 4_102_444_800 * 10**9))
def test_a_written_time_is_read_back_exactly(time_ns: int) -> None:
    """To the nanosecond, across days and in any order."""
    text = go.rfc3339(time_ns)
    assert go.parse_time(text) == time_ns
    assert datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp() == time_ns // 10**9


def test_nine_digits_become_as_many_as_needed() -> None:
    """Messages carry nine."""
    assert go.nano("2023-11-14T22:13:20.120000000Z") == "2023-11-14T22:13:20.12Z"
    assert go.nano("2023-11-14T22:13:20.000000000Z") == go.nano("2023-11-14T22:13:20Z") == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000 * 10**9 + 500_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000 * 10**9),
        ("2023-11-14t16:43:20.25-05:30", 1_700_000_000 * 10**9 + 250_000_000),
    ],
)
def test_times_are_read_in_both_forms(text: str, time_ns: int) -> None:
    """RFC 3339 with any offset, Unix seconds, and Go's zero time for none."""
    assert go.parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text", ["x", "2023", "2023-13-01T00:00:00Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20+99:00", "1e9", "१२३४५६७"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """A date alone, a time without a zone, a month 13."""
    with pytest.raises(ValueError, match=r"."):
        go.parse_time(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0s", 0.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("-1s", -1.0), ("+.5s", 0.5), ("3us1µs", 4e-6), ("1h0m0.5s", 3600.5)],
)  # fmt: skip
def test_durations_of_go(text: str, seconds: float) -> None:
    """Numbers with units, added up."""
    assert go.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "x", "s", "--1s", ".s", "१s", "2562048h", "-2562048h", "9" * 199 + "h", "1h" * 30_000, "9" * 60_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_duration_is_refused_by_gos_words(text: str) -> None:
    """A number without a unit, or what 64 bits of nanoseconds do not hold; digits without end are refused at once."""
    with pytest.raises(ValueError, match="time: invalid duration"):
        go.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("1", "missing unit in"), ("1s1", "missing unit in"), ("-1.5", "missing unit in"), ("1d", 'unknown unit "d" in'),
        ("1s x", 'unknown unit "s x" in'), ("1 s", 'unknown unit " s" in'), ("1msx", 'unknown unit "msx" in'),
    ],
)  # fmt: skip
def test_a_duration_without_a_known_unit_is_refused_by_gos_words(text: str, wrong: str) -> None:
    """Its time package tells these apart."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011  its text is looked at below
        go.parse_duration(text)
    assert str(refused.value) == f'time: {wrong} duration "{text}"'


def test_truth_and_numbers() -> None:
    """Exactly the words of ParseBool; Atoi knows a sign and 64 bits, no blanks and no fraction."""
    assert [go.parse_bool(text) for text in ("1", "t", "TRUE", "True", "0", "F", "tRUE", "yes", "")] == [True] * 4 + [False] * 2 + [
        None
    ] * 3
    assert [go.parse_int(text) for text in ("-1", "+5", "007", "9223372036854775807")] == [-1, 5, 7, (1 << 63) - 1]
    assert [go.parse_int(text) for text in ("", "x", "1.0", " 1", "9223372036854775808", "1_0", "१")] == [None] * 7
