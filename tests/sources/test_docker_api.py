"""Docker's JSON, read; and what follows from events, lists and answers that overtake each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model import observations as o
from streamer.sources import docker_api as api
from streamer.sources.docker_known import Known

ID = "2099a06fdd745264df53a7e387b3adedd4ec9d314cdacea4a7bfa15034b312b5"


def event(action: str = "start", time_ns: int = 1, id_: str = ID, **attributes: str) -> api.Event:
    return api.Event(type="container", action=action, actor=api.Actor(id=id_, attributes=attributes), time_ns=time_ns)


def line(action: str, **attributes: str) -> bytes:
    told = {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": ID, "Attributes": attributes},
        "time": 1,
        "timeNano": 1_000_000_005,
    }
    return json.dumps(told).encode() + b"\n"


def inspected(**state: Any) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "/web",
        "Image": "sha256:45b9",
        "Created": "2026-11-23T19:08:18.295725971Z",
        "RestartCount": 2,
        "Config": {"Image": "busybox:local", "Labels": {"tier": "front"}},
        "State": {
            "Status": "running",
            "Pid": 42,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-11-23T19:08:19.5Z",
            **state,
        },
        "HostConfig": {"NetworkMode": "none"},
    }


# events


def test_events_come_out_however_the_bytes_are_cut() -> None:
    """A chunk may hold half an event or several."""
    data = line("create", name="web") + line("start", name="web") + line("die", name="web", exitCode="3")
    for size in (1, 7, 100, len(data)):
        lines = api.EventLines()
        events = [e for at in range(0, len(data), size) for e in lines.feed(data[at : at + size])]
        assert [e.action for e in events] == ["create", "start", "die"]
        assert lines.unreadable == 0


@given(st.lists(st.binary()))
def test_any_bytes_are_events_or_counted(chunks: list[bytes]) -> None:
    """Whatever the daemon sends, nothing raises but for a line that never ends."""
    lines = api.EventLines()
    events = [event for chunk in [*chunks, b"\n" + line("start")] for event in lines.feed(chunk)]
    told = [one for one in (b"".join(chunks) + b"\n" + line("start")).split(b"\n") if one.strip()]
    assert events[-1].action == "start"
    assert len(events) + lines.unreadable == len(told)


def test_what_is_no_event_is_counted() -> None:
    """A line that is not JSON, or not an event, does not hide the next one."""
    lines = api.EventLines()
    assert [e.action for e in lines.feed(b'{"Type": 1}\nnonsense\n\xff\n' + line("start"))] == ["start"]
    assert lines.unreadable == 3


def test_a_line_without_an_end_is_refused() -> None:
    """Memory is bounded: more than a megabyte is not an event."""
    lines = api.EventLines()
    with pytest.raises(ValueError, match="without the end of a line"):
        lines.feed(b"x" * (api.MAX_LINE_BYTES + 1))


def test_die_has_its_exit_code_and_labels_are_told_from_what_docker_adds() -> None:
    """Docker mixes its own attributes into the labels; those are taken out again."""
    told = api.runtime_event(event("die", exitCode="137", execDuration="3", name="web", image="busybox", tier="front"))
    assert told is not None
    assert (told.exit_code, told.name, told.image, told.labels) == (137, "web", "busybox", {"tier": "front"})


@pytest.mark.parametrize("code", ["", "x", "99999999999999999999", "٣"])
def test_an_exit_code_that_is_no_number_is_not_told(code: str) -> None:
    """What Docker did not say is None, never 0."""
    told = api.runtime_event(event("die", exitCode=code))
    assert told is not None
    assert told.exit_code is None


@pytest.mark.parametrize(
    "action", ["exec_create: sh", "health_status: healthy", "kill", "stop", "restart", "attach", "top", "commit"]
)
def test_events_that_are_not_about_life_are_left_out(action: str) -> None:
    """They repeat what others say, or drown them."""
    assert api.runtime_event(event(action)) is None


def test_only_events_of_containers_count() -> None:
    """A network has `create` and `destroy` too."""
    assert api.runtime_event(api.Event(type="network", action="create", actor=api.Actor(id=ID), time_ns=1)) is None


# what Docker remembers


def ring(first_ns: int, count: int) -> list[api.Event]:
    return [event("exec_die", time_ns=first_ns + i, id_=f"{i:064x}") for i in range(count)]


def test_the_last_event_in_the_ring_proves_that_nothing_is_missing() -> None:
    """Everything after it is there too."""
    last = event(time_ns=100)
    assert api.reaches_back([last, *ring(101, 5)], last, 10**12)


def test_a_ring_that_is_not_full_and_lacks_the_last_event_is_a_new_daemon_s() -> None:
    """Its predecessor took the events of the end with it."""
    assert not api.reaches_back(ring(101, 5), event(time_ns=100), 10**12)


def test_a_full_ring_that_begins_before_the_connection_was_lost_has_everything() -> None:
    """Until then every event had been delivered."""
    assert api.reaches_back(ring(10**12, api.RING), event(time_ns=100), 10**12 + 2 * 10**9)


def test_a_full_ring_that_begins_after_the_connection_was_lost_does_not() -> None:
    """Events of the time in between may have been pushed out."""
    assert not api.reaches_back(ring(10**12, api.RING), event(time_ns=100), 10**12)


# descriptions


def test_a_description_is_read_in_full() -> None:
    """Name without its slash, times to the nanosecond, no exit code while it runs."""
    told = api.described(inspected(), 7)
    assert told == o.Described(
        runtime="docker",
        container_id=ID,
        time_ns=7,
        name="web",
        image="busybox:local",
        image_id="sha256:45b9",
        labels={"tier": "front"},
        created_at_ns=1795460898_295725971,
        started_at_ns=1795460899_500000000,
        pid=42,
        state="running",
        exit_code=None,
        oom_killed=False,
        restart_count=2,
    )


def test_a_container_that_never_ran_has_no_start_and_no_exit_code() -> None:
    """Docker writes the year 1 and 0 for them."""
    told = api.described(inspected(Status="created", Pid=0, StartedAt="0001-01-01T00:00:00Z"), 7)
    assert (told.started_at_ns, told.exit_code) == (None, None)


def test_an_ended_container_has_its_exit_code() -> None:
    """137 is what the kernel's SIGKILL leaves."""
    assert api.described(inspected(Status="exited", Pid=0, ExitCode=137), 7).exit_code == 137


@pytest.mark.parametrize(
    ("mode", "shared"), [("none", False), ("host", True), ("container:abc", True), ("default", False), ("net1", False)]
)
def test_whose_network_it_is(mode: str, shared: bool) -> None:
    """Counters of the host's or of another container's namespace are not its own."""
    assert api.described({**inspected(), "HostConfig": {"NetworkMode": mode}}, 7).network_shared is shared


def test_nulls_are_taken_as_nothing() -> None:
    """Docker writes null for an empty map or list."""
    assert api.described({**inspected(), "Config": {"Image": "i", "Labels": None}}, 7).labels == {}
    assert api.containers([{"Id": ID, "Names": None, "State": "running"}])[0].name == ""


FIRST_USE = """
import json, sys
from streamer.sources import docker_api as api
learnt = []
def told(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        learnt.append(frame.f_locals["obj"].__name__)
answer = json.load(sys.stdin)
sys.setprofile(told)
api.described(answer, 7), api.place(answer), api.containers([{"Id": answer["Id"]}])
(event,) = api.EventLines().feed(sys.argv[1].encode())
sys.setprofile(None)
import msgspec
class New(msgspec.Struct):
    id: str
known, learnt = learnt, []
sys.setprofile(told)
msgspec.convert({"id": ""}, New)
sys.setprofile(None)
print(json.dumps([known, learnt]))
"""


def test_no_thread_is_the_first_to_use_a_type() -> None:
    """Two at once would crash msgspec: after loading, it has looked into each of them; of a type that is new it is seen to."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE, line("start").decode()],
        input=json.dumps(inspected(Pid=12)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], ["New"]]


def test_no_source_lets_msgspec_look_into_a_type_on_the_way() -> None:
    """Sources have threads: what they read goes through a reader or decoder made while the module is loaded."""
    sources = Path(api.__file__).parent.rglob("*.py")
    assert {path.name for path in sources if "msgspec.convert" in path.read_text()} == {"docker_api.py"}
    assert Path(api.__file__).read_text().count("msgspec.convert") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
known_keys = st.sampled_from(["Name", "Image", "Created", "RestartCount", "Config", "State", "HostConfig"])


@given(st.dictionaries(known_keys, json_values))
def test_any_answer_is_a_description_or_a_value_error(parts: dict[str, Any]) -> None:
    """A daemon may be a proxy, another version, or broken."""
    try:
        told = api.described({**inspected(), **parts}, 7)
    except ValueError:
        return
    assert told.container_id == ID


@pytest.mark.parametrize("part", [{"Name": "/\ud800"}, {"RestartCount": 1 << 80}, {"State": {"Pid": -(1 << 80)}}])
def test_what_no_message_could_carry_is_refused(part: dict[str, Any]) -> None:
    """Half a surrogate pair, a number of 80 bits: Python's json takes them, ours do not."""
    with pytest.raises(ValueError):  # noqa: PT011  the message is the library's
        api.described({**inspected(), **part}, 7)


@given(st.text())
def test_any_time_is_nanoseconds_or_none(text: str) -> None:
    """Times are only read, never trusted."""
    assert isinstance(api.nanoseconds(text), (int, type(None)))


def test_times_of_other_zones_are_the_same_instant() -> None:
    """RFC 3339 allows an offset."""
    assert api.nanoseconds("2026-11-23T20:08:18.000000001+01:00") == api.nanoseconds("2026-11-23T19:08:18.000000001Z")


def test_names_of_links_are_not_the_container_s_name() -> None:
    """The list shows /other/alias beside /own."""
    assert api.containers([{"Id": ID, "Names": ["/other/db", "/db1"], "State": "running"}])[0].name == "db1"


# where it is


def test_links_are_followed_inside_the_host_s_root(tmp_path: Path) -> None:
    """/var/run -> /run is absolute on many hosts; for an agent in a container it would lead to its own /run."""
    (tmp_path / "var").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "run/docker.sock").symlink_to("../../../run/engine.sock")
    assert api.inside(tmp_path, "var/run/docker.sock") == tmp_path / "run/engine.sock"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """As the kernel, after forty."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert api.inside(tmp_path, "a/docker.sock").parent.parent == tmp_path


def test_what_is_configured_comes_before_the_environment_and_that_before_the_usual_place(tmp_path: Path) -> None:
    """And a socket is only looked for, never made up."""
    assert api.address("tcp://a:1", "tcp://b:2", "/") == "tcp://a:1"
    assert api.address("", "tcp://b:2", "/") == "tcp://b:2"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/docker.sock").write_text("no socket")
    assert api.address("", "", str(tmp_path)) is None


# order


def described(state: str | None = "running", pid: int = 42) -> o.Described:
    return o.Described(runtime="docker", container_id=ID, time_ns=1, name="web", image="i", state=state, pid=pid, started_at_ns=5)


def heard(known: Known, action: str, now_ns: int) -> None:
    told = api.runtime_event(event(action, time_ns=now_ns, name="web"))
    assert told is not None
    known.heard(told, now_ns)


def test_a_repeated_event_is_dropped() -> None:
    """Docker repeats the last events after a reconnect."""
    known = Known()
    assert known.is_new(event(time_ns=5))
    assert not known.is_new(event(time_ns=5))
    assert known.is_new(event(time_ns=6))


def test_what_is_remembered_of_events_is_bounded() -> None:
    """Only what Docker itself may repeat need be known."""
    known = Known()
    for i in range(10_000):
        known.is_new(event(time_ns=i))
    assert len(known._seen) <= 4 * api.RING


def test_an_answer_that_an_event_overtook_keeps_only_what_lasts() -> None:
    """Its pid and state may be of an earlier run; it is asked again."""
    known = Known()
    heard(known, "create", 1)
    known.asked(ID, 2)
    heard(known, "start", 3)
    answer = known.answered(described("created", pid=0), 2)
    assert answer.told is not None
    assert (answer.told.name, answer.told.state, answer.told.started_at_ns) == ("web", None, None)
    assert answer.ask_again


def test_an_overtaken_answer_is_not_asked_for_twice() -> None:
    """The event's own question is on its way already."""
    known = Known()
    heard(known, "create", 1)
    known.asked(ID, 2)
    heard(known, "start", 3)
    known.asked(ID, 4)
    assert not known.answered(described("created"), 2).ask_again
    assert known.answered(described("running"), 4).told == described("running")


def test_an_answer_that_is_older_than_one_passed_on_is_dropped() -> None:
    """Two ask at once; their answers may cross."""
    known = Known()
    heard(known, "start", 1)
    assert known.answered(described(), 3).told is not None
    assert known.answered(described("created"), 2).told is None


def test_an_answer_about_a_destroyed_container_is_not_remembered() -> None:
    """It is passed on for what it says of the past; nothing of the present."""
    known = Known()
    heard(known, "create", 1)
    heard(known, "destroy", 3)
    answer = known.answered(described("removing"), 2)
    assert answer.told is not None
    assert (answer.told.name, answer.told.state, answer.ask_again) == ("web", None, False)
    assert len(known) == 0


def entry(state: str, name: str = "web") -> api.Listed:
    return api.Listed(id=ID, names=[f"/{name}"], state=state)


def test_the_list_asks_for_what_runs_after_a_connect_and_for_differences_later() -> None:
    """What lost events hid is found within a minute, and what is known is not asked for again."""
    known = Known()
    assert known.listed([entry("running")], 1, everything=True) == [ID]
    known.answered(described(), 2)
    assert known.listed([entry("running")], 3, everything=False) == []
    assert known.listed([entry("exited")], 4, everything=False) == [ID]
    assert known.listed([entry("exited", "renamed")], 5, everything=False) == [ID]


def test_what_ended_before_we_looked_is_not_asked_about() -> None:
    """A host may have thousands of them."""
    assert Known().listed([entry("exited")], 1, everything=True) == []


def test_a_list_that_an_event_overtook_changes_nothing() -> None:
    """The event is newer than what the list says of this container."""
    known = Known()
    heard(known, "start", 5)
    assert known.listed([entry("created")], 4, everything=False) == []


def test_what_is_no_longer_listed_is_forgotten() -> None:
    """Its `destroy` was lost."""
    known = Known()
    heard(known, "die", 1)
    known.listed([], 2, everything=False)
    assert len(known) == 0
