"""Which records a client of `/events` is told, where it goes on, and what it is told that it has missed."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from streamer.memory import Limits, Memory
from streamer.model import messages as m
from streamer.sidecar import following
from streamer.sidecar.events import follow
from streamer.sidecar.exchange import Lines
from streamer.sidecar.feed import LOOKED_AT, Feed, Follower
from streamer.sidecar.following import Ago, Moment, Past, Place, Wish, past
from tests.sidecar.conftest import House
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
DB = "4f6b" + "2" * 60
DEFAULT = frozenset({"lifecycle", "oom", "control"})
ALL = frozenset(following.TYPES)
NOTHING: dict[str, Any] = {"types": None, "container": None, "label": (), "runtime": None, "since": None, "last-event-id": None}


@pytest.fixture
def memory() -> Memory:
    return Memory(samples=3, limits=Limits(events=5))


@pytest.fixture
def tell(memory: Memory) -> Teller:
    return Teller(memory)


def told(follower: Follower) -> list[int]:
    """The positions of everything that it has to tell."""
    found = [event.position for event in follower.take(1000)]
    while follower.is_behind:
        found += [event.position for event in follower.take(1000)]
    return found


def a_follower(memory: Memory, wish: Wish, begin: Past | None = None) -> Follower:
    follower = Feed(memory).follow(wish)
    if begin is not None:
        follower.begin(begin)
    return follower


def positions(memory: Memory, begin: Past, types: frozenset[str] = DEFAULT) -> list[int]:
    """Of what is told to who begins there."""
    return told(a_follower(memory, Wish(types), begin))


# which records


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(DEFAULT), [1, 2, 4, 5, 6]),
        (Wish(ALL), [1, 2, 3, 4, 5, 6]),
        (Wish(frozenset({"oom"})), [4]),
        (Wish(frozenset({"stats"})), [3]),
        (Wish(DEFAULT, container=WEB), [1, 4, 5]),
        (Wish(DEFAULT, container=WEB[:12]), [1, 4, 5]),
        (Wish(DEFAULT, container="web"), [1, 4, 5]),
        (Wish(DEFAULT, container="/web"), [1, 4, 5]),
        (Wish(DEFAULT, container="/docker/web"), [1, 4, 5]),
        (Wish(DEFAULT, container="docker/web"), [1, 4, 5]),
        (Wish(DEFAULT, container="4f6"), [5]),
        (Wish(DEFAULT, container="4f6b"), [1, 2, 4, 5, 6]),
        (Wish(DEFAULT, runtime="raw"), [2, 5, 6]),
        (Wish(DEFAULT, labels=[("team", None)]), [1, 4, 5]),
        (Wish(DEFAULT, labels=[("team", "shop")]), [1, 4, 5]),
        (Wish(DEFAULT, labels=[("team", "other")]), [5]),
        (Wish(DEFAULT, labels=[("team", "shop"), ("tier", None)]), [5]),
        (Wish(DEFAULT, runtime="docker", container=DB), [5]),
    ],
)
def test_filters_are_the_same_for_past_and_present(memory: Memory, tell: Teller, wish: Wish, expected: list[int]) -> None:
    """By type, container, label and runtime; what is said about the stream passes the filters of containers."""
    live = a_follower(memory, wish)
    web: dict[str, Any] = {"name": "web", "aliases": ["web"], "labels": {"team": "shop"}, "cgroup_path": "/docker/web"}
    db: dict[str, Any] = {"runtime": "raw", "name": "/db", "aliases": [], "labels": {}, "cgroup_path": "/db"}
    tell.created(WEB, **web)
    tell.created(DB, **db)
    tell.sampled(WEB, **web)
    tell.say(m.OOM, container_id=WEB, **web)
    tell.say(m.CONTROL, "control.gap")
    tell.deleted(DB, **db)
    assert told(live) == expected
    resumed = a_follower(memory, wish, past(memory, wish.types, Place(memory.epoch, 0), 0))
    assert told(resumed) == [position for position in expected if position != 3]


# where it goes on


def test_an_id_in_memory_is_resumed_exactly(memory: Memory, tell: Teller) -> None:
    """What was said behind it, in order over all kinds; no gap, although older events were forgotten."""
    for number in range(7):
        tell.created(f"{number:064x}")
    tell.say(m.OOM)
    tell.say(m.CONTROL, "control.gap")
    for position in range(2, 10):
        behind = past(memory, DEFAULT, Place(memory.epoch, position), 0)
        assert (positions(memory, behind), behind.gap) == ([*range(position + 1, 10)], None)


def test_what_was_forgotten_is_a_gap_of_its_kinds(memory: Memory, tell: Teller) -> None:
    """Of the kinds that something is missing of, from the id that was given to the first that there is; others miss nothing."""
    tell.say(m.OOM)
    for number in range(7):
        tell.created(f"{number:064x}")
    at = f"{memory.epoch}-"
    begin = past(memory, DEFAULT, Place(memory.epoch, 1), 0)
    assert positions(memory, begin) == [4, 5, 6, 7, 8]
    assert begin.gap == following.Gap("forgotten", f"{at}1", f"{at}4", ["lifecycle"])
    assert past(memory, frozenset({"oom"}), Place(memory.epoch, 0), 0).gap is None
    assert past(memory, DEFAULT, Place(memory.epoch, 3), 0).gap is None


@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_gap_ends_behind_all_that_was_forgotten(memory: Memory, tell: Teller, position: int) -> None:
    """However early the first event is that is told: of another type, something may be missing far behind it."""
    tell.created(DB)
    tell.created(DB)
    tell.created(DB)
    tell.say(m.OOM)
    for number in range(20):
        tell.created(f"{number:064x}")
    begin = past(memory, DEFAULT, Place(memory.epoch, position), 0)
    assert positions(memory, begin) == [4, *range(20, 25)]
    assert begin.gap == following.Gap("forgotten", f"{memory.epoch}-{position}", f"{memory.epoch}-20", ["lifecycle"])


def test_samples_are_missing_until_now_whatever_else_is(memory: Memory, tell: Teller) -> None:
    """With forgotten events, too: both types are named, and nothing is said to be complete before the last sample."""
    for number in range(7):
        tell.created(f"{number:064x}")
    tell.sampled(WEB)
    at = f"{memory.epoch}-"
    forgotten = following.Gap("forgotten", f"{at}0", f"{at}8", ["lifecycle", "stats"])
    assert past(memory, ALL, Place(memory.epoch, 0), 0).gap == forgotten
    assert past(memory, ALL, Place(memory.epoch, 5), 0).gap == following.Gap("samples", f"{at}5", f"{at}8", ["stats"])


def test_all_of_it_forgotten_ends_at_an_id_that_was_told(memory: Memory, tell: Teller) -> None:
    """By age, the newest goes, too; who resumes behind the end of the gap is no stranger."""
    tell.created(WEB)
    memory.events(m.LIFECYCLE).expire(tell.now_ms + 10**12)
    gap = past(memory, DEFAULT, Place(memory.epoch, 0), 0).gap
    assert gap == following.Gap("forgotten", f"{memory.epoch}-0", f"{memory.epoch}-1", ["lifecycle"])
    assert gap is not None
    assert past(memory, DEFAULT, following.place(gap.missed_to), 0).gap is None


def test_what_this_run_forgot_is_missing_for_strangers_too(memory: Memory, tell: Teller) -> None:
    """An id of another run, one that was never told, or none: the gap reaches into this run."""
    tell.say(m.OOM)
    for number in range(9):
        tell.created(f"{number:064x}")
    for begin in (
        past(memory, DEFAULT, Place(7, 3), 0),
        past(memory, DEFAULT, Moment(0), 0),
        past(memory, DEFAULT, Place(memory.epoch, 11), 0),
        following.of_unknown(memory, DEFAULT, "what?"),
    ):
        assert positions(memory, begin) == [1, *range(6, 11)]
        assert begin.gap is not None
        assert (begin.gap.missed_to, begin.gap.types) == (f"{memory.epoch}-6", sorted(DEFAULT))


@pytest.mark.parametrize(
    ("types", "behind", "reason", "end"),
    [(DEFAULT, Place(7, 3), "other_run", 1), (DEFAULT, Place(0, 0), "other_run", 1), (ALL, Place(7, 3), "other_run", 2)],
)
def test_an_id_of_another_run_brings_everything_behind_a_gap(
    memory: Memory, tell: Teller, types: frozenset[str], behind: Place, reason: str, end: int
) -> None:
    """Its positions say nothing here."""
    tell.created(WEB)
    tell.deleted(WEB)
    begin = past(memory, types, behind, 0)
    assert positions(memory, begin) == [1, 2]
    assert begin.gap == following.Gap(reason, str(behind), f"{memory.epoch}-{end}", sorted(types))


def test_an_id_that_was_never_told_brings_everything_behind_a_gap(memory: Memory, tell: Teller) -> None:
    """One that lies ahead, or is no id at all: nothing that happens is left out because of it."""
    tell.created(WEB)
    ahead = past(memory, DEFAULT, Place(memory.epoch, 10**9), 0)
    garbage = following.of_unknown(memory, DEFAULT, "what?")
    for begin in (ahead, garbage):
        assert begin.gap is not None
        assert begin.gap.reason == "unknown_id"
        follower = a_follower(memory, Wish(DEFAULT), begin)
        tell.say(m.CONTROL, "control.gap")
        assert told(follower)[0] == 1
        assert told(follower) == []


def test_samples_are_not_repeated_and_that_is_said(memory: Memory, tell: Teller) -> None:
    """They are in memory as numbers, not as records; who had them all is told nothing."""
    tell.created(WEB)
    tell.sampled(WEB)
    begin = past(memory, ALL, Place(memory.epoch, 1), 0)
    assert (positions(memory, begin), begin.gap) == (
        [],
        following.Gap("samples", f"{memory.epoch}-1", f"{memory.epoch}-2", ["stats"]),
    )
    assert past(memory, ALL, Place(memory.epoch, 2), 0).gap is None
    assert past(memory, DEFAULT, Place(memory.epoch, 1), 0).gap is None


def test_since_a_time(memory: Memory, tell: Teller) -> None:
    """What was told at that time or later; what is older than this run, or forgotten, is a gap."""
    for number in range(4):
        tell.created(f"{number:064x}")
        tell.now_ms += 1000
    at = tell.now_ms - 2000
    for since in (Moment(at), Ago(2500)):
        begin = past(memory, DEFAULT, since, at + 2500)
        assert (positions(memory, begin), begin.gap) == ([3, 4], None)
    before = past(memory, DEFAULT, Moment(memory.epoch - 1), 0)
    assert before.gap is not None
    assert (before.gap.reason, len(positions(memory, before))) == ("other_run", 4)
    for number in range(4, 8):
        tell.created(f"{number:064x}")
    lost = past(memory, DEFAULT, Moment(at - 2000), 0)
    assert lost.gap is not None
    assert (lost.gap.reason, lost.gap.missed_from[-1], lost.gap.types) == ("forgotten", "Z", ["lifecycle"])
    assert past(memory, DEFAULT, Moment(at + 2000), 0).gap is None


def test_a_time_is_a_place_before_anything_is_taken(memory: Memory, tell: Teller) -> None:
    """Who asks for ten minutes and is let go at once does not come back for everything. Samples of then are missing, anyhow."""
    for number in range(4):
        tell.created(f"{number:064x}")
        tell.now_ms += 1000
    now_ms = tell.now_ms
    for since, last in ((Ago(2500), 2), (Moment(now_ms - 1500), 3), (Moment(0), 0), (Ago(0), 4)):
        begin = past(memory, ALL, since, now_ms)
        assert begin.gap is not None
        assert "stats" in begin.gap.types
        assert a_follower(memory, Wish(ALL), begin).last == last


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1763976000000-12", Place(1763976000000, 12)),
        ("10m", Ago(600_000)),
        ("2026-01-02T15:04:05Z", Moment(1_767_366_245_000)),
        ("2026-01-02T15:04:05.0001Z", Moment(1_767_366_245_001)),
        ("0001-01-01T00:00:00+23:00", Moment(0)),
        ("9999-12-31T23:59:59-23:00", Moment(253_402_300_799_999)),
        ("9999-12-31T23:59:59.9999Z", Moment(253_402_300_799_999)),
    ],
)
def test_since_is_an_id_a_duration_or_a_time(text: str, value: Any) -> None:
    """A time between two milliseconds begins with the next: nothing before it is told."""
    assert following.since.read(text) == value


@pytest.mark.parametrize(
    "text", ["", "5", "1767366245", "-1s", "10 m", "1-", "-1", "1-2-3", "yesterday", "9" * 400 + "d", "2026-13-02T15:04:05Z"]
)
def test_anything_else_is_refused(text: str) -> None:
    """A duration that was mistyped must not bring everything."""
    with pytest.raises(ValueError, match="is neither"):
        following.since.read(text)


# too slow


def test_who_is_behind_what_is_forgotten_is_lost(memory: Memory, tell: Teller) -> None:
    """Of what it wants: as long as nothing of that is gone before it was taken, it may take its time."""
    slow, killed, fast = (a_follower(memory, Wish(frozenset({kind}))) for kind in ("lifecycle", "oom", "lifecycle"))
    tell.say(m.OOM)
    seen = []
    for number in range(30):
        tell.created(f"{number:064x}")
        seen += told(fast)
        assert slow.is_lost == (number >= 5)
    assert seen == [*range(2, 32)]
    assert (fast.is_lost, killed.is_lost, told(killed)) == (False, False, [1])
    assert slow.last == 0


def test_what_was_missing_at_the_beginning_is_no_loss(memory: Memory, tell: Teller) -> None:
    """It was told as a gap, however far behind it older events of other types are taken; what is forgotten later is one."""
    tell.say(m.OOM)
    for number in range(9):
        tell.created(f"{number:064x}")
    follower = a_follower(memory, Wish(DEFAULT), past(memory, DEFAULT, Place(7, 3), 0))
    assert not follower.is_lost
    assert [event.position for event in follower.take(1)] == [1]
    assert not follower.is_lost
    tell.created(WEB)
    assert follower.is_lost


def test_samples_are_held_once_for_all_and_within_bounds(memory: Memory, tell: Teller) -> None:
    """Who is behind them is told which it misses, once, and goes on with newer ones; nobody follows them: none are held."""
    feed = Feed(memory, samples_bytes=20_000)
    slow, fast = feed.follow(Wish(ALL)), feed.follow(Wish(ALL))
    seen = []
    for number in range(30):
        tell.sampled(WEB)
        if number % 10 == 0:
            tell.created(f"{number:064x}")
        seen += told(fast)
        assert feed.held_bytes <= 20_000
    assert (seen, fast.missed()) == ([*range(1, 34)], None)
    assert slow.missed() == following.Gap("samples", f"{memory.epoch}-0", f"{memory.epoch}-33", ["stats"])
    assert (slow.missed(), slow.is_lost) == (None, False)
    tell.sampled(WEB)
    assert told(slow) == [2, 13, 24, 34]
    slow.close()
    assert feed.held_bytes > 0
    fast.close()
    assert (len(feed), feed.held_bytes, memory._watchers, memory._sample_watchers) == (0, 0, [], [])


def test_samples_are_heard_of_only_while_somebody_wants_them(memory: Memory, tell: Teller) -> None:
    """Also when that changes while others listen; these miss nothing by it."""
    feed = Feed(memory)
    first = feed.follow(Wish(DEFAULT))
    tell.sampled(WEB)
    assert (feed.held_bytes, memory._sample_watchers) == (0, [])
    tell.created(DB)
    second = feed.follow(Wish(ALL))
    tell.sampled(WEB)
    tell.created(DB)
    assert (told(second), told(first)) == ([3, 4], [2, 4])
    second.close()
    tell.created(DB)
    assert (told(first), feed.held_bytes, memory._sample_watchers) == ([5], 0, [])


def test_who_waits_is_called_once_for_what_it_wants(memory: Memory, tell: Teller) -> None:
    """What others want neither calls it nor has to be looked at by it later."""
    feed, called = Feed(memory), []
    follower = feed.follow(Wish(DEFAULT, container=WEB))
    assert told(follower) == []
    follower.wait(lambda: called.append(memory.position))
    tell.created(DB)
    tell.sampled(WEB)
    tell.say(m.HOST)
    assert (called, follower.last) == ([], 3)
    tell.created(WEB)
    tell.say(m.CONTROL, "control.gap")
    assert (called, follower.last) == ([4], 1)
    assert told(follower) == [4, 5]
    follower.wait(lambda: called.append(memory.position))
    follower.close()
    follower.close()
    tell.say(m.CONTROL, "control.gap")
    assert (called, len(feed), memory._watchers) == ([4], 0, [])


@pytest.mark.parametrize("types", [DEFAULT, ALL])
def test_what_is_taken_at_once_is_bounded(memory: Memory, tell: Teller, types: frozenset[str]) -> None:
    """In bytes, and in what is looked at, wanted or not: the rest comes with the next times."""
    memory = tell.memory = Memory(samples=3)
    follower = a_follower(memory, Wish(types))
    other = a_follower(memory, Wish(frozenset({"oom"}), container=DB))
    for _ in range(3 * LOOKED_AT):
        tell.created(WEB)
        tell.say(m.OOM, container_id=WEB)
    assert len(follower.take(1)) == 1
    assert follower.is_behind
    assert len(follower.take(10**9)) == LOOKED_AT
    turns = 0
    while other.take(10**9) == [] and other.is_behind:
        turns += 1
    assert turns == 2
    assert told(follower) == [*range(LOOKED_AT + 2, 6 * LOOKED_AT + 1)]
    assert not follower.is_behind


def test_the_last_position_moves_on_where_nothing_is_wanted(memory: Memory, tell: Teller) -> None:
    """A heartbeat moves a client's place on: what it does not want may be forgotten, and is no gap for it."""
    follower = a_follower(memory, Wish(frozenset({"oom"})))
    assert told(follower) == []
    follower.wait(lambda: None)
    for number in range(20):
        tell.created(f"{number:064x}")
    assert follower.last == 20
    tell.say(m.OOM)
    tell.created(WEB)
    assert follower.last == 0
    assert told(follower) == [21]
    assert follower.last == 22


async def test_pasts_are_told_by_turns(house: House) -> None:
    """However fast a client takes its own, the next one has its turn after each part."""
    for number in range(4 * LOOKED_AT):
        house.tell.created(f"{number:064x}")
    order: list[str] = []

    async def read(name: str) -> None:
        asked = {**NOTHING, "since": Place(house.memory.epoch, house.memory.position - 4 * LOOKED_AT)}
        async for part in follow(house.context, {**asked, "accept": ""}).lines:
            order.extend(name if b"data: " in part else "")

    clients = [asyncio.ensure_future(read(name)) for name in "abc"]
    for _ in range(1000):
        await asyncio.sleep(0)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    assert order == [*"abc"] * (len(order) // 3)
    assert len(order) > 3 * 4


# cut off, at random


class Reader:
    """A client over one answer after another, as the standard says that Server-Sent Events are read."""

    def __init__(self, house: House, query: dict[str, Any]) -> None:
        self.house, self.query = house, query
        self.last_id: str | None = None
        self.seen: list[str] = []
        self.gaps: list[dict[str, Any]] = []
        self._lines: Lines | None = None
        self._coming: asyncio.Future[bytes] | None = None

    def connect(self) -> None:
        asked = {**NOTHING, **self.query, "accept": "text/event-stream", "last-event-id": self.last_id}
        self._lines = follow(self.house.context, asked)

    async def part(self) -> bytes:
        """The next part, if there is one."""
        assert self._lines is not None
        self._coming = self._coming or asyncio.ensure_future(anext(self._lines.lines))
        for _ in range(20):
            if self._coming.done():
                part, self._coming = self._coming.result(), None
                return part
            await asyncio.sleep(0)
        return b""

    def take(self, part: bytes) -> None:
        for block in part.split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
            if b"id" in fields:
                self.last_id = fields[b"id"].decode()
            if fields.get(b"event") == b"gap":
                self.gaps.append(json.loads(fields[b"data"]))
            elif b"data" in fields:
                self.seen.append(json.loads(fields[b"data"])["id"])

    async def cut(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait({self._coming})
            self._coming = None
        assert self._lines is not None
        self._lines.close()


@pytest.mark.parametrize("seed", [1, 20_251_126, 4_127_000_043])
@pytest.mark.parametrize(
    ("query", "wanted"),
    [({}, DEFAULT), ({"types": frozenset({"oom"})}, frozenset({"oom"})), ({"container": WEB}, frozenset({"lifecycle", "oom"}))],
    ids=["everything", "kills", "one container"],
)
@pytest.mark.slow
async def test_cut_off_a_hundred_times_everything_is_told_once(seed: int, query: dict[str, Any], wanted: frozenset[str]) -> None:
    """At any byte, while the past is told or the present, with things happening meanwhile: every event once, in order, no gap."""
    chance = random.Random(seed)
    house = House(Limits(events=10**6, event_bytes=10**9))
    house.tell.say(m.CONTROL, "control.gap")
    expected: list[str] = []

    def happen(most: int) -> None:
        for _ in range(chance.randrange(most)):
            topic = chance.choice((m.LIFECYCLE, m.LIFECYCLE, m.OOM, m.STATS, m.HOST, *((m.CONTROL,) if not query else ())))
            container = chance.choice((WEB, DB))
            about = {} if topic in (m.HOST, m.CONTROL) else {"container_id": container, "incarnation": f"boot.{container[-3:]}"}
            record = house.tell.say(topic, "control.gap" if topic is m.CONTROL else "", **about)
            if topic.short in wanted and (not query.get("container") or container == WEB):
                expected.append(record.id)

    reader = Reader(house, query)
    reader.connect()
    reader.take(await reader.part())
    cuts = 0
    while cuts < 100:
        happen(chance.choice((3, 10, 60)))
        part = await reader.part()
        if chance.random() < 0.8:
            reader.take(part)
            for _ in range(chance.choice((0, 0, 5, 50))):  # until it is with the present, or not
                reader.take(await reader.part())
            continue
        reader.take(part[: chance.randrange(len(part) + 1)])
        await reader.cut()
        cuts += 1
        happen(chance.choice((1, 1, 30)))
        reader.connect()
    while part := await reader.part():
        reader.take(part)
    await reader.cut()
    assert len(expected) > 100
    assert reader.seen == expected
    assert not reader.gaps
    assert not house.context.feed
