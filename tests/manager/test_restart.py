"""What a run says of the time before it: who is still there, who has ended, who is new, what could not be seen."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from streamer.clock import rfc3339
from streamer.manager.narrator import Host, Now
from streamer.manager.watchdog import Watchdog
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.inventory import Checkpoint, Kept, Past
from streamer.model.stats import NetworkInterface
from tests.manager.teller import HOST, ID, PATH, T0, Teller, appeared, described, event, kill, sample, sampled, vanished

S = 1_000_000_000
MS = 1_000_000
LATER = Host(name=HOST.name, id=HOST.id, boot_id=HOST.boot_id, epoch=HOST.epoch + 60_000, version="0")
REBOOTED = Host(name=HOST.name, id=HOST.id, boot_id="ffffffff-89ab-cdef-0123-456789abcdef", epoch=HOST.epoch + 60_000, version="0")


def left_by(teller: Teller, *, whole: bool = True, alive: int = 0) -> Past:
    """What a run that is killed now leaves, through the form it has on disk."""
    point = teller.fleet.checkpoint([] if whole else teller.said, whole=whole)
    kept = tuple(_as_on_disk(one) for one in point.kept.values() if one is not None)
    return Past(epoch=point.epoch, boot_id=point.boot_id, alive_ns=alive or teller.now().wall_ns, inventory=kept)


def _as_on_disk(kept: Kept) -> Kept:
    return msgspec.json.decode(msgspec.json.encode(kept), type=Kept)


def next_run(past: Past, host: Host = LATER, *, after: int = 60 * S, **options: Any) -> tuple[Teller, list[Any]]:
    """The run after it, and what it says first."""
    teller = Teller(host=host, past=past, **options)
    teller.ns = after
    said = teller.fleet.started(teller.now())
    teller.said += said
    return teller, [message.record for message in said if message.record is not None]


def events(told: list[Any]) -> list[tuple[Any, ...]]:
    return [(record.event, record.found, record.container_id) for record in told if record.type == "container.lifecycle"]


def gaps(told: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.component, r.gap_first, r.gap_last, r.gap_topic) for r in told if r.type == "control" and r.kind == "gap"]


def surveyed(teller: Teller) -> list[Any]:
    return teller.hear(o.Surveyed(teller.now().wall_ns))


def test_a_container_that_is_still_there_is_told_again_by_the_same_id() -> None:
    """With name and image though Docker has not spoken yet; consumers drop it; nothing else is said of it."""
    before = Teller()
    before.hear(event("create"))
    (created,) = before.hear(appeared())
    before.hear(described(pid=12, started_at_ns=T0))
    after, _ = next_run(left_by(before))
    told = after.hear(appeared(found="startup"))
    assert events(told) == [("created", "startup", ID)]
    assert (told[0].id, told[0].name, told[0].image) == (created.id, "web", "nginx:1")
    assert (told[0].epoch, told[0].seq) == (LATER.epoch, 1)
    assert events(surveyed(after)) == []
    assert len(after.fleet) == 1


def test_one_that_has_gone_is_told_to_have_ended_between_two_times() -> None:
    """Not before it was last known to be there, at the latest now; with everything that was known of it."""
    before = Teller(docker=False)
    before.hear(appeared("/job", 8), sampled("/job", 8, cpu_usage_ns=5_000, memory_peak_bytes=700))
    after, _ = next_run(left_by(before, alive=T0 + 9 * S), docker=False)
    told = surveyed(after)
    assert events(told) == [("deleted", "reconciled", "/job")]
    deleted = told[0]
    assert (deleted.not_before, deleted.time) == (rfc3339(T0 + 9 * S), rfc3339(T0 + 60 * S))
    assert (deleted.id, deleted.totals_from, deleted.total_cpu_usage_ns, deleted.memory_peak_bytes, deleted.samples) == (
        f"{before.said[0].record.incarnation}/deleted", "last_sample", 5_000, 700, 1,
    )  # fmt: skip
    assert len(after.fleet) == 0 and [s.record for s in after.said if s.topic is m.STATE] == [None]


def test_one_that_is_new_was_made_while_nobody_looked() -> None:
    """`reconciled` when there was a run before, `startup` when there was none."""
    assert events(Teller(docker=False).hear(appeared("/new", 9, found="startup"))) == [("created", "startup", "/new")]
    after, _ = next_run(left_by(Teller(docker=False)), docker=False)
    assert events(after.hear(appeared("/new", 9, found="startup"))) == [("created", "reconciled", "/new")]
    assert events(after.hear(appeared("/live", 10))) == [("created", "live", "/live")]


def test_another_one_in_its_place_ends_it() -> None:
    """The same path with another inode: the old one is told to have ended before the new one is told."""
    before = Teller(docker=False)
    before.hear(appeared("/job", 8))
    after, _ = next_run(left_by(before), docker=False)
    told = after.hear(appeared("/job", 99, found="startup"))
    assert events(told) == [("deleted", "reconciled", "/job"), ("created", "reconciled", "/job")]
    assert told[0].incarnation != told[1].incarnation
    assert after.fleet.get("/job") is not None


def test_the_time_in_which_nobody_looked_is_a_gap() -> None:
    """From the last checkpoint to the end of the first look; none when there was no run before."""
    assert gaps(surveyed(Teller())) == []
    after, _ = next_run(left_by(Teller(), alive=T0 + 9 * S))
    assert gaps(surveyed(after)) == [("agent", rfc3339(T0 + 9 * S), rfc3339(T0 + 60 * S), UNSET)]


def test_a_run_that_is_killed_before_its_first_look_leaves_the_gap_to_the_next() -> None:
    """Its checkpoints still speak of the run before: otherwise the time that nobody saw would be forgotten."""
    second, _ = next_run(left_by(Teller(), alive=T0 + 9 * S))
    assert second.fleet.checkpoint(second.said).alive_ns == T0 + 9 * S and not second.fleet.surveyed
    surveyed(second)
    assert second.fleet.surveyed


def test_a_new_boot_ends_everything_of_the_old_one() -> None:
    """Each incarnation at the latest when the host came up; the old kernel log is a gap; an equal path is somebody new."""
    before = Teller(docker=False)
    before.hear(appeared("/a", 8), appeared("/b", 9))
    after, first = next_run(left_by(before, alive=T0 + 9 * S), REBOOTED, docker=False, boot_time_ns=T0 + 30 * S)
    assert events(first) == [("deleted", "reconciled", "/a"), ("deleted", "reconciled", "/b")]
    deleted = next(record for record in first if record.type == "container.lifecycle")
    assert (deleted.not_before, deleted.time) == (rfc3339(T0 + 9 * S), rfc3339(T0 + 30 * S))
    assert gaps(first) == [("source.kmsg", rfc3339(T0 + 9 * S), rfc3339(T0 + 30 * S), UNSET)]
    told = after.hear(appeared("/a", 8, found="startup"))
    assert events(told) == [("created", "reconciled", "/a")] and told[0].incarnation.startswith("ffffffff")


def test_a_container_whose_end_was_seen_keeps_it_over_the_restart() -> None:
    """It waited for its exit code: the next run says it, as it was seen, with the totals of its end."""
    before = Teller()
    before.hear(event("create"), appeared(), o.Emptied(PATH, 7, sample(at=50, cpu_usage_ns=31_000)))
    assert before.hear(vanished(at=90 * MS)) == []
    after, first = next_run(left_by(before, whole=False))
    assert events(first) == []
    (deleted,) = after.hear(event("die", at=91 * MS, exit_code=3))
    assert (deleted.event, deleted.found, deleted.exit_code, deleted.lifetime_ms) == ("deleted", "live", 3, 90)
    assert (deleted.totals_from, deleted.total_cpu_usage_ns) == ("exit", 31_000)


def test_what_was_said_of_a_network_stands_though_its_end_is_told_by_the_next_run() -> None:
    """The network ended with the last process; what had been counted until then was said."""
    before = Teller(docker=False)
    before.hear(
        appeared("/job", 8), sampled("/job", 8, cpu_usage_ns=40, interfaces=(NetworkInterface("eth0", 5, 1, 0, 0, 7, 1, 0, 0),))
    )
    before.hear(o.Emptied("/job", 8, sample(at=50, cpu_usage_ns=50)))
    after, _ = next_run(left_by(before), docker=False)
    after.hear(appeared("/job", 8, found="startup"))
    (deleted,) = [record for record in after.hear(vanished("/job", 8)) if getattr(record, "event", "") == "deleted"]
    assert (deleted.totals_from, deleted.total_cpu_usage_ns) == ("exit", 50)
    assert (deleted.total_network_rx_bytes, deleted.total_network_tx_bytes) == (5, 7)


def test_a_container_that_waited_for_its_name_is_told_as_a_pair() -> None:
    """Its `created` was not said when the run was killed: the next one says it, and that it ended."""
    before = Teller()
    assert before.hear(appeared()) == []
    after, _ = next_run(left_by(before, whole=False))
    told = surveyed(after) + after.later(20 * S)
    assert events(told) == [("created", "live", ID), ("deleted", "reconciled", ID)]


def test_an_old_die_is_not_taken_for_this_runs() -> None:
    """Docker's events are told again after a restart; one from before this incarnation began ended another."""
    before = Teller()
    before.hear(event("create"), appeared(at=15 * S))
    after, _ = next_run(left_by(before))
    after.hear(appeared(found="startup"))
    after.hear(event("die", at=2 * S, exit_code=9))
    after.hear(vanished(at=70 * S))
    (deleted,) = after.hear(event("die", at=70 * S + 5, exit_code=0))
    assert deleted.exit_code == 0


def test_kills_go_on_counting_and_keep_their_ids() -> None:
    """A kill the log tells of after the restart counts to its container; one that only the counter saw gets the next number."""
    before = Teller(docker=False)
    before.hear(appeared("/job", 8), sampled("/job", 8, memory_oom_kills=0), kill(5, cgroup="/job"))
    before.hear(sampled("/job", 8, memory_oom_kills=1))
    after, _ = next_run(left_by(before), docker=False)
    assert after.hear(kill(11, cgroup="/job")) == []  # read before the first look: it waits for it
    created, told = after.hear(appeared("/job", 8, found="startup"))
    assert created.event == "created"
    assert told.id == f"{HOST.boot_id.replace('-', '')[:16]}/oom/11" and told.container_id == "/job"
    after.hear(sampled("/job", 8, memory_oom_kills=3))  # one more than the log told of
    (counted,) = after.later(2 * S)
    assert (counted.type, counted.id) == ("container.oom", f"{told.incarnation}/oom/3")
    (deleted,) = after.hear(vanished("/job", 8, at=90 * S))
    assert deleted.oom_kills == 3


def test_the_cursor_of_the_log_stays_before_what_is_not_said() -> None:
    """A kill that waits for its container's `created` would be missed by a run that resumed after it."""
    teller = Teller()
    teller.hear(appeared(), kill(21), kill(22, cgroup="/other"))
    assert teller.fleet.log_cursor(30) == (20, ())
    teller.hear(event("create"))
    assert teller.fleet.log_cursor(30) == (21, ())
    teller.later(10 * S)
    assert teller.fleet.log_cursor(30) == (30, ())
    teller.hear(kill(40), kill(41, cgroup="/third"))
    assert teller.fleet.log_cursor(39) == (39, (40,))


def test_a_kill_that_was_said_is_not_said_again_when_its_report_is_read_again() -> None:
    """Its container may have left the inventory since: it would be told of another one under the same id."""
    before = Teller(docker=False)
    before.hear(appeared("/pod", 1), appeared("/pod/job", 8), kill(11, cgroup="/pod/job"), vanished("/pod/job", 8))
    seq, said = before.fleet.log_cursor(10)
    assert (seq, said) == (10, (11,))
    past = msgspec.structs.replace(left_by(before), kmsg_seq=seq, kmsg_said=said)
    after, _ = next_run(past, docker=False)
    assert after.hear(kill(11, cgroup="/pod/job")) == []
    told = after.hear(kill(12, cgroup="/pod")) + surveyed(after)
    assert [record.id.rpartition("/")[2] for record in told if record.type == "container.oom"] == ["12"]
    assert after.fleet.log_cursor(10) == (10, (11, 12))


def test_a_checkpoint_holds_those_the_messages_are_about() -> None:
    """The one that was told, as it is now; one whose end was said is marked as gone; others are left as they are on disk."""
    teller = Teller(docker=False)
    teller.hear(appeared("/a", 1), appeared("/b", 2), appeared("/c", 3))
    assert len(teller.fleet.checkpoint(teller.said).kept) == 3
    teller.said.clear()
    teller.hear(vanished("/a", 1), kill(7, cgroup="/b"))
    point: Checkpoint = teller.fleet.checkpoint(teller.said)
    found = {incarnation.rpartition(".")[2]: kept for incarnation, kept in point.kept.items()}
    assert set(found) == {"1", "2"} and found["1"] is None
    assert found["2"] is not None and found["2"].oom_said == 1
    assert set(left_by(teller).inventory[0].__struct_fields__) == set(Kept.__struct_fields__)
    assert [kept.path for kept in left_by(teller).inventory] == ["/b", "/c"]


def test_an_exit_code_that_was_heard_is_kept_though_nothing_was_said() -> None:
    """`die` came, the cgroup was still there: the next checkpoint has it, as Docker does not tell of it again; an ended one is not kept."""
    teller = Teller()
    teller.hear(event("create"), appeared(), event("die", exit_code=3))
    first = teller.fleet.checkpoint([])
    assert [kept.exit_code for kept in first.kept.values() if kept] == [3]
    assert teller.fleet.checkpoint([]).kept == {}
    teller.hear(event("create"), appeared(inode=8, at=5), event("die", at=6, exit_code=4))
    teller.said.clear()
    teller.hear(vanished(inode=8, at=7))
    assert set(teller.fleet.checkpoint(teller.said).kept.values()) == {None}


def test_kills_of_another_boot_swallow_none_of_this_one() -> None:
    """The kernel log counts from 0 again: the numbers of what was said then mean other records now."""
    past = msgspec.structs.replace(left_by(Teller(docker=False)), kmsg_said=(5,))
    after, _ = next_run(past, REBOOTED, docker=False)
    surveyed(after)
    after.hear(appeared("/job", 8))
    assert [record.type for record in after.hear(kill(5, cgroup="/job"))] == ["container.oom"]


def test_a_boot_before_the_last_sign_of_life_is_a_clock_that_was_set_back() -> None:
    """The gap of the kernel log does not end before it begins: its beginning is not known."""
    _, first = next_run(left_by(Teller(docker=False), alive=T0 + 50 * S), REBOOTED, docker=False, boot_time_ns=T0 + 30 * S)
    assert gaps(first) == [("source.kmsg", UNSET, rfc3339(T0 + 30 * S), UNSET)]


def test_a_clock_that_was_set_back_leaves_no_time_that_ends_before_it_begins() -> None:
    """The earlier run was last known to run in what is now the future."""
    before = Teller(docker=False)
    before.hear(appeared("/job", 8))
    after, _ = next_run(left_by(before, alive=T0 + 3_600 * S), docker=False)
    told = surveyed(after)
    (deleted,) = (record for record in told if record.type == "container.lifecycle")
    assert deleted.not_before <= deleted.time
    (gap,) = (record for record in told if record.type == "control")
    assert gap.gap_first is UNSET and "set back" in gap.reason


def test_the_counts_of_those_above_a_victim_are_kept_too() -> None:
    """On v2 a parent's counter includes the kill: a run after a crash must not tell it again as the parent's."""
    teller = Teller(docker=False, hierarchical_kills=True)
    teller.hear(appeared("/pod", 1), appeared("/pod/job", 2))
    teller.fleet.checkpoint(teller.said)
    teller.said.clear()
    teller.hear(kill(7, cgroup="/pod/job"))
    kept = {one.path: one.oom_said for one in teller.fleet.checkpoint(teller.said).kept.values() if one}
    assert kept == {"/pod": 1, "/pod/job": 1}


def test_a_damaged_state_file_is_a_gap_in_everything() -> None:
    """What it held is not known: of every topic of that epoch, and of facts, up to now."""
    after, first = next_run(Past(epoch=5, damaged="/s/state.db.damaged-1", damage="malformed"))
    topics = [topic.suffix for topic in m.TOPICS if not topic.compacted]
    told = gaps(first)
    assert told[0] == ("state", UNSET, rfc3339(T0 + 60 * S), UNSET)
    assert told[1:] == [("state", "1", UNSET, suffix) for suffix in topics]
    assert {record.gap_epoch for record in first if record.type == "control" and record.gap_topic} == {5}
    assert gaps(surveyed(after)) == [("agent", UNSET, rfc3339(T0 + 60 * S), UNSET)]


def test_the_tombstone_waits_for_the_last_incarnation() -> None:
    """A container started again before the end of its earlier run was said keeps its present state."""
    teller = Teller()
    teller.hear(event("create"), appeared())
    teller.hear(vanished(at=90 * MS), appeared(inode=8, at=100 * MS))
    teller.hear(event("die", at=95 * MS, exit_code=0))
    states = [said.record for said in teller.said if said.topic is m.STATE]
    assert [state is None for state in states] == [False, False]


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3), st.lists(st.sampled_from(["a", "b", "c"]), max_size=3))
def test_whatever_changed_meanwhile_each_container_has_its_pair(before_names: list[str], after_names: list[str]) -> None:
    """Over both runs, repeated ids dropped: one `created` for each, one `deleted` for each that has gone."""
    before = Teller(docker=False)
    for name in before_names:
        before.hear(appeared(f"/{name}", ord(name)))
    after, first = next_run(left_by(before), docker=False)
    told = first
    for name in after_names:
        told = told + after.hear(appeared(f"/{name}", ord(name), found="startup"))
    told = told + surveyed(after)
    ids = {
        record.id: record
        for record in [*(s.record for s in before.said if s.record), *told]
        if record.type == "container.lifecycle"
    }
    seen = sorted((record.event, record.container_id) for record in ids.values())
    wanted = [("created", f"/{name}") for name in {*before_names, *after_names}]
    wanted += [("deleted", f"/{name}") for name in {*before_names} - {*after_names}]
    assert seen == sorted(wanted)


def test_a_clock_that_was_set_is_declared_and_a_slewed_one_is_not() -> None:
    """With the times before and after; half a second is no slewing any more."""
    watch = Watchdog(Now(T0, 0))
    assert watch.look(Now(T0 + S + 100_000_000, S)) == []
    (lost,) = watch.look(Now(T0 + 3_600 * S + 2 * S, 2 * S))
    assert (lost.component, lost.first, lost.last) == ("clock", rfc3339(T0 + 2 * S + 100_000_000), rfc3339(T0 + 3_602 * S))
    assert "+3599.900 s" in lost.reason
    assert watch.look(Now(T0 + 3_603 * S, 3 * S)) == []
    (back,) = watch.look(Now(T0 + 4 * S, 4 * S))
    assert "-3600.000 s" in back.reason


def test_samples_left_out_are_declared_now_and_then() -> None:
    """Counted, with the time they are from, and at most every ten seconds."""
    watch = Watchdog(Now(T0, 0))
    watch.skipped(3, Now(T0, 0))
    (lost,) = watch.look(Now(T0 + S, S))
    assert (lost.component, lost.count, lost.first, lost.last) == ("sampling", 3, rfc3339(T0), rfc3339(T0 + S))
    watch.skipped(2, Now(T0 + 2 * S, 2 * S))
    assert watch.look(Now(T0 + 2 * S, 2 * S)) == []
    watch.skipped(5, Now(T0 + 5 * S, 5 * S))
    assert [one.count for n in range(3, 13) for one in watch.look(Now(T0 + n * S, n * S))] == [7]
