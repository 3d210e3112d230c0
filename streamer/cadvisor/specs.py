"""Who a container is and what it may use, as cAdvisor says it. Pure."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from streamer.cadvisor import shapes as s
from streamer.cadvisor import shapes_v2 as v2
from streamer.cadvisor.go import ZERO_TIME, nano
from streamer.memory import Container
from streamer.model.spec import ContainerSpec as Limits

_NO_LIMITS: Final = Limits()


def runtime_of(container: Container) -> str:
    """cAdvisor's namespace: whose names the aliases are; empty for a raw cgroup."""
    runtime: str = container.facts.get("runtime", "raw")
    return "" if runtime == "raw" else runtime


def aliases_of(container: Container) -> list[str]:
    """Of a runtime's container: its name and its id."""
    if not runtime_of(container):
        return []
    name = container.facts.get("name", "")
    return [name, container.container_id] if name and name != container.container_id else [container.container_id]


def reference(container: Container) -> dict[str, Any]:
    """The fields of a `ContainerReference`."""
    name = container.facts["cgroup_path"]
    runtime = runtime_of(container)
    if not runtime:
        return {"name": name}
    return {"id": container.container_id, "name": name, "aliases": aliases_of(container), "namespace": runtime}


def threads_max(container: Container) -> int:
    """Most threads it may have; 0: no limit."""
    limits: Limits = container.facts.get("spec", _NO_LIMITS)
    return limits.pids_limit or 0


def spec(container: Container, memory_capacity_bytes: int) -> s.ContainerSpec:
    """v1's spec. A memory limit of none is said as the machine's capacity; `has_*`: as the newest sample shows."""
    facts = container.facts
    limits: Limits = facts.get("spec", _NO_LIMITS)
    has_cpu = limits.cpu_shares is not UNSET or _has(container, "cpu_usage_ns")  # v1: shares are in another hierarchy than usage
    has_memory = _has(container, "memory_usage_bytes", limits.memory_limit_bytes)
    started = facts.get("started_at", "")
    created = facts.get("created_at", "") or facts.get("since", "") or started
    labels = facts.get("labels", {})
    return s.ContainerSpec(
        creation_time=nano(created) if created else ZERO_TIME,
        start_time=nano(started) if started else ZERO_TIME,
        labels=dict(sorted(labels.items())) if labels else labels,
        has_cpu=has_cpu,
        cpu=_cpu(limits) if has_cpu else s.NO_CPU_LIMIT,
        has_memory=has_memory,
        memory=_memory(limits, memory_capacity_bytes) if has_memory else s.NO_MEMORY_LIMIT,
        has_hugetlb=False,
        has_network=_has(container, "network_rx_bytes"),
        has_processes=_has(container, "processes"),
        processes=s.ProcessSpec(threads_max(container)),
        has_filesystem=bool(container.filesystems),
        has_diskio=_has(container, "io_read_bytes"),
        has_custom_metrics=False,
        image=facts.get("image", ""),
    )


def _has(container: Container, column: str, limit: Any = UNSET) -> bool:
    """Whether its newest sample has this; before the first, whether it has such a limit."""
    latest = container.latest
    return (limit if latest is None else getattr(latest, column)) is not UNSET


def _cpu(limits: Limits) -> s.CpuSpec:
    return s.CpuSpec(
        limits.cpu_shares or 0, 0, limits.cpuset_cpus or "", limits.cpu_quota_us or 0, limits.cpu_period_us or 0
    )  # fmt: skip


def _memory(limits: Limits, capacity_bytes: int) -> s.MemorySpec:
    return s.MemorySpec(
        limits.memory_limit_bytes or capacity_bytes, limits.memory_reservation_bytes or 0, limits.memory_swap_limit_bytes or 0
    )  # fmt: skip


def spec_v2(v1: s.ContainerSpec, aliases: list[str], namespace: str) -> v2.ContainerSpecV2:
    """v2's spec."""
    return v2.ContainerSpecV2(
        creation_time=v1.creation_time,
        start_time=v1.start_time,
        aliases=aliases,
        namespace=namespace,
        labels=v1.labels,
        has_cpu=v1.has_cpu,
        cpu=s.CpuSpec(v1.cpu.limit, v1.cpu.max_limit, v1.cpu.mask),
        has_memory=v1.has_memory,
        memory=v1.memory,
        has_hugetlb=v1.has_hugetlb,
        has_custom_metrics=v1.has_custom_metrics,
        has_processes=v1.has_processes,
        processes=v1.processes,
        has_network=v1.has_network,
        has_filesystem=v1.has_filesystem,
        has_diskio=v1.has_diskio,
        image=v1.image,
    )
