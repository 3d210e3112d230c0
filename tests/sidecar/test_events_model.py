"""`/events` under schedules of all kinds, judged by a model: each wanted record is told once, in order, or said to be missing.

Nothing waits for time here: a step is a round of the event loop, and the seed of a schedule says what happens in which.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import pytest

from streamer.memory import Limits
from streamer.model import messages as m
from streamer.sidecar import events, feed
from streamer.sidecar.exchange import Lines
from tests.sidecar.conftest import DB, WEB, House

NEVER: Final = 3600.0
ROUNDS: Final = 200
"""More than anybody needs who has nothing to wait for."""
WISHES: Final = ({"lifecycle"}, {"lifecycle", "oom"}, {"lifecycle", "stats", "oom"}, {"oom", "control"})

Line = dict[str, Any]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few records, samples for a moment: everything that there is a bound for happens."""
    monkeypatch.setattr(events, "PART_BYTES", 3000)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", NEVER)
    monkeypatch.setattr(feed, "SAMPLES_BYTES", 300_000)


async def rounds(count: int) -> None:
    """Let everybody else go on, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Host:
    """Says things, and notes which of them are wanted."""

    def __init__(self, kept: int, types: Iterable[str], container: str | None = None) -> None:
        """`kept`: so many events of each type are in memory."""
        self.house = House(limits=Limits(events=kept))
        self.types, self.container = frozenset(types), container
        self.wanted: dict[int, str] = {}
        """Position -> type."""
        self.say("lifecycle", DB)  # from now on there are ids

    @property
    def position(self) -> int:
        return self.house.memory.position

    @property
    def here(self) -> str:
        """The id of what was said last."""
        return f"{self.house.memory.epoch}-{self.position}"

    def say(self, kind: str, container: str = WEB, times: int = 1) -> None:
        tell = self.house.tell
        for _ in range(times):
            match kind:
                case "lifecycle":
                    tell.created(container)
                case "stats":
                    tell.sampled(container)
                case "oom":
                    tell.say(m.OOM, container_id=container, incarnation="x")
                case _:
                    tell.say(m.CONTROL, "control.gap")
            if kind in self.types and (kind == "control" or self.container in (None, container)):
                self.wanted[self.position] = kind

    def open(self, resumed: str | None) -> Lines:
        """An answer to a client that was told `resumed` last."""
        query: dict[str, Any] = dict.fromkeys(("since", "runtime"))
        query |= {"types": self.types, "container": self.container, "label": (), "last-event-id": resumed}
        return events.follow(self.house.context, query | {"accept": "application/x-ndjson"})


class Client:
    """What it was told, over all its connections; it comes back behind the id that it was told last."""

    def __init__(self, host: Host, resumed: str | None = None) -> None:
        self.host, self.last = host, resumed
        self.lines: list[Line] = [{"type": "heartbeat", "event_id": resumed}] if resumed else []

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncIterator[None]]:
        """One answer, a part at a time."""
        answer = self.host.open(self.last)
        reading = self._each(answer)
        try:
            yield reading
        finally:
            await reading.aclose()  # type: ignore[attr-defined]  # it is a generator
            await answer.lines.aclose()  # type: ignore[attr-defined]  # it, too
            answer.close()

    async def _each(self, answer: Lines) -> AsyncIterator[None]:
        async for part in answer.lines:
            self._hear(part)
            yield

    def _hear(self, part: bytes) -> None:
        for line in map(json.loads, part.splitlines()):
            self.lines.append(line)
            self.last = place_of(line) or self.last

    async def read_all(self, reading: AsyncIterator[None]) -> None:
        """What there is to be told now, to the end of the answer or until nothing more comes."""

        async def read() -> None:
            async for _ in reading:
                pass

        task = asyncio.create_task(read())
        await rounds(ROUNDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def come_back(self) -> None:
        """As a client does that was dropped, until it is told everything."""
        async with self.connection() as reading:
            await self.read_all(reading)


def place_of(line: Line) -> str | None:
    """The id behind which everything that is wanted was told, or said to be missing."""
    told: str | None = line.get("last") if line["type"] == "dropped" else line.get("event_id")
    return told


def position_of(place: str) -> int:
    return int(place.split("-")[1])


def faults(host: Host, lines: list[Line]) -> list[str]:
    """What a client may complain of. Its first line says where it begins; it has been told all that there is."""
    wanted = sorted(host.wanted)
    found: list[str] = []
    missed: set[int] = set()
    behind = position_of(str(place_of(lines[0])))
    for line in lines[1:]:
        if line["type"] == "gap":
            first, last = position_of(line["missed_from"]), position_of(line["missed_to"])
            missed |= {at for at in wanted if first < at <= last and host.wanted[at] in line["types"]}
        elif place := place_of(line):
            at = position_of(place)
            is_record = line["type"] not in ("heartbeat", "dropped")
            if at < behind or (is_record and (at == behind or at not in host.wanted)):
                found.append(f"{line['type']} at {at}, behind {behind}")
            passed = wanted[bisect_right(wanted, behind) : (bisect_left if is_record else bisect_right)(wanted, at)]
            found += [f"{host.wanted[each]} at {each} left out, unsaid" for each in passed if each not in missed]
            behind = at
    never = wanted[bisect_right(wanted, behind) :]
    return found + [f"{host.wanted[each]} at {each} never told" for each in never if each not in missed]


@pytest.mark.parametrize("later", range(8))
async def test_what_is_said_before_the_client_waits_is_told(later: int) -> None:
    """Its event comes in any step between its past and its waiting, and another container's right behind it."""
    host = Host(1000, {"lifecycle"}, WEB)
    client = Client(host, host.here)
    host.say("lifecycle", DB, times=100)
    async with client.connection() as reading:
        task = asyncio.create_task(client.read_all(reading))
        await rounds(later)
        host.say("lifecycle", WEB)
        await rounds(1)
        host.say("lifecycle", DB)
        await task
    assert faults(host, client.lines) == []


async def test_what_is_forgotten_while_a_gap_is_taken_is_said_to_be_missing() -> None:
    """A client takes its time over the gap of samples; of the events that it would be told next, most are forgotten meanwhile."""
    host = Host(10, {"lifecycle", "stats"})
    client = Client(host)
    async with client.connection() as reading:
        await anext(reading)
        host.say("stats", times=100)
        await anext(reading)
        assert client.lines[-1]["type"] in ("gap", "container.stats")
        host.say("lifecycle", times=30)
        await client.read_all(reading)
    await client.come_back()
    assert faults(host, client.lines) == []


async def test_what_is_forgotten_while_others_have_their_turn_is_said_to_be_missing() -> None:
    """A client that is behind queues for its turn; what it would be told next is forgotten meanwhile."""
    host = Host(10, {"lifecycle"})
    client = Client(host)
    async with client.connection() as reading:
        await anext(reading)
        host.say("lifecycle", times=8)
        await anext(reading)
        assert position_of(str(client.last)) < host.position
        async with host.house.context.replaying:
            reads_on = asyncio.create_task(client.read_all(reading))
            await rounds(2)
            host.say("lifecycle", times=30)
        await reads_on
    await client.come_back()
    assert faults(host, client.lines) == []


class Schedule:
    """A host, a client and others who replay, each at its own pace; everything is drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.host = Host(pick([20, 150, 5000]), pick(WISHES), pick([None, WEB]))
        for _ in range(self.random.randrange(200)):
            self.say_something()
        resumed = f"{self.host.house.memory.epoch}-{self.random.randrange(1, self.host.position + 1)}"
        self.client = Client(self.host, pick([resumed, None]))
        self.parts_at_most, self.pauses = pick([12, 300]), pick([[0], [0, 0, 1], [0, 0, 0, 1, 5, 30]])

    def say_something(self) -> None:
        pick = self.random.choice
        self.host.say(pick(["lifecycle", "stats", "stats", "oom", "control"]), pick([WEB, DB, DB, DB]))

    async def run(self) -> list[str]:
        """The client's complaints."""
        others = [asyncio.create_task(self._come_and_go()), asyncio.create_task(self._replay())]
        await rounds(4)
        for _ in range(120):
            for _ in range(self.random.choice([0, 0, 1, 3, 20])):
                self.say_something()
            await rounds(self.random.choice([1, 1, 2, 6]))
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        await self.client.come_back()
        return faults(self.host, self.client.lines)

    async def _come_and_go(self) -> None:
        """Read at any speed; leave after some parts, and come back."""
        while True:
            async with self.client.connection() as reading:
                for _ in range(self.random.randrange(1, self.parts_at_most)):
                    if await anext(reading, "over") == "over":
                        break
                    await rounds(self.random.choice(self.pauses))

    async def _replay(self) -> None:
        """Others who are told their past, by turns."""
        while True:
            async with self.host.house.context.replaying:
                await rounds(self.random.randrange(4))
            await rounds(1)


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat_seconds", [0.0, NEVER], ids=["heartbeats", "no heartbeats"])
@pytest.mark.parametrize("seeds", [range(first, first + 25) for first in (0, 25, 50, 75)], ids=str)
async def test_each_wanted_record_is_told_once_or_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, seeds: range, heartbeat_seconds: float
) -> None:
    """Whatever is wanted, kept and said, and however the client reads. A heartbeat comes in each quiet round, or never."""
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", heartbeat_seconds)
    found = {seed: await Schedule(seed).run() for seed in seeds}
    assert {seed: complaints for seed, complaints in found.items() if complaints} == {}
