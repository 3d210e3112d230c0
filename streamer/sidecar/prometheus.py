"""`/metrics`: the agent's own numbers as Prometheus text.

Format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. Written by hand, because names and labels
of a series stay the same from scrape to scrape: only the number behind them is made anew.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any, Final

from streamer.telemetry import Metric, Telemetry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BUILD: Final = Metric("streamer_build_info", "gauge", "Version of the agent, in the label.", ("version",))

_PROCESS: Final[tuple[tuple[Metric, Callable[[Any], float]], ...]] = (
    # the names that Prometheus client libraries give to a process's own numbers; read from psutil.Process
    (Metric("process_cpu_seconds_total", "counter", "CPU time of the agent."), lambda p: sum(p.cpu_times()[:2])),
    (Metric("process_resident_memory_bytes", "gauge", "Resident memory of the agent."), lambda p: p.memory_info().rss),
    (Metric("process_virtual_memory_bytes", "gauge", "Address space of the agent."), lambda p: p.memory_info().vms),
    (Metric("process_start_time_seconds", "gauge", "Start of the agent, seconds since 1970."), lambda p: p.create_time()),
    (Metric("process_open_fds", "gauge", "Open descriptors of the agent."), lambda p: _open_descriptors() or p.num_fds()),
    (Metric("process_max_fds", "gauge", "Most descriptors it may open."), lambda _: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
)


def _open_descriptors() -> int:
    """Linux 6.2 and later give their number as the size of the directory, older ones 0: then they must be listed, which
    takes 15 ms for the 20 000 of a large host."""
    return os.stat("/proc/self/fd").st_size


class Exposition:
    """Renders all metrics; remembers the text before each number."""

    def __init__(self, telemetry: Telemetry, version: str) -> None:
        import psutil

        self._telemetry = telemetry
        self._version = version
        self._process = psutil.Process()
        self._heads: dict[str, str] = {}
        self._series: dict[tuple[str, tuple[str, ...]], str] = {}

    def render(self) -> bytes:
        """The whole document. A metric with labels that counted nothing yet is left out; one without them is 0."""
        lines = self._family(_BUILD, {(self._version,): 1})
        for metric, series in self._telemetry.snapshot():
            lines += self._family(metric, series)
        with self._process.oneshot():
            for metric, read in _PROCESS:
                lines += self._family(metric, {(): read(self._process)})
        return "".join(lines).encode()

    def _family(self, metric: Metric, series: dict[tuple[str, ...], float]) -> list[str]:
        if not series:
            if metric.labels:
                return []
            series = {(): 0}
        head = self._heads.get(metric.name)
        if head is None:
            head = f"# HELP {metric.name} {_help(metric.help)}\n# TYPE {metric.name} {metric.kind}\n"
            self._heads[metric.name] = head
        return [head, *(f"{self._before(metric, labels)} {number(value)}\n" for labels, value in series.items())]

    def _before(self, metric: Metric, labels: tuple[str, ...]) -> str:
        key = (metric.name, labels)
        text = self._series.get(key)
        if text is None:
            pairs = ",".join(f'{name}="{_label(value)}"' for name, value in zip(metric.labels, labels, strict=True))
            text = self._series[key] = f"{metric.name}{{{pairs}}}" if pairs else metric.name
        return text


def number(value: float) -> str:
    """A sample value: shortest exact decimal, `NaN`, `+Inf` or `-Inf`."""
    if value != value:  # noqa: PLR0124  NaN is the one value unequal to itself
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _label(text: str) -> str:
    return _help(text).replace('"', r"\"")
