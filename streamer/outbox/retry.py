"""How long to wait before the next attempt: doubling, with jitter, so that agents that lost one broker do not return as one."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 30.0
_DOUBLINGS: Final = 32  # far past the cap; keeps 2**n small after a million failures


def delay_seconds(failures: int, chance: float, *, longest: float = LONGEST_SECONDS) -> float:
    """Seconds to wait after the n-th failure in a row (n from 1): 0.1 doubling to `longest`, of which a half is left to chance.

    `chance` is a random number from [0, 1). The lower half is fixed so that a dead peer is never asked in a tight loop
    ("equal jitter").
    """
    whole = min(longest, FIRST_SECONDS * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS))
    return whole * (0.5 + chance / 2)
