"""Two answers of `/metrics`, family by family: TYPE and HELP, label names, series, values and timestamps.

Pure. Reads the text format 0.0.4 by itself, since readers that are made for scraping rename families and forget which lines were
there. A label with an empty value is none, as it is to Prometheus, so only labels that say something are compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Final

from tests.compare.fields import LATE_SECONDS, MIB, Rule, glob
from tests.compare.tree import Difference, Seen, fits

Labels = frozenset[tuple[str, str]]

_LINE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: (-?\d+))?")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_ESCAPES: Final = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_WHOSE: Final = re.compile(r"id|name|image|container_(label|env)_.*")  # labels that say which container, not what of it


@dataclass(slots=True)
class Family:
    """One family: what stands after TYPE and HELP, and its series with value and timestamp in ms (None: no timestamp)."""

    kind: str = ""
    help: str = ""
    series: dict[Labels, tuple[float, int | None]] = field(default_factory=dict)

    def label_names(self, of: Set[str]) -> set[str]:
        """Names of labels that have a value in at least one series of these containers."""
        return {name for labels in self.series if _whose(labels) in of for name, _ in labels}


def families(text: str) -> dict[str, Family]:
    """Text format to name -> family.

    Raises:
        ValueError: a line that is neither a sample nor a comment, or a series that is there twice.
    """
    found: dict[str, Family] = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, what, name, said = (*line.split(" ", 3), "")[:4]
            setattr(found.setdefault(name, Family()), "kind" if what == "TYPE" else "help", said)
        elif line and not line.startswith("#"):
            name, labels, value, time = _sample(line)
            series = found.setdefault(_family_of(name, found), Family()).series
            if name not in found:  # `_sum`, `_count` and `_bucket` of a summary or histogram
                labels |= {("__name__", name)}
            if labels in series:
                raise ValueError(f"twice: {line}")
            series[labels] = (value, time)
    return found


def _sample(line: str) -> tuple[str, Labels, float, int | None]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not a sample: {line}")
    labels, at = set(), 0
    text = match[2] or ""
    while at < len(text):
        label = _LABEL.match(text, at)
        if label is None:
            raise ValueError(f"not labels: {line}")
        if label[2]:
            labels.add((label[1], re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), label[2])))
        at = label.end()
    return match[1], frozenset(labels), float(match[3]), int(match[4]) if match[4] else None


def _family_of(name: str, found: dict[str, Family]) -> str:
    if name in found:
        return name
    for suffix in ("_sum", "_count", "_bucket"):
        if (base := name.removesuffix(suffix)) != name and base in found:
            return base
    return name


def started(text: str) -> float:
    """When the one who was asked started, in seconds since 1970; 0 when it does not say."""
    series = families(text).get("process_start_time_seconds", Family()).series
    return next((value for value, _ in series.values()), 0.0)


def compare(ours: str, before: str, after: str) -> Iterator[Difference]:
    """What differs between ours and theirs, which was asked before and after ours."""
    mine, first, last = families(ours), families(before), families(after)
    for name in sorted(mine.keys() | last.keys()):
        if name not in mine and _of_containers(last[name]):
            yield from _family(name, Family(last[name].kind, last[name].help), first.get(name, Family()), last[name])
        elif name not in mine:
            yield Difference(f"/metrics {name}", "only theirs", None, f"{len(last[name].series)} series")
        elif name not in last:
            yield Difference(f"/metrics {name}", "only ours", f"{len(mine[name].series)} series")
        else:
            yield from _family(name, mine[name], first.get(name, Family()), last[name])


def _family(name: str, mine: Family, first: Family, last: Family) -> Iterator[Difference]:
    if mine.kind != last.kind:
        yield Difference(f"/metrics {name} TYPE", "text", mine.kind, last.kind)
    if mine.help != last.help:
        yield Difference(f"/metrics {name} HELP", "text", mine.help, last.help)
    renamed = _renamed(mine, last)
    for labels, plain in renamed.items():
        yield Difference(f"/metrics {name}{{device}}", "label", dict(labels)["device"], None, _told(plain), _whose(plain))
    mine = Family(series={renamed.get(labels, labels): sample for labels, sample in mine.series.items()})
    both = {_whose(labels) for labels in mine.series} & {_whose(labels) for labels in last.series}
    differing = mine.label_names(both) ^ last.label_names(both)
    for label in sorted(differing):
        ours, theirs = label in mine.label_names(both), label in last.label_names(both)
        yield Difference(f"/metrics {name}{{{label}}}", "label", ours or None, theirs or None)
    same = {_without(labels, differing): (labels, sample) for labels, sample in mine.series.items()}
    earlier = {_without(labels, differing): sample for labels, sample in first.series.items()}
    later = {_without(labels, differing): (labels, sample) for labels, sample in last.series.items()}
    for key in sorted(same.keys() | later.keys(), key=sorted):
        if key not in same:
            if key in earlier:
                labels, (value, _) = later[key]
                yield Difference(pattern(name, labels), "only theirs", None, value, _told(labels), _whose(labels))
        elif key not in later and key not in earlier:
            labels, (value, _) = same[key]
            yield Difference(pattern(name, labels), "only ours", value, None, _told(labels), _whose(labels))
        elif key in later:
            yield from _series(name, same[key][0], same[key][1], earlier.get(key), later[key][1])


def _series(
    name: str,
    labels: Labels,
    mine: tuple[float, int | None],
    first: tuple[float, int | None] | None,
    last: tuple[float, int | None],
) -> Iterator[Difference]:
    path, where, whose = pattern(name, labels), _told(labels), _whose(labels)
    if (mine[1] is None) != (last[1] is None) or not (name.startswith("machine_") or _near(mine[1], first, last[1])):
        yield Difference(path, "timestamp", mine[1], last[1], where, whose)
    rule = rule_of(name)
    around = [last[0]] if first is None else [first[0], last[0]]
    seen = Seen(last[0], around if rule.kind == "gauge" or len(around) > 1 else [], 1)
    if math.isnan(mine[0]) != math.isnan(last[0]) or not (math.isnan(mine[0]) or fits(rule, mine[0], seen)):
        told = " to ".join(f"{value:.15g}" for value in dict.fromkeys(around))
        yield Difference(path, "value", mine[0], told, where, whose)


def _near(ours: int | None, first: tuple[float, int | None] | None, last: int | None) -> bool:
    """What is about the machine has the time at which it was looked at; all else that has a time was sampled just now."""
    if ours is None or last is None:
        return True
    earliest = last if first is None or first[1] is None else first[1]
    return earliest - LATE_SECONDS * 1000 <= ours <= last + LATE_SECONDS * 1000


def _without(labels: Labels, names: set[str]) -> Labels:
    return frozenset(label for label in labels if label[0] not in names)


def pattern(name: str, labels: Labels) -> str:
    """A series without whose it is: `container_memory_failures_total{failure_type="pgfault",scope="container"}`."""
    kept = ",".join(f'{label}="{value}"' for label, value in sorted(labels) if not _WHOSE.fullmatch(label))
    return f"/metrics {name}{{{kept}}}" if kept else f"/metrics {name}"


def _renamed(mine: Family, last: Family) -> dict[Labels, Labels]:
    """Our series of a device that is told by its number alone -> the same without it, as theirs has it."""
    numbered = (labels for labels in mine.series if re.fullmatch(r"\d+:\d+", dict(labels).get("device", "")))
    plain = {labels: _without(labels, {"device"}) for labels in numbered if labels not in last.series}
    return {labels: without for labels, without in plain.items() if without in last.series}


def _whose(labels: Labels) -> str:
    return dict(labels).get("id", "")


def _of_containers(family: Family) -> bool:
    return any(_whose(labels) for labels in family.series)


def _told(labels: Labels) -> str:
    told = dict(labels)
    return told.get("name") or told.get("id") or ""


# The first row that fits decides. Two scrapes are some seconds apart, and ours lies between them.
_RULES: Final = [
    (glob(name), rule)
    for name, rule in (
        ("container_spec_*", Rule()),
        ("container_start_time_seconds", Rule("gauge", absolute=2)),
        ("container_creation_time_seconds", Rule("gauge", absolute=2)),
        ("machine_*", Rule()),
        ("container_last_seen", Rule("gauge", absolute=LATE_SECONDS)),
        ("container_health_state", Rule()),
        ("container_oom_events_total", Rule("any")),  # since the start of the one who is asked
        ("container_cpu_user_seconds_total", Rule("counter", absolute=0.03)),
        ("container_cpu_system_seconds_total", Rule("counter", absolute=0.03)),
        ("container_memory_failures_total", Rule("counter", absolute=50)),
        ("container_memory_failcnt", Rule("counter")),
        ("container_memory_*_total", Rule("counter")),
        ("container_memory_*", Rule("gauge", absolute=2 * MIB, relative=0.1)),
        ("container_fs_inodes_total", Rule("gauge", absolute=10)),
        ("container_fs_inodes_free", Rule("gauge", absolute=2000, relative=0.01)),
        ("container_fs_io_current", Rule("gauge", absolute=64)),
        ("container_fs_*_total", Rule("counter", relative=0.01)),  # until some seconds ago
        ("container_fs_usage_bytes", Rule("gauge", absolute=64 * MIB, relative=0.01)),
        ("container_fs_limit_bytes", Rule()),
        ("container_network_*_usage_total", Rule("gauge", absolute=20, relative=0.5)),
        ("container_network_advance_tcp_stats_total", Rule("gauge", absolute=20, relative=0.5)),
        ("container_network_*", Rule("counter", absolute=2)),
        ("container_tasks_state", Rule("gauge", absolute=5, relative=0.2)),
        ("container_cpu_load_*", Rule("gauge", absolute=1000)),
        ("container_threads_max", Rule()),
        ("container_ulimits_soft", Rule()),
        ("container_*_total", Rule("counter")),
        ("container_*", Rule("gauge", absolute=10, relative=0.2)),
        ("*", Rule("any")),  # about the agent that is asked
    )
]


def rule_of(name: str) -> Rule:
    """How a value of this family is compared."""
    return next(rule for pattern, rule in _RULES if pattern.fullmatch(name))
