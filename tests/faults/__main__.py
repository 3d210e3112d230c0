"""Runs faults as often as one likes: `python -m tests.faults [FAULT…] --runs N --seed S --kills N`, as root.

The first run of each fault has the seed S, the next ones S+1, S+2, …; exit code 1 when a promise was broken in any of them.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.faults.runner import Outcome, run, table
from tests.faults.scenarios import FAULTS
from tests.faults.world import Parts


def main() -> int:
    """The command."""
    here = [name for name, fault in FAULTS.items() if not fault.guest]
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Injects faults into a running agent and judges what reaches Kafka, Redis and a file.",
        epilog="\n".join(f"{name:<20}{fault.about}" for name, fault in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "faults", metavar="FAULT", nargs="*", choices=[[], *FAULTS], help="which (default: all that this machine is fit for)"
    )
    parser.add_argument("--runs", metavar="N", type=int, default=1, help="runs of each (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=random.randrange(1 << 31), help="of the first run (default: any)")
    parser.add_argument("--kills", metavar="N", type=int, default=50, help="agent-killed: how often (default: %(default)s)")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    with Parts() as parts:
        try:
            for number in range(arguments.runs):
                for name in arguments.faults or here:
                    outcome = run(name, parts, arguments.seed + number, kills=arguments.kills)
                    outcomes.append(outcome)
                    say(f"{name}, seed {outcome.seed}: kept" if outcome.kept else outcome.story())
        except KeyboardInterrupt:
            say("interrupted")
        say(f"\n{table(outcomes)}")
    return 0 if all(outcome.kept for outcome in outcomes) else 1


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
