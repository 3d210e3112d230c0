"""The tasks around the fleet: what is heard when, and in which order it is said."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from streamer.contracts import Emit, Look
from streamer.manager.fleet import Fleet
from streamer.manager.housekeeping import Pace, Schedule
from streamer.manager.manager import Manager, Sources
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.stats import STATS, Sample
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock
from tests.manager.teller import HOST, T0, appeared, vanished

RAW: Final = "/batch/job"
SECOND: Final = 1_000_000_000
NEVER: Final = 1 << 62
SAMPLED_NS: Final = 20 * SECOND
MANY: Final = 200
STALL_SECONDS: Final = 0.8
SAMPLE: Final = Sample(T0, (0,) * len(STATS))


class Source:
    """One that tells when it is asked."""

    name = "source"
    known_until_ns, settled_seq = 0, 5

    def __init__(self) -> None:
        self.drained: Callable[[], None] = lambda: None

    async def run(self, emit: Emit) -> None: ...

    async def wait_ready(self) -> None: ...

    def reread(self, path: str) -> None: ...

    def drain(self) -> None:
        self.drained()


@pytest.mark.parametrize("end", [o.Emptied(RAW, 7, SAMPLE), vanished(RAW)], ids=["emptied", "vanished"])
async def test_a_kill_is_read_from_the_log_before_its_end_is_said(end: o.Observation) -> None:
    """Those who wait for the kernel's log are woken later than those who wait for the process."""
    cgroups, log, said = Source(), Source(), list[m.Message]()
    manager = Manager(
        Fleet(HOST, docker=False), Sources(cgroups, kernel_log=log), Sampler(), Schedule(Pace(1, 1, False, 0.0)),  # type: ignore[arg-type]  # stand-ins
        publish=lambda messages, _: said.extend(messages), clock=FakeClock(), telemetry=Telemetry(), heartbeat_seconds=10,
    )  # fmt: skip
    manager.observe(appeared(RAW))
    log.drained = lambda: manager.observe(o.OomKilled(5, T0, 42, "job", RAW, RAW, "memcg"))
    manager.observe(end)
    facts = [message.record for message in said if message.topic in (m.LIFECYCLE, m.OOM)]
    assert [type(fact) for fact in facts[:2]] == [m.ContainerLifecycle, m.ContainerOom]
    assert facts[1].pid == 42
    manager.stop("over")


async def test_what_follows_from_a_fact_is_done_behind_the_saying_of_it() -> None:
    """Who waits for the fact has his turn of the event loop before the sampling that it wakes."""
    done: list[str] = []

    class Sampling(Sampler):
        def forget(self, path: str) -> None:
            done.append("forgotten")

    manager = Manager(
        Fleet(HOST, docker=False), Sources(Source()), Sampling(), Schedule(Pace(1, 1, False, 0.0)),  # type: ignore[arg-type]  # stand-ins
        publish=lambda messages, _: done.extend(str(getattr(each.record, "event", "")) for each in messages if each.topic is m.LIFECYCLE),
        clock=FakeClock(), telemetry=Telemetry(), heartbeat_seconds=10,
    )  # fmt: skip
    manager.observe(appeared(RAW))
    manager.observe(vanished(RAW))
    assert done == ["created", "deleted", "forgotten"]
    manager.stop("over")


class Paced:
    """A manager that samples containers which cost time to read, on a clock that goes on only while somebody waits or reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost_seconds: float, stall_at_ns: int) -> None:
        """`cost_seconds`: of one container. The first read after `stall_at_ns` hangs for `STALL_SECONDS`."""
        self.clock, self.telemetry = FakeClock(), Telemetry()
        self.looks = 0
        self._cost_seconds, self._stall_at_ns = cost_seconds, stall_at_ns
        schedule = Schedule(Pace(SECOND, SECOND, False, 0.1))
        fleet = Fleet(HOST, docker=False)
        self.manager = Manager(
            fleet, Sources(Source()), self, schedule, publish=lambda *_: None,  # type: ignore[arg-type]  # stand-ins
            clock=self.clock, telemetry=self.telemetry, heartbeat_seconds=10,
        )  # fmt: skip
        for number in range(MANY):
            self.manager.observe(appeared(f"/batch/{number}", number + 1))
        monkeypatch.setattr(self.manager, "_newcomer_within", self._wait)
        monkeypatch.setattr(random, "random", random.Random(1).random)

    async def _wait(self, limit_seconds: float) -> bool:
        self.clock.advance(limit_seconds)
        if self.clock.monotonic_ns() > SAMPLED_NS:
            raise Over
        return False

    def forget(self, path: str) -> None: ...

    async def read(self, looks: Sequence[Look]) -> list[o.Sampled]:
        self.looks += len(looks)
        self.clock.advance(len(looks) * self._cost_seconds)
        if self.clock.monotonic_ns() > self._stall_at_ns:
            self._stall_at_ns = NEVER
            self.clock.advance(STALL_SECONDS)
        return []

    async def sample(self) -> None:
        """For `SAMPLED_NS`."""
        with pytest.raises(Over):
            await self.manager._sample()

    @property
    def left_out(self) -> float:
        return self.telemetry.value("streamer_samples_skipped_total")


class Over(Exception):
    """It was sampled for as long as it was to be."""


@pytest.mark.parametrize(
    ("busy", "stall_at_ns"), [(0.5, NEVER), (0.05, SAMPLED_NS // 2)], ids=["busy half the time", "stalled once"]
)
async def test_no_sample_is_left_out(monkeypatch: pytest.MonkeyPatch, busy: float, stall_at_ns: int) -> None:
    """Neither by a host whose reads take half the interval, nor after one that hung."""
    paced = Paced(monkeypatch, busy / MANY, stall_at_ns)
    await paced.sample()
    assert paced.left_out == 0
    assert paced.looks >= 18 * MANY


class Sampler:
    """One that is not asked."""

    def forget(self, path: str) -> None: ...

    async def read(self, looks: Any) -> list[o.Sampled]:
        raise AssertionError(looks)
