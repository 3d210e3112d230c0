"""`/metrics` as a parser that is not ours reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import streamer
from streamer.sidecar.prometheus import CONTENT_TYPE, Exposition, number
from streamer.telemetry import METRICS, Telemetry

if TYPE_CHECKING:
    from tests.sidecar.conftest import House


def parsed(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Sample name and label values -> value; a repeated series fails."""
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge")
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.values()))
            assert key not in found
            found[key] = sample.value
    return found


async def test_every_metric_of_the_table_is_exposed(house: House) -> None:
    """Whatever was counted is there under its name, with its labels, beside the build and the process's own numbers."""
    for metric in METRICS:
        if metric.kind == "counter":
            house.telemetry.count(metric.name, *metric.labels, by=3)
        else:
            house.telemetry.set(metric.name, 1.5, *metric.labels)
    async with house.client() as client:
        got = await client.get("/metrics")
    assert got.headers["content-type"] == CONTENT_TYPE
    found = parsed(got.content)
    set_by_the_scrape = {"streamer_memory_bytes": house.memory.bytes, "streamer_memory_ignored_total": 0}
    for metric in METRICS:
        expected = set_by_the_scrape.get(metric.name, 3 if metric.kind == "counter" else 1.5)
        assert found[metric.name, metric.labels] == expected, metric.name
    assert found["streamer_build_info", (streamer.__version__,)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert found["process_max_fds", ()] > found["process_open_fds", ()] > 3


async def test_memory_tells_what_it_ignored(house: House) -> None:
    """A counter that is kept elsewhere moves by what came since the last scrape."""
    async with house.client() as client:
        for expected in (1, 2):
            house.tell.sampled("4f6b" + "1" * 60, time_ms=1)
            assert parsed((await client.get("/metrics")).content)["streamer_memory_ignored_total", ()] == expected


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats() | st.integers(-(2**53), 2**53))
def test_any_label_and_any_value_survive(text: str, value: float) -> None:
    """Quotes, backslashes and newlines are escaped; numbers come back exactly."""
    telemetry = Telemetry()
    telemetry.set("streamer_sink_up", value, text)
    found = parsed(Exposition(telemetry, "1").render())
    got = found["streamer_sink_up", (text,)]
    assert got == value or (math.isnan(got) and math.isnan(value))


def test_numbers() -> None:
    """Whole numbers stay whole, and the three that are none have their names."""
    assert [number(v) for v in (3, 0.1, float("inf"), float("-inf"), float("nan"))] == ["3", "0.1", "+Inf", "-Inf", "NaN"]
