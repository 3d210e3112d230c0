"""What the routes say about containers, hosts, kills, the stream and the agent's health."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from streamer.clock import rfc3339
from streamer.contracts import Status
from streamer.model import messages as m
from tests.support.said import Teller

if TYPE_CHECKING:
    from tests.sidecar.conftest import House

OWN = "/api/streamer/v1"
WEB = "4f6b" + "1" * 60
DB = "4f6b" + "2" * 60
OLD = "9999" + "3" * 60


async def ask(house: House, path: str, status: int = 200) -> Any:
    async with house.client() as client:
        got = await client.get(path)
    assert got.status_code == status, got.text
    return got.json()


async def test_containers_come_with_identity_limits_and_last_sample(house: House) -> None:
    """Deleted ones only when asked for; one that was never sampled has no `last_sample`."""
    body = await ask(house, f"{OWN}/containers")
    raw, web = body["containers"]
    assert (body["total"], raw["name"], web["name"], "next" in body) == (2, "/a/raw one", "web", False)
    assert web["spec"]["memory_limit_bytes"] == 268_435_456
    assert (web["state"], web["last_sample"]["cpu_usage_ns"], web["last_sample"]["type"]) == ("running", 3, "container.stats")
    assert "last_sample" not in raw
    body = await ask(house, f"{OWN}/containers?all=true")
    assert [c.get("deleted", False) for c in body["containers"]] == [False, False, True]
    assert body["containers"][2]["exit_code"] == 137


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=web", ["web"]),
        ("name=/web", ["web"]),
        ("name=w*", ["web"]),
        ("name=*", ["/a/raw one", "web"]),
        ("name=nobody", []),
        ("runtime=raw", ["/a/raw one"]),
        ("runtime=docker&all=true", ["web", "job"]),
    ],
)
async def test_filters(house: House, query: str, names: list[str]) -> None:
    """By name or alias with a trailing *, by runtime, with or without the deleted."""
    body = await ask(house, f"{OWN}/containers?{query}")
    assert [c["name"] for c in body["containers"]] == names
    assert body["total"] == len(names)


async def test_filters_by_image_and_labels(house: House) -> None:
    """Image with a trailing *; labels by name or value, all that are given."""
    house.tell.created(DB, name="db", aliases=["db"], image="postgres:17", labels={"team": "shop", "tier": "db"})
    for query, total in {
        "image=postgres:17": 1,
        "image=postgres": 0,
        "image=postgres*": 1,
        "label=tier": 1,
        "label=tier=db&label=team=shop": 1,
        "label=tier=db&label=team=other": 0,
        "label=tier=": 0,
    }.items():
        body = await ask(house, f"{OWN}/containers?{query}")
        assert (body["total"], [c["name"] for c in body["containers"]]) == (total, ["db"] * total), query


def crowd(house: House) -> None:
    """Five that use 0 to 4 CPUs, one that was never sampled; names and starts the other way round."""
    house.tell.deleted(WEB)
    house.tell.deleted("/a/raw one")
    for number in (3, 1, 4, 0, 2):
        about: dict[str, Any] = {"name": f"c{9 - number}", "started_at": f"2025-11-24T10:00:0{9 - number}Z"}
        house.tell.created("abcde"[number] * 64, oom_kills=number, **about)
        for second in range(2):
            grown = {"cpu_usage_ns": number * second * 10**9, "io_read_bytes": number * second, "network_rx_bytes": number * second}
            times = {"time": f"2025-11-24T10:00:{second:02}.000000000Z", "time_ms": 1_763_978_400_000 + second * 1000}
            house.tell.sampled("abcde"[number] * 64, memory_working_set_bytes=number, name=f"c{9 - number}", **grown, **times)
    house.tell.created("f" * 64, name="never", started_at=m.msgspec.UNSET, created_at=m.msgspec.UNSET)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("cpu", "abcdef"),
        ("-cpu", "edcbaf"),
        ("memory", "abcdef"),
        ("-io", "edcbaf"),
        ("network", "abcdef"),
        ("name", "edcbaf"),
        ("-name", "fabcde"),
        ("started", "edcbaf"),
        ("-started", "abcdef"),
        ("-oom", "edcbfa"),
    ],
)
async def test_sorted_pages(house: House, sort: str, expected: str, limit: int) -> None:
    """By any of the orders, both ways, what is not known last; pages of any size hold the same once."""
    crowd(house)
    seen, after = "", ""
    while True:
        body = await ask(house, f"{OWN}/containers?sort={sort}&limit={limit}{after}")
        assert body["total"] == 6
        seen += "".join(c["container_id"][0] for c in body["containers"])
        if "next" not in body:
            break
        after = f"&after={quote(body['next'], safe='')}"
    assert seen == expected


@pytest.mark.parametrize("cursor", ["x", "a/b", "a/b/c", "{}/a/b/c", '"x"/a/b/c', "1/a/b", "1e999/a/b/c"])
async def test_a_cursor_of_another_question_is_refused(house: House, cursor: str) -> None:
    """Whatever it is: 400, never a fault."""
    refused = await ask(house, f"{OWN}/containers?sort=cpu&after={quote(cursor, safe='')}", 400)
    assert "after" in refused["error"]
    assert "none of cpu" in (await ask(house, f"{OWN}/containers?sort=cpus", 400))["error"]


async def test_rates_stand_beside_each_container_and_by_themselves(house: House) -> None:
    """The same numbers in the list, of one, and in the short list, which has live containers only."""
    crowd(house)
    listed = {c["incarnation"]: c.get("rates") for c in (await ask(house, f"{OWN}/containers?all=true"))["containers"]}
    short = await ask(house, f"{OWN}/rates")
    assert {each.pop("id"): each for each in short["containers"]} == {key: use for key, use in listed.items() if use is not None}
    assert short["time_ms"] > 0
    most = await ask(house, f"{OWN}/containers/eeee")
    assert most["rates"]["cpu_cores"] == 4.0
    assert most["rates"] == listed[most["incarnation"]]
    assert len(listed) == len(short["containers"]) + 3  # the deleted ones


async def test_one_container_with_statistics_and_events(house: House) -> None:
    """Minute, hour and day with units in their names; lifecycle and kills of it and of no other, the newest of them."""
    house.tell.created(DB, name="db", aliases=["db"])
    body = await ask(house, f"{OWN}/containers/job")
    assert [event["type"] for event in body["events"]] == ["container.lifecycle", "container.oom", "container.lifecycle"]
    assert {event["container_id"] for event in body["events"]} == {OLD}
    assert body["rates"] == {}
    assert [e["event"] for e in (await ask(house, f"{OWN}/containers/job?events=1"))["events"]] == ["deleted"]
    assert (await ask(house, f"{OWN}/containers/job?events=0"))["events"] == []
    minute = (await ask(house, f"{OWN}/containers/web"))["derived"]["minute"]
    assert (minute["memory_bytes"]["present"], minute["memory_bytes"]["count"], minute["percent_complete"]) == (True, 4, 5)


async def test_series_of_all_or_one(house: House) -> None:
    """Columns for each live container; of one that is named, also when it has ended; unknown ones are refused."""
    crowd(house)
    body = await ask(house, f"{OWN}/series")
    assert len(body["containers"]) == 6
    (one,) = (await ask(house, f"{OWN}/series?container=eeee"))["containers"]
    assert one["cpu_cores"] == [4.0]
    assert one in body["containers"]
    (newer,) = (await ask(house, f"{OWN}/series?container=eeee&since_ms={one['time_ms'][0]}"))["containers"]
    assert newer == {"id": one["id"], "time_ms": []}
    assert len((await ask(house, f"{OWN}/series?container=job"))["containers"]) == 1
    await ask(house, f"{OWN}/series?container=nobody", 404)


async def test_lifecycle_and_kills_of_one_container(house: House) -> None:
    """The newest, the oldest of them first; `total` counts those that fit."""
    body = await ask(house, f"{OWN}/lifecycle")
    assert [(each["container_id"], each["event"]) for each in body["lifecycle"]][2:] == [(OLD, "created"), (OLD, "deleted")]
    body = await ask(house, f"{OWN}/lifecycle?container=job&limit=1")
    assert (body["total"], [each["event"] for each in body["lifecycle"]]) == (2, ["deleted"])
    assert (await ask(house, f"{OWN}/lifecycle?container=nobody"))["total"] == 0
    for text, total in ((OLD, 1), (OLD[:9], 1), ("job", 1), ("web", 0), (OLD[:3], 0)):
        assert (await ask(house, f"{OWN}/oom?container={text}"))["total"] == total


async def test_pages_hold_everything_once_while_containers_come_and_go(house: House) -> None:
    """A page ends at a value, so the next one goes on there even when that container has gone."""
    for number in range(7):
        house.tell.created(f"{number:064x}", name=f"c{number}")
    seen: list[str] = []
    after = ""
    while True:
        body = await ask(house, f"{OWN}/containers?limit=3{after}")
        seen += [c["container_id"] for c in body["containers"]]
        if "next" not in body:
            break
        house.tell.deleted(body["containers"][-1]["container_id"])
        after = f"&after={quote(body['next'], safe='')}"
    assert len(seen) == len(set(seen)) == 9
    assert seen == sorted(seen)
    refused = await ask(house, f"{OWN}/containers?after=nonsense", 400)
    assert "after" in refused["error"]


@pytest.mark.parametrize("id_", [WEB, WEB[:8], "web", "/web", "//web"])
async def test_one_container_by_any_of_its_names(house: House, id_: str) -> None:
    """Full id, beginning, name; the newest samples, the oldest of them first."""
    if id_ == "//web":
        await ask(house, f"{OWN}/containers/{id_}", 404)
        return
    body = await ask(house, f"{OWN}/containers/{id_}?samples=2")
    assert (body["container_id"], body["name"]) == (WEB, "web")
    assert [sample["cpu_usage_ns"] for sample in body["recent_samples"]] == [2, 3]
    published = json.loads(house.memory.find(WEB)[0].latest_json)
    whose = {*m.AboutContainer.__struct_fields__, "filesystems"} - {"time", "time_ms"}
    assert body["recent_samples"][-1] == {
        **{name: value for name, value in published.items() if name not in whose},
        "time": rfc3339(published["time_ms"] * 1_000_000 + int(published["time"][-7:-1])),
    }


async def test_how_many_samples(house: House) -> None:
    """None, or more than there are, is fine."""
    assert (await ask(house, f"{OWN}/containers/web?samples=0"))["recent_samples"] == []
    assert len((await ask(house, f"{OWN}/containers/web?samples=3600"))["recent_samples"]) == 4


@pytest.mark.parametrize("path", ["/a/raw%20one", "a/raw%20one", "%2Fa%2Fraw%20one"])
async def test_a_raw_cgroup_by_its_path(house: House, path: str) -> None:
    """With or without the leading slash, which some proxies swallow; escaped or not."""
    assert (await ask(house, f"{OWN}/containers/{path}"))["cgroup_path"] == "/a/raw one"


async def test_a_deleted_container_can_be_asked_for(house: House) -> None:
    """Who was just OOM-killed is the one that people ask about."""
    body = await ask(house, f"{OWN}/containers/job")
    assert (body["deleted"], body["oom_killed"], body["oom_kills"]) == (True, True, 1)


async def test_unknown_and_ambiguous_ids_say_what_would_help(house: House) -> None:
    """404 says how to name one; 409 lists the candidates."""
    unknown = await ask(house, f"{OWN}/containers/nobody", 404)
    assert "'nobody'" in unknown["error"]
    await ask(house, f"{OWN}/containers/", 404)
    house.tell.created(DB, name="db", aliases=["db"])
    ambiguous = await ask(house, f"{OWN}/containers/4f6b", 409)
    assert [c["name"] for c in ambiguous["candidates"]] == ["web", "db"]
    assert {c["container_id"] for c in ambiguous["candidates"]} == {WEB, DB}


async def test_hosts(house: House) -> None:
    """The host of an agent; with several the list has them all and `/host` refuses to guess."""
    assert (await ask(house, f"{OWN}/host"))["cgroup_mode"] == "v2"
    Teller(house.memory, host_id="host-2").say(m.HOST)
    assert [h["host_id"] for h in (await ask(house, f"{OWN}/hosts"))["hosts"]] == ["host-1", "host-2"]
    assert (await ask(house, f"{OWN}/host", 409))["candidates"] == ["host-1", "host-2"]


async def test_oom_kills_are_listed_the_newest_last(house: House) -> None:
    """Whole records, the last `limit` of them."""
    house.tell.say(m.OOM, process="second")
    body = await ask(house, f"{OWN}/oom")
    assert [kill["process"] for kill in body["oom"]] == ["nginx", "second"]
    body = await ask(house, f"{OWN}/oom?limit=1")
    assert (body["total"], [kill["process"] for kill in body["oom"]]) == (2, ["second"])


async def test_the_stream_shows_backlog_marks_and_gaps(house: House) -> None:
    """Per sink its state and lanes, with drops of all reasons added up; per host epoch and marks; declared gaps."""
    house.components[1] = Status("sink.kafka", "down", "connection refused", "start it", 1_700_000_000_000)
    house.telemetry.set("streamer_sink_backlog_messages", 12, "kafka", "durable")
    house.telemetry.count("streamer_sink_dropped_total", "kafka", "stats", "full", by=3)
    house.telemetry.count("streamer_sink_dropped_total", "kafka", "stats", "rejected", by=4)
    house.telemetry.set("streamer_sink_delivered_timestamp_seconds", house.context.now_ms / 1000 - 3600, "kafka", "durable")
    house.telemetry.set("streamer_state_bytes", 4096, "durable")
    house.components.append(Status("state", "ok"))
    body = await ask(house, f"{OWN}/stream")
    assert body["outbox"] == [{"component": "state", "state": "ok", "bytes": {"durable": 4096}}]
    assert body["sources"] == [{"component": "source.cgroup", "state": "ok"}]
    (kafka,) = body["sinks"]
    assert 3_600_000 <= kafka["lanes"]["durable"]["lag_ms"] < 3_700_000
    assert kafka["lanes"]["stats"]["lag_ms"] == 0
    assert (kafka["state"], kafka["reason"], kafka["since"]) == ("down", "connection refused", "2023-11-14T22:13:20.000000000Z")
    assert kafka["lanes"]["durable"]["backlog_messages"] == 12
    assert kafka["lanes"]["stats"]["dropped"] == 7
    assert body["streams"][0]["high_water"]["container.stats"] == 4
    assert [gap["gap_count"] for gap in body["gaps"]] == [787]


async def test_a_broker_that_is_down_is_shown_but_does_not_make_the_agent_unready(house: House) -> None:
    """Restarting an agent that holds a backlog would lose it; who wants to know asks with `require_sinks`."""
    house.components[1] = Status("sink.kafka", "down", "connection refused", "start it")
    body = await ask(house, "/readyz")
    assert (body["ready"], body["state"]) == (True, "down")
    assert body["components"][1] == {
        "component": "sink.kafka",
        "state": "down",
        "reason": "connection refused",
        "remedy": "start it",
    }
    body = await ask(house, "/readyz?require_sinks=true", 503)
    assert body["because"] == ["sink.kafka is down: connection refused"]


@pytest.mark.parametrize("state", ["starting", "down", "off"])
async def test_an_agent_that_cannot_watch_containers_is_not_ready(house: House, state: str) -> None:
    """The cgroup source is what the agent is for; while it is degraded it still does most of it."""
    house.components[0] = Status("source.cgroup", state, "no cgroups")
    body = await ask(house, "/readyz", 503)
    assert body["because"] == [f"source.cgroup is {state}: no cgroups"]
    house.components[0] = Status("source.cgroup", "degraded", "no inotify")
    assert (await ask(house, "/readyz"))["state"] == "degraded"


async def test_before_anything_has_reported_the_agent_is_not_ready(house: House) -> None:
    """No word from an essential part is not a good word."""
    house.components.clear()
    body = await ask(house, "/readyz", 503)
    assert (body["state"], body["because"]) == ("starting", ["source.cgroup has not reported yet"])
