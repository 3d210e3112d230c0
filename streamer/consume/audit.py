"""Is a stream complete, in order, and as the schema says? Pure: feed batches, ask for the report. `findings.py` says what can be found.

Memory goes with hosts, runs of the agent, holes and gaps, living containers, and fixed bounds for what has to be compared (ids,
order, ended containers): not with the number of messages. Where a bound was reached, the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from streamer.consume import Batch, Place, Raw
from streamer.consume.clocks import Clock
from streamer.consume.findings import Finding, Findings, Report, Row
from streamer.consume.ledger import Epoch, Gap, Ledger, Missing, Seen
from streamer.consume.lives import Lives
from streamer.consume.runs import Recent, count
from streamer.consume.values import BROKEN
from streamer.model.messages import CONTROL, LIFECYCLE, STATS, TOPICS, AboutContainer, ContainerLifecycle, Control, Record, Topic

MOST_FINDINGS: Final = 100  # of a kind are kept one by one
_MOST_IDS: Final = 65_536  # of each topic are kept for comparison, at least
_MOST_CONTAINERS: Final = 65_536  # whose place in the order is kept, at least
_MOST_REASONS: Final = 3  # of gaps are told of a topic
_SAMPLED_LATE_MS: Final = 1000  # a look may have begun before the end and be told of after it
_NEVER: Final = 1 << 62  # a time later than all

_head: Final = msgspec.json.Decoder(Record)


class _Ids(NamedTuple):
    """What is remembered of a topic's ids: by ledger and number, and which there were. Hashes."""

    of_number: Recent[tuple[int, int], int]
    known: Recent[int, bool]


class Audit:
    """Feed `read` with every batch of a stream, in order; then ask for the `report`."""

    def __init__(
        self, kind: str, *, now_ms: int, grace_ms: int = 30_000, host_id: str = "", topics: Iterable[Topic] = TOPICS
    ) -> None:
        """What to look at, and when it is.

        kind      of stream, as sinks of it are called: gaps of other sinks do not count
        now_ms    when the stream's end was taken, ms since 1970
        grace_ms  how long what is given out may take to arrive
        host_id   this host only; empty: all
        topics    whose numbers are checked; control records are heeded in any case
        """
        self._kind, self._now_ms, self._young_ms, self._host_id = kind, now_ms, now_ms - grace_ms, host_id
        self._topics: Final = frozenset(topic.suffix for topic in topics)
        self._decoders: Final = {topic.suffix: msgspec.json.Decoder(topic.record) for topic in TOPICS}
        self._findings = Findings(MOST_FINDINGS)
        self._records = 0
        self._names: dict[str, str] = {}
        self._ledgers: dict[tuple[str, int, str], Ledger] = {}
        self._epochs: dict[tuple[str, int], Epoch] = {}
        self._clocks: dict[str, Clock] = {}
        self._lives = Lives()
        self._ids = {topic.suffix: _Ids(Recent(_MOST_IDS), Recent(_MOST_IDS)) for topic in TOPICS}
        self._order: Recent[tuple[str, str, str], tuple[int, int]] = Recent(_MOST_CONTAINERS)
        self._trimmed: dict[str, Place] = {}
        self._reasons: dict[tuple[str, str], set[str]] = {}  # why the beginnings are gone, by host and topic
        self._begun: set[tuple[str, str]] = set()
        self._held: set[tuple[str, str]] = set()  # hosts and topics of which there is anything
        self._kept_from: dict[tuple[str, str], int] = {}

    def read(self, batch: Batch) -> None:
        """The next records of a place."""
        place = batch.place
        if place.trimmed:
            self._trimmed[place.name] = place
            key = place.host_id, place.topic.suffix if place.topic is not None else ""
            self._reasons.setdefault(key, set()).add(place.trimmed)
        for raw in batch.records:
            self._record(place, raw)

    def note(self, text: str) -> None:
        """Something the reader came across."""
        self._findings.add(Finding("reading", text))

    # one record

    def _record(self, place: Place, raw: Raw) -> None:
        topic = raw.topic
        if topic is None:
            self._records += 1
            self._found("schema", place, raw, _no_topic(raw.value))
            return
        if topic.compacted and not raw.value:
            self._records += 1
            return  # a tombstone
        record = self._decoded(topic, place, raw)
        if record is None or (self._host_id and record.host_id != self._host_id):
            return
        self._records += 1
        if raw.transport_id is not None and raw.transport_id != record.id:
            self._found(
                "schema", place, raw, f"the id beside the value is {raw.transport_id!r}, the record's is {record.id!r}", record
            )
        if topic.compacted or (topic.suffix not in self._topics and topic is not CONTROL):
            return
        ledger = self._ledger(record.host_id, record.epoch, topic)
        if place.trimmed:
            self._begin(place, topic, record)
        if not ledger.runs.add(record.seq, Seen(record.observed_time_ms, place.before, raw.at)):
            self._repeat(ledger, place, raw, record)
            return
        self._first_time(ledger, place, raw, record)

    def _decoded(self, topic: Topic, place: Place, raw: Raw) -> Record | None:
        """The record; only its head when the rest is not as this program knows it; None when nothing can be made of it."""
        problem = ""
        try:
            record: Record = self._decoders[topic.suffix].decode(raw.value)
        except BROKEN as error:
            problem = str(error)
            try:
                record = _head.decode(raw.value)
            except BROKEN:
                self._records += 1
                self._found("schema", place, raw, problem)
                return None
        if problem or record.schema != topic.schema or record.type != topic.type:
            self._differs(topic, place, raw, record, problem)
        if not 0 < record.seq < _NEVER:
            self._records += 1
            self._found("schema", place, raw, f"seq is {record.seq}", record)
            return None
        return record

    def _differs(self, topic: Topic, place: Place, raw: Raw, record: Record, problem: str) -> None:
        if record.type != topic.type:
            self._found("schema", place, raw, f"type is {record.type!r} in a place for {topic.type}", record)
        elif _version(record.schema, topic) > topic.version:
            self._found("version", place, raw, f"schema {record.schema}", record)
        elif record.schema != topic.schema:
            self._found("schema", place, raw, f"schema is {record.schema!r} where {topic.schema} is known", record)
        elif problem.startswith("Invalid enum value"):
            self._found("version", place, raw, problem, record)
        else:
            self._found("schema", place, raw, problem, record)

    def _begin(self, place: Place, topic: Topic, record: Record) -> None:
        """Of a place whose beginning is gone: what was noticed since its first record is all there."""
        by_host = topic.keyed_by == "host" and place.topic is not None
        scope = record.host_id if by_host else place.host_id
        if (place.name, scope) not in self._begun:
            self._begun.add((place.name, scope))
            self._keep_from(scope, place, record.observed_time_ms)

    def _keep_from(self, scope: str, place: Place, time_ms: int) -> None:
        key = scope, place.topic.suffix if place.topic is not None else ""
        self._kept_from[key] = max(time_ms, self._kept_from.get(key, 0))

    def _repeat(self, ledger: Ledger, place: Place, raw: Raw, record: Record) -> None:
        ledger.repeats += 1
        known = self._ids[ledger.topic.suffix].of_number.get((ledger.number, record.seq))
        if known is not None and known != hash(record.id):
            self._found("id", place, raw, f"seq {record.seq} is told twice with different ids, now {record.id!r}", record)

    def _first_time(self, ledger: Ledger, place: Place, raw: Raw, record: Record) -> None:
        topic, number, id_ = ledger.topic, record.seq, hash(record.id)
        if not ledger.seen:
            self._held.add((ledger.host_id, topic.suffix))
        ledger.seen += 1
        ids = self._ids[topic.suffix]
        ids.of_number.put((ledger.number, number), id_)
        if ids.known.get(id_):
            ledger.repeated_ids += 1
        ids.known.put(id_, True)
        self._in_order(topic, place, raw, record)
        clock = self._clocks.get(record.host_id)
        if clock is None:
            clock = self._clocks[record.host_id] = Clock(self._now_ms)
            self._names[record.host_id] = record.host
        clock.seen(record, raw.broker_time_ms)
        if topic is STATS:
            if place.topic is None and isinstance(record, AboutContainer):
                self._after_the_end(record, place, raw)
        elif isinstance(record, ContainerLifecycle):
            if wrong := self._lives.told(record, place.where(raw.at)):
                self._found("life", place, raw, f"{record.incarnation}: {wrong}", record)
        elif isinstance(record, Control):
            self._control(record, clock)

    def _after_the_end(self, record: AboutContainer, place: Place, raw: Raw) -> None:
        """In a file all topics have one order: a sample behind its container's `deleted` was held up, or taken too late."""
        ended_ms = self._lives.ended_ms(record.host_id, record.incarnation)
        if ended_ms is None:
            return
        if record.time_ms > ended_ms + _SAMPLED_LATE_MS:
            self._found("life", place, raw, f"a sample of {record.incarnation} taken after its end", record)
        else:
            self._found("late", place, raw, f"a sample of {record.incarnation} behind its deleted", record)

    def _in_order(self, topic: Topic, place: Place, raw: Raw, record: Record) -> None:
        if isinstance(record, AboutContainer):
            whose = record.container_id
        elif topic.keyed_by == "host":
            whose = record.host_id
        else:
            return  # of a newer version: only its head is known
        key = place.name, topic.suffix, whose
        before, now = self._order.get(key), (record.epoch, record.seq)
        if before is not None and before > now:
            text = f"seq {now[1]} of {whose} comes after seq {before[1]} of epoch {before[0]}"
            self._found("order", place, raw, text, record)
        else:
            self._order.put(key, now)

    def _control(self, record: Control, clock: Clock) -> None:
        clock.in_order(record)
        epoch = self._epochs[record.host_id, record.epoch]
        if record.kind == "stopped":
            epoch.stopped = True
        if record.high_water is not UNSET:
            epoch.mark(record.observed_time_ms, record.high_water, old=record.observed_time_ms < self._young_ms)
        if record.kind == "gap":
            self._gap(record)

    def _gap(self, record: Control) -> None:
        component, reason = record.component or "", record.reason or ""
        topic = next((topic for topic in TOPICS if topic.suffix == record.gap_topic and not topic.compacted), None)
        first = _number(record.gap_first or "")
        last = None if record.gap_last is UNSET else _number(record.gap_last)
        if topic is None or first is None or (last is None and record.gap_last is not UNSET):
            many = "" if record.gap_count is UNSET else f" ({record.gap_count})"
            span = " to ".join(end for end in (record.gap_first or "", record.gap_last or "") if end)
            text = f"{component}: {reason}{many}" + (f", {span}" if span else "")
            self._findings.add(Finding("blind", text, record.host_id, record.epoch, record.gap_topic or "", where=record.time))
            return
        many_missing = None if record.gap_count is UNSET else max(0, record.gap_count)
        epoch = record.epoch if record.gap_epoch is UNSET else record.gap_epoch
        gap = Gap(first, None if last is None else max(first, last), many_missing, component, reason)
        self._ledger(record.host_id, epoch, topic).gaps[gap] = None

    def _ledger(self, host_id: str, epoch: int, topic: Topic) -> Ledger:
        key = host_id, epoch, topic.suffix
        ledger = self._ledgers.get(key)
        if ledger is None:
            ledger = self._ledgers[key] = Ledger(host_id, epoch, topic, len(self._ledgers))
            self._epochs.setdefault((host_id, epoch), Epoch())
        return ledger

    def _found(self, kind: str, place: Place, raw: Raw, text: str, record: Record | None = None) -> None:
        topic = raw.topic.suffix if raw.topic is not None else ""
        if record is None:
            self._findings.add(Finding(kind, text, place.host_id, topic=topic, where=place.where(raw.at)))
        else:
            runs = ((record.seq, record.seq),)
            self._findings.add(Finding(kind, text, record.host_id, record.epoch, topic, runs, where=place.where(raw.at)))

    # the end

    def report(self) -> Report:
        """What there is to say after the last batch; ask once."""
        for place in self._trimmed.values():
            self._never_began(place)
        for host_id, epoch in list(self._epochs):
            for topic in TOPICS:  # also those of which only a heartbeat tells
                if topic.suffix in self._epochs[host_id, epoch].marks and topic.suffix in self._topics and not topic.compacted:
                    self._ledger(host_id, epoch, topic)
        newest: dict[str, int] = {}
        for host_id, epoch in self._epochs:
            newest[host_id] = max(epoch, newest.get(host_id, epoch))
        rows = [self._row(self._ledgers[key], newest[key[0]]) for key in sorted(self._ledgers) if key[2] in self._topics]
        self._unended(newest)
        self._orphans()
        for host_id, clock in self._clocks.items():
            for text in clock.findings():
                self._findings.add(Finding("clock", text, host_id), always=True)
        self._bounds()
        return Report(self._records, rows, self._findings.kept, dict(self._findings.counts))

    def _never_began(self, place: Place) -> None:
        """Of a trimmed place in which nothing is left, or nothing of some host."""
        since_ms = _NEVER if place.from_ms is None else place.from_ms
        if place.topic is not None and place.topic.keyed_by == "host" and not place.host_id:
            self._keep_from("*", place, since_ms)  # for hosts of which no partition holds anything
        elif (place.name, place.host_id) not in self._begun:
            self._keep_from(place.host_id, place, since_ms)

    def _kept(self, host_id: str, topic: Topic) -> int | None:
        """All that was noticed from then on (ms since 1970) would still be there; None: everything would."""
        times = [self._kept_from.get(key) for key in ((host_id, topic.suffix), ("", topic.suffix), ("", ""))]
        known = [time for time in times if time is not None]
        if not known and (host_id, topic.suffix) not in self._held:
            return self._kept_from.get(("*", topic.suffix))
        return max(known) if known else None

    def _began_here(self, ledger: Ledger) -> bool:
        """Whether the run's first word stands in a file: then all of it does, whatever the clock says of its times."""
        control = self._ledgers.get((ledger.host_id, ledger.epoch, CONTROL.suffix))
        return self._kind == "file" and control is not None and len(control.runs) > 0 and control.runs.lowest == 1

    def _row(self, ledger: Ledger, newest: int) -> Row:
        about = self._epochs[ledger.host_id, ledger.epoch]
        missing = ledger.missing(
            about,
            kept_from_ms=None if self._began_here(ledger) else self._kept(ledger.host_id, ledger.topic),
            open_end=ledger.epoch == newest and not about.stopped,
            young_ms=self._young_ms,
            kind=self._kind,
        )
        self._tell(ledger, missing)
        return Row(
            self._names.get(ledger.host_id, ""), ledger.host_id, ledger.epoch, ledger.topic.suffix,
            ledger.seen, ledger.repeats, ledger.repeated_ids, ledger.runs.highest, about.marks.get(ledger.topic.suffix, 0),
            missing.declared_count, missing.undeclared_count, count(missing.expired), count(missing.pending),
        )  # fmt: skip

    def _tell(self, ledger: Ledger, missing: Missing) -> None:
        reasons = list(dict.fromkeys(f"{gap.component}: {gap.reason}" for gap in ledger.gaps))
        told = "; ".join(reasons[:_MOST_REASONS]) + (
            f"; and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
        )
        unsaid = count(missing.undeclared) - missing.undeclared_count
        some = (
            f"{missing.undeclared_count} of these: gaps declare {unsaid} and do not say which" if unsaid else "no gap declares them"
        )
        for kind, runs, number, text in (
            ("missing", missing.undeclared, missing.undeclared_count, some),
            ("declared", missing.declared, missing.declared_count, told),
            ("expired", missing.expired, count(missing.expired), self._why_gone(ledger)),
            ("pending", missing.pending, count(missing.pending), "given out, not arrived yet"),
        ):
            if number:
                where = missing.after if kind == "missing" else ""
                finding = Finding(kind, text, ledger.host_id, ledger.epoch, ledger.topic.suffix, tuple(runs), number, where)
                self._findings.add(finding, always=True)

    def _unended(self, newest: Mapping[str, int]) -> None:
        seen = {(ledger.host_id, ledger.epoch) for ledger in self._ledgers.values() if ledger.seen}
        for host_id, epoch in sorted(seen):
            if epoch < newest[host_id] and not self._epochs[host_id, epoch].stopped:
                self._findings.add(Finding("unended", "a later run followed, and no stopped was read", host_id, epoch))

    def _why_gone(self, ledger: Ledger) -> str:
        keys = (ledger.host_id, ledger.topic.suffix), ("", ledger.topic.suffix), ("", "")
        return ", ".join(sorted({reason for key in keys for reason in self._reasons.get(key, ())}))

    def _orphans(self) -> None:
        for orphan in self._lives.orphans if not self._lives.overflowed else ():
            ledger = self._ledgers[orphan.host_id, orphan.epoch, LIFECYCLE.suffix]
            whole = next(ledger.runs.holes(orphan.seq), None)
            kind = "life" if whole is None or whole.first > orphan.seq else "orphan"
            self._findings.add(
                Finding(
                    kind, f"{orphan.incarnation}: deleted, but no created was read", orphan.host_id, orphan.epoch, LIFECYCLE.suffix,
                    ((orphan.seq, orphan.seq),), where=orphan.where,
                )
            )  # fmt: skip
        if self._lives.orphans_left_out:
            self._findings.add(Finding("orphan", f"{self._lives.orphans_left_out} more that were not looked at one by one"))

    def _bounds(self) -> None:
        for topic in TOPICS:
            if self._ids[topic.suffix].known.forgot:
                text = f"ids of {topic.suffix} were compared with the last {_MOST_IDS} or more only"
                self._findings.add(Finding("bound", text, topic=topic.suffix))
        if self._order.forgot:
            self._findings.add(Finding("bound", f"order was followed for the last {_MOST_CONTAINERS} or more containers only"))
        if self._lives.forgot:
            self._findings.add(Finding("bound", "containers that ended long before the end of the stream were forgotten"))


def _no_topic(value: bytes) -> str:
    try:
        kind = msgspec.json.decode(value)
    except BROKEN as error:
        return f"not JSON: {error}" if value else "an empty line"
    return f"no record of ours: {str(kind)[:80]}"


def _version(schema: str, topic: Topic) -> int:
    """The version in `container.stats/2`; 0 when it is no version of this topic's schema."""
    name, _, version = schema.partition("/")
    return (_number(version) or 0) if name == topic.suffix else 0


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
