"""Two JSON trees, path by path: the same keys, the same types, equal facts, and measured values as near as two readers can be.

Pure. Ours is one value; theirs is what was seen there around the same time, since a counter can only be judged between two of
its samples.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.compare.fields import (
    BY_CONTAINER,
    ELEMENTS,
    LATE_SECONDS,
    NAMES_ITS_CONTAINER,
    NO_TIME,
    SAMPLES,
    SELDOM,
    Rule,
    is_named,
    keys_of,
    rule_of,
)

_NEAR: Final = 2  # samples of theirs on either side of ours
_UTC_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_JSON_TYPES: Final = {
    type(None): "null", bool: "bool", int: "integer", float: "fraction", str: "string", list: "list", dict: "object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where ours is not as theirs.

    kind  `only ours`, `only theirs`: a key, an element or a family; `type`; `value`; `length`; `late`: samples of other times;
          `status`, `text`, `header`, `body`: of an HTTP answer; `label`, `timestamp`: of a metric; `refused`: by a client
    where  which element of lists and maps whose keys are data
    whose  the cgroup of the container that it is about, "" where it is about none
    """

    path: str
    kind: str
    ours: Any = None
    theirs: Any = None
    where: str = ""
    whose: str = ""


@dataclass(slots=True)
class Seen:
    """Theirs: the value nearest to ours in time, and the values around it, oldest first; no values around it where time plays no part."""

    near: Any
    around: list[Any] = field(default_factory=list)
    split: int = 0  # how many of `around` are older than ours

    def of(self, key: str) -> Seen:
        """The same below a key."""
        return self._below(lambda value: value.get(key) if isinstance(value, dict) else None)

    def element(self, path: str, key: tuple[Any, ...], number: int) -> Seen:
        """The same for the element of a list: the one with this key or, where elements have none, of this number."""

        def find(value: Any) -> Any:
            if not isinstance(value, list):
                return None
            if keys_of(path) is None:
                return value[number] if number < len(value) else None
            return next((element for element in value if _key(path, element) == key), None)

        return self._below(find)

    def led_by(self, name: Any) -> Seen:
        """A network whose own counters, those of the first interface, are those of the interface with this name."""
        return self._below(lambda network: _led_by(network, name))

    def _below(self, step: Any) -> Seen:
        below = [step(value) for value in self.around]
        if any(value is None for value in below):  # came or went in between: nothing to judge a counter by
            return Seen(step(self.near))
        return Seen(step(self.near), below, self.split)


def _led_by(network: Any, name: Any) -> Any:
    interfaces = network.get("interfaces") or () if isinstance(network, dict) else ()
    first: dict[str, Any] = next((each for each in interfaces if each["name"] == name), {})
    return {**network, **{key: first[key] for key in first if key in network and key != "name"}} if first else network


class Walk:
    """Compares; `leaves` is how many values were looked at."""

    def __init__(self) -> None:
        self.leaves = 0
        self._whose = ""

    def compare(self, path: str, ours: Any, theirs: Any, where: str = "", whose: str = "") -> Iterator[Difference]:
        """Everything that differs at and below a path; `whose`: the container's that it is about, where it does not say itself."""
        self._whose = whose
        yield from self._compare(path, ours, theirs if isinstance(theirs, Seen) else Seen(theirs), where)

    def _differ(self, path: str, kind: str, ours: Any, theirs: Any, where: str) -> Difference:
        return Difference(path, kind, ours, theirs, where, self._whose)

    def _compare(self, path: str, ours: Any, seen: Seen, where: str) -> Iterator[Difference]:
        if path in SAMPLES and isinstance(ours, list) and isinstance(seen.near, list):
            yield from self._samples(path, ours, seen.near, where)
        elif isinstance(ours, dict) and isinstance(seen.near, dict):
            yield from self._object(path, ours, seen, where)
        elif isinstance(ours, list) and isinstance(seen.near, list):
            yield from self._list(path, ours, seen, where)
        else:
            self.leaves += 1
            rule = rule_of(path)
            if not _same_type(ours, seen.near, rule):
                yield self._differ(path, "type", _shape(ours), _shape(seen.near), where)
            elif not fits(rule, ours, seen):
                yield self._differ(path, "value", ours, _told(rule, seen), where)

    def _object(self, path: str, ours: dict[str, Any], seen: Seen, where: str) -> Iterator[Difference]:
        named = is_named(path)
        if path.endswith(".network"):
            seen = seen.led_by(ours.get("name"))
        if path in NAMES_ITS_CONTAINER:
            self._whose = str(seen.near.get(NAMES_ITS_CONTAINER[path], ""))
        for key in [*seen.near, *(key for key in ours if key not in seen.near)]:
            below = f"{path}.*" if named else f"{path}.{key}"
            there = f"{where} {key}".strip() if named else where
            if named and path in BY_CONTAINER:
                self._whose = key
            if key not in ours:
                yield self._differ(below, "only theirs", None, seen.near[key], there)
            elif key not in seen.near:
                yield self._differ(below, "only ours", ours[key], None, there)
            else:
                yield from self._compare(ELEMENTS.get(below, below), ours[key], seen.of(key), there)

    def _list(self, path: str, ours: list[Any], seen: Seen, where: str) -> Iterator[Difference]:
        below = f"{path}[]"
        if keys_of(path) is None:
            if len(ours) != len(seen.near):
                yield self._differ(path, "length", ours, seen.near, where)
            for number, element in enumerate(ours[: len(seen.near)]):
                yield from self._compare(below, element, seen.element(path, (), number), where)
            return
        mine = {_key(path, element): element for element in ours}
        other = {_key(path, element): element for element in seen.near}
        if len(ours) > len(mine) and len(seen.near) == len(other):
            yield self._differ(path, "length", f"{len(ours)}, some twice", len(other), where)
        for key in [*other, *(key for key in mine if key not in other)]:
            there = f"{where} {'/'.join(map(str, key))}".strip()
            if key not in mine:
                yield self._differ(below, "only theirs", None, other[key], there)
            elif key not in other:
                yield self._differ(below, "only ours", mine[key], None, there)
            else:
                yield from self._compare(ELEMENTS.get(below, below), mine[key], seen.element(path, key, 0), there)

    def _samples(self, path: str, ours: list[Any], theirs: list[Any], where: str) -> Iterator[Difference]:
        self.leaves += 1
        if not ours or not theirs:
            if ours or theirs:
                yield self._differ(path, "length", len(ours), len(theirs), where)
            return
        for sample in ours:
            if not (isinstance(sample, dict) and _is_utc(sample.get("timestamp"))):
                yield self._differ(f"{path}[].timestamp", "value", sample, theirs[-1]["timestamp"], where)
                return
        apart = seconds_of(ours[-1]["timestamp"]) - seconds_of(theirs[-1]["timestamp"])
        if abs(apart) > LATE_SECONDS:
            yield self._differ(path, "late", ours[-1]["timestamp"], theirs[-1]["timestamp"], where)
        sample, seen = align(ours, theirs)
        yield from self._compare(
            f"{path}[]", _without(sample), Seen(_without(seen.near), [*map(_without, seen.around)], seen.split), where
        )
        yield from self._compare(f"{path}[]", *_measured_seldom(ours, theirs), where)


def _without(sample: Any) -> Any:
    return {key: value for key, value in sample.items() if key != SELDOM}


def _measured_seldom(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[Any, Seen]:
    """Of the newest samples what is measured less often than they are taken; of theirs over all the time that both know of."""
    found = [{SELDOM: sample[SELDOM]} for sample in theirs if SELDOM in sample]
    near = found[-1] if SELDOM in theirs[-1] else {}
    return {SELDOM: ours[-1][SELDOM]} if SELDOM in ours[-1] else {}, Seen(near, [found[0], near], 1) if len(
        found
    ) > 1 and near else Seen(near)


def align(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[Any, Seen]:
    """The newest of our samples that lies between two of theirs, and those; our newest and their nearest where none does."""
    times = [seconds_of(sample["timestamp"]) for sample in theirs]
    for sample in reversed(ours):
        at = seconds_of(sample["timestamp"])
        older = sum(1 for time in times if time <= at)
        if 0 < older < len(times):
            around = list(theirs[max(0, older - _NEAR) : older + _NEAR])
            near = min(theirs[older - 1], theirs[older], key=lambda other: abs(seconds_of(other["timestamp"]) - at))
            return sample, Seen(near, around, min(older, _NEAR))
    newest = ours[-1]
    return newest, Seen(min(theirs, key=lambda other: abs(seconds_of(other["timestamp"]) - seconds_of(newest["timestamp"]))))


def fits(rule: Rule, ours: Any, seen: Seen) -> bool:
    """Whether a value of ours is one that theirs could have been at that time."""
    match rule.kind:
        case "any":
            return True
        case "time":
            return _time_fits(rule, ours, seen.near)
        case "counter" | "gauge" if isinstance(ours, int | float) and not isinstance(ours, bool):
            bounds = allowed(rule, seen)
            return bounds is None or bounds[0] <= ours <= bounds[1]
        case _:
            return bool(ours == seen.near)


def allowed(rule: Rule, seen: Seen) -> tuple[float, float] | None:
    """Least and largest value that fits; None for a counter that cannot be judged."""
    if rule.kind == "gauge":
        values = seen.around or [seen.near]
        spare = max(rule.absolute, rule.relative * max(map(abs, values)))
        return min(values) - spare, max(values) + spare
    if not seen.around:
        return None
    older, newer = seen.around[: seen.split], seen.around[seen.split :]
    step = newer[0] - older[-1]
    least = older[-2] if len(older) > 1 else older[-1] - step
    largest = newer[1] if len(newer) > 1 else newer[0] + step
    spare = max(rule.absolute, rule.relative * abs(largest))
    return least - spare, largest + spare


def _time_fits(rule: Rule, ours: Any, near: Any) -> bool:
    if not (_is_utc(ours) and isinstance(near, str)):
        return False
    if NO_TIME in (ours, near):
        return bool(ours == near)
    return abs(seconds_of(ours) - seconds_of(near)) <= rule.absolute


def _is_utc(time: Any) -> bool:
    return isinstance(time, str) and _UTC_TIME.fullmatch(time) is not None


def seconds_of(time: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; microseconds are kept."""
    whole, _, rest = time.partition(".")
    if not rest:
        return datetime.fromisoformat(time).timestamp()
    digits = re.match(r"\d*", rest)
    assert digits is not None
    zone = rest[digits.end() :]
    when = datetime.fromisoformat(f"{whole}{zone}")
    return when.astimezone(UTC).timestamp() + round(float(f"0.{digits[0] or 0}"), 6)


def _same_type(ours: Any, theirs: Any, rule: Rule) -> bool:
    if rule.fraction:  # a fraction that happens to be whole is written without a point by one of them
        return {_JSON_TYPES[type(ours)], _JSON_TYPES[type(theirs)]} <= {"integer", "fraction"} or type(ours) is type(theirs)
    return type(ours) is type(theirs)


def _key(path: str, element: Any) -> tuple[Any, ...]:
    parts = [element.get(key) for key in keys_of(path) or ()] if isinstance(element, dict) else [element]
    return tuple(part if isinstance(part, Hashable) else str(part) for part in parts)


def _shape(value: Any) -> str:
    return f"{_JSON_TYPES[type(value)]} {brief(value)}"


def _told(rule: Rule, seen: Seen) -> Any:
    if rule.kind in ("counter", "gauge") and (bounds := allowed(rule, seen)) is not None:
        return f"{seen.near} (fits: {bounds[0]:.15g} to {bounds[1]:.15g})"
    return seen.near


def brief(value: Any) -> Any:
    """A value as it is told of: of a tree, its keys or its length."""
    if isinstance(value, dict):
        return f"{{{', '.join(list(value)[:6])}{', …' if len(value) > 6 else ''}}}"
    if isinstance(value, list):
        return f"[{len(value)}]" if value and isinstance(value[0], dict | list) else value
    return value
