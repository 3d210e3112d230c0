"""Recent state: what is merged, what is kept, what goes, and how a container is found again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from streamer.memory import INDEX, Limits, Memory
from streamer.model import messages as m
from streamer.model.stats import FilesystemUsage
from streamer.model.wire import Entry, encode
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
DB = "4f6b" + "2" * 60


@pytest.fixture
def memory() -> Memory:
    return Memory(samples=3)


@pytest.fixture
def tell(memory: Memory) -> Teller:
    return Teller(memory)


def facts(memory: Memory, text: str) -> dict[str, Any]:
    (found,) = memory.find(text)
    known: dict[str, Any] = json.loads(found.encoded)
    return known


def test_the_last_samples_are_kept(memory: Memory, tell: Teller) -> None:
    """As many as `samples`, the oldest first, with their times; the newest also as it was published."""
    tell.created(WEB)
    (web,) = memory.find(WEB)
    assert (web.latest, web.latest_json, web.samples.newest()) == (None, b"", [])
    for value in range(5):
        tell.sampled(WEB, cpu_usage_ns=value)
    kept = web.samples.newest()
    assert [sample.values[INDEX["cpu_usage_ns"]] for sample in kept] == [2, 3, 4]
    assert kept[-1].time_ns - kept[0].time_ns == 2_000_000_000
    assert web.latest is not None
    assert kept[-1].interfaces == tuple(web.latest.network_interfaces)  # type: ignore[attr-defined]
    assert kept[-1].devices == tuple(web.latest.io_devices)  # type: ignore[attr-defined]
    assert msgspec.json.decode(web.latest_json, type=m.ContainerStats) == web.latest
    assert memory.bytes == web.size + memory.events(m.LIFECYCLE).bytes


@pytest.mark.parametrize("envelope", ["binary", "structured"])
def test_queries_see_flat_records_under_either_envelope(envelope: Any) -> None:
    """A structured CloudEvent is unwrapped: samples, events and host facts read the same."""
    memory = Memory(samples=3)
    tell = Teller(memory, envelope=envelope)
    tell.created(WEB)
    tell.sampled(WEB)
    tell.say(m.HOST)
    (web,) = memory.find(WEB)
    assert json.loads(web.latest_json)["container_id"] == WEB
    assert json.loads(memory.hosts["host-1"])["type"] == "host.info"
    assert [json.loads(event.value)["event"] for event in memory.events(m.LIFECYCLE)] == ["created"]


def test_an_update_replaces_who_it_is_and_adds_to_what_is_known(memory: Memory, tell: Teller) -> None:
    """A label that is no longer there goes; how it was found and its pid stay."""
    tell.created(WEB, labels={"team": "a", "old": "x"}, found="startup", pid=7)
    assert facts(memory, WEB)["state"] == "running"
    tell.created(
        WEB, event="updated", found="live", labels={"team": "b"}, state="paused", name="new-name", aliases=["new"], pid=UNSET
    )
    known = facts(memory, WEB)
    assert (known["labels"], known["state"], known["found"], known["pid"]) == ({"team": "b"}, "paused", "startup", 7)
    assert memory.find("new-name")
    assert not memory.find("shop-web-1")


def test_a_deleted_container_stays_with_its_end_and_totals(memory: Memory, tell: Teller) -> None:
    """It is marked, keeps its samples, and nothing that comes late brings it back."""
    tell.created(WEB)
    tell.sampled(WEB)
    tell.deleted(WEB, exit_code=137, samples=1)
    tell.sampled(WEB)
    tell.created(WEB, event="updated")
    known = facts(memory, WEB)
    assert (known["deleted"], known["state"], known["exit_code"], known["oom_kills"]) == (True, "exited", 137, 1)
    assert known["total_cpu_usage_ns"] == 83_104_772_000
    assert len(memory.find(WEB)[0].samples) == 1
    assert len(memory) == 0


def test_a_deleted_container_goes_after_its_time(memory: Memory, tell: Teller) -> None:
    """The time is that of the messages: the next one after ten minutes lets it go, with all that was accounted for it."""
    tell.created(WEB)
    tell.sampled(WEB)
    tell.deleted(WEB)
    tell.now_ms += 599_000
    tell.say(m.CONTROL)
    assert memory.find(WEB)
    tell.now_ms += 1_000
    tell.say(m.CONTROL)
    assert not memory.find(WEB)
    assert memory.bytes == memory.events(m.LIFECYCLE).bytes


def test_deleted_containers_are_bounded_in_number_and_bytes() -> None:
    """Of many short jobs the last ones stay; those that hold much go earlier."""
    memory = Memory(3, Limits(deleted=2))
    tell = Teller(memory)
    for number in range(5):
        tell.created(f"{number:064x}")
        tell.deleted(f"{number:064x}")
    assert [c.container_id[-1] for c in memory.containers()] == ["3", "4"]
    tell.sampled(WEB)
    one = memory.find(WEB)[0].size
    memory = Memory(3, Limits(deleted_bytes=one * 3 // 2))
    tell = Teller(memory)
    for number in range(3):
        tell.created(f"{number:064x}")
        tell.sampled(f"{number:064x}")
        tell.deleted(f"{number:064x}")
    assert [c.container_id[-1] for c in memory.containers()] == ["2"]


def test_a_restart_is_a_container_of_its_own(memory: Memory, tell: Teller) -> None:
    """`deleted` of the earlier incarnation may come after `created` of the later one; the id then means the live one."""
    tell.created(WEB, run=1)
    tell.created(WEB, run=2)
    tell.deleted(WEB, run=1)
    tell.sampled(WEB, run=2)
    (found,) = memory.find(WEB)
    assert found.key[2].endswith(".2")
    assert not found.deleted_ms
    assert len(found.samples) == 1
    assert [bool(c.deleted_ms) for c in memory.containers()] == [True, False]


def test_oom_kills_are_counted_once_each(memory: Memory, tell: Teller) -> None:
    """A replayed message counts no second time, and a number that runs ahead of the messages is not added to them."""
    incarnation = tell.created(WEB).incarnation  # type: ignore[attr-defined]
    about = {"container_id": WEB, "incarnation": incarnation}
    kill = tell.say(m.OOM, **about)
    tell.again(m.OOM, kill)
    assert facts(memory, WEB)["oom_kills"] == 1
    assert memory.ignored == 1
    tell.say(m.STATE, **about, oom_kills=2)
    tell.say(m.OOM, **about)
    assert facts(memory, WEB)["oom_kills"] == 2
    assert facts(memory, WEB)["last_oom_at"] == kill.time
    assert len(memory.events(m.OOM)) == 2


def test_a_kill_of_a_stranger_is_an_event_only(memory: Memory, tell: Teller) -> None:
    """A victim outside every container makes no container."""
    tell.say(m.OOM, container_id="/system.slice/cron.service", incarnation="boot.unknown")
    assert len(memory.events(m.OOM)) == 1
    assert memory.containers() == []


def test_repeated_samples_are_ignored_and_counted(memory: Memory, tell: Teller) -> None:
    """A replay after a lost acknowledgement leaves the ring as it is."""
    tell.created(WEB)
    sample = tell.sampled(WEB)
    tell.again(m.STATS, sample)
    assert len(memory.find(WEB)[0].samples) == 1
    assert memory.ignored == 1


def test_a_clock_that_was_set_back_holds_up_nothing(memory: Memory, tell: Teller) -> None:
    """What was said last is the newest, whatever its time; what seems to come after it was of the wrong clock, and goes."""
    tell.created(WEB)
    early = tell.sampled(WEB, cpu_usage_ns=1)
    tell.sampled(WEB, cpu_usage_ns=2)
    tell.now_ms -= 3_600_000
    tell.sampled(WEB, cpu_usage_ns=3)
    tell.sampled(WEB, cpu_usage_ns=4)
    tell.again(m.STATS, early)
    (web,) = memory.find(WEB)
    assert web.latest is not None and web.latest.time_ms == tell.now_ms
    assert [sample.values[INDEX["cpu_usage_ns"]] for sample in web.samples.newest()] == [3, 4]
    assert memory.ignored == 1


def test_what_a_deleted_container_held_is_let_go_of_whole() -> None:
    """Also when its statistics were asked for after its end: the bound does not drift."""
    memory = Memory(3)
    tell = Teller(memory)
    tell.created(WEB)
    tell.sampled(WEB)
    memory = Memory(3, Limits(deleted_bytes=2 * memory.find(WEB)[0].size))
    tell = Teller(memory)
    for number in range(20):
        tell.created(f"{number:064x}")
        tell.sampled(f"{number:064x}")
        tell.deleted(f"{number:064x}")
        memory.containers()[-1].summary.derived()
        assert len(memory.containers()) <= 2


def test_listening_in_mid_stream_is_enough(memory: Memory, tell: Teller) -> None:
    """A sample or a state of a container whose `created` was missed makes it known; a tombstone changes nothing."""
    tell.sampled(WEB)
    tell.say(m.STATE, container_id=DB, incarnation="boot.db.1", state="paused")
    tell.again(m.STATE, None)
    assert facts(memory, WEB)["name"] == "shop-web-1"
    assert facts(memory, DB)["state"] == "paused"
    assert len(memory) == 2


def test_events_are_bounded_kind_by_kind() -> None:
    """A burst of short jobs does not push out a kill or a gap; heartbeats are no events, but leave their time."""
    memory = Memory(3, Limits(events=4))
    tell = Teller(memory)
    tell.say(m.OOM)
    tell.say(m.CONTROL, "control.gap")
    for number in range(10):
        tell.created(f"{number:064x}")
        tell.say(m.CONTROL)
    kinds = {topic.short: [event.kind for event in memory.events(topic)] for topic in (m.LIFECYCLE, m.OOM, m.CONTROL)}
    assert kinds == {"lifecycle": ["created"] * 4, "oom": ["oom"], "control": ["gap"]}
    latest = memory.events(m.LIFECYCLE).latest(2)
    assert [event.subject[-1] for event in latest] == ["8", "9"]
    assert memory.streams["host-1"].heartbeat_ms == tell.now_ms
    by_bytes = Memory(3, Limits(event_bytes=3000))
    teller = Teller(by_bytes)
    for number in range(10):
        teller.created(f"{number:064x}")
    assert 0 < by_bytes.events(m.LIFECYCLE).bytes <= 3000


def test_events_go_a_day_after_they_were_told(memory: Memory, tell: Teller) -> None:
    """Not after they happened: what is found at a start may have begun long ago."""
    tell.created(WEB, time_ms=tell.now_ms - 7 * 86_400_000)
    tell.now_ms += 86_399_000
    tell.say(m.OOM)
    assert len(memory.events(m.LIFECYCLE)) == 1
    tell.now_ms += 1000
    tell.say(m.CONTROL)
    assert len(memory.events(m.LIFECYCLE)) == memory.events(m.LIFECYCLE).bytes == 0
    assert len(memory.events(m.OOM)) == 1


def test_who_watches_is_told_the_news_once_it_is_known(memory: Memory, tell: Teller) -> None:
    """Each new event once, after the memory knows of it; no samples, states or heartbeats, nothing repeated."""
    seen: list[tuple[str, bool]] = []

    def watcher(message: m.Message, entry: Entry) -> None:
        assert message.record is not None
        seen.append((message.record.id, bool(memory.find(WEB)) and entry.id in memory.events(message.topic)))

    stop = memory.watch(watcher)
    created = tell.created(WEB)
    tell.again(m.LIFECYCLE, created)
    tell.sampled(WEB)
    tell.say(m.STATE)
    tell.say(m.CONTROL)
    tell.say(m.HOST)
    kill, gap, deleted = tell.say(m.OOM), tell.say(m.CONTROL, "control.gap"), tell.deleted(WEB)
    stop()
    stop()
    tell.say(m.OOM)
    assert seen == [(record.id, True) for record in (created, kill, gap, deleted)]


def test_file_systems_stay_as_last_measured(memory: Memory, tell: Teller) -> None:
    """They stand in one sample of many."""
    layer = FilesystemUsage(device="/dev/vda1", capacity_bytes=100, usage_bytes=7)
    tell.sampled(WEB, filesystems=[layer])
    tell.sampled(WEB, filesystems=UNSET)
    assert memory.find(WEB)[0].filesystems == (layer,)


def test_names_that_are_not_utf8_are_answered_as_they_were_published(memory: Memory, tell: Teller) -> None:
    """A directory can be called anything; Python holds its bytes as lone surrogates."""
    path = "/a/\udcff"
    about = {"container_id": path, "incarnation": "boot.a.1", "cgroup_path": path, "name": path, "runtime": "raw"}
    tell.say(m.LIFECYCLE, **about)
    sample = tell.say(m.STATS, **about)
    found = memory.by_path(path)
    assert found is not None
    published = encode(m.Message(m.STATS, path, sample, 0), 1, 1).value
    assert found.latest_json == published
    assert json.loads(found.encoded)["name"] == json.loads(found.latest_json)["name"] == "/a/\\udcff"


def test_host_facts_are_kept_as_record_and_as_json(memory: Memory, tell: Teller) -> None:
    """The latest of each host."""
    for cores in (1, 2):
        tell.say(m.HOST, num_cores=cores)
    Teller(memory, host_id="host-2").say(m.HOST)
    assert set(memory.hosts) == set(memory.host_infos) == {"host-1", "host-2"}
    assert memory.host_infos["host-1"].num_cores == 2
    assert msgspec.json.decode(memory.hosts["host-1"], type=m.HostInfo) == memory.host_infos["host-1"]


def test_the_stream_shows_the_newest_epoch(memory: Memory, tell: Teller) -> None:
    """High-water marks start again with an epoch; what trickles in from an older one does not lower them."""
    tell.say(m.CONTROL, epoch=5, seq=8)
    tell.say(m.CONTROL, epoch=6, seq=1)
    tell.say(m.CONTROL, epoch=5, seq=9)
    tell.say(m.STATE, epoch=6)
    stream = memory.streams["host-1"]
    assert (stream.epoch, stream.high_water) == (6, {"control": 1})


def test_find_takes_the_most_exact_meaning_first(memory: Memory, tell: Teller) -> None:
    """Full id, incarnation, cgroup path with or without its slash, name, alias, then an unambiguous beginning of the id."""
    incarnation = tell.created(WEB, name="web", aliases=["web", "www"], cgroup_path=f"/docker/{WEB}").incarnation  # type: ignore[attr-defined]
    tell.created(DB, name="4f6b1", aliases=["4f6b1"], cgroup_path=f"/docker/{DB}")
    tell.created("/a/raw one", runtime="raw", name="/a/raw one", aliases=UNSET, cgroup_path="/a/raw one")
    for text in (WEB, incarnation, f"/docker/{WEB}", f"docker/{WEB}", "web", "/web", "www", WEB[:6]):
        assert [c.container_id for c in memory.find(text)] == [WEB], text
    assert [c.container_id for c in memory.find("a/raw one")] == ["/a/raw one"]
    assert [c.container_id for c in memory.find("4f6b1")] == [DB]  # a name before the beginning of an id
    assert {c.container_id for c in memory.find("4f6b")} == {WEB, DB}
    assert memory.find("4f6") == []
    assert memory.find("") == memory.find("/") == []


def test_a_name_used_again_means_the_live_container_else_the_last(memory: Memory, tell: Teller) -> None:
    """Compose makes a new container under the old name."""
    tell.created(WEB, name="web", aliases=["web"])
    tell.deleted(WEB, name="web", aliases=["web"])
    tell.created(DB, name="web", aliases=["web"])
    assert [c.container_id for c in memory.find("web")] == [DB]
    tell.now_ms += 1
    tell.deleted(DB, name="web", aliases=["web"])
    assert [c.container_id for c in memory.find("web")] == [DB]


def test_a_cgroup_path_means_the_live_container_in_it(memory: Memory, tell: Teller) -> None:
    """Exactly this path; not a container of that id or name, nor the one that was there before."""
    path = f"/docker/{WEB}"
    tell.created(WEB, run=1, cgroup_path=path)
    tell.created(WEB, run=2, cgroup_path=path)
    tell.deleted(WEB, run=1, cgroup_path=path)
    (web,) = memory.find(WEB)
    assert memory.by_path(path) is web
    assert memory.by_path(WEB) is memory.by_path(f"docker/{WEB}") is memory.by_path("/nowhere") is None
    tell.created("/", runtime="raw", cgroup_path="/")
    root = memory.by_path("/")
    assert root is not None
    assert memory.find("/") == [root]
    tell.created(WEB, event="updated", run=2, cgroup_path="/moved")
    assert memory.by_path(path) is None
    assert memory.by_path("/moved") is web
    tell.deleted(WEB, run=2, cgroup_path="/moved")
    assert memory.by_path("/moved") is None


def test_the_same_id_on_two_hosts_is_two_containers(memory: Memory, tell: Teller) -> None:
    """Memory fed by a stream of many hosts keeps them apart."""
    tell.created(WEB)
    Teller(memory, host_id="host-2").created(WEB)
    assert [c.host_id for c in memory.find(WEB)] == ["host-1", "host-2"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["created", "updated", "deleted", "stats", "state", "oom", "late"]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_any_order_of_messages_keeps_the_books(said: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order: bounds hold, sums are right, every container can be found by its incarnation."""
    memory = Memory(2, Limits(deleted=2, deleted_ms=5000, deleted_bytes=6000, events=5, event_bytes=9000))
    tell = Teller(memory)
    for what, number in said:
        about = {"container_id": f"{number:064x}", "incarnation": f"boot.x.{number}"}
        if what == "stats":
            tell.now_ms += 1000
            tell.say(m.STATS, **about)
        elif what == "late":
            tell.say(m.STATS, **about, time_ms=1)
        elif what in ("state", "oom"):
            tell.say(m.STATE if what == "state" else m.OOM, **about)
        else:
            tell.say(m.LIFECYCLE, "container.lifecycle.deleted" if what == "deleted" else "", **about, event=what)
    everyone = memory.containers()
    assert memory.bytes == sum(c.size for c in everyone) + sum(
        event.size for topic in (m.LIFECYCLE, m.OOM, m.CONTROL) for event in memory.events(topic)
    )
    assert sum(1 for c in everyone if c.deleted_ms) <= 2
    assert len(memory) == sum(1 for c in everyone if not c.deleted_ms)
    assert all(memory.find(c.key[2]) == [c] for c in everyone)
    for c in everyone:
        alive = [other for other in everyone if other.facts["cgroup_path"] == c.facts["cgroup_path"] and not other.deleted_ms]
        assert memory.by_path(c.facts["cgroup_path"]) in (alive or [None])
    assert all(json.loads(c.encoded)["container_id"] == c.container_id for c in everyone)


def test_what_comes_behind_a_position_and_what_has_gone(tell: Teller) -> None:
    """Positions rise over all messages; what is let go is remembered by its position and time."""
    memory = tell.memory = Memory(samples=3, limits=Limits(events=2))
    assert (memory.epoch, memory.position, memory.events(m.LIFECYCLE).forgotten) == (0, 0, (0, 0))
    tell.created(WEB)
    tell.sampled(WEB)
    first_ms = tell.now_ms - 1000
    tell.created(DB)
    tell.again(m.STATE, None)
    events = memory.events(m.LIFECYCLE)
    assert (memory.position, [event.position for event in events.after(1)]) == (4, [3])
    assert [event.position for event in events.after(told_ms=tell.now_ms)] == [3]
    tell.deleted(DB)
    assert ([event.position for event in events.after()], events.forgotten) == ([3, 5], (1, first_ms))
    assert memory.epoch == memory.streams["host-1"].epoch


def test_samples_are_watched_when_asked_for(memory: Memory, tell: Teller) -> None:
    """Those that were taken in, once; who does not ask is told of events alone; stopping stops both."""
    everything: list[str] = []
    events: list[str] = []
    stop = memory.watch(lambda message, _: everything.append(message.topic.short), samples=True)
    memory.watch(lambda message, _: events.append(message.topic.short))
    tell.created(WEB)
    tell.again(m.STATS, tell.sampled(WEB))
    assert (everything, events) == (["lifecycle", "stats"], ["lifecycle"])
    stop()
    stop()
    tell.sampled(WEB)
    tell.deleted(WEB)
    assert (everything, events) == (["lifecycle", "stats"], ["lifecycle", "lifecycle"])
