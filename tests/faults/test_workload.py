"""What makes containers come and go: it does what it writes down, and leaves nothing."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.judge import Verdict
from tests.faults.ledger import KernelLog, Ledger
from tests.faults.runner import Outcome, table
from tests.faults.workload import Workload


@pytest.mark.live
@pytest.mark.v2
def test_what_is_written_down_was_done_and_nothing_stays() -> None:
    """Each life is one cgroup, those without an end are there, kills have the kernel log's number."""
    ledger = Ledger()
    with KernelLog() as log:
        workload = Workload(ledger, log, random.Random(1), rate=40)
        try:
            workload.start()
            time.sleep(1.5)  # that long; how much it got done in it is not asked
            workload.kill_by_oom("mine")
            workload.finish()
            ledger.number_kills(log)
            folder = Path("/sys/fs/cgroup", *([] if Path("/sys/fs/cgroup/cgroup.controllers").exists() else ["memory"]))
            there = {f"/{path.relative_to(folder)}" for path in (folder / ledger.folders[0][1:]).glob("*/")}
            assert there == set(ledger.alive()) - {ledger.folders[0]}
            lives = ledger.lives()
            assert len({life.incarnation for life in lives}) == len(lives) > 5
            assert all(life.deleted is None or life.created.ended_ns <= life.deleted.began_ns for life in lives)
            kills = [kill for life in lives for kill in life.kills]
            assert kills and all(kill.log_seq for kill in kills)
            assert ledger.facts == len(lives) + len(kills) + sum(life.deleted is not None for life in lives)
        finally:
            workload.close()
    assert not os.path.exists(f"{folder}{ledger.folders[0]}")


def test_the_table_has_a_row_for_each_fault_with_sums() -> None:
    """Facts once, messages of all sinks, every run."""
    verdicts = [Verdict(sink, facts=10, messages=20, repeats=3, gaps=1, losses=["x"]) for sink in ("kafka", "file")]
    outcomes = [Outcome("a-fault", seed, 0, verdicts, {}, [], None) for seed in (1, 2)]
    head, row = table(outcomes).splitlines()
    assert row.split() == ["a-fault", "2", "20", "80", "12", "0", "4", "0", "4", "0", "0"]
    assert "undeclared losses" in head and not any(outcome.kept for outcome in outcomes)
    assert "--seed 1" in outcomes[0].story()
