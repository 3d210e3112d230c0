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


@pytest.mark.live
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.guest])
def test_nothing_is_silently_lost(name: str, parts: Parts, outcomes: list[Outcome]) -> None:
    """No undeclared loss, no disorder within a container, nothing that did not happen."""
    outcome = run(name, parts, SEED, kills=KILLS)
    outcomes.append(outcome)
    if not outcome.kept:
        pytest.fail(outcome.story(), pytrace=False)
    assert outcome.verdicts and all(verdict.facts for verdict in outcome.verdicts)
