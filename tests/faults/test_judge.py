"""The oracle itself: what it lets pass and what it finds, on streams made by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from streamer.clock import rfc3339
from tests.faults.judge import Record, Stream, contradictions, judge, nanoseconds
from tests.faults.ledger import Ledger, Span

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def at(ms: int) -> Span:
    """A moment of this many ms after the start, as an act of 1 ms."""
    return Span(START_NS + ms * MS, START_NS + (ms + 1) * MS)


def time(ms: float) -> str:
    return rfc3339(START_NS + int(ms * MS))


class Teller:
    """Numbers records as an agent would; `log` is a whole file."""

    def __init__(self) -> None:
        self.log: list[Record] = []
        self.epoch = 1
        self._seq: Counter[tuple[int, str]] = Counter()

    def say(self, type_: str, id_: str, ms: float, **fields: Any) -> Record:
        self._seq[self.epoch, type_] += 1
        record = {
            "type": type_, "id": id_, "epoch": self.epoch, "seq": self._seq[self.epoch, type_], "host_id": "h",
            "time": time(ms), "time_ms": START_NS // MS + int(ms), **fields,
        }  # fmt: skip
        self.log.append(record)
        return record

    def life(self, event: str, path: str, inode: int, ms: float, **fields: Any) -> Record:
        incarnation = f"boot.memory.{inode}"
        return self.say(
            "container.lifecycle", f"{incarnation}/{event}", ms, event=event, container_id=path, incarnation=incarnation, **fields
        )

    def sample(self, path: str, inode: int, ms: float) -> Record:
        incarnation = f"boot.memory.{inode}"
        return self.say("container.stats", f"{incarnation}/stats/{ms}", ms, container_id=path, incarnation=incarnation)

    def oom(self, path: str, inode: int, seq: int, pid: int | None, ms: float) -> Record:
        known = {} if pid is None else {"pid": pid}
        about = {"container_id": path, "incarnation": f"boot.memory.{inode}", "killed_cgroup": path}
        return self.say("container.oom", f"boot/oom/{seq}", ms, **about, **known)

    def gap(self, component: str, ms: float = 0, **fields: Any) -> Record:
        return self.say("control", self._control_id(), ms, kind="gap", component=component, **fields)

    def heartbeat(self, **high_water: int) -> Record:
        marks = {f"container.{name}": seq for name, seq in high_water.items()}
        return self.say("control", self._control_id(), 0, kind="heartbeat", high_water=marks)

    def _control_id(self) -> str:
        return f"h/{self.epoch}/control/{self._seq[self.epoch, 'control'] + 1}"

    def stream(self, sink: str = "file") -> Stream:
        return Stream(sink, [self.log], whole=True)


@pytest.fixture
def told() -> Teller:
    return Teller()


@pytest.fixture
def done() -> Ledger:
    """/f/a came at 10 and went at 100 with a kill at 50; /f/b came at 20 and stayed."""
    ledger = Ledger("boot")
    ledger.folders.append("/f")
    ledger.made("/f/a", ledger.incarnation("memory", 1), at(10))
    ledger.made("/f/b", ledger.incarnation("memory", 2), at(20))
    ledger.killed("/f/a", 77, at(50))
    ledger.removed("/f/a", at(100))
    (kill,) = ledger.lives()[0].kills
    kill.log_seq = 900
    return ledger


def tell_all(told: Teller) -> None:
    told.life("created", "/f/a", 1, 10.5)
    told.life("created", "/f/b", 2, 20.5)
    told.sample("/f/a", 1, 30)
    told.oom("/f/a", 1, 900, 77, 50.5)
    told.life("deleted", "/f/a", 1, 100.5)
    told.heartbeat(lifecycle=3, stats=1, oom=1)


def test_a_complete_stream_with_repeats_keeps_the_promise(done: Ledger, told: Teller) -> None:
    """Everything once more, in order, changes nothing but the count of repeats."""
    tell_all(told)
    told.log += [dict(record) for record in told.log]
    verdict = judge(done, told.stream())
    assert verdict.kept, verdict.complaints()
    assert (verdict.facts, verdict.messages, verdict.repeats, verdict.gaps, verdict.covered) == (4, 12, 6, 0, 0)


@pytest.mark.parametrize(("index", "fact"), [(0, "created /f/a"), (1, "created /f/b"), (3, "OOM kill of 77"), (4, "deleted /f/a")])
def test_what_is_missing_is_found_as_a_fact_and_as_a_number(done: Ledger, told: Teller, index: int, fact: str) -> None:
    """Each loss is named twice: what happened, and the hole in the numbers."""
    tell_all(told)
    gone = told.log.pop(index)
    losses = judge(done, told.stream()).losses
    assert len(losses) == 2 and any(fact in loss for loss in losses)
    assert any(f"{gone['type']} of epoch 1: seq {gone['seq']} of" in loss for loss in losses)


def test_a_number_that_only_a_heartbeat_knows_of_is_missed(done: Ledger, told: Teller) -> None:
    """The high-water mark is beyond what is there."""
    tell_all(told)
    told.heartbeat(stats=4)
    assert judge(done, told.stream()).losses == ["container.stats of epoch 1: seq 2..4 (3 messages) of 4"]


def test_declared_numbers_cover_the_messages_and_as_many_facts(done: Ledger, told: Teller) -> None:
    """A gap with topic and numbers excuses the facts that were told of in them, not one more."""
    tell_all(told)
    told.log = [record for record in told.log if record["id"] != "boot.memory.1/deleted"]
    told.gap("outbox", gap_topic="container.lifecycle", gap_first="3", gap_last="3")
    verdict = judge(done, told.stream())
    assert verdict.kept and verdict.covered == 1
    done.made("/f/c", "boot.memory.3", at(200))
    assert judge(done, told.stream()).losses == ["created /f/c (3)"]


def test_a_gap_of_another_sink_covers_nothing_here(done: Ledger, told: Teller) -> None:
    """sink.kafka's drop is Kafka's alone."""
    tell_all(told)
    told.log = [record for record in told.log if record["id"] != "boot.memory.1/deleted"]
    told.gap("sink.kafka", gap_topic="container.lifecycle", gap_first="3", gap_last="3")
    assert len(judge(done, told.stream("redis")).losses) == 2
    assert judge(done, told.stream("kafka")).kept


def test_an_earlier_epochs_end_can_be_declared_by_a_later_one(done: Ledger, told: Teller) -> None:
    """gap_epoch names it; without gap_last all that follows is missing."""
    tell_all(told)
    told.heartbeat(stats=9)
    told.epoch = 2
    told.gap("agent", gap_topic="container.stats", gap_epoch=1, gap_first="2")
    assert judge(done, told.stream()).kept
    told.log[-1]["gap_first"] = "3"
    assert judge(done, told.stream()).losses == ["container.stats of epoch 1: seq 2 of 9"]


def test_a_time_of_blindness_covers_who_came_and_went_in_it(done: Ledger, told: Teller) -> None:
    """Not who was there before or is there after: of those the agent can know."""
    tell_all(told)
    for number, (came, went) in enumerate([(210, 290), (190, 250), (250, 310)], 3):
        done.made(f"/f/{number}", f"boot.memory.{number}", at(came))
        done.removed(f"/f/{number}", at(went))
    told.gap("agent", gap_first=time(205), gap_last=time(295))
    assert judge(done, told.stream()).losses == ["created /f/4 (4)", "deleted /f/4 (4)", "created /f/5 (5)", "deleted /f/5 (5)"]
    told.gap("source.cgroup", gap_first=time(180), gap_last=time(206))  # they touch: one time of blindness
    assert judge(done, told.stream()).losses == ["created /f/5 (5)", "deleted /f/5 (5)"]


def test_only_without_its_memory_an_end_may_be_forgotten(done: Ledger, told: Teller) -> None:
    """An agent whose database is gone cannot know who was there; it must say so."""
    tell_all(told)
    done.removed("/f/b", at(250))
    told.gap("agent", gap_first=time(205), gap_last=time(295))
    assert judge(done, told.stream()).losses == ["deleted /f/b (2)"]
    assert judge(done, told.stream(), memory_kept=False).kept
    told.log.pop()
    assert not judge(done, told.stream(), memory_kept=False).kept


def test_a_gap_names_one_path(done: Ledger, told: Teller) -> None:
    """A cgroup that was gone before it could be looked at."""
    tell_all(told)
    done.made("/f/short", "boot.memory.3", at(300))
    done.removed("/f/short", at(300))
    told.gap("source.cgroup", gap_first="/f/short", gap_last="/f/short", gap_count=1)
    assert judge(done, told.stream()).kept
    done.made("/f/short", "boot.memory.4", at(400))  # another of that name needs another word
    done.removed("/f/short", at(400))
    assert judge(done, told.stream()).losses == ["created /f/short (4)", "deleted /f/short (4)"]


@pytest.mark.parametrize(("first", "last", "kept"), [("890", "900", True), ("901", "950", False)])
def test_overwritten_kernel_log_covers_the_kills_in_it(done: Ledger, told: Teller, first: str, last: str, kept: bool) -> None:
    """By the number of the record."""
    tell_all(told)
    told.log = [record for record in told.log if record["type"] != "container.oom"]
    told.log[-1]["high_water"]["container.oom"] = 0
    told.gap("source.kmsg", gap_first=first, gap_last=last, gap_count=11)
    assert judge(done, told.stream()).kept == kept


def test_a_gap_without_bounds_covers_nothing(done: Ledger, told: Teller) -> None:
    """'Something was lost' is no proof of anything."""
    tell_all(told)
    done.made("/f/c", "boot.memory.3", at(300))
    done.removed("/f/c", at(350))
    told.gap("source.cgroup")
    assert judge(done, told.stream()).losses == ["created /f/c (3)", "deleted /f/c (3)"]


def test_a_kill_known_from_a_counter_needs_no_pid_but_is_told_once(done: Ledger, told: Teller) -> None:
    """Two witnesses, one message."""
    tell_all(told)
    told.log = [record for record in told.log if record["type"] != "container.oom"]
    told.oom("/f/a", 1, 1, None, 51)
    told.log[-1]["seq"] = 1
    assert judge(done, told.stream()).kept
    told.oom("/f/a", 1, 900, 77, 50.5)
    assert "told as 2" in judge(done, told.stream()).wrong[0]


def test_a_kill_in_a_cgroup_that_was_gone_is_found_by_its_path(done: Ledger, told: Teller) -> None:
    """What is left to name as the container is the folder above; the kernel's word names the cgroup."""
    tell_all(told)
    done.made("/f", "boot.memory.9", at(1))
    told.life("created", "/f", 9, 1.5)
    kill = next(record for record in told.log if record["type"] == "container.oom")
    kill.update(container_id="/f", incarnation="boot.memory.9")
    assert judge(done, told.stream()).kept


def test_a_kill_whose_cgroup_the_kernel_left_out_is_found_by_its_pid(done: Ledger, told: Teller) -> None:
    """In a storm of kills only the last line of each report is printed."""
    tell_all(told)
    kill = next(record for record in told.log if record["type"] == "container.oom")
    kill.update(container_id="/", incarnation="boot.unknown")
    del kill["killed_cgroup"]
    assert judge(done, told.stream()).kept
    kill["pid"] = 78
    assert judge(done, told.stream()).losses == ["OOM kill of 77 in /f/a (1) (kernel log 900)"]


def test_order_within_a_container_is_held(done: Ledger, told: Teller) -> None:
    """`created` late, a sample after `deleted` in a file, a predecessor's end after its successor's beginning."""
    tell_all(told)
    told.log.insert(5, told.log.pop(0))
    told.log.append(told.sample("/f/a", 1, 40))
    told.log.pop()
    disorder = judge(done, told.stream()).disorder
    assert [text.split(" ")[0] for text in disorder] == ["boot.memory.1/created", "boot.memory.1/created", "boot.memory.1/stats/40"]
    by_topic = Stream("redis", [[r for r in told.log if r["type"] == kind] for kind in {r["type"] for r in told.log}])
    assert [text.split(" ")[0] for text in judge(done, by_topic).disorder] == ["boot.memory.1/created"]


def test_an_end_after_the_successors_beginning_is_out_of_order(told: Teller) -> None:
    """The same path, one incarnation after the other."""
    ledger = Ledger("boot")
    for number in (1, 2):
        ledger.made("/f/a", f"boot.memory.{number}", at(number * 100))
        ledger.removed("/f/a", at(number * 100 + 50))
    told.life("created", "/f/a", 1, 100.5)
    told.life("created", "/f/a", 2, 200.5)
    told.life("deleted", "/f/a", 1, 201)
    told.life("deleted", "/f/a", 2, 250.5)
    assert judge(ledger, told.stream()).disorder == ["boot.memory.1/deleted comes after its successor's `created`"]


def test_what_never_happened_and_what_contradicts_itself_is_wrong(done: Ledger, told: Teller) -> None:
    """An invented container, an end of one that is there, a date before the fact, two meanings of an id or a number."""
    tell_all(told)
    for act, word in (
        (lambda: told.life("created", "/f/ghost", 9, 60), "never was"),
        (lambda: told.life("deleted", "/f/b", 2, 60), "is there, but"),
        (lambda: told.log[-2].update(time=time(-500)), "too early"),
        (lambda: told.log.append({**told.log[0], "event": "deleted"}), "says"),
        (lambda: told.log.append({**told.log[0], "id": "other"}), "stands for"),
        (lambda: told.log[4].update(not_before=time(500)), "but it was"),
    ):
        kept = [dict(record) for record in told.log]
        act()
        assert any(word in text for text in judge(done, told.stream()).wrong), word
        told.log = kept


def test_a_cgroup_that_was_first_seen_while_it_went_is_known_by_what_was_left_of_it(told: Teller) -> None:
    """Its directory in the hierarchy that names it was gone by then; before, or after its end, such a one never was."""
    ledger = Ledger("boot")
    ledger.folders.append("/f")
    ledger.made("/f/a", "boot.memory.1", at(10))
    ledger.removed("/f/a", at(100))
    about = {"container_id": "/f/a", "incarnation": "boot.pids.7"}
    for ms, wrong in ((60.0, 1), (100.5, 0), (190.0, 1)):
        told.log.clear()
        told.say("container.lifecycle", "boot.pids.7/created", ms, event="created", **about)
        assert len([text for text in judge(ledger, told.stream()).wrong if "never was" in text]) == wrong, ms


def test_a_docker_container_is_known_by_its_id_alone(told: Teller) -> None:
    """Its cgroup may be gone before anybody could read the inode."""
    ledger = Ledger("boot")
    ledger.made("c1", "", at(10))
    ledger.removed("c1", at(90))
    told.life("created", "c1", 5, 10.5)
    assert judge(ledger, told.stream()).losses == ["deleted c1 (?)"]
    told.life("deleted", "c1", 5, 90.5)
    assert judge(ledger, told.stream()).kept


def test_two_sinks_may_not_contradict_each_other(told: Teller) -> None:
    """The same id says the same in all of them."""
    told.life("created", "/f/a", 1, 10)
    other = Stream("redis", [[{**told.log[0], "incarnation": "boot.memory.8"}]])
    assert contradictions([told.stream(), told.stream()]) == []
    assert len(contradictions([told.stream(), other])) == 1


@pytest.mark.parametrize(
    ("text", "ns"),
    [("2023-11-14T22:13:20.000000001Z", START_NS + 1), ("2023-11-14T22:13:20Z", START_NS), ("/a", None), ("17", None), ("", None)],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int | None) -> None:
    """And what is no time is told apart."""
    assert nanoseconds(text) == ns
