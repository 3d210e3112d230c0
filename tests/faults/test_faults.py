"""Every fault once, at a random moment, and the oracle on each of the three streams. More often: `python -m tests.faults`."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.runner import Outcome, run
from tests.faults.scenarios import FAULTS
from tests.faults.world import Parts

SEED = int(os.environ.get("FAULT_SEED", random.randrange(1 << 31)))
KILLS = 50


SINKS = {"kafka", "redis", "file"}


@pytest.mark.live
@pytest.mark.timeout(600)
def test_killed_while_kafka_is_down_and_the_streams_are_complete(parts: Parts, outcomes: list[Outcome]) -> None:
    """kill -9 while twenty containers a second come and go and Kafka is down, started again after some were removed and
    others made, Kafka comes back: `streamer verify` exits 0 and the ledger agrees, for Kafka, Redis and file alike."""
    outcome = run("agent-killed-without-kafka", parts, SEED)
    outcomes.append(outcome)
    if not outcome.kept:
        pytest.fail(outcome.story(), pytrace=False)
    assert {verdict.sink for verdict in outcome.verdicts} == SINKS and all(verdict.facts > 40 for verdict in outcome.verdicts)
    assert {sink: code for sink, (code, _) in outcome.audits.items()} == dict.fromkeys(SINKS, 0)


OTHERS = [name for name, fault in FAULTS.items() if not fault.guest and name != "agent-killed-without-kafka"]


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OTHERS)
def test_nothing_is_silently_lost(name: str, parts: Parts, outcomes: list[Outcome]) -> None:
    """No undeclared loss, no disorder within a container, nothing that did not happen."""
    outcome = run(name, parts, SEED, kills=KILLS)
    outcomes.append(outcome)
    if not outcome.kept:
        pytest.fail(outcome.story(), pytrace=False)
    assert outcome.verdicts and all(verdict.facts for verdict in outcome.verdicts)


@pytest.mark.v2
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.guest])
def test_nothing_is_silently_lost_where_the_clock_is_ours(name: str, parts: Parts, outcomes: list[Outcome]) -> None:
    """The same inside the guest, for what would disturb the whole machine."""
    outcome = run(name, parts, SEED, kills=KILLS)
    outcomes.append(outcome)
    if not outcome.kept:
        pytest.fail(outcome.story(), pytrace=False)
    assert outcome.verdicts and all(verdict.facts for verdict in outcome.verdicts)
