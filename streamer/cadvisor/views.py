"""A container with its samples, in each of cAdvisor's shapes. Pure: from memory to answers, nothing is kept but disks' names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import structs

from streamer.cadvisor import machine, samples, specs
from streamer.cadvisor import shapes as s
from streamer.cadvisor import shapes_v2 as v2
from streamer.cadvisor.go import rfc3339
from streamer.cadvisor.requests import Window
from streamer.memory import Container, Memory, Span, StatsSample, Usage
from streamer.model.messages import HostInfo

_S = TypeVar("_S")


class Views:
    """Containers of one memory. A container of None is a folder, which has subcontainers alone."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._disks: tuple[HostInfo | None, dict[tuple[int, int], str]] = (None, {})

    def info(self, path: str, container: Container | None, below: Sequence[str], wanted: Window) -> s.ContainerInfo:
        """v1's container. `below`: the paths of its direct subcontainers."""
        subcontainers = [s.ContainerReference(name=child) for child in below]
        if container is None:
            return s.ContainerInfo(name=path, subcontainers=subcontainers, spec=s.NO_SPEC)
        _, stats = self._stats(container, wanted)
        return s.ContainerInfo(
            **specs.reference(container), subcontainers=subcontainers, spec=self._spec(container), stats=stats
        )  # fmt: skip

    def info_v2(self, container: Container | None, count: int) -> v2.ContainerInfoV2:
        """v2.1's container."""
        return v2.ContainerInfoV2(spec=self.spec_v2(container), stats=self._converted(container, count, samples.stats_v2))

    def deprecated_stats(self, container: Container | None, count: int) -> list[v2.DeprecatedContainerStats]:
        """v2.0's samples."""
        return self._converted(container, count, samples.deprecated_stats)

    def machine_stats(self, root: Container | None, count: int) -> list[v2.MachineStats]:
        """The machine's samples, which are the root cgroup's."""
        return self._converted(root, count, samples.machine_stats)

    def spec_v2(self, container: Container | None) -> v2.ContainerSpecV2:
        if container is None:
            return specs.spec_v2(s.NO_SPEC, [], "")
        return specs.spec_v2(self._spec(container), specs.aliases_of(container), specs.runtime_of(container))

    def _spec(self, container: Container) -> s.ContainerSpec:
        host = self._memory.host_infos.get(container.host_id)
        return specs.spec(container, host.memory_capacity_bytes if host is not None else 0)

    def _stats(self, container: Container, wanted: Window) -> tuple[list[StatsSample], list[s.ContainerStats]]:
        taken = container.samples.newest(wanted.most, wanted.start_ns, wanted.end_ns, thin=True)
        about = samples.About(
            self._disk_names(container.host_id), specs.threads_max(container), container.facts.get("oom_kills", 0)
        )  # fmt: skip
        stats = samples.all_stats(taken, about)
        latest = container.latest
        if container.filesystems and latest is not None and taken and taken[-1].time_ns // 1_000_000 == latest.time_ms:
            # measured less often than sampled: said of the newest sample alone
            of_machine = container.facts["cgroup_path"] == "/"
            measured = [samples.fs_stats(usage, of_machine=of_machine) for usage in container.filesystems]
            stats[-1] = structs.replace(stats[-1], filesystem=measured)
        return taken, stats

    def _disk_names(self, host_id: str) -> dict[tuple[int, int], str]:
        host = self._memory.host_infos.get(host_id)
        if self._disks[0] is not host:  # hosts tell of themselves once an hour; answers hold hundreds of containers
            self._disks = (host, machine.disk_names(host))
        return self._disks[1]

    def _converted(
        self, container: Container | None, count: int, convert: Callable[[s.ContainerStats, v2.CpuInst | None, s.ContainerSpec], _S]
    ) -> list[_S]:
        if container is None:
            return []
        taken, stats = self._stats(container, Window(count))
        spec = self._spec(container)
        rates = samples.cpu_rates(taken)
        return [convert(stat, rate, spec) for stat, rate in zip(stats, rates, strict=True)]


def derived_stats(container: Container) -> v2.DerivedStats:
    """Statistics of its last minute, hour and day."""
    derived = container.summary.derived()
    return v2.DerivedStats(
        timestamp=rfc3339(derived.time_ns),
        latest_usage=v2.InstantUsage(derived.latest_cpu_millicores, derived.latest_memory_bytes),
        minute_usage=_span(derived.minute),
        hour_usage=_span(derived.hour),
        day_usage=_span(derived.day),
    )


def _span(span: Span) -> v2.Usage:
    return v2.Usage(percent_complete=span.percent_complete, cpu=_percentiles(span.cpu), memory=_percentiles(span.memory))


def _percentiles(usage: Usage) -> v2.Percentiles:
    return v2.Percentiles(**structs.asdict(usage))
