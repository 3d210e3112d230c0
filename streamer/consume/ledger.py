"""The numbers of one epoch and topic: which are there, which are missing, and which of those are accounted for. Pure.

What is missing is sorted in this order: it was before what is still kept (`expired`), a `gap` says so (`declared`), it may
still be on its way (`pending`), or nobody accounts for it (`undeclared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from streamer.consume.runs import Hole, Run, Runs, count, merged, split
from streamer.model.messages import Topic

_FIRST_MARKS: Final = 64  # heartbeats that are all kept; of later ones fewer and fewer are
_END: Final = 1 << 63  # beyond every number: a gap without an end


class Seen(NamedTuple):
    """Of a record that is there: when the agent noticed its fact (ms since 1970), and where it stands."""

    observed_ms: int
    place: str
    at: int | str

    @property
    def where(self) -> str:
        return f"{self.place}{self.at}"


class Gap(NamedTuple):
    """Numbers that a `gap` record declares to be missing. `last` None: to the end; `many` None: not known how many of them."""

    first: int
    last: int | None
    many: int | None
    component: str
    reason: str

    @property
    def run(self) -> Run:
        return self.first, _END if self.last is None else self.last


class Missing(NamedTuple):
    """Numbers that are not there, by why. `undeclared_count`: fewer than are in the runs when a gap declares so many of them
    without saying which."""

    expired: list[Run]
    declared: list[Run]
    pending: list[Run]
    undeclared: list[Run]
    undeclared_count: int
    declared_count: int
    after: str  # where the record before the first undeclared one stands


class Epoch:
    """What the control records of one run of an agent say about all of its topics."""

    def __init__(self) -> None:
        self.stopped = False
        self.marks: dict[str, int] = {}  # by topic: the highest `high_water`
        self.old_marks: dict[str, int] = {}  # the same, of those older than the grace
        self._history: list[tuple[int, dict[str, int]]] = []

    def mark(self, observed_ms: int, marks: dict[str, int], *, old: bool) -> None:
        """A record says up to where numbers have been given out. `old`: what it tells of must have arrived by now."""
        for topic, mark in marks.items():
            self.marks[topic] = max(mark, self.marks.get(topic, 0))
            if old:
                self.old_marks[topic] = max(mark, self.old_marks.get(topic, 0))
        self._history.append((observed_ms, marks))
        if len(self._history) > 2 * _FIRST_MARKS:
            del self._history[_FIRST_MARKS::2]

    def given_out_by(self, time_ms: int, topic: str) -> int | None:
        """A number so that all above it were given out after this time; None when no heartbeat tells."""
        after = [(observed_ms, marks) for observed_ms, marks in self._history if observed_ms >= time_ms]
        return min(after, key=lambda each: each[0])[1].get(topic, 0) if after else None


class Ledger:
    """The numbers of one topic in one epoch of a host."""

    def __init__(self, host_id: str, epoch: int, topic: Topic, number: int) -> None:
        self.host_id, self.epoch, self.topic = host_id, epoch, topic
        self.number = number  # of this ledger, for short keys
        self.seen = self.repeats = self.repeated_ids = 0
        self.runs: Runs[Seen] = Runs()
        self.gaps: dict[Gap, None] = {}  # the same gap told by two runs of the agent is one

    def missing(self, about: Epoch, *, kept_from_ms: int | None, open_end: bool, young_ms: int, kind: str) -> Missing:
        """What is missing, and why.

        kept_from_ms   all that was noticed from then on would still be there; None: everything would
        open_end       the run goes on: what is young may still be on its way
        young_ms       what was noticed from then on is young
        kind           of stream, as sinks of it are called: gaps of other sinks do not count
        """
        mark = about.marks.get(self.topic.suffix, 0)
        expired: list[Run] = []
        rest: list[Run] = []
        young: list[Run] = []
        holes = list(self.runs.holes(mark))
        for hole in holes:
            first = hole.first
            if kept_from_ms is not None and self._may_be_gone(hole, kept_from_ms):
                known = about.given_out_by(kept_from_ms, self.topic.suffix)
                last = hole.last if known is None else min(hole.last, known)
                if last >= first:
                    expired.append((first, last))
                    first = last + 1
            if first <= hole.last:
                rest.append((first, hole.last))
                young += self._young(hole, about, young_ms) if open_end else []
        declared, undeclared, short, told = self._declared(rest, kind)
        pending, undeclared = split(undeclared, young)
        shown = merged([*undeclared, *short])
        after = next((hole.before.where for hole in holes if shown and hole.before and hole.last >= shown[0][0] >= hole.first), "")
        return Missing(expired, declared, pending, shown, count(shown) - told, count(declared) + told, after)

    def _may_be_gone(self, hole: Hole[Seen], kept_from_ms: int) -> bool:
        """Whether a hole may be older than what is kept: when the record before it is."""
        return self.epoch <= kept_from_ms if hole.before is None else hole.before.observed_ms < kept_from_ms

    def _young(self, hole: Hole[Seen], about: Epoch, young_ms: int) -> list[Run]:
        if hole.last < self.runs.highest:
            after_ms = self.epoch if hole.before is None else hole.before.observed_ms
            return [(hole.first, hole.last)] if after_ms >= young_ms else []
        first = max(hole.first, about.old_marks.get(self.topic.suffix, 0) + 1)
        return [(first, hole.last)] if first <= hole.last else []

    def _declared(self, runs: list[Run], kind: str) -> tuple[list[Run], list[Run], list[Run], int]:
        """Split runs into declared ones, undeclared ones, and those of which gaps declare fewer than are missing; how many that is."""
        gaps = [gap for gap in self.gaps if counts_for(gap.component, kind)]
        declared, rest = split(runs, merged([gap.run for gap in gaps if gap.many is None]))
        together = _together([gap for gap in gaps if gap.many is not None])
        covered, rest = split(rest, [run for run, _ in together])
        short: list[Run] = []
        told = at = 0
        for (_, last), number in together:
            start = at
            while at < len(covered) and covered[at][0] <= last:
                at += 1
            here = covered[start:at]
            if count(here) <= number:
                declared += here
            else:
                short += here
                told += number
        return merged(declared), rest, short, told


def _together(gaps: Sequence[Gap]) -> list[tuple[Run, int]]:
    """Gaps that share a number become one range with the sum of their counts; in order. Those that only touch stay apart."""
    result: list[tuple[Run, int]] = []
    for gap in sorted(gaps, key=lambda gap: gap.first):
        (first, last), number = gap.run, gap.many or 0
        if result and first <= result[-1][0][1]:
            (before, end), so_far = result[-1]
            result[-1] = (before, max(last, end)), so_far + number
        else:
            result.append(((first, last), number))
    return result


def counts_for(component: str, kind: str) -> bool:
    """Whether a gap of this component is one in a stream of this kind: those of other sinks are none here."""
    if not component.startswith("sink."):
        return True
    name = component.removeprefix("sink.").partition("-")[0]
    return name == kind or (name == "stdout" and kind == "file")
