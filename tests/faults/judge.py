"""The oracle: what was done to the host against what a stream tells of it. Pure; our own reading of the promise.

A stream keeps the promise when, after repeats are dropped by id,

- each container's `created` and `deleted` and each OOM kill is there once, or a `gap` record covers it;
- the numbers of each epoch and topic are without holes up to the highest that anything in the stream knows of, or a
  `gap` record names the hole;
- each container's messages are in the order of the facts;
- nothing is told that did not happen, and what has the same id says the same.

What a `gap` record covers. With `gap_topic` it is about messages: these numbers of that topic and epoch (its own epoch
without `gap_epoch`, to that epoch's end without `gap_last`) are missing. Otherwise it is about facts that nobody saw:
between two times (RFC 3339), between two numbers of the kernel log, or all about one cgroup path. A gap of another
sink's (`sink.kafka` in Redis) covers nothing here.

A gap of time covers a container only when it came and went in it. One that was known before or is there afterwards has
left traces (a memory of what was there, the cgroup itself), so its end or its beginning has to be told all the same.
Unless that memory was taken from the agent too: `memory_kept` False.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

from tests.faults.ledger import Kill, Ledger, Life, Span

Record = dict[str, Any]

STATE: Final = "container.state"  # compacted: its numbers promise nothing
LIFECYCLE: Final = "container.lifecycle"
OOM: Final = "container.oom"
STATS: Final = "container.stats"
_RANK: Final = {"created": 0, "updated": 1, "deleted": 2}
_WATCHING: Final = ("source.cgroup", "agent", "state")
_TOLERANCE_NS: Final = 50_000_000
"""How much earlier than it can have happened a fact may be dated: the wall clock is slewed while we look."""


@dataclass
class Stream:
    """What lies at one sink.

    logs    each one in its own order: a Kafka partition, a Redis stream, a whole file
    whole   a log holds all topics, so order holds across them
    broken  what is no message at all
    """

    sink: str
    logs: list[list[Record]]
    whole: bool = False
    broken: list[str] = field(default_factory=list)

    def records(self) -> Iterable[Record]:
        for log in self.logs:
            yield from log


@dataclass
class Verdict:
    """How a stream compares. All lists are texts for people; all of them empty: the promise was kept.

    gaps      losses that the agent declared
    troubles  how often it said that a part of it was degraded: whether it noticed the fault at all
    covered   facts and messages that are missing and declared
    """

    sink: str
    facts: int = 0
    messages: int = 0
    repeats: int = 0
    gaps: int = 0
    troubles: int = 0
    covered: int = 0
    losses: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return not (self.losses or self.disorder or self.wrong)

    def complaints(self) -> list[str]:
        kinds = (("lost", self.losses), ("out of order", self.disorder), ("wrong", self.wrong))
        return [f"{self.sink}: {kind}: {text}" for kind, texts in kinds for text in texts]


class _SequenceGap(NamedTuple):
    """Declared: these numbers of a topic are missing. `last` None: to the end of that epoch."""

    epoch: int
    topic: str
    first: int
    last: int | None


class _Gaps:
    """The gap records that count for one sink."""

    def __init__(self, records: Iterable[Record], sink: str, *, memory_kept: bool) -> None:
        self._memory_kept = memory_kept
        self.sequences: list[_SequenceGap] = []
        self._times: list[tuple[str, int, int]] = []
        self._log_numbers: list[tuple[int, int]] = []
        self._paths: Counter[str] = Counter()
        self.count = 0
        self.unbounded: list[str] = []
        for record in records:
            self.count += 1
            component = str(record.get("component", ""))
            if component.startswith("sink.") and component != f"sink.{sink}":
                continue
            if "gap_topic" in record:
                self._about_messages(record)
            else:
                self._about_facts(component, record)

    def _about_messages(self, record: Record) -> None:
        first, last = record.get("gap_first", ""), record.get("gap_last")
        if not first.isdigit() or (last is not None and not last.isdigit()):
            if record["gap_topic"] != STATE:
                self.unbounded.append(f"gap {record['id']} names a topic and no numbers")
            return
        epoch = int(record.get("gap_epoch") or record["epoch"])
        self.sequences.append(_SequenceGap(epoch, record["gap_topic"], int(first), None if last is None else int(last)))

    def _about_facts(self, component: str, record: Record) -> None:
        first, last = record.get("gap_first", ""), record.get("gap_last", "")
        began, ended = nanoseconds(first), nanoseconds(last)
        if not first and not self._memory_kept:  # nobody knows since when
            began = 0
        if component == "source.kmsg" and first.isdigit() and last.isdigit():
            self._log_numbers.append((int(first), int(last)))
        elif began is not None and ended is not None:
            self._times.append((component, began, ended))
        elif first.startswith("/") and first == last:
            self._paths[first] += int(record.get("gap_count", 1))

    def cover_time(self, span: Span, *components: str) -> bool:
        """Whether one of these components was blind when this happened."""
        return any(
            component in components and began <= span.ended_ns and span.began_ns <= ended for component, began, ended in self._times
        )

    def cover_life(self, life: Life) -> bool:
        """Whether this container came and went unseen: all of its life lies in one time of blindness.

        A gap that names its path is good for one of them only: ask once for each.
        """
        if self._paths[life.container_id] > 0:
            self._paths[life.container_id] -= 1
            return True
        if life.deleted is None:
            return False
        came, went = life.created.ended_ns, life.deleted.began_ns
        return any(began <= came and went <= ended for began, ended in self._blind())

    def _blind(self) -> list[tuple[int, int]]:
        """The times in which nobody watched cgroups; those that touch are one."""
        blind: list[tuple[int, int]] = []
        for began, ended in sorted((began, ended) for component, began, ended in self._times if component in _WATCHING):
            if blind and began <= blind[-1][1]:
                blind[-1] = blind[-1][0], max(blind[-1][1], ended)
            else:
                blind.append((began, ended))
        return blind

    def cover_kill(self, kill: Kill) -> bool:
        """Whether the record of this kill was declared lost."""
        if kill.log_seq is None:
            return bool(self._log_numbers)  # not even we have read it
        if any(first <= kill.log_seq <= last for first, last in self._log_numbers):
            return True
        return self.cover_time(kill.span, "source.kmsg", *(() if self._memory_kept else ("agent", "state")))

    def missing(self, epoch: int, topic: str, number: int) -> bool:
        """Whether this number was declared missing."""
        return any(
            gap.epoch == epoch and gap.topic == topic and gap.first <= number and (gap.last is None or number <= gap.last)
            for gap in self.sequences
        )

    def open_ended(self, topic: str) -> bool:
        """Whether numbers of this topic are missing of which nobody knows how many."""
        return any(gap.topic == topic and gap.last is None for gap in self.sequences)


def judge(ledger: Ledger, stream: Stream, *, memory_kept: bool = True, times_hold: bool = True) -> Verdict:
    """Compare one stream with the ledger.

    memory_kept  the agent has what it wrote down in earlier runs
    times_hold   nobody set the clock
    """
    records = list(stream.records())
    verdict = Verdict(stream.sink, facts=ledger.facts, messages=len(records))
    verdict.wrong += stream.broken
    first_of = _first_of_each_id(records, verdict)
    verdict.repeats = len(records) - len(first_of)
    once = list(first_of.values())
    gaps = _Gaps((r for r in once if r["type"] == "control" and r.get("kind") == "gap"), stream.sink, memory_kept=memory_kept)
    verdict.gaps = gaps.count
    verdict.troubles = sum(r["type"] == "control" and r.get("kind") == "degraded" for r in once)
    verdict.wrong += gaps.unbounded
    declared = _check_numbers(records, gaps, verdict)
    _Facts(ledger, once, gaps, verdict, memory_kept=memory_kept, times_hold=times_hold).check(declared)
    for log in stream.logs:
        _check_order(log, verdict, whole=stream.whole, times_hold=times_hold)
    return verdict


def contradictions(streams: Sequence[Stream]) -> list[str]:
    """What two sinks tell differently under one id."""
    verdict = Verdict("all")
    _first_of_each_id([record for stream in streams for record in stream.records()], verdict)
    return verdict.wrong


def nanoseconds(text: str) -> int | None:
    """RFC 3339 with any number of decimals -> ns since 1970; None: it is no time."""
    whole, dot, rest = text.removesuffix("Z").partition(".")
    try:
        at = datetime.fromisoformat(f"{whole}+00:00")
    except ValueError:
        return None
    return int(at.timestamp()) * 1_000_000_000 + (int(rest.ljust(9, "0")[:9]) if dot and rest.isdigit() else 0)


def _first_of_each_id(records: Sequence[Record], verdict: Verdict) -> dict[str, Record]:
    """Drop repeats; they have to say the same, and a number has to stand for one id."""
    first_of: dict[str, Record] = {}
    numbered: dict[tuple[Any, ...], str] = {}
    for record in records:
        first = first_of.setdefault(record["id"], record)
        if first is not record and contradicts(first, record):
            verdict.wrong.append(f"{record['id']} says {_identity(first)} and {_identity(record)}")
        number = (record["host_id"], record["epoch"], record["type"], record["seq"])
        if record["type"] != STATE and numbered.setdefault(number, record["id"]) != record["id"]:
            verdict.wrong.append(f"number {number} stands for {numbered[number]} and {record['id']}")
    return first_of


def contradicts(one: Record, other: Record) -> bool:
    """Whether two records of one id say different things. A run that had forgotten the victim of a kill says so, no more."""
    first, second = _identity(one), _identity(other)
    if one["type"] == other["type"] == OOM and any(str(r.get("incarnation", "")).endswith(".unknown") for r in (one, other)):
        first, second = ((*identity[:4], *identity[5:]) for identity in (first, second))
    return first != second


def _identity(record: Record) -> tuple[Any, ...]:
    names = ("type", "event", "kind", "container_id", "incarnation", "pid", "gap_topic", "gap_first", "gap_last")
    # what a container's first process is becomes known later; which one was killed does not
    return tuple(record.get(name) for name in names if name != "pid" or record["type"] == OOM)


def _check_numbers(records: Sequence[Record], gaps: _Gaps, verdict: Verdict) -> Counter[str]:
    """Every number up to the highest known; returns how many messages of each topic were declared missing."""
    seen: dict[tuple[int, str], set[int]] = defaultdict(set)
    highest: dict[tuple[int, str], int] = defaultdict(int)
    for record in records:
        if record["type"] == STATE:
            continue
        place = record["epoch"], record["type"]
        seen[place].add(record["seq"])
        highest[place] = max(highest[place], record["seq"])
        for topic, seq in record.get("high_water", {}).items():
            highest[record["epoch"], topic] = max(highest[record["epoch"], topic], seq)
    declared: Counter[str] = Counter()
    for (epoch, topic), last in sorted(highest.items()):
        missing = [number for number in range(1, last + 1) if number not in seen[epoch, topic]]
        lost = [number for number in missing if not gaps.missing(epoch, topic, number)]
        declared[topic] += len(missing) - len(lost)
        verdict.losses += [f"{topic} of epoch {epoch}: seq {text} of {last}" for text in _ranges(lost)]
    verdict.covered += sum(declared.values())
    return declared


def _ranges(numbers: Sequence[int]) -> list[str]:
    starts = [number for before, number in pairwise([-1, *numbers]) if number != before + 1]
    texts = []
    for start in starts:
        end = start
        index = bisect_left(numbers, start)
        while index + 1 < len(numbers) and numbers[index + 1] == end + 1:
            index, end = index + 1, end + 1
        texts.append(f"{start}" if start == end else f"{start}..{end} ({end - start + 1} messages)")
    return texts


class _Facts:
    """The check of each container's life."""

    def __init__(
        self, ledger: Ledger, once: Sequence[Record], gaps: _Gaps, verdict: Verdict, *, memory_kept: bool, times_hold: bool
    ) -> None:
        self._ledger, self._gaps, self._verdict = ledger, gaps, verdict
        self._memory_kept, self._times_hold = memory_kept, times_hold
        self._told: dict[tuple[str, str], list[Record]] = defaultdict(list)  # (event, incarnation or id)
        self._kills: dict[str, list[Record]] = defaultdict(list)  # by container id
        self._strays: set[int] = set()  # pids of kills whose cgroup the kernel did not say: in a storm it leaves that out
        ids = {life.container_id for life in ledger.lives()}
        for record in once:
            if record["type"] == LIFECYCLE:
                self._told[record["event"], record["incarnation"]].append(record)
                self._told[record["event"], record["container_id"]].append(record)
            elif record["type"] == OOM:
                # of a victim that was gone before it was known, the container is the nearest one above it
                cgroup = record.get("killed_cgroup")
                if cgroup is None and record["container_id"] == "/":
                    self._strays.add(record["pid"])
                else:
                    self._kills[cgroup if cgroup in ids else record["container_id"]].append(record)
        self._unseen: list[Life] = []
        self._missing: dict[str, list[str]] = {LIFECYCLE: [], OOM: []}

    def check(self, declared: Counter[str]) -> None:
        lives = self._ledger.lives()
        kills_at: dict[str, list[tuple[Life, Kill]]] = defaultdict(list)
        for life in lives:
            self._life(life)
            kills_at[life.container_id] += [(life, kill) for kill in life.kills]
        for container_id in {life.container_id for life in lives}:
            self._kills_of(container_id, kills_at[container_id])
        self._invented(lives)
        for topic, missing in self._missing.items():
            # a message that was dropped and declared by its number: which fact it told of is not said
            unknown = self._gaps.open_ended(topic) and not self._memory_kept
            self._verdict.losses += missing[len(missing) if unknown else declared[topic] :]

    def _life(self, life: Life) -> None:
        key = life.incarnation or life.container_id
        created, deleted = self._told["created", key], self._told["deleted", key]
        unseen = not created and not deleted and self._gaps.cover_life(life)
        if unseen:
            self._unseen.append(life)
        for event, told in (("created", created), ("deleted", deleted)):
            if len(told) > 1:
                self._verdict.wrong.append(f"{event} of {key} has {len(told)} ids: {[record['id'] for record in told]}")
        if not created:
            self._lost(LIFECYCLE, f"created {_named(life)}", covered=unseen)
        if life.deleted is None:
            if deleted:
                self._verdict.wrong.append(f"{_named(life)} is there, but {deleted[0]['id']} says otherwise")
        elif not deleted:
            forgotten = not self._memory_kept and self._gaps.cover_time(life.deleted, *_WATCHING)
            self._lost(LIFECYCLE, f"deleted {_named(life)}", covered=unseen or forgotten)
        if self._times_hold:
            self._dates(life, created, deleted)

    def _dates(self, life: Life, created: Sequence[Record], deleted: Sequence[Record]) -> None:
        for told, span in ((created, life.created), (deleted, life.deleted)):
            for record in told:
                at = nanoseconds(record["time"]) or 0
                if span is not None and at < span.began_ns - _TOLERANCE_NS:
                    self._verdict.wrong.append(f"{record['id']} is dated {record['time']}, {span.began_ns - at} ns too early")
                not_before = nanoseconds(record.get("not_before", ""))
                if span is not None and not_before is not None and not_before > span.ended_ns + _TOLERANCE_NS:
                    self._verdict.wrong.append(f"{record['id']} was not before {record['not_before']}, but it was")

    def _kills_of(self, container_id: str, kills: Sequence[tuple[Life, Kill]]) -> None:
        told = self._kills[container_id]
        by_pid = Counter(record.get("pid") for record in told)
        counted = by_pid.pop(None, 0)  # a counter's word, which knows no pid
        unmatched = [(life, kill) for life, kill in kills if not by_pid[kill.pid] and kill.pid not in self._strays]
        for life, kill in unmatched[counted:]:
            covered = self._gaps.cover_kill(kill) or any(life is gone for gone in self._unseen)
            self._lost(OOM, f"OOM kill of {kill.pid} in {_named(life)} (kernel log {kill.log_seq})", covered=covered)
        if len(told) > len(kills):
            ids = [record["id"] for record in told]
            self._verdict.wrong.append(f"{len(kills)} OOM kills in {container_id} were told as {len(told)}: {ids}")

    def _lost(self, topic: str, text: str, *, covered: bool) -> None:
        if covered:
            self._verdict.covered += 1
        else:
            self._missing[topic].append(text)

    def _invented(self, lives: Sequence[Life]) -> None:
        known = {life.incarnation for life in lives}
        for record in {record["id"]: record for records in self._told.values() for record in records}.values():
            ours = any(record["container_id"].startswith(f"{folder}/") for folder in self._ledger.folders)
            if ours and record["incarnation"] not in known and not _seen_while_it_went(record, lives):
                self._verdict.wrong.append(f"{record['id']}: {record['container_id']} never was")


def _seen_while_it_went(record: Record, lives: Sequence[Life]) -> bool:
    """On v1 a cgroup is removed hierarchy by hierarchy: who first looks then knows it by the inode of what is left."""
    at = nanoseconds(record["time"]) or 0
    return any(
        life.deleted is not None
        and life.container_id == record["container_id"]
        and _hierarchy(life.incarnation) != _hierarchy(record["incarnation"])
        and life.deleted.began_ns <= at <= life.deleted.ended_ns + _TOLERANCE_NS
        for life in lives
    )


def _hierarchy(incarnation: str) -> str:
    return incarnation.rpartition(".")[0]


def _named(life: Life) -> str:
    return f"{life.container_id} ({life.incarnation.rpartition('.')[2] or '?'})"


def _check_order(log: Sequence[Record], verdict: Verdict, *, whole: bool, times_hold: bool) -> None:
    """After dropping repeats: created, updated, deleted; one incarnation after the other; samples by time."""
    seen: set[str] = set()
    rank: dict[str, int] = {}
    present: dict[str, str] = {}  # container -> the incarnation that was created last
    sampled: dict[str, int] = {}
    for record in log:
        if record["id"] in seen or "incarnation" not in record or record["type"] in (STATE, OOM):
            continue
        seen.add(record["id"])
        incarnation = record["incarnation"]
        if record["type"] == STATS:
            if times_hold and record["time_ms"] < sampled.get(incarnation, 0):
                verdict.disorder.append(f"{record['id']} comes after a later sample")
            sampled[incarnation] = record["time_ms"]
            if whole and rank.get(incarnation, 0) == _RANK["deleted"]:
                verdict.disorder.append(f"{record['id']} comes after its container's `deleted`")
            continue
        new = _RANK[record["event"]]
        if new < rank.get(incarnation, 0):
            verdict.disorder.append(f"{record['id']} comes after {list(_RANK)[rank[incarnation]]}")
        rank[incarnation] = max(new, rank.get(incarnation, 0))
        if new == 0:
            if whole and incarnation in sampled:
                verdict.disorder.append(f"{record['id']} comes after a sample of it")
            present[record["container_id"]] = incarnation
        elif present.get(record["container_id"], incarnation) != incarnation:
            verdict.disorder.append(f"{record['id']} comes after its successor's `created`")
