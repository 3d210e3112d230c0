"""What a container uses by its two newest samples, and the columns of its recent past."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, to_builtins

from streamer.memory import Container, Memory
from streamer.model import messages as m
from streamer.model.spec import ContainerSpec
from streamer.sidecar.rates import rates, series
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
GONE = dict.fromkeys(
    [name for name in m.ContainerStats.__struct_fields__ if name.startswith(("cpu_", "memory_", "io_", "network_", "psi_"))], UNSET
)
"""A sample of which the kernel gave nothing."""


def web(*samples: dict[str, Any], kept: int = 100, **about: Any) -> Container:
    """A container with these samples, a second apart."""
    memory = Memory(samples=kept)
    tell = Teller(memory)
    tell.created(WEB, **about)
    for sample in samples:
        tell.sampled(WEB, time=f"2025-11-24T10:00:00.{tell.now_ms % 1000:03}000000Z", **GONE | sample)
    (found,) = memory.find(WEB)
    return found


def test_rates_are_growth_by_time() -> None:
    """Counters by the time between two samples, gauges of the newest, limits of the spec."""
    spec = ContainerSpec(memory_limit_bytes=1000, cpu_quota_us=150_000, cpu_period_us=100_000)
    before = {
        "cpu_usage_ns": 10**9, "memory_working_set_bytes": 5, "cpu_periods": 10, "cpu_throttled_periods": 1, "io_read_bytes": 100,
        "io_write_bytes": 0, "network_rx_bytes": 7, "network_tx_bytes": 7, "psi_cpu_some_ns": 0, "psi_memory_some_ns": 0, "psi_io_some_ns": 0,
    }  # fmt: skip
    after = {
        "cpu_usage_ns": 10**9 + 250_000_000, "memory_working_set_bytes": 9, "cpu_periods": 20, "cpu_throttled_periods": 4, "io_read_bytes": 1100,
        "io_write_bytes": 1, "network_rx_bytes": 7, "network_tx_bytes": 27, "psi_cpu_some_ns": 125_000_000, "psi_memory_some_ns": 0, "psi_io_some_ns": 2 * 10**9,
    }  # fmt: skip
    assert to_builtins(rates(web({}, before, after, spec=spec))) == {
        "cpu_cores": 0.25,
        "cpu_limit_cores": 1.5,
        "cpu_throttled_ratio": 0.3,
        "memory_working_set_bytes": 9,
        "memory_limit_bytes": 1000,
        "io_read_bytes_per_second": 1000,
        "io_write_bytes_per_second": 1,
        "network_rx_bytes_per_second": 0,
        "network_tx_bytes_per_second": 20,
        "psi_cpu_some_percent": 12.5,
        "psi_memory_some_percent": 0.0,
        "psi_io_some_percent": 100.0,
    }


@pytest.mark.parametrize(
    ("samples", "spec", "expected"),
    [
        ([], None, {}),
        ([{}], None, {}),
        ([{"memory_working_set_bytes": 5, "cpu_usage_ns": 3}], None, {"memory_working_set_bytes": 5}),
        ([{}, {"cpu_usage_ns": 3}], None, {}),
        ([{"cpu_usage_ns": 3}, {}], None, {}),
        ([{"cpu_usage_ns": 3}] * 2, ContainerSpec(memory_limit_bytes=0, cpu_quota_us=0, cpu_period_us=100_000), {"cpu_cores": 0.0}),
        (
            [{"cpu_periods": 3, "cpu_throttled_periods": 1}] * 2,
            ContainerSpec(cpu_quota_us=50_000, cpu_period_us=100_000),
            {"cpu_limit_cores": 0.5, "cpu_throttled_ratio": 0.0},
        ),
        ([{"cpu_periods": 3, "cpu_throttled_periods": 1}] * 2, None, {}),
    ],
)
def test_what_is_not_known_is_left_out(samples: list[dict[str, Any]], spec: Any, expected: dict[str, Any]) -> None:
    """No sample, one sample, a value that came or went, no limit: never a made-up 0."""
    assert to_builtins(rates(web(*samples, spec=spec or UNSET))) == expected


def test_a_container_that_has_ended_uses_nothing() -> None:
    """Its last samples are no news of what is going on."""
    memory = Memory(samples=9)
    tell = Teller(memory)
    tell.created(WEB)
    tell.sampled(WEB)
    tell.sampled(WEB)
    tell.deleted(WEB)
    assert to_builtins(rates(memory.find(WEB)[0])) == {}


def test_a_clock_that_was_set_back_makes_no_rate_and_no_point() -> None:
    """Time that passed backwards is no time; a series begins again behind it."""
    memory = Memory(samples=9)
    tell = Teller(memory)
    tell.created(WEB)
    for second in (5, 6, 3, 4):
        tell.sampled(WEB, time_ms=second * 1000, time=f"1970-01-01T00:00:0{second}.000000000Z", cpu_usage_ns=second)
        (found,) = memory.find(WEB)
        assert (rates(found).cpu_cores is UNSET) == (second in (5, 3))
    assert series(found, 0, 9).time_ms == [4000]


USED = [
    {"cpu_usage_ns": 10**8 * n * n, "memory_working_set_bytes": n, "io_read_bytes": n, "io_write_bytes": 9 * n} for n in range(40)
]


def test_a_series_has_columns_of_one_length() -> None:
    """A point for each sample but the first; a column that nothing is known of is left out."""
    found = series(web(*USED), 0, 600)
    assert found.id.startswith("boot.")
    assert len(found.time_ms) == 39
    assert found.cpu_cores == [round(0.1 * (2 * n + 1), 4) for n in range(39)]
    assert found.memory_working_set_bytes == [*range(1, 40)]
    assert found.io_bytes_per_second == [10] * 39
    assert found.network_bytes_per_second is UNSET
    holes = series(web({"cpu_usage_ns": 1}, {}, {"cpu_usage_ns": 1}, {"cpu_usage_ns": 1}), 0, 600)
    assert (holes.cpu_cores, holes.io_bytes_per_second) == ([None, None, 0.0], UNSET)
    for few in (web(), web({"cpu_usage_ns": 1})):
        assert (series(few, 0, 9).time_ms, series(few, 0, 9).cpu_cores) == ([], UNSET)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 80))
def test_asked_again_and_again_a_series_is_one(count: int, cut: int, points: int, kept: int) -> None:
    """What comes after a time, joined to what was before it, is what comes at once; thinning keeps both ends and all growth."""
    container = web(*USED[:count], kept=kept)
    whole = series(container, 0, 600)
    times = whole.time_ms
    cut_ms = times[cut] if cut < len(times) else 0
    later = series(container, cut_ms, 600)
    at = times.index(cut_ms) + 1 if cut_ms else 0
    assert later.time_ms == times[at:]
    assert (later.cpu_cores or []) == (whole.cpu_cores or [])[at:]
    assert series(container, 10**15, 600).time_ms == []
    thin = series(container, 0, points)
    assert len(thin.time_ms) == min(points, len(times))
    assert thin.time_ms[-1:] == times[-1:]
    if thin.cpu_cores:
        begin_ms = times[0] - 1000
        spans = zip([begin_ms, *thin.time_ms], thin.time_ms, thin.cpu_cores, strict=False)
        used = sum(cores * (end - begin) for begin, end, cores in spans if cores is not None)
        assert used == pytest.approx(sum(cores * 1000 for cores in whole.cpu_cores or () if cores is not None), abs=len(times))
