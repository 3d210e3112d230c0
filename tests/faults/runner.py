"""Runs one fault in a world of its own and says how it went; and the table of many such runs."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.judge import Verdict
from tests.faults.scenarios import FAULTS
from tests.faults.world import Parts, World

_MOST_SHOWN: Final = 20


class Outcome(NamedTuple):
    """One run.

    verdicts  one for each sink; none when it could not be judged
    audits    exit code and report of `streamer verify` for each sink
    problems  what went wrong beside the streams
    evidence  a directory with the streams, the ledger and the agent's log; None: all was well and it is gone
    """

    fault: str
    seed: int
    kills: int
    verdicts: list[Verdict]
    audits: dict[str, tuple[int, str]]
    problems: list[str]
    evidence: Path | None

    @property
    def kept(self) -> bool:
        """The promise was kept."""
        return not self.problems and bool(self.verdicts) and all(verdict.kept for verdict in self.verdicts)

    def story(self) -> str:
        """What is wrong, and how to see it again."""
        complaints = [complaint for verdict in self.verdicts for complaint in verdict.complaints()] + self.problems
        shown = complaints[:_MOST_SHOWN] + ([f"… {len(complaints) - _MOST_SHOWN} more"] if len(complaints) > _MOST_SHOWN else [])
        return "\n".join(
            [
                f"{self.fault}, seed {self.seed}: {'kept' if self.kept else 'BROKEN'}",
                *(f"  {line}" for line in shown),
                f"  again:    python -m tests.faults {self.fault} --seed {self.seed} --kills {self.kills}",
                f"  evidence: {self.evidence}",
            ]
        )


def run(name: str, parts: Parts, seed: int, *, kills: int = 50) -> Outcome:
    """Run one fault; whatever happens becomes an outcome."""
    fault = FAULTS[name]
    world = World(parts, seed, kills=kills, prepare=fault.prepare)
    verdicts: list[Verdict] = []
    audits: dict[str, tuple[int, str]] = {}
    try:
        with world:
            fault.act(world)
            world.settle()
            verdicts = world.verdicts()
            audits = world.audits()
            world.problems += [
                f"verify of {sink} exits with {code}: {text[-300:]}" for sink, (code, text) in audits.items() if code
            ]
    except Exception:  # noqa: BLE001  thousands of runs go on after one that could not be finished, which counts as broken
        world.problems.append(f"the run itself failed:\n{traceback.format_exc()}")
    outcome = Outcome(name, seed, kills, verdicts, audits, world.problems, world.directory)
    if outcome.kept:
        world.discard()
        return outcome._replace(evidence=None)
    return outcome._replace(evidence=world.keep())


_COLUMNS: Final = (
    "fault",
    "runs",
    "facts done",
    "messages",
    "repeats",
    "troubles told",
    "declared gaps",
    "covered",
    "undeclared losses",
    "out of order",
    "wrong",
)


def table(outcomes: Iterable[Outcome]) -> str:
    """A row for each fault. Facts and troubles are counted once, the rest in all three sinks together."""
    rows: dict[str, list[int]] = {}
    for outcome in outcomes:
        row = rows.setdefault(outcome.fault, [0] * (len(_COLUMNS) - 1))
        verdicts = outcome.verdicts
        numbers = [
            1,
            max((v.facts for v in verdicts), default=0),
            sum(v.messages for v in verdicts),
            sum(v.repeats for v in verdicts),
            max((v.troubles for v in verdicts), default=0),
            sum(v.gaps for v in verdicts),
            sum(v.covered for v in verdicts),
            sum(len(v.losses) for v in verdicts),
            sum(len(v.disorder) for v in verdicts),
            sum(len(v.wrong) for v in verdicts) + len(outcome.problems),
        ]
        rows[outcome.fault] = [have + more for have, more in zip(row, numbers, strict=True)]
    lines = [list(_COLUMNS)] + [[name, *map(str, numbers)] for name, numbers in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            word.ljust(width) if column == 0 else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
