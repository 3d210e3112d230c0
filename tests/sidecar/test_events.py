"""`/events` on a real server: what goes over the wire, who is slow, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import httpx
import pytest

from streamer.memory import Limits
from streamer.model import messages as m
from streamer.sidecar import application, connection, events, feed
from tests.sidecar.conftest import House
from tests.sidecar.test_streaming import DEADLINE, chunk, connected, deaf, until

WEB = "4f6b" + "1" * 60
TCP_CLOSE = 7  # tcp_states.h
LARGE = "/large" * 1300
"""The name of a cgroup: a hundred events about it are more than sockets take."""


def ask(path: str = "/events", *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "host: localhost", *headers, "", "")).encode()


async def blocks(reader: asyncio.StreamReader, count: int) -> list[dict[str, str]]:
    """The next blocks of Server-Sent Events: their fields, comments under ``."""
    found: list[dict[str, str]] = []
    text = b""
    while len(found) < count:
        text += await chunk(reader)
        assert text
        *whole, text = text.split(b"\n\n")
        found += [dict((line + ":").split(":", 1) for line in block.decode().split("\n")) for block in whole]
    return [{name: value.removesuffix(":").strip() for name, value in block.items()} for block in found]


async def test_events_are_sent_as_they_happen(house: House) -> None:
    """The head says that nobody may hold it back; a client is told where it is, then each record as published, with its id."""
    async with house.serving() as sidecar, connected(sidecar, ask()) as (reader, _):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        for header in ("content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no", "vary: accept"):
            assert f"\r\n{header}\r\n" in head
        epoch, before = house.memory.epoch, house.memory.position
        assert await blocks(reader, 2) == [{"retry": "1000"}, {"": "heartbeat", "id": f"{epoch}-{before}"}]
        record = house.tell.created(WEB, name="web")
        house.tell.sampled(WEB)
        house.tell.say(m.OOM)
        created, killed = await blocks(reader, 2)
        assert (created["id"], created["event"]) == (f"{epoch}-{before + 1}", "container.lifecycle")
        assert m.msgspec.json.decode(created["data"], type=m.ContainerLifecycle) == record
        assert (killed["id"], killed["event"]) == (f"{epoch}-{before + 3}", "container.oom")
        assert house.telemetry.value("streamer_http_streams") == 1
    assert not house.memory._watchers


async def test_json_lines_are_the_same_records_with_their_id(house: House) -> None:
    """Each a line; ours are told apart by their type. Samples when asked for."""
    lines = ask("/events?types=stats,lifecycle&container=web&since=1-1", "accept: application/x-ndjson")
    async with house.serving() as sidecar, connected(sidecar, lines) as (reader, _):
        assert b"content-type: application/x-ndjson" in await reader.readuntil(b"\r\n\r\n")
        gap = json.loads(await chunk(reader))
        assert (gap["type"], gap["reason"], gap["missed_from"]) == ("gap", "other_run", "1-1")
        created = json.loads(await chunk(reader))
        assert (created["type"], created["name"]) == ("container.lifecycle", "web")
        sample = house.tell.sampled(WEB, name="web")
        line = json.loads(await chunk(reader))
        assert line.pop("event_id") == f"{house.memory.epoch}-{house.memory.position}"
        assert line == json.loads(m.msgspec.json.encode(sample))


async def test_the_header_goes_before_since(house: House) -> None:
    """As browsers resume: with the address they began with."""
    at = f"{house.memory.epoch}-{house.memory.position}"
    for header, first in ((f"Last-Event-ID: {at}", {"event": "container.oom"}), ("Last-Event-ID: what?", {"event": "gap"})):
        async with house.serving() as sidecar, connected(sidecar, ask("/events?since=1-1", header)) as (reader, _):
            await reader.readuntil(b"\r\n\r\n")
            house.tell.say(m.OOM)
            _retry, block = await blocks(reader, 2)
            assert first.items() <= block.items()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("types=oom,stat", "is not made of lifecycle"),
        ("types=", "is not made of"),
        ("since=soon", "is neither an id"),
        ("container=", "is empty"),
        ("label==x", "has no name"),
        ("type=oom", "did you mean types"),
        ("runtime=a&runtime=b", "given twice"),
    ],
)
async def test_what_cannot_be_meant_is_refused(house: House, query: str, problem: str) -> None:
    """400 with what is wrong and what would help; nobody is left listening."""
    async with house.client() as client:
        got = await client.get(f"/events?{query}")
    assert got.status_code == 400
    assert problem in f"{got.json()['error']} {got.json()['remedy']}"
    assert not house.memory._watchers


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00%2B23:00", "9999-12-31T23:59:59-23:00", "9999-12-31T23:59:59.9999Z"])
async def test_times_at_the_end_of_the_calendar_are_times(house: House, time: str) -> None:
    """Their zone takes them out of it: they count as the first or the last that there is."""
    path = f"/events?types=stats,oom&since={time}"
    async with house.serving() as sidecar, connected(sidecar, ask(path)) as (reader, _):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        gap = json.loads((await blocks(reader, 2))[1]["data"])
        assert gap["missed_from"][:4] in ("1970", "9999")
        assert "stats" in gap["types"]


async def test_a_label_may_be_asked_for_several_times(house: House) -> None:
    """All of them have to fit."""
    path = "/events?label=a=1&label=b&types=lifecycle"
    async with house.serving() as sidecar, connected(sidecar, ask(path)) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        for labels in ({"a": "1"}, {"a": "2", "b": ""}, {"a": "1", "b": ""}):
            house.tell.created(WEB, labels=labels)
        block = (await blocks(reader, 3))[-1]
        assert json.loads(block["data"])["labels"] == {"a": "1", "b": ""}


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_quiet_stream_shows_that_it_lives(house: House, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    """A heartbeat now and then, which moves the client's place on."""
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.01)
    async with house.serving() as sidecar, connected(sidecar, ask("/events?types=oom", f"accept: {accept}")) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        house.tell.created(WEB)
        house.tell.say(m.HOST)
        place = b"%d-%d" % (house.memory.epoch, house.memory.position)
        beats = 0
        while beats < 3:
            part = await chunk(reader)
            beats += b"heartbeat" in part and place in part


async def test_heads_are_answered_and_http_1_0_is_refused(house: House) -> None:
    """HEAD ends at once; an answer without end needs chunks."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        got = await client.head(f"http://{sidecar.address}/events")
        assert (got.status_code, got.headers["content-type"], got.content) == (200, "text/event-stream", b"")
        async with connected(sidecar, b"GET /events HTTP/1.0\r\nhost: localhost\r\n\r\n") as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    assert not house.memory._watchers


async def test_it_ends_with_the_server(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """At once and in order, whether something waits or not."""
    async with contextlib.AsyncExitStack() as stack:
        async with house.serving() as sidecar:
            reader, _ = await stack.enter_async_context(connected(sidecar, ask()))
            await reader.readuntil(b"\r\n\r\n")
            await blocks(reader, 2)
        assert await reader.read() == b"0\r\n\r\n"
    assert not house.memory._watchers
    assert not caplog.records


# who is slow


async def test_who_is_too_slow_is_told_and_let_go() -> None:
    """What it wants was forgotten before it took it: when it reads on, it gets what was on its way, `dropped`, and the end.

    Resumed behind the id that it was told last, it is told what it has missed, and gets the rest.
    """
    house = House(limits=Limits(events=100))
    slow = ask("/events?types=lifecycle")
    async with house.serving() as sidecar, connected(sidecar, slow) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a connection
        await until(lambda: house.memory._watchers)
        told = []
        for _ in range(1000):
            told.append(house.tell.created(f"{len(told):064x}", cgroup_path=LARGE).id)
            await asyncio.sleep(0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readuntil(b"\r\n\r\n")
        seen: list[str] = []
        last = ""
        block: dict[str, str] = {}
        while block.get("event") != "dropped":
            for block in await blocks(reader, 1):
                if block.get("event") == "container.lifecycle":
                    last = block["id"]
                    seen.append(json.loads(block["data"])["id"])
        assert json.loads(block["data"])["last"] == last
        assert await chunk(reader) == b""
        assert seen == told[: len(seen)]
        async with connected(sidecar, ask("/events?types=lifecycle", f"last-event-id: {last}")) as (again, _):
            await again.readuntil(b"\r\n\r\n")
            _retry, gap = await blocks(again, 2)
            assert json.loads(gap["data"])["missed_from"] == last
            rest: list[str] = []
            while len(rest) < 100:
                rest += [json.loads(block["data"])["id"] for block in await blocks(again, 1)]
    assert rest == told[-100:]
    assert house.telemetry.value("streamer_http_streams_dropped_total") == 1


async def test_who_is_behind_with_samples_misses_them_and_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event is lost because of samples: a gap says which are missing, once, and newer ones follow."""
    monkeypatch.setattr(feed, "SAMPLES_BYTES", 50_000)
    async with house.serving() as sidecar, connected(sidecar, ask("/events?types=stats,lifecycle")) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a connection
        await until(lambda: house.memory._watchers)
        told = []
        for number in range(2000):
            house.tell.sampled(WEB, name="web" * 100)
            if number % 100 == 0:
                told.append(house.tell.created(f"{number:064x}").id)
            await asyncio.sleep(0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readuntil(b"\r\n\r\n")
        events: list[str] = []
        gaps: list[dict[str, Any]] = []
        samples: list[str] = []

        async def read() -> None:
            for block in await blocks(reader, 1):
                data = json.loads(block.get("data", "{}"))
                match block.get("event"):
                    case "container.lifecycle":
                        events.append(data["id"])
                    case "container.stats":
                        samples.append(data["id"])
                    case "gap":
                        gaps.append(data)

        while len(events) < len(told):
            await read()
        newer: list[str] = []
        while not set(newer) & set(samples):  # one that is said while it still catches up may lie in the last gap
            newer.append(house.tell.sampled(WEB).id)
            await read()
    assert events == told
    assert len(samples) < 1000
    assert gaps
    assert all((gap["reason"], gap["types"]) == ("samples", ["stats"]) for gap in gaps)


@pytest.mark.slow
async def test_two_hundred_who_do_not_read_hold_up_nobody_and_are_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are taken in; one who reads gets every event before the next one happens; in the end it is alone.

    What they did not take is thrown away: the kernel, too, is done with them, and they are told so.
    """
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.5)
    async with contextlib.AsyncExitStack() as stack, house.serving() as sidecar:
        clients = [await stack.enter_async_context(deaf(sidecar, "/events")) for _ in range(200)]
        reader, _ = await stack.enter_async_context(connected(sidecar, ask("/events?types=lifecycle")))
        await until(lambda: house.telemetry.value("streamer_http_streams") == 201)
        await reader.readuntil(b"\r\n\r\n")
        await blocks(reader, 2)
        number = 0
        while house.telemetry.value("streamer_http_streams") > 1:
            record: Any = house.tell.created(f"{number:064x}", cgroup_path=f"{LARGE}/{number}")
            (block,) = await blocks(reader, 1)
            assert json.loads(block["data"])["id"] == record.id
            number += 1
        assert {client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for client in clients} == {TCP_CLOSE}


async def test_one_too_many_is_told_to_come_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After; nobody is left listening for it."""
    monkeypatch.setattr(application, "MOST_STREAMS", 1)
    async with house.serving() as sidecar, connected(sidecar, ask()) as (reader, _), httpx.AsyncClient() as client:
        await reader.readuntil(b"\r\n\r\n")
        refused = await client.get(f"http://{sidecar.address}/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert house.telemetry.value("streamer_http_streams") == 1


@pytest.mark.slow
async def test_many_who_come_back_at_once_are_told_their_past_by_turns(house: House) -> None:
    """After a restart everybody wants everything: others are answered in between, and nobody is refused."""
    for number in range(4000):
        house.tell.created(f"{number:064x}", name=f"c{number}")
    async with contextlib.AsyncExitStack() as stack, house.serving() as sidecar, httpx.AsyncClient() as client:
        readers = [
            (await stack.enter_async_context(connected(sidecar, ask("/events?since=1-1&container=c3999"))))[0] for _ in range(100)
        ]
        assert (await client.get(f"http://{sidecar.address}/healthz", timeout=DEADLINE)).text == "ok"
        for reader in readers:
            await reader.readuntil(b"\r\n\r\n")
            found = await blocks(reader, 4)
            assert [block.get("event") for block in found] == [None, "gap", "control", "container.lifecycle"]


async def test_a_structured_envelope_is_taken_off(empty_house: House) -> None:
    """Records are flat, as everywhere in queries, in the past and live."""
    house = empty_house
    house.tell.envelope = "structured"
    house.tell.created(WEB)
    async with house.serving() as sidecar, connected(sidecar, ask(f"/events?since={house.memory.epoch}-0")) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        house.tell.say(m.OOM)
        found = (await blocks(reader, 3))[1:]
        assert [json.loads(block["data"])["type"] for block in found] == ["container.lifecycle", "container.oom"]
