"""The audit: it finds exactly what was done to a stream."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from streamer.consume import Batch, Place, Raw
from streamer.consume.audit import MOST_FINDINGS, Audit
from streamer.consume.runs import merged
from streamer.model.messages import CONTROL, HOST, LIFECYCLE, OOM, STATE, STATS, TOPICS, Message
from streamer.testing.messages import Speaker, encoded
from tests.consume.told import LATER_MS, audited, found, in_a_file, in_partitions, raw, runs

START_MS = 1_700_000_000_000
HOST_ID = "0123456789abcdef"


def high_water(said: list[Message], epoch: int) -> dict[str, int]:
    """The marks that a control record right after these would carry."""
    marks: dict[str, int] = {}
    for message in said:
        if message.record is not None and message.record.epoch == epoch and not message.topic.compacted:
            marks[message.topic.suffix] = max(marks.get(message.topic.suffix, 0), message.record.seq)
    return marks


def a_run(draw: st.DrawFn, epoch: int, turns: int) -> list[Message]:
    """One run of an agent: containers come, are sampled and go; heartbeats; `started` and `stopped` around it."""
    speaker = Speaker(epoch=epoch)
    said = [speaker.control("started")]
    for turn in range(turns):
        name = f"{epoch}-{turn}"
        said.append(speaker.lifecycle(name, found="live"))
        said += [speaker.stats(name) for _ in range(draw(st.integers(0, 3)))]
        if draw(st.booleans()):
            said.append(speaker.oom(name))
        said.append(speaker.control("heartbeat", high_water=high_water(said, epoch)))
        said.append(speaker.lifecycle(name, "deleted", found="live"))
    said.append(speaker.control("stopped", high_water=high_water(said, epoch)))
    return said


@st.composite
def mistreated(draw: st.DrawFn) -> tuple[list[Message], dict[tuple[int, str], set[int]], dict[tuple[int, str], set[int]]]:
    """A stream, what was taken out of it, and of that what gaps of a later run declare."""
    epochs = [START_MS + number * 3_600_000 for number in range(draw(st.integers(1, 3)))]
    said = [message for epoch in epochs for message in a_run(draw, epoch, draw(st.integers(1, 6)))]
    droppable = [at for at, message in enumerate(said) if getattr(message.record, "kind", "") != "stopped"]
    dropped = draw(st.sets(st.sampled_from(droppable), max_size=12))
    lost: dict[tuple[int, str], set[int]] = {}
    declared: dict[tuple[int, str], set[int]] = {}
    last = Speaker(epoch=epochs[-1] + 3_600_000)
    closing = [last.control("started")]
    for at in sorted(dropped):
        record = said[at].record
        assert record is not None
        lost.setdefault((record.epoch, said[at].topic.suffix), set()).add(record.seq)
        if draw(st.booleans()):
            declared.setdefault((record.epoch, said[at].topic.suffix), set()).add(record.seq)
            number = str(record.seq)
            more: dict[str, Any] = {"gap_count": 1} if draw(st.booleans()) else {}
            closing.append(
                last.control(
                    "gap", component="outbox", reason="lost", gap_topic=said[at].topic.suffix, gap_epoch=record.epoch,
                    gap_first=number, gap_last=number, **more,
                )
            )  # fmt: skip
    kept = [message for at, message in enumerate(said) if at not in dropped] + closing
    again = draw(st.integers(0, len(kept) - 1))
    replayed = kept[: again + 1] + kept[draw(st.integers(0, again)) :]  # a batch whose acknowledgement was lost comes again
    return replayed, lost, declared


@given(mistreated(), st.booleans(), st.integers(1, 4), st.integers(1, 30))
def test_exactly_what_was_taken_out_is_missing(
    told: tuple[list[Message], dict[tuple[int, str], set[int]], dict[tuple[int, str], set[int]]],
    file: bool,
    partitions: int,
    size: int,
) -> None:
    """Whatever is dropped, replayed and declared, in a file or spread over partitions: no number too many, none too few."""
    stream, lost, declared = told
    report = audited(in_a_file(stream) if file else in_partitions(stream, partitions, size))
    undeclared = {key: numbers - declared.get(key, set()) for key, numbers in lost.items()}
    assert runs(report, "missing") == {
        key: tuple(merged([(number, number) for number in numbers])) for key, numbers in undeclared.items() if numbers
    }
    assert runs(report, "declared") == {
        key: tuple(merged([(number, number) for number in numbers])) for key, numbers in declared.items()
    }
    assert {finding.kind for finding in report.findings} <= {"missing", "declared", "orphan"}
    assert report.ok == (not any(undeclared.values()))
    assert sum(row.repeats for row in report.rows) == len(stream) - sum(row.seen for row in report.rows)


def whole(epoch: int = START_MS) -> tuple[Speaker, list[Message]]:
    """A short run that goes on: ten samples of one container, no heartbeat yet."""
    speaker = Speaker(epoch=epoch)
    return speaker, [speaker.control("started"), speaker.lifecycle("c", found="live"), *(speaker.stats("c") for _ in range(10))]


def without(messages: list[Message], topic: Any, *numbers: int) -> list[Message]:
    """These messages less some numbers of a topic."""
    return [each for each in messages if not (each.topic is topic and each.record is not None and each.record.seq in numbers)]


class TestGaps:
    """What a gap record covers."""

    def declared(self, *gone: int, kind: str = "kafka", **gap: Any) -> Any:
        speaker, said = whole()
        said = without(said, STATS, *gone)
        said.append(speaker.control("gap", **{"component": "outbox", "reason": "full", "gap_topic": "container.stats", **gap}))
        return audited(in_a_file(said), kind=kind)

    def test_without_an_end_it_goes_to_the_end_of_the_run(self) -> None:
        report = self.declared(4, 6, 9, gap_first="5")
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((4, 4),)}
        assert runs(report, "declared") == {(START_MS, "container.stats"): ((6, 6), (9, 9))}

    def test_more_missing_than_it_counts_is_undeclared(self) -> None:
        report = self.declared(3, 5, 7, gap_first="2", gap_last="8", gap_count=2)
        (finding,) = found(report, "missing")
        assert finding.runs == ((3, 3), (5, 5), (7, 7)) and finding.number == 1
        assert report.rows[1].declared == 2 and report.rows[1].undeclared == 1 and not report.ok

    def test_as_many_as_it_counts_are_declared(self) -> None:
        assert self.declared(3, 7, gap_first="2", gap_last="8", gap_count=2).ok

    def test_counts_of_gaps_that_overlap_add_up(self) -> None:
        speaker, said = whole()
        said = without(said, STATS, 3, 5, 7)
        common = {"component": "outbox", "reason": "full", "gap_topic": "container.stats"}
        said += [
            speaker.control("gap", **common, gap_first="2", gap_last="6", gap_count=2),
            speaker.control("gap", **common, gap_first="6", gap_last="8", gap_count=1),
        ]
        assert audited(in_a_file(said)).ok

    def test_the_same_gap_told_twice_counts_once(self) -> None:
        speaker, said = whole()
        said = without(said, STATS, 3, 5)
        gap = {
            "component": "outbox",
            "reason": "full",
            "gap_topic": "container.stats",
            "gap_first": "2",
            "gap_last": "8",
            "gap_count": 1,
        }
        said += [speaker.control("gap", **gap), speaker.control("gap", **gap)]
        assert found(audited(in_a_file(said)), "missing")[0].number == 1

    @pytest.mark.parametrize(
        ("component", "kind", "counts"),
        [
            ("sink.kafka", "kafka", True), ("sink.kafka-2", "kafka", True), ("sink.redis", "kafka", False), ("sink.file", "file", True),
            ("sink.stdout", "file", True), ("sink.redis-2", "redis", True), ("sink.kafka", "file", False), ("outbox", "redis", True),
        ],
    )  # fmt: skip
    def test_a_sinks_gap_is_one_in_its_own_stream(self, component: str, kind: str, counts: bool) -> None:
        assert self.declared(4, kind=kind, component=component, gap_first="4", gap_last="4").ok == counts

    def test_one_without_numbers_is_a_blind_spot_and_fills_no_hole(self) -> None:
        report = self.declared(4, gap_topic="container.oom", gap_count=3, component="source.kmsg")
        (blind,) = found(report, "blind")
        assert "source.kmsg: full (3)" in blind.text
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((4, 4),)}

    def test_a_crash_is_declared_by_the_next_run(self) -> None:
        _, said = whole()
        later = Speaker(epoch=START_MS + 60_000)
        said += [
            later.control("started"),
            later.control("gap", component="outbox", gap_topic="container.stats", gap_epoch=START_MS, gap_first="9"),
        ]
        assert audited(in_a_file(without(said, STATS, 9, 10))).ok
        assert not audited(in_a_file(without(said, STATS, 8, 10))).ok

    def test_a_run_that_ended_without_a_word_is_told(self) -> None:
        _, said = whole()
        later = Speaker(epoch=START_MS + 60_000)
        (finding,) = found(audited(in_a_file([*said, later.control("started")])), "unended")
        assert finding.epoch == START_MS
        stopped = Speaker(epoch=START_MS + 30_000)
        report = audited(
            in_a_file([stopped.control("started"), stopped.control("stopped"), Speaker(epoch=START_MS + 60_000).control()])
        )
        assert not report.findings and report.ok


class TestEnds:
    """Where a stream begins and where it ends."""

    def marked(self, kind: Any = "heartbeat", **marks: int) -> list[Message]:
        speaker, said = whole()
        return [*said, speaker.control(kind, high_water={name.replace("_", "."): mark for name, mark in marks.items()})]

    def test_what_a_young_mark_tells_of_is_pending(self) -> None:
        said = self.marked(container_stats=14, container_oom=2)
        report = audited(in_a_file(said), now_ms=START_MS + 20_000)
        assert runs(report, "pending") == {(START_MS, "container.stats"): ((11, 14),), (START_MS, "container.oom"): ((1, 2),)}
        assert report.ok

    def test_what_an_old_mark_tells_of_is_missing(self) -> None:
        said = self.marked(container_stats=14, container_oom=2)
        report = audited(in_a_file(said), now_ms=START_MS + 31_000)
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((11, 14),), (START_MS, "container.oom"): ((1, 2),)}

    def test_between_an_old_and_a_young_mark_only_the_old_one_counts(self) -> None:
        said = self.marked(container_stats=12)
        speaker = Speaker(epoch=START_MS)
        speaker.control()
        late = speaker.control("heartbeat", high_water={"container.stats": 15})
        assert late.record is not None
        late.record.seq, late.record.observed_time_ms = 3, START_MS + 40_000
        report = audited(in_a_file([*said, late]), now_ms=START_MS + 45_000)
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((11, 12),)}
        assert runs(report, "pending") == {(START_MS, "container.stats"): ((13, 15),)}

    def test_a_hole_between_young_numbers_is_pending(self) -> None:
        report = audited(in_a_file(without(self.marked(), STATS, 5)), now_ms=START_MS + 1000)
        assert runs(report, "pending") == {(START_MS, "container.stats"): ((5, 5),)}

    def test_after_stopped_nothing_is_pending(self) -> None:
        report = audited(in_a_file(self.marked("stopped", container_stats=14)), now_ms=START_MS + 100)
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((11, 14),)}

    def test_of_an_earlier_run_nothing_is_pending(self) -> None:
        said = [*self.marked(container_stats=14), Speaker(epoch=START_MS + 50).control("started")]
        report = audited(in_a_file(said), now_ms=START_MS + 100)
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((11, 14),)}

    def test_the_beginning_of_a_rotated_file_is_no_loss_but_holes_after_it_are(self) -> None:
        _, said = whole()
        report = audited(in_a_file(without(said[6:], STATS, 8), trimmed="rotated"))
        assert runs(report, "expired")[START_MS, "container.stats"] == ((1, 4),)
        assert runs(report, "missing") == {(START_MS, "container.stats"): ((8, 8),)}

    def test_a_later_run_in_a_rotated_file_has_its_beginning(self) -> None:
        _, first = whole()
        _, second = whole(START_MS + 60_000)
        report = audited(in_a_file([*first[6:], *without(second, STATS, 1, 2)], trimmed="rotated"))
        assert runs(report, "missing") == {(START_MS + 60_000, "container.stats"): ((1, 2),)}

    def test_a_heartbeat_after_the_beginning_bounds_what_may_be_gone_with_it(self) -> None:
        speaker, said = whole()
        ooms = [speaker.oom("c") for _ in range(3)]
        beat = speaker.control("heartbeat", high_water={"container.oom": 3})
        later = [speaker.oom("c") for _ in range(4)]
        report = audited(in_a_file([*said[6:], beat, *without(later, OOM, 4, 5)], trimmed="rotated"))
        assert len(ooms) == 3 and runs(report, "expired")[START_MS, "container.oom"] == ((1, 3),)
        assert runs(report, "missing")[START_MS, "container.oom"] == ((4, 5),)

    def test_an_expired_partition_does_not_excuse_the_others_for_long(self) -> None:
        _, said = whole()
        batches = in_partitions(said, partitions=1)
        stats = next(batch for batch in batches if batch.place.topic is STATS)
        other = Place("streamer.container.stats[1]", "streamer.container.stats[1]@", STATS, trimmed="expired")
        kept = Speaker("another", epoch=START_MS - 1)
        report = audited(
            [Batch(other, [raw(encoded([kept.stats("x")])[0], 9)]), Batch(stats.place, [*stats.records[:3], *stats.records[4:]])]
        )
        assert runs(report, "missing")[START_MS, "container.stats"] == ((4, 4),)

    def test_nothing_can_be_said_of_a_partition_in_which_nothing_is_left(self) -> None:
        _, said = whole()
        stats = [batch for batch in in_partitions(without(said, STATS, 4), partitions=1) if batch.place.topic is STATS]
        other = Place("streamer.container.stats[1]", "streamer.container.stats[1]@", STATS, trimmed="expired")
        report = audited([Batch(other, []), *stats])
        assert runs(report, "expired") == {(START_MS, "container.stats"): ((4, 4),)} and report.ok

    def test_records_kept_by_host_are_excused_by_their_own_partition_only(self) -> None:
        speaker = Speaker(epoch=START_MS)
        said = without([speaker.control() for _ in range(5)], CONTROL, 3)
        mine = in_partitions(said, partitions=1)
        other = Place("streamer.control[1]", "streamer.control[1]@", CONTROL, trimmed="expired")
        report = audited([Batch(other, []), *mine])
        assert runs(report, "missing") == {(START_MS, "control"): ((3, 3),)}

    def test_since_excuses_what_the_first_heartbeat_after_it_knows(self) -> None:
        speaker, _ = whole()
        beat = speaker.control("heartbeat", high_water={"host.info": 5, "control": 2})
        place = Place("streamer.host.info[0]", "streamer.host.info[0]@", HOST, trimmed="--since", from_ms=START_MS + 5)
        control = in_partitions([beat], partitions=1)[0]
        control = Batch(control.place._replace(trimmed="--since", from_ms=START_MS + 5), control.records)
        report = audited([Batch(place, []), control])
        assert runs(report, "expired")[START_MS, "host.info"] == ((1, 5),) and report.ok


class TestIdsAndOrder:
    """Ids, order, lives."""

    def test_a_number_told_twice_with_different_ids(self) -> None:
        speaker, said = whole()
        other = Speaker(epoch=START_MS).stats("c", id="another")
        report = audited(in_a_file([*said, other]))
        assert found(report, "id")[0].runs == ((1, 1),) and not report.ok and speaker.epoch == START_MS

    def test_the_same_fact_told_by_a_later_run_is_counted(self) -> None:
        first, second = Speaker(epoch=START_MS), Speaker(epoch=START_MS + 60_000)
        told = [first.lifecycle("c", id="c/created"), second.lifecycle("c", id="c/created", found="startup")]
        report = audited(in_a_file(told))
        assert [row.repeated_ids for row in report.rows] == [0, 1] and report.ok

    def test_numbers_of_a_container_that_go_back(self) -> None:
        speaker = Speaker(epoch=START_MS)
        first, second = speaker.stats("c"), speaker.stats("c")
        (finding,) = found(audited(in_a_file([second, first])), "order")
        assert finding.runs == ((1, 1),) and finding.where == "line 2"
        mixed = speaker.stats("d"), speaker.stats("e")
        assert audited(in_a_file([first, second, *reversed(mixed)])).ok  # of different containers

    @pytest.mark.parametrize("after", [{"event": "updated"}, {"event": "created", "id": "again"}])
    def test_nothing_follows_deleted(self, after: dict[str, Any]) -> None:
        speaker = Speaker(epoch=START_MS)
        said = [speaker.lifecycle("c"), speaker.lifecycle("c", "deleted", found="live"), speaker.lifecycle("c", **after)]
        report = audited(in_a_file(said))
        assert len(found(report, "life")) == 1 and not report.ok

    def test_created_said_again_by_its_id_is_a_repeat(self) -> None:
        speaker = Speaker(epoch=START_MS)
        said = [speaker.lifecycle("c", id="x"), speaker.lifecycle("c", "deleted"), speaker.lifecycle("c", id="x")]
        assert audited(in_a_file(said)).ok

    def test_a_sample_after_deleted_is_wrong_in_a_file_only(self) -> None:
        speaker = Speaker(epoch=START_MS)
        late = speaker.stats("c")
        said = [speaker.lifecycle("c"), speaker.lifecycle("c", "deleted"), late]
        report = audited(in_a_file(said))
        assert report.ok and len(found(report, "late")) == 1  # taken before its end: it was held up
        assert late.record is not None
        wrong = late.record.time_ms + 60_000
        said[-1] = late._replace(record=structs.replace(late.record, time_ms=wrong))
        assert len(found(audited(in_a_file(said)), "life")) == 1
        assert audited(in_partitions(said)).ok

    def test_a_run_that_begins_in_a_rotated_file_is_whole_there_also_when_the_clock_went_back(self) -> None:
        """Its first word stands in the file: what is missing after it is missing, though older times stand before it."""
        before, after = Speaker(epoch=START_MS + 3_600_000), Speaker(epoch=START_MS + 3_600_001)
        after._time_ns = START_MS * 1_000_000
        before.control("started")
        said = [before.control(), before.lifecycle("a")]
        told = [after.control("started"), *(after.lifecycle(f"c{number}") for number in range(5)), after.control()]
        del told[3]
        report = audited(in_a_file([*said, *told], trimmed="rotated"), kind="file")
        assert [(finding.topic, finding.runs) for finding in found(report, "missing")] == [("container.lifecycle", ((3, 3),))]

    def test_deleted_without_created(self) -> None:
        """Wrong when seen live and nothing is missing before it; a note when something is, or when it was reconciled."""
        assert len(found(audited(in_a_file([Speaker(epoch=START_MS).lifecycle("c", "deleted", found="live")])), "life")) == 1
        assert audited(in_a_file([Speaker(epoch=START_MS).lifecycle("c", "deleted", found="reconciled")])).ok
        speaker = Speaker(epoch=START_MS)
        speaker.lifecycle("c")
        said = [*whole()[1][2:], speaker.lifecycle("d", "deleted", found="live")]
        report = audited(in_a_file(said, trimmed="rotated"))
        assert found(report, "orphan") and report.ok


class TestSchema:
    """What is not as the schema says."""

    def one(self, value: bytes, topic: Any = STATS, transport_id: str | None = None) -> Any:
        return audited([Batch(Place("/f", "line "), [Raw(topic, value, 7, None, transport_id)])])

    def stats(self, **more: Any) -> bytes:
        value = encoded([Speaker(epoch=START_MS).stats("c", **more)])[0].value
        assert value is not None
        return value

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ((b'"seq":1', b'"seq":"1"'), "Expected `int`"),
            ((b'"seq":1', b'"seq":0'), "seq is 0"),
            ((b'"seq":1', b'"seq":1e99'), "Expected `int`"),
            ((b'"host":"host",', b""), "missing required field `host`"),
            ((b'"runtime":"docker",', b""), "missing required field `runtime`"),
            ((b'"schema":"container.stats/1"', b'"schema":"container.oom/1"'), "schema is"),
            ((b'"schema":"container.stats/1"', b'"schema":"container.stats/0"'), "schema is"),
            ((b'"type":"container.stats"', b'"type":"container.oom"'), "type is"),
            ((b"}", b""), "truncated"),
            ((b"docker", b"\xff\xfe"), "utf-8"),
        ],
    )
    def test_is_told_with_its_place(self, change: tuple[bytes, bytes], word: str) -> None:
        report = self.one(self.stats().replace(*change))
        (finding,) = found(report, "schema")
        assert word in finding.text and finding.where == "line 7" and not report.ok and report.records == 1

    def test_a_record_with_a_mistake_is_not_missing_as_well(self) -> None:
        report = self.one(self.stats().replace(b'"runtime":"docker",', b""))
        assert report.rows[0].seen == 1 and not found(report, "missing")

    def test_ids_beside_and_inside(self) -> None:
        assert self.one(self.stats(id="a"), transport_id="a").ok
        assert "beside" in found(self.one(self.stats(id="a"), transport_id="b"), "schema")[0].text

    @pytest.mark.parametrize(
        "change",
        [
            (b'"schema":"container.stats/1"', b'"schema":"container.stats/2"'),
            (b'"schema":"container.stats/1","id"', b'"schema":"container.stats/2","runtime":7,"id"'),
            (b'"time_ms"', b'"of_tomorrow":[1],"time_ms"'),
        ],
    )
    def test_what_is_newer_is_no_mistake(self, change: tuple[bytes, bytes]) -> None:
        report = self.one(self.stats().replace(*change))
        assert report.ok and len(found(report, "version")) == (change[1].count(b"/2"))

    def test_a_word_of_tomorrow_is_no_mistake(self) -> None:
        value = encoded([Speaker(epoch=START_MS).lifecycle("c")])[0].value or b""
        assert self.one(value.replace(b'"event":"created"', b'"event":"thawed"'), LIFECYCLE).ok

    def test_tombstones_and_states_have_no_numbers(self) -> None:
        speaker = Speaker(epoch=START_MS)
        said = [speaker.state("c"), speaker.tombstone("c"), speaker.state("c")]
        report = audited(in_partitions(said))
        assert report.ok and report.records == 3 and not report.rows
        assert found(self.one(b"{}", STATE), "schema")

    @given(
        st.sampled_from([None, *TOPICS]),
        st.one_of(st.binary(), st.text().map(str.encode), st.sampled_from([b"[" * 5000, b'{"type":1}'])),
    )
    def test_any_bytes(self, topic: Any, value: bytes) -> None:
        """Each record is counted, and none ends the audit."""
        report = self.one(value, topic)
        assert report.records == 1
        assert report.ok == (topic is STATE and not value)

    def test_findings_are_counted_beyond_those_kept(self) -> None:
        raws = [Raw(None, b"x", number) for number in range(3 * MOST_FINDINGS)]
        report = audited([Batch(Place("/f", "line "), raws)])
        assert len(found(report, "schema")) == MOST_FINDINGS and report.counts["schema"] == 3 * MOST_FINDINGS


class TestClocks:
    """Notes on the host's clock."""

    def test_facts_after_they_were_noticed_and_a_clock_that_runs_back(self) -> None:
        speaker = Speaker(epoch=START_MS)
        said = [speaker.control() for _ in range(4)]
        for message, observed_ms in zip(said, (100, 90, 2000, 1500), strict=True):
            assert message.record is not None
            message.record.observed_time_ms = START_MS + observed_ms
        assert said[0].record is not None
        said[0].record.time_ms = START_MS + 5100
        told = " / ".join(finding.text for finding in found(audited(in_a_file(said)), "clock"))
        assert "up to 5000 ms later" in told and "backwards 2 times, by up to 500 ms" in told
        assert audited(in_a_file(said)).ok

    def test_ahead_of_the_broker_and_of_this_machine(self) -> None:
        (entry,) = encoded([Speaker(epoch=START_MS).control()])
        late = raw(entry, 1)._replace(broker_time_ms=START_MS - 4000)
        report = audited([Batch(Place("p", "p@", CONTROL), [late])], now_ms=START_MS - 8000)
        told = [finding.text for finding in found(report, "clock")]
        assert told == ["up to 4001 ms ahead of the broker's clock", "up to 8001 ms ahead of this machine's clock"]


def test_hosts_are_kept_apart_and_can_be_chosen() -> None:
    """Two agents in one topic; a hole of the one is not the other's."""
    said = [
        message
        for name in ("a", "b")
        for message in without(Speaker(name, epoch=START_MS).some(60), LIFECYCLE, *([3] if name == "b" else []))
    ]
    assert [finding.host_id for finding in found(audited(in_partitions(said)), "missing")] == ["b"]
    assert audited(in_partitions(said), host_id="a").ok
    assert audited(in_partitions(said), host_id="c").records == 0 and not audited([]).ok


@pytest.mark.slow
def test_memory_does_not_grow_with_messages() -> None:
    """200 000 records in order leave one run for each topic, and of ids no more than the bound; which is said."""
    audit = Audit("file", now_ms=START_MS + LATER_MS)
    speaker = Speaker(epoch=START_MS)
    names = [f"{number:064x}" for number in range(20)]
    for turn in range(100):
        said = [speaker.stats(names[number % 20]) for number in range(2000)]
        audit.read(in_a_file([*said, speaker.control()])[0])
        assert all(len(ledger.runs) == 1 for ledger in audit._ledgers.values()), turn
    kept = audit._ids["container.stats"]
    assert len(kept.known) <= 131_072 and len(kept.of_number) <= 131_072 and len(audit._order) <= 100
    report = audit.report()
    assert report.records == 200_100 and report.ok
    assert [finding.topic for finding in found(report, "bound")] == ["container.stats"]
