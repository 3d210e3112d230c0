"""A backlog with a disk behind it: any order of offers, sends, reads, losses of the disk, against what must always hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamer.model.messages import Lane
from streamer.model.wire import Entry
from streamer.outbox.backlog import Backlog
from streamer.outbox.lane import Head
from streamer.testing.messages import Speaker, encoded

MANY, LARGE = 1000, 10_000_000
SIZE = encoded([Speaker().stats("a")])[0].size
LANES: tuple[Lane, ...] = ("durable", "stats")


def _offer(backlog: Backlog, entries: list[Entry], *, stored: bool) -> None:
    for entry in entries:
        backlog.offer(entry, stored=stored)


def _fill(lane: Lane, backlog: Backlog, disk: list[Entry], most: int = MANY) -> None:
    """Read back as the disk's reader does: no further once a window is full."""
    queue = backlog.lane(lane)
    wanted = [e for e in disk if queue.disk_after < e.position <= queue.disk_through and e.topic.lane == lane]
    found: list[Entry] = []
    while len(found) < min(most, len(wanted)) and sum(e.size for e in found) < queue.window_bytes:
        found.append(wanted[len(found)])
    backlog.refill(lane, found, found[-1].position if len(found) < len(wanted) else queue.disk_through)


def test_beyond_its_window_a_lane_stays_on_disk_and_comes_back_in_order() -> None:
    """Memory holds no more than the window; what was left on disk is asked for as the head empties."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(100)])
    backlog = Backlog(memory_bytes=LARGE, window_bytes=10 * SIZE)
    _offer(backlog, entries, stored=True)
    lane = backlog.lane("durable")
    assert lane.head_bytes <= 12 * SIZE and lane.messages == 100 and backlog.statistics().messages == 100
    taken: list[int] = []
    while backlog.statistics().messages:
        if backlog.wants("durable"):
            _fill("durable", backlog, entries, most=7)
        batch = backlog.take(5, LARGE)
        taken += [entry.position for entry in batch]
        backlog.settle()
    assert taken == [entry.position for entry in entries] and not backlog.losses()
    assert not lane.lags


def test_while_the_disk_takes_nothing_the_newest_wait_in_memory_behind_it() -> None:
    """Head, disk, tail: the order is kept over a failure of the disk in the middle, and after it the tail is stowed."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(60)])
    backlog = Backlog(memory_bytes=LARGE, window_bytes=5 * SIZE)
    _offer(backlog, entries[:30], stored=True)
    _offer(backlog, entries[30:45], stored=False)
    assert len(backlog.lane("durable").tail) == 15
    backlog.lane("durable").stow(lambda _: True)
    _offer(backlog, entries[45:], stored=True)
    assert not backlog.lane("durable").tail
    taken: list[int] = []
    while backlog.statistics().messages:
        _fill("durable", backlog, entries)
        taken += [entry.position for entry in backlog.take(MANY, LARGE)]
        backlog.settle()
    assert taken == [entry.position for entry in entries]


def test_with_memory_full_behind_it_the_disk_is_read_back_a_window_at_a_time() -> None:
    """What the disk did not take fills the memory there is; what is older has to go first all the same, and is on top of it."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(100)])
    backlog = Backlog(memory_bytes=20 * SIZE, window_bytes=4 * SIZE)
    lane = backlog.lane("durable")
    _offer(backlog, entries[:25], stored=True)
    _offer(backlog, entries[25:60], stored=False)
    assert lane.overflowed and lane.tail_bytes > 12 * SIZE and 18 * SIZE < lane.head_bytes + lane.tail_bytes <= 20 * SIZE
    later = entries[60:]
    most = 0
    taken: list[int] = []
    for entry in later:
        if backlog.wants("durable"):
            _fill("durable", backlog, entries)
        most = max(most, lane.head_bytes + lane.tail_bytes)
        backlog.offer(entry)
        assert lane.head_bytes + lane.tail_bytes <= 20 * SIZE
        if lane.disk_messages:
            taken += [entry.position for entry in backlog.take(1, LARGE)]
            backlog.settle()
    assert 20 * SIZE < most <= (20 + 4 + 1) * SIZE
    taken += [entry.position for entry in backlog.take(MANY, LARGE)]
    assert taken == sorted(taken) and set(taken) >= {
        *range(1, 21),
        100,
    }  # the last of the disk is all in memory, and goes for the newest
    assert len(taken) + sum(loss.count for loss in backlog.losses()) == 100


def test_a_disk_that_takes_nothing_any_more_loses_nothing_of_what_it_took() -> None:
    """The sink is away: memory fills with what the disk does not take, and none of what it holds is dropped for that."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(200)])
    backlog = Backlog(memory_bytes=20 * SIZE, window_bytes=8 * SIZE)
    _offer(backlog, entries[:100], stored=True)
    for entry in entries[100:]:
        if backlog.wants("durable"):
            _fill("durable", backlog, entries[:100])
        backlog.offer(entry)
    lost = backlog.losses()
    assert {(loss.cause, loss.first_seq > 100) for loss in lost} == {("overflow", True)}
    taken: list[int] = []
    while backlog.statistics().messages:
        if backlog.wants("durable"):
            _fill("durable", backlog, entries[:100])
        taken += [entry.position for entry in backlog.take(5, LARGE)]
        backlog.settle()
    assert taken[:100] == list(range(1, 101)) and taken == sorted(taken)
    assert len(taken) + sum(loss.count for loss in lost) == 200


@pytest.mark.parametrize("trimmed", [False, True])
def test_what_went_from_memory_and_the_disk_took_after_all_is_lost_once(trimmed: bool) -> None:
    """A write that hung commits what was counted as lost meanwhile: it is neither sent nor counted again."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(100)])
    backlog = Backlog(memory_bytes=12 * SIZE, window_bytes=4 * SIZE)
    lane = backlog.lane("durable")
    _offer(backlog, entries[:40], stored=True)
    _offer(backlog, entries[40:], stored=False)
    kept = [entry.position for entry in lane.tail]
    assert kept[0] > 60 and kept[-1] == 100 and kept == list(range(kept[0], 101))  # the oldest of the tail went
    lane.stow(lambda _: True)
    disk = [*entries[:60], *(entry for entry in entries if entry.position in kept)]
    expected = list(range(1, 41))
    if trimmed:
        expected = [entry.position for entry in lane.head]
        heads = [Head(e.position, e.topic, e.epoch, e.seq, e.size) for e in disk[:55]]
        backlog.gone_from_disk("durable", heads)
        disk = disk[55:]
    taken: list[int] = []
    while backlog.statistics().messages:
        if backlog.wants("durable"):
            _fill("durable", backlog, disk)
        taken += [entry.position for entry in backlog.take(5, LARGE)]
        backlog.settle()
    assert taken == expected + kept and lane.disk_messages == 0
    assert len(taken) + sum(loss.count for loss in backlog.losses()) == 100
    assert not lane.overflowed
    backlog.offer(encoded([speaker.oom("a")], first_position=101)[0], stored=True)
    assert [entry.position for entry in backlog.take(5, LARGE)] == [101]


def test_what_is_in_flight_counts_as_in_memory() -> None:
    """It may come back: with little memory, a sink that fails each time does not fill it with what the disk has."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(400)])
    backlog = Backlog(memory_bytes=20 * SIZE, window_bytes=LARGE)
    lane = backlog.lane("durable")
    _offer(backlog, entries, stored=True)
    for _ in range(20):
        backlog.take(MANY, LARGE)
        for _ in range(3):
            if backlog.wants("durable"):
                _fill("durable", backlog, entries)
        backlog.give_back()
        assert lane.head_bytes <= 22 * SIZE
    taken: list[int] = []
    for turn in itertools.count():
        batch = backlog.take(MANY, LARGE)
        if backlog.wants("durable"):
            _fill("durable", backlog, entries)
        if turn % 2:
            taken += [entry.position for entry in batch]
            backlog.settle()
        else:
            backlog.give_back()
        if not backlog.statistics().messages:
            break
    assert taken == list(range(1, 401)) and not backlog.losses()


def test_with_little_memory_the_disk_is_used_all_the_same() -> None:
    """A window as wide as the memory would be full, and lose, before anything is left on disk."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(100)])
    for window in (10 * SIZE, LARGE):
        backlog = Backlog(memory_bytes=10 * SIZE, window_bytes=window)
        _offer(backlog, entries, stored=True)
        lane = backlog.lane("durable")
        assert not backlog.losses() and lane.messages == 100 and lane.head_bytes <= 7 * SIZE
        backlog.take(MANY, LARGE)
        _fill("durable", backlog, entries)
        backlog.give_back()
        assert not backlog.losses() and lane.messages == 100


def test_what_the_disk_lost_is_counted_by_topic_and_epoch() -> None:
    """A stretch that cannot be read comes back as a loss with its numbers, and what came after it goes on."""
    before, after = Speaker(epoch=1000), Speaker(epoch=2000)
    entries = encoded([*(before.oom("a") for _ in range(20)), *(after.oom("a") for _ in range(20))])
    backlog = Backlog(memory_bytes=LARGE, window_bytes=5 * SIZE)
    _offer(backlog, entries[:35], stored=True)
    _offer(backlog, entries[35:], stored=False)
    in_memory = len(backlog.lane("durable").head)
    backlog.lose_disk("durable")
    lost = {(loss.topic.short, loss.epoch): (loss.cause, loss.first_seq, loss.last_seq, loss.count) for loss in backlog.losses()}
    assert lost == {
        ("oom", 1000): ("unreadable", in_memory + 1, 20, 20 - in_memory),
        ("oom", 2000): ("unreadable", 1, 15, 15),
    }
    taken = [entry.position for entry in backlog.take(MANY, LARGE)]
    assert taken == [*range(1, in_memory + 1), *range(36, 41)]


def test_what_a_sink_does_not_want_is_no_loss_of_its() -> None:
    """The disk drops the oldest of all topics; a sink counts its own."""
    speaker = Speaker()
    entries = encoded([m for _ in range(20) for m in (speaker.oom("a"), speaker.lifecycle("a"))])
    backlog = Backlog(memory_bytes=LARGE, window_bytes=3 * SIZE)
    _offer(backlog, [entry for entry in entries if entry.topic.short == "oom"], stored=True)
    backlog.gone_from_disk("durable", [Head(e.position, e.topic, e.epoch, e.seq, e.size) for e in entries[:30]])
    (loss,) = backlog.losses()
    in_memory = len(backlog.lane("durable").head)
    assert (loss.topic.short, loss.first_seq, loss.last_seq) == ("oom", in_memory + 1, 15)
    assert backlog.statistics().messages == in_memory + 5


def test_facts_do_not_wait_for_samples_that_lag() -> None:
    """With old samples on disk, `deleted` and whatever else happens goes at once; the samples follow and none is lost."""
    speaker = Speaker()
    samples = encoded([speaker.stats("a") for _ in range(50)])
    backlog = Backlog(memory_bytes=LARGE, window_bytes=5 * SIZE)
    _offer(backlog, samples, stored=True)
    (deleted,) = encoded([speaker.lifecycle("a", "deleted")], first_position=51)
    backlog.offer(deleted, stored=True)
    assert [entry.position for entry in backlog.take(MANY, LARGE)] == [51]
    backlog.settle()
    taken: list[int] = []
    while backlog.statistics().messages:
        _fill("stats", backlog, samples)
        taken += [entry.position for entry in backlog.take(MANY, LARGE)]
        backlog.settle()
    assert taken == list(range(1, 51)) and not backlog.losses()


def test_how_far_a_sink_has_come_is_never_beyond_what_it_still_needs() -> None:
    """With topics of the lane that it does not want, in flight, in memory or on disk: the cursor is right before the first."""
    speaker = Speaker()
    entries = encoded([speaker.oom("a") for _ in range(10)], first_position=101)
    backlog = Backlog(memory_bytes=LARGE, window_bytes=3 * SIZE)
    assert backlog.reached("durable", 100) == 100
    _offer(backlog, entries, stored=True)
    assert backlog.reached("durable", 110) == 100
    backlog.take(2, LARGE)
    assert backlog.reached("durable", 110) == 100
    backlog.settle()
    assert backlog.reached("durable", 110) == 102
    while backlog.take(MANY, LARGE):
        backlog.settle()
    assert backlog.reached("durable", 110) == backlog.lane("durable").disk_after < 110
    while backlog.wants("durable"):
        _fill("durable", backlog, entries)
        backlog.take(MANY, LARGE)
        backlog.settle()
    assert backlog.reached("durable", 110) == 110


class DiskMachine(RuleBasedStateMachine):
    """A backlog and a model of the disk: whatever happens, each message is sent, waits or is counted as lost, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.speaker = Speaker()
        self.backlog = Backlog(memory_bytes=6_000, window_bytes=2_000)
        self.disk: dict[int, Entry] = {}
        self.works = True
        self.offered: dict[int, Entry] = {}
        self.settled: list[int] = []
        self.flying: list[Entry] = []
        self.lost = 0

    @rule(
        facts=st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(("created", "deleted", "stats", "stats", "oom"))),
            min_size=1,
            max_size=3,
        )
    )
    def offer(self, facts: list[tuple[str, str]]) -> None:
        say = self.speaker
        messages = [
            {"stats": say.stats, "oom": say.oom}.get(kind, lambda name, kind=kind: say.lifecycle(name, kind))(container)
            for container, kind in facts
        ]
        entries = encoded(messages, first_position=len(self.offered) + 1)
        self.offered.update((entry.position, entry) for entry in entries)
        stored = [lane for lane in LANES if self.works and (lane == "durable" or self.backlog.lane("stats").lags)]
        self.disk.update((entry.position, entry) for entry in entries if entry.topic.lane in stored)
        self.backlog.offer_all(entries, stored=stored)

    @precondition(lambda self: not self.flying)
    @rule(messages=st.integers(1, 5))
    def take(self, messages: int) -> None:
        self.flying = self.backlog.take(messages, 3_000)

    @precondition(lambda self: bool(self.flying))
    @rule(arrived=st.booleans())
    def answer(self, arrived: bool) -> None:
        if arrived:
            self.settled += [entry.position for entry in self.flying]
            self.backlog.settle()
        else:
            self.backlog.give_back()
        self.flying = []

    @rule(lane=st.sampled_from(LANES), most=st.integers(1, 8))
    def read(self, lane: Lane, most: int) -> None:
        if self.backlog.wants(lane):
            _fill(lane, self.backlog, [self.disk[position] for position in sorted(self.disk)], most)

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 6))
    def trim(self, lane: Lane, count: int) -> None:
        gone = [self.disk[position] for position in sorted(self.disk) if self.disk[position].topic.lane == lane][:count]
        for entry in gone:
            del self.disk[entry.position]
        self.backlog.gone_from_disk(lane, [Head(e.position, e.topic, e.epoch, e.seq, e.size) for e in gone])

    @rule(late=st.booleans())
    def fail_or_mend(self, late: bool) -> None:
        """`late`: writes that hung come to an end too, of what was lost in memory meanwhile."""
        self.works = not self.works
        if self.works:
            hung = [entry for position, entry in self.offered.items() if position not in self.settled] if late else []
            for entry in (*self.backlog.in_memory(), *hung):
                if entry.topic.lane == "durable" or self.backlog.lane("stats").lags:
                    self.disk[entry.position] = entry
            for lane in LANES:
                self.backlog.lane(lane).stow(lambda _: True)

    @rule()
    def lose(self) -> None:
        self.disk.clear()
        [self.backlog.lose_disk(lane) for lane in LANES]

    @invariant()
    def everything_is_accounted_for(self) -> None:
        for loss in self.backlog.losses():
            assert loss.first_seq <= loss.last_seq and loss.count <= loss.last_seq - loss.first_seq + 1
            self.lost += loss.count
        assert len(set(self.settled)) == len(self.settled)
        assert len(self.offered) == len(self.settled) + self.backlog.statistics().messages + self.lost

    @invariant()
    def each_topic_is_in_order(self) -> None:
        for short in ("lifecycle", "stats", "oom"):
            positions = [p for p in self.settled if self.offered[p].topic.short == short]
            assert positions == sorted(positions)

    @invariant()
    def created_comes_before_samples(self) -> None:
        place = {position: index for index, position in enumerate(self.settled)}
        for position in self.settled:
            entry = self.offered[position]
            if entry.topic.short == "stats":
                for other in self.offered.values():
                    if other.position < position and other.topic.short == "lifecycle" and other.subject == entry.subject:
                        assert other.position not in place or place[other.position] < place[position]

    @invariant()
    def memory_is_bounded(self) -> None:
        largest = max((entry.size for entry in self.offered.values()), default=0)
        for lane in LANES:
            queue = self.backlog.lane(lane)
            most = 6_000 + largest + sum(entry.size for entry in self.flying)
            read_back = 2_000 + largest  # a window, where the tail has filled the rest
            assert queue.tail_bytes <= most and queue.head_bytes + queue.tail_bytes <= most + read_back
            assert queue.disk_messages >= 0 and queue.disk_bytes >= 0
            assert queue.disk_messages == sum(stretch.count for stretch in queue.disk.values())


DiskMachine.TestCase.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDiskMachine = DiskMachine.TestCase
