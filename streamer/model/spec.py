"""What a container may use: its limits and shares, from one table of kernel files."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType


class ContainerSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits and shares as the kernel holds them.

    A `memory_limit_bytes` or `memory_swap_limit_bytes` of 0 means: no limit of its own, the host's capacity is the limit.
    A `cpu_quota_us` of 0 means no CPU limit. What the hierarchy does not have is absent.
    """

    memory_limit_bytes: Annotated[int, Meta(description="Memory limit; 0: none, the host's capacity.")] | UnsetType = UNSET
    memory_swap_limit_bytes: (
        Annotated[int, Meta(description="Limit of memory plus swap; 0: none, the host's capacity.")] | UnsetType
    ) = UNSET
    memory_reservation_bytes: Annotated[int, Meta(description="Soft limit (v1) or memory.low (v2); 0: none.")] | UnsetType = UNSET
    cpu_shares: Annotated[int, Meta(description="Relative CPU weight in v1 terms (2 to 262144).")] | UnsetType = UNSET
    cpu_quota_us: Annotated[int, Meta(description="CPU time allowed in each period; 0: no limit.")] | UnsetType = UNSET
    cpu_period_us: Annotated[int, Meta(description="Length of a CPU enforcement period.")] | UnsetType = UNSET
    cpuset_cpus: Annotated[str, Meta(description="CPUs it may run on, as the kernel lists them: 0-3,7.")] | UnsetType = UNSET
    pids_limit: Annotated[int, Meta(description="Most threads it may have; 0: no limit.")] | UnsetType = UNSET


class SpecFile(NamedTuple):
    """Where one limit stands: (v1 controller, v1 file, v2 file) and how it is written there."""

    field: str
    controller: str
    v1: str
    v2: str
    form: Literal["limit", "number", "quota", "text", "weight"]


SPEC_FILES: Final[tuple[SpecFile, ...]] = (
    SpecFile("memory_limit_bytes", "memory", "memory.limit_in_bytes", "memory.max", "limit"),
    SpecFile("memory_swap_limit_bytes", "memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "limit"),
    SpecFile("memory_reservation_bytes", "memory", "memory.soft_limit_in_bytes", "memory.low", "limit"),
    SpecFile("cpu_shares", "cpu", "cpu.shares", "cpu.weight", "weight"),
    SpecFile("cpu_quota_us", "cpu", "cpu.cfs_quota_us", "cpu.max", "quota"),
    SpecFile("cpu_period_us", "cpu", "cpu.cfs_period_us", "cpu.max", "number"),
    SpecFile("cpuset_cpus", "cpuset", "cpuset.cpus", "cpuset.cpus.effective", "text"),
    SpecFile("pids_limit", "pids", "pids.max", "pids.max", "limit"),
)
"""`limit`: `max`, -1 or a number near 2^63 mean none (0). v2's `memory.swap.max` is swap alone: memory.max is added.
`cpu.max` is `quota period`. `weight` v2 -> shares: 2 + (weight - 1) * 262142 / 9999 (the inverse of what runc writes)."""
