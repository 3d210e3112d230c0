"""The agent's own numbers: one row per metric, counted where the thing happens, read by the sidecar.

A new metric is one row in `METRICS`; an unknown name or label is a bug and raises at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    """One metric, as Prometheus wants it described. `bounds`: of a histogram's buckets, rising; +Inf is understood."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


class Histogram:
    """How often what was observed fell between two bounds (the last: above all of them), and the sum of it."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.sum = 0.0


_DELAYS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SENDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)

METRICS: Final[tuple[Metric, ...]] = (
    Metric("streamer_observations_total", "counter", "Observations taken in.", ("type",)),
    Metric("streamer_messages_total", "counter", "Messages made.", ("type",)),
    Metric("streamer_containers", "gauge", "Containers known now."),
    Metric("streamer_runtime_containers", "gauge", "Containers that live, by the runtime they belong to.", ("runtime",)),
    Metric(
        "streamer_event_loop_delay_seconds", "histogram", "How much later than asked for the event loop woke a timer.", (), _DELAYS
    ),
    Metric("streamer_samples_total", "counter", "Samples taken."),
    Metric("streamer_samples_skipped_total", "counter", "Samples left out because the sampler was behind."),
    Metric("streamer_sampling_seconds_total", "counter", "Time spent reading samples."),
    Metric("streamer_sink_delivered_total", "counter", "Messages acknowledged.", ("sink", "lane")),
    Metric("streamer_sink_dropped_total", "counter", "Messages given up.", ("sink", "lane", "reason")),
    Metric("streamer_sink_failures_total", "counter", "Failed attempts to connect or send.", ("sink",)),
    Metric("streamer_sink_backlog_messages", "gauge", "Messages waiting.", ("sink", "lane")),
    Metric("streamer_sink_backlog_bytes", "gauge", "Bytes waiting.", ("sink", "lane")),
    Metric("streamer_sink_send_seconds", "histogram", "Time until a batch was acknowledged.", ("sink",), _SENDS),
    Metric(
        "streamer_sink_delivered_timestamp_seconds",
        "gauge",
        "When the newest acknowledged message was made, seconds since 1970; how far a sink is behind while something waits.",
        ("sink", "lane"),
    ),
    Metric("streamer_sink_up", "gauge", "1 while connected.", ("sink",)),
    Metric("streamer_state_bytes", "gauge", "Bytes of messages in the state file.", ("lane",)),
    Metric("streamer_state_commits_total", "counter", "Writes committed to the state file, several of them at once."),
    Metric("streamer_state_up", "gauge", "1 while the state file takes what it is given."),
    Metric("streamer_source_up", "gauge", "1 while a source does all of its work.", ("source",)),
    Metric(
        "streamer_left_out",
        "gauge",
        "Entries that lists of messages have no room for, now: file systems, block devices of all cgroups.",
        ("list",),
    ),
    Metric("streamer_gaps_total", "counter", "Gaps declared.", ("component",)),
    Metric("streamer_docker_requests_total", "counter", "Calls made to the Docker Engine.", ("call",)),
    Metric("streamer_rescans_total", "counter", "Scans of the cgroup tree."),
    Metric("streamer_descriptors_held", "gauge", "Descriptors held open for sampling."),
    Metric(
        "streamer_memory_bytes",
        "gauge",
        "Bytes held for queries: what is known of containers that live, their samples, their statistics; deleted ones with theirs; events.",
        ("of",),
    ),
    Metric("streamer_memory_samples", "gauge", "Samples held for queries."),
    Metric("streamer_memory_deleted_containers", "gauge", "Containers held for queries after their end."),
    Metric("streamer_memory_ignored_total", "counter", "Messages that queries do not see: repeated, or too late."),
    Metric(
        "streamer_http_requests_total", "counter", "HTTP requests; status aborted: the client took no answer.", ("route", "status")
    ),
    Metric("streamer_http_streams", "gauge", "HTTP answers that go on as long as something happens, now."),
    Metric(
        "streamer_http_streams_dropped_total",
        "counter",
        "Clients of event streams, `/events` or cAdvisor's, that were too slow and were let go.",
    ),
    Metric(
        "streamer_http_refused_total",
        "counter",
        "HTTP requests that were not let in: addressed to another host, no credential (missing), a wrong or expired one; TLS handshakes that failed.",
        ("reason",),
    ),
    Metric("streamer_http_token_uses_total", "counter", "HTTP requests let in by a token, by its name.", ("token",)),
    Metric(
        "streamer_http_files_unusable",
        "gauge",
        "1 while a file of tokens, or of certificates, cannot be used.",
        ("files",),
    ),
    Metric(
        "streamer_http_let_go_total",
        "counter",
        "HTTP connections closed for others: of clients that had shown no credential (stranger), or between two requests (idle).",
        ("standing",),
    ),
    Metric("streamer_http_insecure", "gauge", "1 while other machines can ask everything without saying who they are."),
    Metric("streamer_http_events_dropped_total", "counter", "Events that clients of cAdvisor's event stream did not take in time."),
)

_BY_NAME: Final = {metric.name: metric for metric in METRICS}


class Telemetry:
    """Counters, gauges and histograms of one agent. Not for threads: count on the event loop."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {m.name: {} for m in METRICS if m.kind != "histogram"}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {m.name: {} for m in METRICS if m.kind == "histogram"}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter; labels in the order of its row."""
        values = self._values[name]
        values[labels] = values.get(labels, 0) + by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge; labels in the order of its row."""
        self._values[name][labels] = value

    def replace(self, name: str, series: Mapping[tuple[str, ...], float]) -> None:
        """Set all series of a gauge at once: those that are not among them are gone."""
        self._values[name] = dict(series)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add one observation to a histogram; labels in the order of its row."""
        bounds, series = _BY_NAME[name].bounds, self._histograms[name]
        histogram = series.get(labels)
        if histogram is None:
            histogram = series[labels] = Histogram(len(bounds))
        histogram.counts[bisect_left(bounds, value)] += 1  # a bucket includes its bound
        histogram.sum += value

    def value(self, name: str, *labels: str) -> float:
        """The present value of a counter or gauge, 0 when nothing was counted yet."""
        return self._values[name].get(labels, 0)

    def snapshot(self) -> Iterator[tuple[Metric, dict[tuple[str, ...], float]]]:
        """Every counter and gauge with its series, in the order of the table."""
        for name, values in self._values.items():
            yield _BY_NAME[name], dict(values)

    def histograms(self) -> Iterator[tuple[Metric, Mapping[tuple[str, ...], Histogram]]]:
        """Every histogram with its series, in the order of the table."""
        for name, series in self._histograms.items():
            yield _BY_NAME[name], series
