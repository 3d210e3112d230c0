"""Events: what a message becomes, which ones a request is about, and watching without holding anybody up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import UNSET, to_builtins

from streamer.cadvisor import EVENT_TYPES, EventRequest, InvalidRequest, NotFound
from streamer.cadvisor.channel import EventChannel
from streamer.cadvisor.go import parse_time
from streamer.cadvisor.shapes import Event, EventData
from streamer.model import messages as m
from tests.cadvisor.conftest import WEB, House, raw

EVERY = frozenset(EVENT_TYPES)
WEB_PATH = f"/docker/{WEB}"
ANY = EventRequest("/", True, EVERY, -1)


def killed(house: House, path: str = "/lab/one", **about: Any) -> None:
    house.tell.say(m.OOM, container_id=path, **{**raw(path), "killed_cgroup": path, "limit_cgroup": path, **about})


async def told(house: House, request: EventRequest) -> list[tuple[str, str]]:
    return [(event.event_type, event.container_name) for event in await house.operations.past_events(request)]


async def test_lifecycle_as_events(house: House) -> None:
    """Created at its start; deleted with the exit code, -1 when nobody knows it; what changes in between is no event there."""
    house.tell.say(m.LIFECYCLE, "container.lifecycle.updated", container_id="/x", incarnation="x", **raw("/x"))
    house.tell.deleted(WEB, cgroup_path=WEB_PATH)
    house.tell.deleted("/lab-two", **raw("/lab-two"), exit_code=UNSET, time="2025-11-24T09:47:34.000000000Z")
    events = await house.operations.past_events(EventRequest("/", True, EVERY, 3))
    assert [to_builtins(event) for event in events[-2:]] == [
        {
            "container_name": WEB_PATH,
            "timestamp": "2025-11-24T09:47:33.891204377Z",
            "event_type": "containerDeletion",
            "event_data": {"container_deletion": {"exit_code": 137}},
        },
        {
            "container_name": "/lab-two",
            "timestamp": "2025-11-24T09:47:34Z",
            "event_type": "containerDeletion",
            "event_data": {"container_deletion": {"exit_code": -1}},
        },
    ]
    assert to_builtins(events[0])["event_data"] == {}
    assert (events[0].event_type, events[0].timestamp) == ("containerCreation", "2025-11-24T09:15:04.241190027Z")
    assert "/x" not in {name for _, name in await told(house, ANY)}


async def test_a_kill_is_two_events(house: House) -> None:
    """`oom` of the one that was killed, without data; `oomKill` of the one whose limit was hit, with the process."""
    killed(house, "/lab/one/inner", limit_cgroup="/lab/one")
    of_killed, of_limit = await house.operations.past_events(EventRequest("/", True, frozenset({"oom", "oomKill"})))
    assert (of_killed.event_type, of_killed.container_name, of_killed.event_data) == ("oom", "/lab/one/inner", EventData())
    assert (of_limit.event_type, of_limit.container_name) == ("oomKill", "/lab/one")
    assert to_builtins(of_limit.event_data) == {"oom": {"pid": 21_903, "process_name": "nginx", "constraint": "CONSTRAINT_MEMCG"}}


@pytest.mark.parametrize(
    ("about", "limit", "data"),
    [
        ({"limit_cgroup": UNSET, "constraint": "global"}, "/", (21_903, "nginx", "CONSTRAINT_NONE")),
        ({"limit_cgroup": UNSET, "constraint": UNSET, "pid": UNSET, "process": UNSET}, "/lab/one", (0, "", "")),
        (
            {"killed_cgroup": UNSET, "limit_cgroup": UNSET, "constraint": "cpuset"},
            "/lab/one",
            (21_903, "nginx", "CONSTRAINT_CPUSET"),
        ),
        ({"constraint": "mempolicy"}, "/lab/one", (21_903, "nginx", "CONSTRAINT_MEMORY_POLICY")),
    ],
)
async def test_kills_of_which_less_is_known(house: House, about: dict[str, Any], limit: str, data: tuple[int, str, str]) -> None:
    """A host that is short of memory is `/`; a kill that only a counter shows has no process."""
    killed(house, **about)
    of_killed, of_limit = await house.operations.past_events(EventRequest("", False, frozenset({"oom", "oomKill"})))
    assert (of_killed.container_name, of_limit.container_name) == ("/lab/one", limit)
    oom = of_limit.event_data.oom
    assert oom is not None and (oom.pid, oom.process_name, oom.constraint) == data


async def test_which_container(house: House) -> None:
    """That one alone, or with those below it; never one that only begins alike; "" is any."""
    created = frozenset({"containerCreation"})
    house.raw("/")
    assert await told(house, EventRequest("/", False, created)) == [("containerCreation", "/")]
    assert {name for _, name in await told(house, EventRequest("/lab", True, created))} == {"/lab/one", "/lab/one/inner"}
    assert await told(house, EventRequest("/lab", False, created)) == []
    assert await told(house, EventRequest("lab-two/", True, created)) == [("containerCreation", "/lab-two")]
    assert (
        len(await told(house, EventRequest("/", True, created, -1)))
        == len(await told(house, EventRequest("", False, created, -1)))
        == 7
    )


async def test_no_type_means_no_event(house: House) -> None:
    assert await house.operations.past_events(EventRequest("/", True)) == []


async def test_filtered_first_counted_then(house: House) -> None:
    """The events of a quiet container are found behind those of a busy one; 0 is none, -1 all."""
    killed(house, "/lab-two", time="2025-11-24T09:00:00.000000000Z")
    for number in range(20):
        killed(house, time=f"2025-11-24T10:00:{number:02}.000000000Z")
    quiet = EventRequest("/lab-two", event_types=frozenset({"oom"}), max_events=1)
    assert await told(house, quiet) == [("oom", "/lab-two")]
    busy = [
        e.timestamp[17:19]
        for e in await house.operations.past_events(EventRequest("/lab/one", event_types=frozenset({"oom"}), max_events=3))
    ]
    assert busy == ["17", "18", "19"]
    counts = [len(await told(house, EventRequest("/", True, frozenset({"oom"}), most))) for most in (0, 10, -1)]
    assert counts == [0, 10, 21]


async def test_between_two_times(house: House) -> None:
    """Both ends count; the order is that of the facts, whatever order they were told in."""
    for second in (3, 1, 2, 4):
        killed(house, time=f"2025-11-24T10:00:0{second}.500000000Z")
    start, end = parse_time("2025-11-24T10:00:02.5Z"), parse_time("2025-11-24T10:00:03.5Z")
    request = EventRequest("/", True, frozenset({"oom"}), -1, start, end)
    assert [event.timestamp for event in await house.operations.past_events(request)] == [
        "2025-11-24T10:00:02.5Z",
        "2025-11-24T10:00:03.5Z",
    ]


# watching


async def test_a_watch_hears_what_happens_from_now_on(house: House) -> None:
    """Nothing of before, nothing else than asked for, in order; it ends when it is closed."""
    channel = house.operations.watch_for_events(EventRequest("/lab", True, frozenset({"containerCreation", "oomKill"})))
    house.raw("/lab/new")
    house.raw("/elsewhere")
    killed(house, "/lab/new")
    house.tell.deleted("/lab/new", **raw("/lab/new"))
    house.operations.close_event_channel(channel.watch_id)
    assert [(event.event_type, event.container_name) async for event in channel] == [
        ("containerCreation", "/lab/new"),
        ("oomKill", "/lab/new"),
    ]
    house.raw("/lab/late")
    assert len(channel) == 0


async def test_a_reader_waits_until_something_comes(house: House) -> None:
    async with house.operations.watch_for_events(ANY) as channel:
        reading = asyncio.create_task(anext(channel))
        await asyncio.sleep(0)
        assert not reading.done()
        house.raw("/lab/new")
        assert (await reading).container_name == "/lab/new"


async def test_a_slow_reader_gets_what_waited_whole_and_then_the_end() -> None:
    """Whoever tells is never held up; nothing follows on a hole, not even when there is room again."""
    closed: list[int] = []
    channel = EventChannel(7, closed.append, most_waiting=3)
    channel.offer(Event(f"/{number}", "", "oom", EventData()) for number in range(10))
    assert (len(channel), channel.dropped) == (3, 7)
    assert (await anext(channel)).container_name == "/0"
    channel.offer([Event("/10", "", "oom", EventData())])
    assert (len(channel), channel.dropped, closed) == (2, 8, [])
    assert [event.container_name async for event in channel] == ["/1", "/2"]
    assert closed == [7]


async def test_what_waits_is_read_after_the_end() -> None:
    """Closing twice is fine; what comes later is not taken."""
    closed: list[int] = []
    channel = EventChannel(7, closed.append, most_waiting=3)
    channel.offer(Event(f"/{number}", "", "oom", EventData()) for number in range(3))
    channel.close()
    channel.close()
    assert [event.container_name async for event in channel] == ["/0", "/1", "/2"]
    assert closed == [7]
    channel.offer([Event("/late", "", "oom", EventData())])
    assert len(channel) == 0


async def test_watches_are_told_apart_and_ended_by_their_ids(house: House) -> None:
    """One that nobody knows is an error; ending one does not touch the others."""
    first, second = house.operations.watch_for_events(ANY), house.operations.watch_for_events(ANY)
    assert first.watch_id != second.watch_id
    house.operations.close_event_channel(first.watch_id)
    with pytest.raises(NotFound, match=str(first.watch_id)):
        house.operations.close_event_channel(first.watch_id)
    house.raw("/lab/new")
    assert (len(first), len(second)) == (0, 1)
    house.operations.close_event_channels()
    house.raw("/lab/newer")
    assert len(second) == 1


async def test_a_watch_has_no_times(house: House) -> None:
    with pytest.raises(InvalidRequest, match="must be uninitialized"):
        house.operations.watch_for_events(EventRequest(start_ns=1))
