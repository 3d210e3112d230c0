"""The backlog's promises, one by one and over any sequence of calls."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamer.model.messages import Message
from streamer.model.wire import Entry
from streamer.outbox.backlog import Backlog, LaneStatistics, Loss
from streamer.outbox.retry import delay_seconds
from streamer.testing.messages import Speaker, encoded

MANY, LARGE = 1000, 1_000_000


def _backlog(*messages: Message, memory_bytes: int = LARGE) -> Backlog:
    backlog = Backlog(memory_bytes=memory_bytes)
    for entry in encoded(messages):
        backlog.offer(entry)
    return backlog


def _positions(entries: list[Entry]) -> list[int]:
    return [entry.position for entry in entries]


def _drained(backlog: Backlog) -> list[list[int]]:
    batches = []
    while batch := backlog.take(MANY, LARGE):
        batches.append(_positions(batch))
        backlog.settle()
    return batches


def test_durable_messages_go_first_and_a_batch_is_of_one_lane() -> None:
    """What is durable overtakes samples, and samples have a batch of their own."""
    speaker = Speaker()
    backlog = _backlog(speaker.stats("a"), speaker.lifecycle("b"), speaker.stats("b"), speaker.oom("a"))
    assert _drained(backlog) == [[2, 4], [1, 3]]


def test_deleted_follows_the_samples_of_its_container() -> None:
    """Samples older than `deleted` are acknowledged before it is sent; what stands before it in its lane is not held up."""
    speaker = Speaker()
    backlog = _backlog(
        speaker.oom("x"),
        speaker.stats("a"),
        speaker.stats("b"),
        speaker.lifecycle("a", "deleted"),
        speaker.control(),
        speaker.stats("b"),
    )
    assert _drained(backlog) == [[1], [2, 3], [4, 5], [6]]


def test_samples_wait_for_what_made_their_container() -> None:
    """While `deleted` of one container lets samples go first, those of a container whose `created` still waits stay."""
    speaker = Speaker()
    backlog = _backlog(
        speaker.stats("a"),
        speaker.lifecycle("a", "deleted"),
        speaker.lifecycle("b"),
        speaker.stats("b"),
        speaker.lifecycle("b", "deleted"),
    )
    assert _drained(backlog) == [[1], [2, 3], [4], [5]]


def test_oom_and_control_hold_for_no_sample() -> None:
    """Alerts do not wait for samples of their container."""
    speaker = Speaker()
    assert _drained(_backlog(speaker.stats("a"), speaker.oom("a"), speaker.lifecycle("a", "updated"))) == [[2, 3], [1]]


def test_a_batch_given_back_is_taken_again_in_order() -> None:
    """After a failure the same entries come again, before those that came later."""
    speaker = Speaker()
    backlog = _backlog(*(speaker.stats("a") for _ in range(5)))
    assert _positions(backlog.take(3, LARGE)) == [1, 2, 3]
    backlog.give_back()
    assert _positions(backlog.take(MANY, LARGE)) == [1, 2, 3, 4, 5]


def test_samples_given_back_still_go_before_deleted() -> None:
    """A failed batch of samples is remembered as waiting when `deleted` comes meanwhile."""
    speaker = Speaker()
    backlog = _backlog(speaker.stats("a"))
    backlog.take(MANY, LARGE)
    (deleted,) = encoded([speaker.lifecycle("a", "deleted")], first_position=2)
    backlog.offer(deleted)
    backlog.give_back()
    assert _drained(backlog) == [[1], [2]]


def test_taking_twice_is_a_bug() -> None:
    """One batch is in flight at a time: that is what keeps the order."""
    speaker = Speaker()
    backlog = _backlog(speaker.stats("a"), speaker.stats("a"))
    backlog.take(1, LARGE)
    with pytest.raises(RuntimeError):
        backlog.take(1, LARGE)


def test_a_batch_keeps_to_its_limits() -> None:
    """Messages and bytes are bounded; a single entry may be larger than the bytes."""
    speaker = Speaker()
    backlog = _backlog(*(speaker.stats("a") for _ in range(4)))
    assert _positions(backlog.take(1, LARGE)) == [1]
    backlog.settle()
    assert _positions(backlog.take(MANY, 10)) == [2]
    backlog.settle()
    size = encoded([speaker.stats("a")])[0].size
    assert _positions(backlog.take(MANY, 2 * size + 10)) == [3, 4]


def test_an_overflow_takes_the_oldest_of_its_lane_and_counts_them() -> None:
    """Each lane keeps to its bytes; what went is told once, by topic, with the range of its numbers."""
    speaker = Speaker()
    size = encoded([Speaker().stats("a")])[0].size
    messages = [speaker.stats("a") for _ in range(9)] + [speaker.lifecycle("a")]
    backlog = _backlog(*messages, memory_bytes=4 * size)
    (loss,) = backlog.losses()
    assert (loss.topic.short, loss.cause, loss.first_seq, loss.last_seq, loss.count) == ("stats", "overflow", 1, 5, 5)
    assert backlog.losses() == []
    assert _drained(backlog) == [[10], [6, 7, 8, 9]]


def test_durable_messages_overflow_too_and_never_for_samples() -> None:
    """Samples cannot push durable messages out; only durable ones can, and that is told."""
    speaker = Speaker()
    size = encoded([Speaker().lifecycle("a")])[0].size
    messages = [speaker.lifecycle("a") for _ in range(3)] + [speaker.stats("a") for _ in range(1000)] + [speaker.oom("a")]
    backlog = _backlog(*messages, memory_bytes=3 * size)
    losses = {loss.topic.short: loss for loss in backlog.losses()}
    assert (losses["lifecycle"].first_seq, losses["lifecycle"].count) == (1, 1)
    assert losses["stats"].count > 990


def test_a_sink_too_slow_for_samples_does_not_hold_up_facts() -> None:
    """Once samples overflow, `deleted` does not wait for those of its container: they follow it, and are not lost."""
    speaker = Speaker()
    size = encoded([Speaker().stats("a")])[0].size
    messages = [speaker.stats("b")] + [speaker.stats(name) for name in ("a", "b", "a")] + [speaker.lifecycle("a", "deleted")]
    backlog = _backlog(*messages, memory_bytes=3 * size)
    assert _drained(backlog) == [[5], [2, 3, 4]]
    (loss,) = backlog.losses()
    assert (loss.cause, loss.first_seq, loss.count) == ("overflow", 1, 1)


def test_an_emptied_lane_forgets_that_it_overflowed() -> None:
    """A sink that has caught up gets samples before `deleted` again."""
    speaker = Speaker()
    size = encoded([Speaker().stats("a")])[0].size
    backlog = _backlog(*(speaker.stats("a") for _ in range(4)), memory_bytes=2 * size)
    _drained(backlog)
    for entry in encoded([speaker.stats("a"), speaker.lifecycle("a", "deleted")], first_position=10):
        backlog.offer(entry)
    assert _drained(backlog) == [[10], [11]]


def test_the_rejected_are_counted_and_the_rest_is_settled() -> None:
    """A receipt's rejections are losses with the peer's words."""
    speaker = Speaker()
    backlog = _backlog(*(speaker.oom("a") for _ in range(3)))
    backlog.take(MANY, LARGE)
    backlog.settle([(1, "too large")])
    assert backlog.losses() == [Loss(encoded([speaker.oom("a")])[0].topic, speaker.epoch, "rejected", 2, 2, 1, "too large")]
    assert backlog.statistics().messages == 0


def test_what_is_in_flight_counts_as_waiting() -> None:
    """Until it is settled a batch is left to do; `abandon` counts it as lost with the rest."""
    speaker = Speaker()
    backlog = _backlog(speaker.stats("a"), speaker.oom("a"))
    size = sum(entry.size for entry in backlog.take(MANY, LARGE))
    assert backlog.statistics().durable == LaneStatistics(1, size)
    assert backlog.statistics().messages == 2
    backlog.abandon()
    assert {loss.topic.short: (loss.cause, loss.count) for loss in backlog.losses()} == {"oom": ("gone", 1), "stats": ("gone", 1)}
    assert backlog.statistics().messages == 0


def test_urgency() -> None:
    """Durable messages and full batches go now, a few samples may gather."""
    speaker = Speaker()
    backlog = _backlog()
    assert backlog.urgency(2, LARGE) == "none"
    backlog.offer(encoded([speaker.stats("a")])[0])
    assert backlog.urgency(2, LARGE) == "gather"
    assert backlog.urgency(2, 10) == "now"
    backlog.offer(encoded([speaker.stats("a")], first_position=2)[0])
    assert backlog.urgency(2, LARGE) == "now"
    assert _backlog(speaker.oom("a")).urgency(2, LARGE) == "now"


def test_back_off_doubles_up_to_its_cap_with_half_of_it_left_to_chance() -> None:
    """0.1 s, 0.2 s, … 30 s; the chance moves it between a half and the whole; a million failures are fine."""
    assert [delay_seconds(failures, 1.0) for failures in (1, 2, 3, 9, 10, 1_000_000)] == [0.1, 0.2, 0.4, 25.6, 30.0, 30.0]
    assert delay_seconds(1, 0.0) == 0.05
    assert delay_seconds(100, 0.5, longest=1.0) == 0.75


CONTAINERS = ("a", "b", "c")


class BacklogMachine(RuleBasedStateMachine):
    """Any order of offers, sends and failures, against what must hold at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.speaker = Speaker()
        self.backlog = Backlog(memory_bytes=6_000)
        self.offered: dict[int, Entry] = {}
        self.settled: list[int] = []
        self.rejected: set[int] = set()
        self.flying: list[Entry] = []
        self.lost: Counter[str] = Counter()
        self.position = 0
        self.while_lagging: set[int] = set()  # taken while samples lagged: facts do not wait for them then

    @rule(
        facts=st.lists(
            st.tuples(
                st.sampled_from(CONTAINERS),
                st.sampled_from(("created", "deleted", "stats", "stats", "stats", "oom", "state")),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def offer(self, facts: list[tuple[str, str]]) -> None:
        messages = []
        for container, kind in facts:
            match kind:
                case "stats":
                    messages.append(self.speaker.stats(container))
                case "oom":
                    messages.append(self.speaker.oom(container))
                case "state":
                    messages.append(self.speaker.state(container))
                case _:
                    messages.append(self.speaker.lifecycle(container, kind))
        entries = encoded(messages, first_position=self.position + 1)
        self.position += len(entries)
        self.offered.update((entry.position, entry) for entry in entries)
        self.backlog.offer_all(entries)

    @precondition(lambda self: not self.flying)
    @rule(messages=st.integers(1, 5), size=st.integers(1, 3_000))
    def take(self, messages: int, size: int) -> None:
        lags = self.backlog.lane("stats").lags
        self.flying = self.backlog.take(messages, size)
        if lags:
            self.while_lagging.update(_positions(self.flying))
        assert len(self.flying) <= messages
        assert len({entry.topic.lane for entry in self.flying}) <= 1
        assert self.flying or self.backlog.statistics().messages == 0

    @precondition(lambda self: bool(self.flying))
    @rule(rejected=st.booleans())
    def settle(self, rejected: bool) -> None:
        self.backlog.settle([(0, "no")] if rejected else [])
        if rejected:
            self.rejected.add(self.flying[0].position)
        self.settled += _positions(self.flying)
        self.flying = []

    @precondition(lambda self: bool(self.flying))
    @rule()
    def fail(self) -> None:
        self.backlog.give_back()
        self.flying = []

    def count_losses(self) -> None:
        for loss in self.backlog.losses():
            assert loss.first_seq <= loss.last_seq
            self.lost[loss.topic.short] += loss.count

    @invariant()
    def everything_is_accounted_for(self) -> None:
        """Offered = settled + waiting + lost, for every topic together; nothing is settled twice."""
        self.count_losses()
        assert len(set(self.settled)) == len(self.settled)
        lost = sum(self.lost.values())
        assert len(self.offered) == len(self.settled) - len(self.rejected) + self.backlog.statistics().messages + lost

    @invariant()
    def each_topic_is_in_order(self) -> None:
        for short in ("lifecycle", "stats", "oom", "state"):
            positions = [p for p in self.settled if self.offered[p].topic.short == short]
            assert positions == sorted(positions)

    @invariant()
    def a_container_begins_with_created_and_ends_with_deleted(self) -> None:
        """No sample is acknowledged before an older `created` of its container, or after a younger `deleted`."""
        for index, position in enumerate(self.settled):
            entry = self.offered[position]
            for later in self.settled[index + 1 :]:
                other = self.offered[later]
                if later > position or other.subject != entry.subject:
                    continue
                assert not (entry.ends and other.topic.short == "stats" and position not in self.while_lagging)
                assert not (entry.topic.short == "stats" and other.topic.short == "lifecycle")

    @invariant()
    def the_lanes_keep_to_their_bytes(self) -> None:
        statistics = self.backlog.statistics()
        flying = sum(entry.size for entry in self.flying)
        largest = max((entry.size for entry in self.offered.values()), default=0)
        assert statistics.durable.bytes <= max(6_000, largest) + flying
        assert statistics.stats.bytes <= max(6_000, largest) + flying


BacklogMachine.TestCase.settings = settings(
    max_examples=3 * settings().max_examples // 2,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBacklogMachine = BacklogMachine.TestCase
