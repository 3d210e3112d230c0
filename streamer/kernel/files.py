"""Parsers for the layouts of kernel files that `model/stats.py` names: bytes in, numbers out.

A parser gives one number for each wanted key, in their order, and `ABSENT` where the file has none. It never raises:
a line that is not as the kernel writes it is skipped.

memory.stat has 40 to 70 lines of which a dozen are wanted, a thousand times a second. Their places are learnt once and
checked by name and by the number of lines on every read: splitting once and picking by position took 2 to 3 us, a
search for each key 4 us, one regular expression as much as the split but with no protection from a changed order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter, mul
from typing import Any, Final, NamedTuple

from streamer.model.stats import ABSENT, Layout

Parser = Callable[[bytes], Sequence[Any]]
"""The file's bytes -> a number, or `ABSENT`, for each wanted key."""


class Wanted(NamedTuple):
    """One number of a file: its key ("" where a file has but one), and what makes the kernel's number a column's."""

    key: str
    scale: int = 1
    number: type = int


def parser(layout: Layout, wanted: Sequence[Wanted]) -> Parser:
    """The parser for a file of that layout."""
    return _LAYOUTS[layout](wanted)


def parse_single(raw: bytes) -> Any:
    """`123` -> 123; `max` and everything else -> `ABSENT`."""
    text = raw.strip()
    return int(text) if text.isdigit() and len(text) <= 20 else ABSENT


def parse_flat(raw: bytes) -> dict[str, int]:
    """`key value` a line -> {key: value}; other lines are skipped."""
    found = {}
    for line in raw.split(b"\n"):
        key, _, text = line.partition(b" ")
        number = parse_single(text)
        if number is not ABSENT and key:
            found[key.decode("ascii", "replace")] = number
    return found


class _Places(NamedTuple):
    """Where the wanted keys stand in a file of so many lines."""

    split: Callable[[bytes], list[bytes]]
    keys: Callable[[list[bytes]], tuple[bytes, ...]]
    names: tuple[bytes, ...]
    values: Callable[[list[bytes]], tuple[bytes, ...]]
    finish: Callable[[list[int]], Sequence[Any]]


class _Flat:
    """`key value` a line. One parser serves all cgroups, and remembers the places for each number of lines it meets."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = tuple(wanted)
        self._places: dict[int, _Places | None] = {}

    def __call__(self, raw: bytes) -> Sequence[Any]:
        places = self._places.get(raw.count(b"\n"))
        if places is not None:
            tokens = places.split(raw)
            try:
                if places.keys(tokens) == places.names:
                    return places.finish([*map(int, places.values(tokens))])
            except (IndexError, ValueError):
                pass  # another order, or no numbers: line by line, then
        return self._learn(raw)

    def _learn(self, raw: bytes) -> Sequence[Any]:
        found = parse_flat(raw)
        if len(self._places) < 64:  # kernels write a handful of forms; anything else is read line by line
            self._places[raw.count(b"\n")] = _places(raw, self._wanted, found)
        return [found[key] * scale if key in found else ABSENT for key, scale, _ in self._wanted]


def _places(raw: bytes, wanted: tuple[Wanted, ...], found: dict[str, int]) -> _Places | None:
    """None when the file is not made of `key value` lines throughout, or has nothing that is wanted."""
    tokens = raw.split()
    names = tuple(key.encode() for key, _, _ in wanted if key in found)
    regular = len(tokens) == 2 * raw.count(b"\n") and all(tokens[::2].count(name) == 1 for name in names)
    if not names or not regular:
        return None
    at = [2 * tokens[::2].index(name) for name in names]
    from_end, from_start = len(tokens) - min(at), max(at) + 2
    split: Callable[[bytes], list[bytes]]
    if from_end < from_start:  # cut off only as many pieces as reach the first wanted line
        at = [place - len(tokens) for place in at]
        split = lambda raw: raw.rsplit(None, from_end)  # noqa: E731  a value of the record, bound to its number
    else:
        split = lambda raw: raw.split(None, from_start)  # noqa: E731  the same, counted from the other side
    return _Places(split, _picker(at), names, _picker([place + 1 for place in at]), _finisher(wanted, found))


def _picker(at: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(at) == 1:  # itemgetter of one gives the item itself
        one = at[0]
        return lambda items: (items[one],)
    return itemgetter(*at)


def _finisher(wanted: tuple[Wanted, ...], found: dict[str, int]) -> Callable[[list[int]], Sequence[Any]]:
    """From the numbers of the keys that are there to one entry for each wanted key."""
    scales = [scale for key, scale, _ in wanted if key in found]
    present = iter(range(len(scales)))
    order = _picker([next(present) if key in found else -1 for key, _, _ in wanted])  # the last entry is ABSENT
    complete = len(scales) == len(wanted)
    if complete and all(scale == 1 for scale in scales):
        return lambda numbers: numbers
    if complete:
        return lambda numbers: [*map(mul, numbers, scales)]
    return lambda numbers: order([*map(mul, numbers, scales), ABSENT])


def _single(wanted: Sequence[Wanted]) -> Parser:
    scales = [scale for _, scale, _ in wanted]
    plain = scales == [1]

    def parse(raw: bytes) -> Sequence[Any]:
        if (
            plain and raw[-1:] == b"\n" and raw[:-1].isdigit() and len(raw) <= 20
        ):  # as the kernel writes it, hundreds of times a second
            return (int(raw),)
        number = parse_single(raw)
        return [ABSENT if number is ABSENT else number * scale for scale in scales]

    return parse


def _lines(wanted: Sequence[Wanted]) -> Parser:
    return lambda raw: [raw.count(b"\n")] * len(wanted)


ByDevice = dict[tuple[int, int], list[int]]
"""(major, minor) of a block device -> a number for each wanted key."""


def parse_devices(layout: Layout, wanted: Sequence[Wanted], raw: bytes) -> ByDevice | None:
    """The numbers of a `nested` or `operations` file by device, 0 where a device has none; None: it is no such file."""
    return _BY_DEVICE[layout](wanted, raw)


def _nested_devices(wanted: Sequence[Wanted], raw: bytes) -> ByDevice | None:
    """`8:0 rbytes=1 wbytes=2 …` a line.

    An empty file tells of no device. Kernels before 5.17 or so write a device without numbers with no line end,
    `8:16 8:0 rbytes=…`: a number belongs to the device that stands last before it.
    """
    places = {key.encode(): place for place, (key, _, _) in enumerate(wanted)}
    found: ByDevice = {}
    for line in raw.split(b"\n"):
        numbers = None
        for word in line.split():
            key, equals, text = word.partition(b"=")
            if not equals:
                major, _, minor = word.partition(b":")
                if major.isdigit() and minor.isdigit() and len(word) <= 20:
                    numbers = found.setdefault((int(major), int(minor)), [0] * len(wanted))
            elif numbers is not None and key in places and text.isdigit() and len(text) <= 20:
                place = places[key]
                numbers[place] += int(text) * wanted[place].scale
    return found if found or not raw else None


_OPERATION: Final = re.compile(rb"(?m)^(\d{1,9}):(\d{1,9}) ([A-Z][a-z]+) (\d{1,20})$")
_TOTAL: Final = re.compile(rb"(?m)^Total \d{1,20}$")


def _operation_devices(wanted: Sequence[Wanted], raw: bytes) -> ByDevice | None:
    """`8:0 Read 1` a line; `Total 0` alone tells of no device."""
    places = {key.encode(): place for place, (key, _, _) in enumerate(wanted)}
    found: ByDevice = {}
    for major, minor, operation, text in _OPERATION.findall(raw):
        numbers = found.setdefault((int(major), int(minor)), [0] * len(wanted))
        if operation in places:
            place = places[operation]
            numbers[place] += int(text) * wanted[place].scale
    return found if found or not raw or _TOTAL.search(raw) else None


def _summed(layout: Layout) -> Callable[[Sequence[Wanted]], Parser]:
    """A number for each key, summed over devices; over no device: 0."""

    def make(wanted: Sequence[Wanted]) -> Parser:
        nothing = [ABSENT] * len(wanted)

        def parse(raw: bytes) -> Sequence[Any]:
            found = parse_devices(layout, wanted, raw)
            return nothing if found is None else [*map(sum, zip(*found.values(), strict=True))] or [0] * len(wanted)

        return parse

    return make


_BY_DEVICE: Final[dict[Layout, Callable[[Sequence[Wanted], bytes], ByDevice | None]]] = {
    "nested": _nested_devices,
    "operations": _operation_devices,
}


_AVERAGES: Final = rb" avg10=(\d{1,6}\.\d{1,6}) avg60=\S+ avg300=\S+ total=(\d{1,20})"
_PRESSURE: Final = re.compile(rb"some" + _AVERAGES + rb"\n(?:full" + _AVERAGES + rb"\n)?")
_PRESSURE_KEYS: Final = ("some.avg10", "some.total", "full.avg10", "full.total")


def _pressure(wanted: Sequence[Wanted]) -> Parser:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`; keys are `some.total` and so on (psi.rst).

    There was no line of `full` for the CPU before 5.13.
    """
    places = [(_PRESSURE_KEYS.index(key), scale, number) for key, scale, number in wanted]
    nothing = (None,) * len(_PRESSURE_KEYS)

    def parse(raw: bytes) -> Sequence[Any]:
        found = _PRESSURE.fullmatch(raw)
        texts = found.groups() if found else nothing
        return [ABSENT if texts[place] is None else number(texts[place]) * scale for place, scale, number in places]

    return parse


_LAYOUTS: Final[dict[Layout, Callable[[Sequence[Wanted]], Parser]]] = {
    "single": _single,
    "flat": _Flat,
    "nested": _summed("nested"),
    "operations": _summed("operations"),
    "pressure": _pressure,
    "lines": _lines,
}
