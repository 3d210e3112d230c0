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

    def parse(raw: bytes) -> Sequence[Any]:
        number = parse_single(raw)
        return [ABSENT if number is ABSENT else number * scale for scale in scales]

    return parse


def _lines(wanted: Sequence[Wanted]) -> Parser:
    return lambda raw: [raw.count(b"\n")] * len(wanted)


def _nested(wanted: Sequence[Wanted]) -> Parser:
    """`8:0 rbytes=1 wbytes=2 …` a line, summed over devices.

    An empty file is a sum over no device: 0. Kernels before 5.17 or so write a device without numbers with no line end,
    `8:16 8:0 rbytes=…`: what is looked for is the key, wherever it stands in a line that begins with a device.
    """
    keys = [(key.encode(), scale) for key, scale, _ in wanted]
    nothing = [ABSENT] * len(keys)

    def parse(raw: bytes) -> Sequence[Any]:
        sums = dict.fromkeys((key for key, _ in keys), 0)
        understood = not raw
        for line in raw.split(b"\n"):
            words = line.split()
            if not words or not words[0].replace(b":", b"", 1).isdigit():
                continue
            understood = True
            for word in words:
                key, _, text = word.partition(b"=")
                if key in sums and text.isdigit() and len(text) <= 20:
                    sums[key] += int(text)
        return [sums[key] * scale for key, scale in keys] if understood else nothing

    return parse


_OPERATION: Final = re.compile(rb"(?m)^\d+:\d+ ([A-Z][a-z]+) (\d{1,20})$")
_TOTAL: Final = re.compile(rb"(?m)^Total \d{1,20}$")


def _operations(wanted: Sequence[Wanted]) -> Parser:
    """`8:0 Read 1` a line, summed over devices; `Total 0` alone is a sum over no device: 0."""
    keys = [(key.encode(), scale) for key, scale, _ in wanted]
    nothing = [ABSENT] * len(keys)

    def parse(raw: bytes) -> Sequence[Any]:
        sums: dict[bytes, int] = {}
        for operation, number in _OPERATION.findall(raw):
            sums[operation] = sums.get(operation, 0) + int(number)
        if not sums and raw and not _TOTAL.search(raw):
            return nothing
        return [sums.get(key, 0) * scale for key, scale in keys]

    return parse


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
    "nested": _nested,
    "operations": _operations,
    "pressure": _pressure,
    "lines": _lines,
}
