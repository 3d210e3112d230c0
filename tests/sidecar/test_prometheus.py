"""`/metrics` as a parser that is not ours reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import streamer
from streamer.model import messages as m
from streamer.sidecar.prometheus import CONTENT_TYPE, Exposition
from streamer.sidecar.textformat import number
from streamer.telemetry import METRICS, Telemetry

if TYPE_CHECKING:
    from tests.sidecar.conftest import House

HISTOGRAM = next(metric for metric in METRICS if metric.kind == "histogram" and not metric.labels)


def parsed(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Sample name and label values -> value; a repeated series fails."""
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.values()))
            assert key not in found
            found[key] = sample.value
    return found


LOOKED_UP = {
    "streamer_runtime_containers",
    "streamer_memory_bytes",
    "streamer_memory_samples",
    "streamer_memory_deleted_containers",
}
"""Known at the scrape alone; tested below."""


async def test_every_metric_of_the_table_is_exposed(house: House) -> None:
    """Whatever was counted is there under its name, with its labels, beside the build and the process's own numbers."""
    for metric in METRICS:
        if metric.kind == "counter":
            house.telemetry.count(metric.name, *metric.labels, by=3)
        elif metric.kind == "gauge":
            house.telemetry.set(metric.name, 1.5, *metric.labels)
        else:
            house.telemetry.observe(metric.name, 0.25, *metric.labels)
    async with house.client() as client:
        got = await client.get("/metrics")
    assert got.headers["content-type"] == CONTENT_TYPE
    found = parsed(got.content)
    set_by_the_scrape = {"streamer_memory_ignored_total": 0}
    for metric in METRICS:
        if metric.kind == "histogram":
            assert found[f"{metric.name}_sum", metric.labels] == 0.25, metric.name
        elif metric.name not in LOOKED_UP:
            expected = set_by_the_scrape.get(metric.name, 3 if metric.kind == "counter" else 1.5)
            assert found[metric.name, metric.labels] == expected, metric.name
    assert found["streamer_build_info", (streamer.__version__,)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert found["process_max_fds", ()] > found["process_open_fds", ()] > 3
    assert found["process_threads", ()] >= 1


async def test_containers_are_counted_by_runtime_as_they_are_now(house: House) -> None:
    """A runtime whose last container has gone is not shown with the number of before."""
    async with house.client() as client:
        found = parsed((await client.get("/metrics")).content)
        assert found["streamer_runtime_containers", ("docker",)] == 1
        assert found["streamer_runtime_containers", ("raw",)] == 1
        assert found["streamer_memory_deleted_containers", ()] == 1
        assert found["streamer_memory_samples", ()] == 4
        house.tell.deleted("/a/raw one", runtime="raw", cgroup_path="/a/raw one")
        found = parsed((await client.get("/metrics")).content)
    assert ("streamer_runtime_containers", ("raw",)) not in found
    assert found["streamer_memory_deleted_containers", ()] == 2


async def test_all_that_memory_holds_is_told_by_what_it_is(house: House) -> None:
    """Parts make up the whole; what a container held is that of a deleted one once it has ended."""
    name = "streamer_memory_bytes"
    async with house.client() as client:
        before = parsed((await client.get("/metrics")).content)
        house.tell.deleted("/a/raw one", runtime="raw", cgroup_path="/a/raw one")
        after = parsed((await client.get("/metrics")).content)
    for found in (before, after):
        assert {labels for metric, labels in found if metric == name} == {
            (part,) for part in ("containers", "samples", "statistics", "deleted", "events")
        }
    assert sum(size for (metric, _), size in after.items() if metric == name) == house.memory.bytes
    for part, moved in (("containers", -1), ("samples", -1), ("statistics", -1), ("deleted", 1), ("events", 1)):
        assert (after[name, (part,)] - before[name, (part,)]) * moved > 0, part


@given(st.lists(st.floats(0, 100) | st.sampled_from(HISTOGRAM.bounds)))
def test_a_histogram_counts_what_is_at_most_its_bound(observed: list[float]) -> None:
    """Buckets include their bound and everything below it."""
    telemetry = Telemetry()
    for value in observed:
        telemetry.observe(HISTOGRAM.name, value)
    found = parsed(Exposition(telemetry, "1").render())
    for bound in HISTOGRAM.bounds:
        assert found[f"{HISTOGRAM.name}_bucket", (str(bound),)] == sum(value <= bound for value in observed)
    assert found[f"{HISTOGRAM.name}_bucket", ("+Inf",)] == found[f"{HISTOGRAM.name}_count", ()] == len(observed)
    assert found[f"{HISTOGRAM.name}_sum", ()] == pytest.approx(sum(observed))


def test_names_of_counters_end_in_total() -> None:
    """OpenMetrics has no other counters, and two families may not become one when the ending is taken away."""
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in METRICS)
    assert len({metric.name.removesuffix("_total") for metric in METRICS}) == len(METRICS)


async def test_memory_tells_what_it_ignored(house: House) -> None:
    """A counter that is kept elsewhere moves by what came since the last scrape."""
    async with house.client() as client:
        sample = house.tell.sampled("4f6b" + "1" * 60)
        for expected in (1, 2):
            house.tell.again(m.STATS, sample)
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
