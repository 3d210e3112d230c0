"""The tasks around the fleet: what is heard when, and in which order it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from streamer.contracts import Emit
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
        Fleet(HOST, docker=False), Sources(cgroups, kernel_log=log), Sampler(), Schedule(Pace(1, 1, False, 0.0)),  # type: ignore[arg-type]
        publish=lambda messages, _: said.extend(messages), clock=FakeClock(), telemetry=Telemetry(), heartbeat_seconds=10,
    )  # fmt: skip
    manager.observe(appeared(RAW))
    log.drained = lambda: manager.observe(o.OomKilled(5, T0, 42, "job", RAW, RAW, "memcg"))
    manager.observe(end)
    facts = [message.record for message in said if message.topic in (m.LIFECYCLE, m.OOM)]
    assert [type(fact) for fact in facts[:2]] == [m.ContainerLifecycle, m.ContainerOom]
    assert facts[1].pid == 42
    manager.stop("over")


class Sampler:
    """One that is not asked."""

    def forget(self, path: str) -> None: ...

    async def read(self, looks: Any) -> list[o.Sampled]:
        raise AssertionError(looks)
