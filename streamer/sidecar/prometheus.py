"""The agent's own numbers, and everything else that `/metrics` shows.

Written by hand, because names and labels of a series stay the same from scrape to scrape: only the number behind them
is made anew.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from streamer.clock import SystemClock
from streamer.config import Metrics
from streamer.contracts import Clock
from streamer.errors import Unsupported
from streamer.kernel import proc
from streamer.kernel.processes import parse_stat
from streamer.sidecar.container_metrics import ContainerMetrics
from streamer.sidecar.textformat import TEXT, Format, escape, escape_help, number
from streamer.telemetry import Histogram, Metric, Telemetry

CONTENT_TYPE: Final = TEXT.type

_BUILD: Final = Metric("streamer_build_info", "gauge", "Version of the agent, in the label.", ("version",))

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class _Process(NamedTuple):
    """What `/proc/self` says of this process."""

    cpu_ns: int
    resident_bytes: int
    virtual_bytes: int
    started_ns: int
    threads: int


_PROCESS: Final[tuple[tuple[Metric, Callable[[_Process], float]], ...]] = (
    # the names that Prometheus client libraries give to a process's own numbers
    (Metric("process_cpu_seconds_total", "counter", "CPU time of the agent."), lambda p: p.cpu_ns / 1e9),
    (Metric("process_resident_memory_bytes", "gauge", "Resident memory of the agent."), lambda p: p.resident_bytes),
    (Metric("process_virtual_memory_bytes", "gauge", "Address space of the agent."), lambda p: p.virtual_bytes),
    (Metric("process_start_time_seconds", "gauge", "Start of the agent, seconds since 1970."), lambda p: p.started_ns / 1e9),
    (Metric("process_open_fds", "gauge", "Open descriptors of the agent."), lambda _: _open_descriptors()),
    (Metric("process_max_fds", "gauge", "Most descriptors it may open."), lambda _: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    (Metric("process_threads", "gauge", "Threads of the agent."), lambda p: p.threads),
)


def _process(boot_ns: int) -> _Process:
    """`boot_ns`: when the machine was booted, since 1970.

    Raises:
        Unsupported: /proc is not mounted.
    """
    stat = parse_stat(proc.read("/proc/self/stat"))
    if stat is None:
        raise Unsupported("/proc/self/stat is of another form", remedy="mount /proc")
    pages = proc.read("/proc/self/statm").split()  # later kernels only estimate the resident bytes in `stat`
    return _Process(
        stat.cpu_ns, int(pages[1]) * _PAGE_BYTES, int(pages[0]) * _PAGE_BYTES, boot_ns + stat.started_ns, stat.threads
    )  # fmt: skip


def _open_descriptors() -> int:
    """Linux 6.2 and later give their number as the size of the directory, older ones 0: then they must be listed, which
    takes 15 ms for the 20 000 of a large host."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


class Exposition:
    """Renders the agent's own metrics; remembers the text before each number. `containers` renders all others."""

    def __init__(self, telemetry: Telemetry, version: str, settings: Metrics | None = None, clock: Clock | None = None) -> None:
        self.containers = ContainerMetrics(settings or Metrics(), clock or SystemClock())
        self._telemetry = telemetry
        self._version = version
        self._boot_ns = proc.btime(Path("/")) * 1_000_000_000
        self._series: dict[tuple[str, tuple[str, ...]], str] = {}

    def render(self, form: Format = TEXT) -> bytes:
        """All of them. A metric with labels that counted nothing yet is left out; one without them is 0."""
        return "".join(self._lines(form)).encode("utf-8", "backslashreplace")

    def _lines(self, form: Format) -> Iterator[str]:
        yield from self._family(form, _BUILD, {(self._version,): 1})
        for metric, series in self._telemetry.snapshot():
            yield from self._family(form, metric, series)
        for metric, histograms in self._telemetry.histograms():
            yield from self._histogram(form, metric, histograms)
        process = _process(self._boot_ns)
        for metric, read in _PROCESS:
            yield from self._family(form, metric, {(): read(process)})

    def _family(self, form: Format, metric: Metric, series: Mapping[tuple[str, ...], float]) -> Iterator[str]:
        if not series:
            if metric.labels:
                return
            series = {(): 0}
        yield form.head(metric.name, metric.kind, escape_help(metric.help))
        for labels, value in series.items():
            yield f"{self._before(metric.name, metric.labels, labels)} {number(value)}\n"

    def _histogram(self, form: Format, metric: Metric, series: Mapping[tuple[str, ...], Histogram]) -> Iterator[str]:
        if not series:
            if metric.labels:
                return
            series = {(): Histogram(len(metric.bounds))}
        yield form.head(metric.name, metric.kind, escape_help(metric.help))
        bounds = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
        for labels, histogram in series.items():
            below = 0
            for bound, count in zip(bounds, histogram.counts, strict=True):
                below += count
                yield f"{self._before(f'{metric.name}_bucket', (*metric.labels, 'le'), (*labels, bound))} {below}\n"
            yield f"{self._before(f'{metric.name}_sum', metric.labels, labels)} {number(histogram.sum)}\n"
            yield f"{self._before(f'{metric.name}_count', metric.labels, labels)} {below}\n"

    def _before(self, name: str, names: tuple[str, ...], values: tuple[str, ...]) -> str:
        key = (name, values)
        text = self._series.get(key)
        if text is None:
            pairs = ",".join(f'{label}="{escape(value)}"' for label, value in zip(names, values, strict=True))
            text = self._series[key] = f"{name}{{{pairs}}}" if pairs else name
        return text
