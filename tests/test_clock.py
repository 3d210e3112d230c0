"""Time as a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.clock import to_next


@given(st.sampled_from([0.5, 1.0, 10.0]), st.floats(0, 1e7))
def test_the_next_multiple_is_ahead_by_a_period_at_most_and_not_the_one_that_is_all_but_there(period: float, now: float) -> None:
    """Also from right before it, where a timer that goes off early leaves one."""
    seconds = to_next(period, now)
    assert 0.009 * period < seconds < 1.011 * period
    multiple = (now + seconds) / period
    assert multiple == pytest.approx(round(multiple), abs=1e-6)


def test_who_sleeps_to_the_next_multiple_wakes_with_the_others() -> None:
    """Whenever they began, and again after that."""
    assert 3.2 + to_next(1.0, 3.2) == 3.9 + to_next(1.0, 3.9) == 3.6 + to_next(0.5, 3.6) == 4.0
    assert to_next(1.0, 4.0) == 1.0
    assert to_next(1.0, 3.9999) == pytest.approx(1.0001)
