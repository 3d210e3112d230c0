"""Go's ways of writing times, durations and truth values, as cAdvisor's clients send and expect them. Pure.

Sources: https://pkg.go.dev/time (RFC3339Nano, ParseDuration), https://pkg.go.dev/strconv (ParseBool, Atoi).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

ZERO_TIME: Final = "0001-01-01T00:00:00Z"
"""Go's zero time: `not set`, `not known`."""

_NS: Final = 1_000_000_000
_DAY: Final = 86_400

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
_UNIX: Final = re.compile(r"(\d{6,12})(?:\.(\d{1,9}))?", re.ASCII)  # shorter ones are years
_DURATION_PART: Final = re.compile(r"([0-9]++\.?[0-9]*+|\.[0-9]++)([^0-9.]*+)")  # never backtracks: clients write it
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_SECONDS: Final = float(2**63 // _NS)
"""A duration is 64 bits of nanoseconds."""
_LONGEST_DURATION_TEXT: Final = 200
"""Go has no such bound; nobody needs a thousand terms."""
_TRUTH: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}

_last_day: tuple[int, str] = (0, "1970-01-01")


def rfc3339(time_ns: int) -> str:
    """`1700000000120000000` -> `2023-11-14T22:13:20.12Z`: RFC3339Nano, UTC, without trailing zeros. 0: the zero time."""
    global _last_day  # noqa: PLW0603  one-entry cache: samples of one answer are of one day or two
    if not time_ns:
        return ZERO_TIME
    seconds, ns = divmod(time_ns, _NS)
    day, second = divmod(seconds, _DAY)
    if _last_day[0] != day:
        _last_day = (day, datetime.fromtimestamp(day * _DAY, UTC).strftime("%Y-%m-%d"))
    minute, second = divmod(second, 60)
    whole = f"{_last_day[1]}T{minute // 60:02}:{minute % 60:02}:{second:02}"
    return f"{whole}.{ns:09}".rstrip("0") + "Z" if ns else whole + "Z"


def nano(time: str) -> str:
    """A time as messages carry it, with nine digits, as RFC3339Nano: without trailing zeros."""
    return time[:-1].rstrip("0").rstrip(".") + "Z" if time[-1:] == "Z" and "." in time else time


def parse_time(text: str) -> int:
    """RFC 3339, or Unix seconds, which cAdvisor's documents promise -> ns since 1970; empty or the zero time: 0.

    Raises:
        ValueError: neither.
    """
    if not text or text == ZERO_TIME:
        return 0
    if unix := _UNIX.fullmatch(text):
        return int(unix[1]) * _NS + int((unix[2] or "").ljust(9, "0"))
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"{quoted(text)} is neither RFC 3339 (2006-01-02T15:04:05Z) nor Unix seconds")
    day, clock, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta()
    zone = timezone(-offset if sign == "-" else offset)  # a ValueError of its own beyond 24 h
    at = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * _DAY + since.seconds) * _NS + int((fraction or "")[:9].ljust(9, "0"))


def parse_duration(text: str) -> float:
    """`1m30s`, `250ms`, `-1.5h`, `0` -> seconds.

    Raises:
        ValueError: not a Go duration; the text is Go's.
    """
    sign, rest = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if rest == "0":
        return 0.0
    total, end = 0.0, 0
    while len(rest) <= _LONGEST_DURATION_TEXT and (part := _DURATION_PART.match(rest, end)):
        number, unit = part.groups()
        if unit not in _UNITS:
            wrong = f"unknown unit {quoted(unit)} in" if unit else "missing unit in"
            raise ValueError(f"time: {wrong} duration {quoted(text)}")
        total += float(number) * _UNITS[unit]
        end = part.end()
    if not rest or end != len(rest) or total > _LONGEST_SECONDS:
        raise ValueError(f"time: invalid duration {quoted(text)}")
    return -total if sign == "-" else total


def parse_bool(text: str) -> bool | None:
    """Go's ParseBool; None: not one of its words."""
    return _TRUTH.get(text)


def parse_int(text: str) -> int | None:
    """Go's Atoi; None: not a whole number of 64 bits."""
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        return None
    number = int(text)
    return number if fits(number) else None


def fits(number: int) -> bool:
    """Whether it is one of Go's `int`."""
    return -(1 << 63) <= number < 1 << 63


def quoted(text: str) -> str:
    """A text as Go's %q shows it, and not longer than helps."""
    shown = text if len(text) <= 300 else text[:300] + "…"
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in shown) + '"'


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
