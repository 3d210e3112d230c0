"""The agent's own numbers: one row per metric, counted where the thing happens, read by the sidecar.

A new metric is one row in `METRICS`; an unknown name or label is a bug and raises at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    """One metric, as Prometheus wants it described."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final[tuple[Metric, ...]] = (
    Metric("streamer_observations_total", "counter", "Observations taken in.", ("type",)),
    Metric("streamer_messages_total", "counter", "Messages made.", ("type",)),
    Metric("streamer_containers", "gauge", "Containers known now."),
    Metric("streamer_samples_total", "counter", "Samples taken."),
    Metric("streamer_samples_skipped_total", "counter", "Samples left out because the sampler was behind."),
    Metric("streamer_sampling_seconds_total", "counter", "Time spent reading samples."),
    Metric("streamer_sink_delivered_total", "counter", "Messages acknowledged.", ("sink", "lane")),
    Metric("streamer_sink_dropped_total", "counter", "Messages given up.", ("sink", "lane", "reason")),
    Metric("streamer_sink_failures_total", "counter", "Failed attempts to connect or send.", ("sink",)),
    Metric("streamer_sink_backlog_messages", "gauge", "Messages waiting.", ("sink", "lane")),
    Metric("streamer_sink_backlog_bytes", "gauge", "Bytes waiting.", ("sink", "lane")),
    Metric("streamer_sink_up", "gauge", "1 while connected.", ("sink",)),
    Metric("streamer_state_bytes", "gauge", "Bytes of messages in the state file.", ("lane",)),
    Metric("streamer_state_commits_total", "counter", "Writes committed to the state file, several of them at once."),
    Metric("streamer_state_up", "gauge", "1 while the state file takes what it is given."),
    Metric("streamer_source_up", "gauge", "1 while a source does all of its work.", ("source",)),
    Metric("streamer_gaps_total", "counter", "Gaps declared.", ("component",)),
    Metric("streamer_docker_requests_total", "counter", "Calls made to the Docker Engine.", ("call",)),
    Metric("streamer_rescans_total", "counter", "Scans of the cgroup tree."),
    Metric("streamer_descriptors_held", "gauge", "Descriptors held open for sampling."),
    Metric("streamer_memory_bytes", "gauge", "Bytes of samples, statistics and events held for queries."),
    Metric("streamer_memory_ignored_total", "counter", "Messages that queries do not see: repeated, or too late."),
    Metric(
        "streamer_http_requests_total", "counter", "HTTP requests; status aborted: the client took no answer.", ("route", "status")
    ),
)

_BY_NAME: Final = {metric.name: metric for metric in METRICS}


class Telemetry:
    """Counters and gauges of one agent. Not for threads: count on the event loop."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in METRICS}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter; labels in the order of its row."""
        values = self._values[name]
        values[labels] = values.get(labels, 0) + by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge; labels in the order of its row."""
        self._values[name][labels] = value

    def value(self, name: str, *labels: str) -> float:
        """The present value, 0 when nothing was counted yet."""
        return self._values[name].get(labels, 0)

    def snapshot(self) -> Iterator[tuple[Metric, dict[tuple[str, ...], float]]]:
        """Every metric with its series, in the order of the table."""
        for name, values in self._values.items():
            yield _BY_NAME[name], dict(values)
