"""What is said about containers, for every order in which the host may tell of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import UNSET, structs

from streamer.clock import rfc3339
from streamer.manager.container import LabelFilter
from streamer.manager.fleet import HOLD_CREATED_NS, HOLD_DELETED_NS, HOLD_STARTUP_NS, SETTLE_NS, Fleet
from streamer.manager.kills import EARLY_AT_START_NS, EARLY_NS
from streamer.manager.kills import GRACE_NS as OOM_GRACE_NS
from streamer.manager.narrator import Now
from streamer.manager.roster import REMEMBER_ENDED_NS
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.spec import ContainerSpec
from streamer.model.stats import COLUMNS, NetworkInterface, Sample
from tests.manager.teller import HOST, ID, PATH, T0, Teller, appeared, described, event, kill, records_of, sample, sampled, vanished


def test_a_short_docker_job_is_a_pair_with_the_same_name_and_exact_totals() -> None:
    """Created with the name of Docker's create event, deleted with exit code and the totals read at its end."""
    teller = Teller()
    teller.hear(event("create", labels={"a": "b"}))
    (created,) = teller.hear(appeared())
    assert (created.event, created.found, created.name, created.image, created.labels) == (
        "created",
        "live",
        "web",
        "nginx:1",
        {"a": "b"},
    )
    teller.hear(o.Emptied(PATH, 7, sample(at=50, cpu_usage_ns=31_000_000)))
    assert teller.hear(vanished(at=90_000_000)) == []
    (deleted,) = teller.hear(event("die", exit_code=0))
    assert (deleted.event, deleted.container_id, deleted.incarnation) == ("deleted", ID, created.incarnation)
    assert (deleted.name, deleted.exit_code, deleted.oom_killed, deleted.lifetime_ms) == ("web", 0, False, 90)
    assert (deleted.totals_from, deleted.total_cpu_usage_ns, deleted.totals_at_ms) == ("exit", 31_000_000, (T0 + 50) // 1_000_000)
    assert deleted.memory_peak_bytes is UNSET
    assert [said.record is None for said in teller.said if said.topic is m.STATE] == [False, True]


def test_the_exit_code_may_come_before_the_end_of_the_cgroup() -> None:
    """die, then rmdir: nothing is waited for."""
    teller = Teller()
    teller.hear(event("create"), appeared(), event("die", exit_code=3))
    (deleted,) = teller.hear(vanished())
    assert deleted.exit_code == 3


def test_nothing_waits_for_ever_for_a_runtime() -> None:
    """Without a word from Docker, created follows after a second and deleted as well, with what is known."""
    teller = Teller()
    assert teller.hear(appeared()) == []
    assert teller.later(HOLD_CREATED_NS - 1) == []
    (created,) = teller.later(1)
    assert (created.event, created.name, created.runtime, created.container_id) == ("created", UNSET, "docker", ID)
    assert teller.hear(vanished()) == []
    (deleted,) = teller.later(HOLD_CREATED_NS)
    assert (deleted.event, deleted.exit_code) == ("deleted", UNSET)
    assert teller.fleet.next_due() is None


def test_the_exit_code_of_a_known_container_is_waited_for() -> None:
    """Docker knows it and will tell how it ended: ten seconds at most."""
    teller = Teller()
    teller.hear(event("create"), appeared())
    assert teller.hear(vanished()) == []
    assert teller.later(HOLD_DELETED_NS - 1) == []
    (deleted,) = teller.later(1)
    assert (deleted.event, deleted.exit_code) == ("deleted", UNSET)


def test_a_daemon_out_of_breath_that_speaks_after_the_end_is_waited_for() -> None:
    """The name comes when the cgroup has gone, and the exit code seconds after it."""
    teller = Teller()
    assert teller.hear(appeared(), vanished()) == []
    (created,) = teller.hear(event("create"))
    assert (created.event, created.name) == ("created", "web")
    assert teller.later(HOLD_DELETED_NS - 1) == []
    (deleted,) = teller.hear(event("die", exit_code=4))
    assert (deleted.event, deleted.exit_code) == ("deleted", 4)


def test_before_docker_first_answers_names_are_waited_for_longer() -> None:
    """At the start of a run the list of all containers is still to come: 3 s, or until Docker speaks."""
    fleet = Fleet(HOST)
    assert fleet.observe(appeared(), Now(T0, 1)) == []
    assert fleet.tick(Now(T0, HOLD_CREATED_NS + 1)) == []
    assert len(fleet.tick(Now(T0, HOLD_STARTUP_NS + 1))) == 2


def test_when_docker_is_away_nothing_waits_for_it() -> None:
    """Degraded releases what waited and says so once; with Docker back, names come as an update."""
    teller = Teller()
    teller.hear(appeared())
    first = teller.hear(o.Degraded("source.docker", T0, "no socket", "start it"))
    assert [r.type for r in first] == ["container.lifecycle", "control"]
    assert (first[1].kind, first[1].reason, first[1].remedy) == ("degraded", "no socket", "start it")
    assert teller.hear(o.Degraded("source.docker", T0, "no socket", "start it")) == []
    (recovered,) = teller.hear(o.Recovered("source.docker", T0))
    assert recovered.kind == "recovered"
    teller.hear(described(pid=77))
    (updated,) = teller.later(SETTLE_NS)
    assert updated.changed == ["aliases", "image", "name", "pid"]
    assert updated.pid == 77


def test_samples_wait_for_created() -> None:
    """Nothing is said of a container before its created, and nothing of it is lost."""
    teller = Teller()
    assert teller.hear(appeared(), sampled(at=5), kill()) == []
    said = teller.hear(event("create"))
    assert [r.type for r in said] == ["container.lifecycle", "container.stats", "container.oom"]
    assert said[1].cpu_usage_ns == 1000


def test_a_restart_is_a_new_incarnation_with_the_same_id() -> None:
    """Stop and start: deleted of the first, created of the second, each with its own facts."""
    teller = Teller()
    teller.hear(event("create"), appeared(), described(pid=5, started_at_ns=T0 + 1), vanished(at=10))
    (first,) = teller.hear(event("die", exit_code=1))
    (second,) = teller.hear(appeared(inode=8, at=20))
    assert (first.event, second.event) == ("deleted", "created")
    assert first.container_id == second.container_id
    assert first.incarnation != second.incarnation
    assert (first.started_at, second.started_at, second.pid) == (first.started_at, UNSET, UNSET)


def test_a_missed_end_is_told_when_the_name_is_taken_again() -> None:
    """The same path with another inode: the old one is deleted, reconciled, before the new one is created."""
    teller = Teller()
    teller.hear(appeared("/job", 1), sampled("/job", 1, at=100))
    said = teller.hear(appeared("/job", 2, at=500))
    assert [(r.event, r.found) for r in said] == [("deleted", "reconciled"), ("created", "live")]
    assert said[0].not_before.endswith("20.000000100Z")


def test_details_that_trickle_in_make_one_update() -> None:
    """Limits and inspect results that follow a start are said together, with what changed."""
    teller = Teller()
    teller.hear(event("create"), appeared())
    teller.hear(o.SpecRead(PATH, 7, T0, ContainerSpec(memory_limit_bytes=30)), described(image_id="sha256:1", pid=9))
    (updated,) = teller.later(SETTLE_NS)
    assert (updated.event, updated.changed, updated.spec.memory_limit_bytes) == ("updated", ["image_id", "pid", "spec"], 30)
    assert teller.hear(described(image_id="sha256:1", pid=9)) == []
    assert teller.later(SETTLE_NS) == []


def test_pause_and_rename_are_told_at_once() -> None:
    """What a person does to a container is an update of its own."""
    teller = Teller()
    teller.hear(event("create"), appeared())
    (paused,) = teller.hear(event("pause", at=1))
    (running,) = teller.hear(event("unpause", at=2))
    (renamed,) = teller.hear(event("rename", at=3, name="api"))
    assert (paused.changed, paused.state, running.state, renamed.name) == (["state"], "paused", "running", "api")
    assert renamed.changed == ["aliases", "name"]
    assert len({paused.id, running.id, renamed.id}) == 3


def test_an_oom_kill_is_one_message_with_the_container_it_hit() -> None:
    """Kernel log and counter saw the same kill: one message, and the end says so."""
    teller = Teller()
    teller.hear(event("create", labels={"team": "x"}), appeared())
    (oom,) = teller.hear(kill(limit_cgroup=PATH, constraint="memcg", uid=0, anon_rss_bytes=19))
    assert (oom.name, oom.image, oom.labels, oom.process, oom.pid) == ("web", "nginx:1", {"team": "x"}, "tail", 42)
    assert (oom.id, oom.evidence, oom.constraint, oom.memory_limit_bytes) == (
        "0123456789abcdef/oom/9",
        ["kmsg"],
        "memcg",
        20_000_000,
    )
    teller.hear(o.Emptied(PATH, 7, sample(memory_oom_kills=1)), vanished())
    (deleted,) = teller.hear(event("die", exit_code=137))
    assert (deleted.oom_killed, deleted.oom_kills) == (True, 1)
    assert len(teller.records(m.OOM)) == 1


def test_a_kill_that_only_the_counter_saw_is_told_after_a_moment() -> None:
    """Without a kernel-log record within a second, the cgroup's counter is believed."""
    teller = Teller()
    teller.hear(appeared("/job", 1), sampled("/job", 1, memory_oom_kills=0))
    assert [r.type for r in teller.hear(sampled("/job", 1, memory_oom_kills=2))] == ["container.stats"]
    told = teller.later(OOM_GRACE_NS)
    assert [(r.evidence, r.killed_cgroup) for r in told] == [(["memory.events"], "/job")] * 2
    assert len({r.id for r in told}) == 2


def test_a_flood_of_kills_that_only_the_counter_saw_is_told_in_part_and_the_rest_counted() -> None:
    """A hundred one by one, the others as a number in a gap: nothing is silent, and nothing floods."""
    teller = Teller(kmsg=False)
    teller.hear(appeared("/job", 1))
    told = teller.hear(sampled("/job", 1, memory_oom_kills=1_000_000))
    (gap,) = [record for record in told if record.type == "control"]
    assert (len(teller.records(m.OOM)), gap.gap_count, gap.component) == (100, 999_900, "source.kmsg")


def test_a_kill_that_the_kernel_prints_and_counts_twice_is_told_once() -> None:
    """With memory.oom.group the first victim is printed again: the counter has it twice, the stream once."""
    teller = Teller()
    teller.hear(
        appeared("/job", 1), sampled("/job", 1, memory_oom_kills=0), kill(cgroup="/job"), kill(seq=10, cgroup="/job", repeated=True)
    )
    teller.hear(sampled("/job", 1, memory_oom_kills=2))
    teller.later(OOM_GRACE_NS)
    (deleted,) = teller.hear(vanished("/job", 1))
    assert (len(teller.records(m.OOM)), deleted.oom_kills) == (1, 1)


def test_without_a_kernel_log_the_counter_is_believed_at_once() -> None:
    """Kills from before the first look are not told as if they happened now."""
    teller = Teller(kmsg=False)
    teller.hear(appeared("/job", 1, "startup"), sampled("/job", 1, memory_oom_kills=5))
    told = teller.hear(sampled("/job", 1, memory_oom_kills=6))
    assert [r.type for r in told] == ["container.stats", "container.oom"]


def test_a_late_kernel_log_record_still_finds_its_container() -> None:
    """The container is gone and deleted is said; its name stands in the OOM message."""
    teller = Teller()
    teller.hear(event("create"), appeared(), event("die", exit_code=137), vanished())
    (oom,) = teller.hear(kill())
    assert (oom.name, oom.container_id) == ("web", ID)


def test_who_ended_long_ago_is_forgotten_when_another_one_ends() -> None:
    """For as long as the kernel log may tell of it, a kill is laid at its door; later it is that of a cgroup that nobody knows."""
    teller = Teller(docker=False)
    teller.hear(appeared("/job", 1), vanished("/job", 1))
    teller.later(REMEMBER_ENDED_NS)
    teller.hear(appeared("/next", 2), vanished("/next", 2))
    (oom,) = teller.hear(kill(1, cgroup="/job"))
    assert oom.incarnation.endswith(".memory.1")
    teller.later(HOLD_CREATED_NS + 1)
    teller.hear(appeared("/last", 3), vanished("/last", 3))
    (oom,) = teller.hear(kill(2, cgroup="/job")) + teller.later(EARLY_AT_START_NS)
    assert oom.incarnation.endswith(".unknown")


def test_while_the_kernel_log_cannot_be_read_nobody_is_forgotten_for_having_ended_long_ago() -> None:
    """A kill that was told by the counter is not told again by a log that comes back later than that."""
    teller = Teller(docker=False)
    teller.hear(o.Degraded("source.kmsg", T0, "cannot be read"), o.Surveyed(T0), appeared("/job", 1))
    said = teller.hear(sampled("/job", 1, memory_oom_kills=1)) + teller.later(OOM_GRACE_NS)
    assert [record.evidence for record in said if isinstance(record, m.ContainerOom)] == [["memory.events"]]
    teller.hear(vanished("/job", 1))
    teller.later(REMEMBER_ENDED_NS + HOLD_CREATED_NS + 1)
    teller.hear(appeared("/next", 2), vanished("/next", 2), o.Recovered("source.kmsg", T0))
    said = teller.hear(kill(1, cgroup="/job")) + teller.later(EARLY_AT_START_NS)
    assert not [record for record in said if isinstance(record, m.ContainerOom)]


def test_what_docker_says_before_the_first_look_is_told_holds() -> None:
    """The state that it described; the end of one that was there when it was looked at, and not one from before."""
    teller = Teller()
    teller.hear(described(state="paused"))
    (created,) = teller.hear(appeared(found="startup"))
    assert created.state == "paused"
    teller = Teller()
    teller.hear(described(), event("die", at=5, exit_code=3))
    teller.hear(appeared(found="startup", at=4))
    (deleted,) = teller.hear(vanished(at=6))
    assert deleted.exit_code == 3
    teller = Teller()
    teller.hear(described(), event("die", at=3, exit_code=3), appeared(found="startup", at=4))
    assert teller.hear(vanished(at=6)) == []  # that was the end of a run before: this one's is waited for


@pytest.mark.parametrize(
    ("cgroup", "container_id"), [("/system.slice/ssh.service", "/system.slice/ssh.service"), ("", "/"), (f"{PATH}/init.scope", ID)]
)
def test_a_kill_outside_every_known_container_is_told_too(cgroup: str, container_id: str) -> None:
    """Every kill on the host reaches the stream, with as much as the cgroup path tells."""
    teller = Teller()
    (oom,) = teller.hear(kill(cgroup=cgroup)) + teller.later(EARLY_AT_START_NS)
    assert oom.container_id == container_id


def test_on_v2_a_kill_below_is_not_told_again_for_the_cgroup_above() -> None:
    """memory.events counts for all ancestors; each kill is still one message."""
    teller = Teller(hierarchical_kills=True)
    teller.hear(appeared("/a", 1), appeared("/a/b", 2), kill(cgroup="/a/b"))
    teller.hear(sampled("/a", 1, memory_oom_kills=1), sampled("/a/b", 2, memory_oom_kills=1))
    teller.later(OOM_GRACE_NS)
    assert len(teller.records(m.OOM)) == 1


def test_counters_never_run_backwards() -> None:
    """A counter that the kernel steps back stays at its highest value; so does the sum of an interface that left."""
    teller = Teller()
    eth0 = NetworkInterface("eth0", 100, 1, 0, 0, 10, 1, 0, 0)
    eth1 = NetworkInterface("eth1", 7, 1, 0, 0, 5, 1, 0, 0)
    teller.hear(appeared("/job", 1))
    for cpu, user, interfaces in [(100, 60, (eth0, eth1)), (110, 55, (eth0,)), (120, 70, ())]:
        teller.hear(o.Sampled("/job", 1, sample(cpu_usage_ns=cpu, cpu_user_ns=user, interfaces=interfaces)))
    stats = teller.records(m.STATS)
    assert [(r.cpu_usage_ns, r.cpu_user_ns, r.network_rx_bytes) for r in stats] == [(100, 60, 107), (110, 60, 107), (120, 70, 107)]


def test_a_counter_that_comes_as_a_gauge_goes_never_runs_backwards_either() -> None:
    """As many columns are there as before, but others."""
    teller = Teller()
    teller.hear(appeared("/job", 1))
    for columns in ({"memory_peak_bytes": 5}, {"io_read_bytes": 9}, {"io_read_bytes": 3}):
        teller.hear(o.Sampled("/job", 1, sample(cpu_usage_ns=1, **columns)))
    assert [r.io_read_bytes for r in teller.records(m.STATS)] == [UNSET, 9, 9]


def test_what_runs_on_below_an_emptied_cgroup_makes_its_totals_the_last_samples() -> None:
    """Totals are only said to be of the exit when nothing ran after they were read."""
    teller = Teller()
    teller.hear(appeared("/job", 1), o.Emptied("/job", 1, sample(at=1, cpu_usage_ns=10)), sampled("/job", 1, at=9, cpu_usage_ns=50))
    (deleted,) = teller.hear(vanished("/job", 1))
    assert (deleted.totals_from, deleted.total_cpu_usage_ns) == ("last_sample", 50)


@pytest.mark.parametrize(
    ("looks", "totals"),
    [
        # v1: the container's directories are removed one after the other while it is looked at
        (["sample cpu=40 io=7", "end io=9"], ("last_sample", 1, 40, 9)),
        (["sample cpu=40 io=7", "end cpu=50"], ("exit", 2, 50, 7)),
        (["sample cpu=40 io=7", "sample"], ("last_sample", 1, 40, 7)),
        (["sample cpu=40", "sample", "sample", "end"], ("last_sample", 1, 40, UNSET)),
        (["sample cpu=40 io=7", "end cpu=50 io=9", "sample"], ("exit", 2, 50, 9)),
        (["sample cpu=40 io=7", "end cpu=50 io=9", "sample io=9"], ("exit", 2, 50, 9)),
        (["end io=9"], ("last_sample", 1, UNSET, 9)),
        (["sample io=7", "end io=9"], ("last_sample", 2, UNSET, 9)),
        (["sample io=7"], ("last_sample", 1, UNSET, 7)),
        # a controller is switched off while it lives
        (["sample cpu=40 io=7", "sample cpu=41", "end cpu=50"], ("exit", 3, 50, 7)),
        # something ran on, in a cgroup below
        (["sample cpu=40 io=7", "end cpu=50 io=9", "sample cpu=60"], ("last_sample", 3, 60, 9)),
        (["end cpu=50 io=9", "sample io=12"], ("last_sample", 1, 50, 12)),
        (["sample cpu=40 io=7", "end cpu=50 io=9", "sample cpu=50 io=12"], ("exit", 2, 50, 12)),  # written back late
        (["sample cpu=40 io=7", "sample cpu=41", "again"], ("last_sample", 3, 41, 7)),
        (["sample cpu=40 io=7", "sample", "again"], ("last_sample", 1, 40, 7)),
        # somebody came after the last one had gone
        (["sample cpu=40 io=7", "end cpu=50", "joined"], ("last_sample", 2, 50, 7)),
        (["sample cpu=40 io=7", "end cpu=50 io=9", "joined", "end cpu=60"], ("exit", 4, 60, 9)),
    ],
)
def test_what_could_not_be_read_any_more_is_the_last_that_was(looks: list[str], totals: tuple[Any, ...]) -> None:
    """Of the end and of the samples before and after it; totals are those of the end, and have the time, by their CPU time."""
    teller, seen = Teller(), sample()
    teller.hear(appeared("/job", 1))
    for at, look in enumerate(looks, 1):
        kind, *told = look.split()
        numbers = {"cpu_usage_ns": UNSET} | {
            {"cpu": "cpu_usage_ns", "io": "io_read_bytes"}[name]: int(number) for name, number in (each.split("=") for each in told)
        }
        at_ns = at * 1_000_000
        seen = structs.replace(seen, time_ns=T0 + at_ns) if kind == "again" else sample(at=at_ns, **numbers)
        heard = {
            "end": o.Emptied("/job", 1, seen),
            "sample": o.Sampled("/job", 1, seen),
            "again": o.Sampled("/job", 1, seen),
            "joined": o.Joined("/job", 1, T0 + at, 77),
        }
        teller.hear(heard[kind])
    (deleted,) = teller.hear(vanished("/job", 1))
    told_of = deleted.totals_from, deleted.totals_at_ms - T0 // 1_000_000, deleted.total_cpu_usage_ns, deleted.total_io_read_bytes
    assert told_of == totals


def test_totals_are_absent_when_nothing_was_ever_read() -> None:
    """Totals are never invented."""
    teller = Teller()
    teller.hear(appeared("/job", 1))
    (deleted,) = teller.hear(vanished("/job", 1))
    assert (deleted.totals_from, deleted.total_cpu_usage_ns, deleted.samples) == (UNSET, UNSET, 0)


def test_scopes() -> None:
    """Folders of systemd and runtimes, and cgroups inside a container, are shown under `all` only."""
    paths = ["/", "/system.slice/ssh.service", "/docker", f"{PATH}/init.scope", "/job"]
    narrow, wide = Teller(docker=False), Teller(docker=False, scope="all")
    for inode, path in enumerate(paths):
        narrow.hear(appeared(path, inode))
        wide.hear(appeared(path, inode))
    assert [r.cgroup_path for r in narrow.records(m.LIFECYCLE)] == ["/job"]
    assert [r.cgroup_path for r in wide.records(m.LIFECYCLE)] == paths


def test_the_network_of_a_raw_cgroup_is_that_of_a_process_in_it() -> None:
    """Not of one in a cgroup below, nor of one in a container, which has that container's."""
    teller = Teller(docker=False, scope="all")
    for inode, (path, pid) in enumerate([("/job", 7), ("/docker", 0), (f"{PATH}/init.scope", 8)]):
        teller.hear(appeared(path, inode), o.Joined(path, inode, T0, pid))
    pids = {container.path: container.network_pid() for container in teller.fleet.containers()}
    assert pids == {"/job": 7, "/docker": 0, f"{PATH}/init.scope": 0}


def test_a_raw_cgroup_was_created_when_it_appeared() -> None:
    """Where that was seen; what was there before tells no time that is true, but for the root: that of the boot."""
    teller = Teller(docker=False, scope="all", boot_time_ns=T0 - 3_000_000_000)
    created = teller.hear(appeared("/", 1, "startup"), appeared("/old", 2, "startup"), appeared("/new", 3, at=5))
    assert [told.created_at for told in created] == [rfc3339(T0 - 3_000_000_000), UNSET, rfc3339(T0 + 5)]
    teller.hear(vanished("/new", 3), appeared("/new", 4, "reconciled"))
    assert teller.records(m.LIFECYCLE)[-1].created_at is UNSET


def test_labels_pass_by_allow_list() -> None:
    """Deny is stronger than allow; Kubernetes and compose names have columns of their own."""
    teller = Teller(labels=LabelFilter(("com.*", "team"), ("com.secret",)))
    labels = {"com.secret": "x", "com.docker.compose.project": "shop", "team": "a", "other": "b", "io.kubernetes.pod.name": "p"}
    teller.hear(described(labels=labels))
    (created,) = teller.hear(appeared())
    assert created.labels == {"com.docker.compose.project": "shop", "team": "a"}
    assert (created.compose_project, created.pod) == ("shop", "p")


def test_a_kill_whose_cgroup_is_told_of_a_moment_later_is_that_containers() -> None:
    """Two threads race: the kill waits, and is not laid at the door of the cgroup above."""
    teller = Teller(docker=False)
    teller.hear(appeared("/pod", 1), o.Surveyed(T0))
    assert teller.hear(kill(cgroup="/pod/job")) == []
    created, oom = teller.hear(appeared("/pod/job", 2))
    assert (created.event, oom.type, oom.incarnation) == ("created", "container.oom", created.incarnation)


def test_a_kill_whose_cgroup_is_never_told_of_is_told_by_its_path() -> None:
    """After a moment, as of a container that nobody knows; a cgroup above has no part in it, and its counter is no second one."""
    teller = Teller(docker=False, hierarchical_kills=True)
    teller.hear(appeared("/pod", 1), o.Surveyed(T0), sampled("/pod", 1, memory_oom_kills=0))
    assert teller.hear(kill(cgroup="/pod/job"), sampled("/pod", 1, memory_oom_kills=1))[1:] == []
    told = [record for record in teller.later(EARLY_NS) + teller.later(OOM_GRACE_NS) if record.type == "container.oom"]
    assert [(record.container_id, record.incarnation.endswith(".unknown")) for record in told] == [("/pod/job", True)]


def test_a_log_that_tells_late_of_a_kill_the_counter_told_is_not_telling_of_another() -> None:
    """One kill, one message; the next one is told by the log again."""
    teller = Teller(docker=False)
    teller.hear(appeared("/job", 1), sampled("/job", 1, memory_oom_kills=0), sampled("/job", 1, memory_oom_kills=1))
    (counted,) = teller.later(OOM_GRACE_NS)
    assert counted.evidence == ["memory.events"]
    assert teller.hear(kill(5, cgroup="/job")) == []
    late = o.OomKilled(seq=6, time_ns=teller.now().wall_ns + 1, pid=7, process="x", killed_cgroup="/job")
    (logged,) = teller.hear(late)
    assert logged.evidence == ["kmsg"]
    teller.hear(sampled("/job", 1, memory_oom_kills=2))
    assert [record.type for record in teller.later(2 * OOM_GRACE_NS) if record.type == "container.oom"] == []


def test_a_job_that_docker_has_told_the_whole_life_of_before_its_cgroup_is_told() -> None:
    """On a busy host Docker's events overtake the watch: name and exit code are there all the same, and nothing is waited for."""
    teller = Teller()
    teller.hear(event("create"), event("start", at=10), event("die", at=20, exit_code=7), event("destroy", at=25))
    created, deleted = teller.hear(appeared(at=30), o.Emptied(PATH, 7, sample(at=40)), vanished(at=50))
    assert (created.event, created.name, deleted.event, deleted.name, deleted.exit_code) == ("created", "web", "deleted", "web", 7)


def test_the_exit_code_of_a_run_nobody_saw_is_not_the_next_ones() -> None:
    """A restart: the end before it is told, its cgroup never was."""
    teller = Teller()
    teller.hear(event("create"), event("die", at=20, exit_code=7), event("start", at=30))
    teller.hear(appeared(at=35), vanished(at=50))
    (deleted,) = teller.hear(event("die", at=51, exit_code=0))
    assert deleted.exit_code == 0


def test_the_last_words_include_what_still_waited() -> None:
    """At the end of a run, held created and deleted are said before stopped, which has the high-water marks."""
    teller = Teller()
    teller.hear(appeared(), vanished())
    said = teller.fleet.stopped(teller.now(), "asked to stop")
    assert [(r.type, getattr(r, "event", None)) for r in records_of(said)] == [
        ("container.lifecycle", "created"), ("container.lifecycle", "deleted"), ("control", None),
    ]  # fmt: skip
    last: Any = said[-1].record
    assert (last.kind, last.high_water) == ("stopped", {"container.lifecycle": 2})


class AnyOrder(RuleBasedStateMachine):
    """Whatever a host tells, in whatever order: what is said keeps its promises."""

    def __init__(self) -> None:
        super().__init__()
        self.teller = Teller()
        self.inode = 0
        self.there: dict[str, int] = {}

    @rule(path=st.sampled_from(["/job", PATH]))
    def appear(self, path: str) -> None:
        self.teller.ns += 1  # no two facts happen in the same nanosecond
        self.inode += 1
        self.there[path] = self.inode
        self.teller.hear(appeared(path, self.inode, at=self.teller.ns))

    @precondition(lambda self: self.there)
    @rule(data=st.data(), pick=st.sampled_from(["vanish", "sample", "empty", "kill", "limits"]))
    def happen(self, data: st.DataObject, pick: str) -> None:
        self.teller.ns += 1
        path = data.draw(st.sampled_from(sorted(self.there)))
        inode = self.there[path]
        at = self.teller.ns
        if pick == "vanish":
            del self.there[path]
            self.teller.hear(vanished(path, inode, at=at))
        elif pick == "sample":
            self.teller.hear(sampled(path, inode, at=at, memory_oom_kills=data.draw(st.integers(0, 3))))
        elif pick == "empty":
            self.teller.hear(o.Emptied(path, inode, sample(at=at)))
        elif pick == "kill":
            self.teller.hear(kill(seq=at, pid=at % 1000, cgroup=path))
        else:
            self.teller.hear(o.SpecRead(path, inode, T0, ContainerSpec(memory_limit_bytes=at)))

    @rule(action=st.sampled_from(["create", "start", "die", "pause", "unpause", "rename", "destroy", "oom"]))
    def docker_says(self, action: str) -> None:
        self.teller.ns += 1
        self.teller.hear(event(action, at=self.teller.ns, exit_code=1 if action == "die" else None))

    @rule(up=st.booleans())
    def docker_comes_or_goes(self, up: bool) -> None:
        self.teller.hear(o.Recovered("source.docker", T0) if up else o.Degraded("source.docker", T0, "gone"))

    @rule(ns=st.sampled_from([1_000_000, HOLD_CREATED_NS, HOLD_DELETED_NS]))
    def wait(self, ns: int) -> None:
        self.teller.later(ns)

    @invariant()
    def numbers_are_contiguous(self) -> None:
        for topic in m.TOPICS:
            numbers = [record.seq for record in self.teller.records(topic) if record is not None]
            assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def created_comes_first_and_deleted_last(self) -> None:
        lives: dict[str, list[str]] = {}
        for said in self.teller.said:
            record: Any = said.record
            if said.topic in (m.LIFECYCLE, m.STATS):
                lives.setdefault(record.incarnation, []).append(getattr(record, "event", "stats"))
        for life in lives.values():
            assert life[0] == "created" and life.count("created") == 1
            assert life.count("deleted") <= 1 and "deleted" not in life[:-1]

    @invariant()
    def ids_are_unique(self) -> None:
        ids = [said.record.id for said in self.teller.said if said.record is not None and said.topic in (m.LIFECYCLE, m.CONTROL)]
        assert len(ids) == len(set(ids))

    def teardown(self) -> None:
        for path, inode in self.there.items():
            self.teller.hear(vanished(path, inode))
        self.teller.later(HOLD_DELETED_NS)
        events = [record.event for record in self.teller.records(m.LIFECYCLE)]
        assert events.count("created") == events.count("deleted") == self.inode
        assert self.teller.fleet.next_due() is None
        assert len(self.teller.fleet) == 0


AnyOrder.TestCase.settings = settings(max_examples=6 * settings().max_examples // 10, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_counters_are_held_though_columns_come_and_go() -> None:
    """A controller that is enabled late, a file that does not answer once, a device that leaves: the highest value stands."""
    teller = Teller(docker=False)
    teller.hear(appeared("/batch/job"))

    def told(**columns: int) -> dict[str, Any]:
        values = tuple(columns.get(name, UNSET) for name in COLUMNS)
        teller.ns += 1
        (record,) = teller.hear(o.Sampled("/batch/job", 7, Sample(T0 + teller.ns, values)))
        return {name: getattr(record, name) for name in columns}

    assert told(cpu_usage_ns=10, cpu_user_ns=5) == {"cpu_usage_ns": 10, "cpu_user_ns": 5}
    assert told(cpu_usage_ns=11, cpu_user_ns=4, io_read_bytes=1000)["cpu_user_ns"] == 5
    assert told(cpu_usage_ns=12, cpu_user_ns=6, io_read_bytes=7)["io_read_bytes"] == 1000
    assert told(cpu_usage_ns=9, io_read_bytes=7) == {"cpu_usage_ns": 12, "io_read_bytes": 1000}  # one goes as another steps back
    assert told(cpu_usage_ns=13, cpu_user_ns=5) == {"cpu_usage_ns": 13, "cpu_user_ns": 6}
    assert told(cpu_usage_ns=13, cpu_user_ns=7, io_read_bytes=8)["io_read_bytes"] == 1000
    assert told(cpu_usage_ns=1) == {"cpu_usage_ns": 13}
