"""Limits and processes of a cgroup, real and made up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from streamer.errors import Gone
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.kernel.limits import read_populated, read_procs, read_spec
from streamer.model.spec import SPEC_FILES, ContainerSpec
from tests.support.cgroups import CgroupFolder


def v2(root: Path, **files: str) -> Hierarchies:
    """A hierarchy with the cgroup /a, whose files have `_` for the dots of their names."""
    (root / "a").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "a" / name.replace("_", ".")).write_text(text)
    return Hierarchies("v2", {"unified": str(root)}, ("unified",))


def test_limits_on_v2(tmp_path: Path) -> None:
    """Swap is added to memory, the weight is told as shares, the quota with its period."""
    hierarchies = v2(
        tmp_path,
        memory_max="1000000\n", memory_swap_max="500000\n", memory_low="1000\n", cpu_weight="100\n", cpu_max="50000 100000\n",
        cpuset_cpus_effective="0-3,7\n", pids_max="max\n",
    )  # fmt: skip
    assert read_spec(hierarchies, "/a") == ContainerSpec(
        memory_limit_bytes=1000000, memory_swap_limit_bytes=1500000, memory_reservation_bytes=1000, cpu_shares=2597,
        cpu_quota_us=50000, cpu_period_us=100000, cpuset_cpus="0-3,7", pids_limit=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "swap", "both"),
    [("max", "max", 0), ("1000", "max", 0), ("max", "1000", 0), ("1000", "0", 1000), ("1000", "5", 1005)],
)
def test_limit_of_memory_plus_swap_on_v2(memory: str, swap: str, both: int, tmp_path: Path) -> None:
    """Without a limit on either there is none on the sum; no swap at all is a limit."""
    assert read_spec(v2(tmp_path, memory_max=memory, memory_swap_max=swap), "/a").memory_swap_limit_bytes == both


@pytest.mark.parametrize(
    ("weight", "shares"), [("1", 2), ("39", 998), ("100", 2597), ("10000", 262144), ("0", UNSET), ("x", UNSET)]
)
def test_weight_is_told_as_shares(weight: str, shares: int, tmp_path: Path) -> None:
    """The whole range of weights is the whole range of shares."""
    assert read_spec(v2(tmp_path, cpu_weight=weight), "/a").cpu_shares == shares


def test_no_cpu_limit_on_v2(tmp_path: Path) -> None:
    """`max` is 0, the period stands."""
    spec = read_spec(v2(tmp_path, cpu_max="max 100000"), "/a")
    assert (spec.cpu_quota_us, spec.cpu_period_us) == (0, 100000)


def test_cgroup_that_is_gone_has_no_limits(tmp_path: Path) -> None:
    """All absent."""
    assert read_spec(v2(tmp_path), "/no") == ContainerSpec()


@given(st.binary(max_size=30) | st.sampled_from([b"max", b"-1", b"1 2", b"0", b"99999999999999999999999"]))
def test_any_bytes_in_a_limit_are_read_without_a_crash(raw: bytes) -> None:
    """Absent, or a number."""
    with tempfile.TemporaryDirectory() as root:
        hierarchies = v2(Path(root))
        for row in SPEC_FILES:
            Path(root, "a", row.v2).write_bytes(raw)
        read_spec(hierarchies, "/a")


@pytest.mark.live
@pytest.mark.v2
def test_limits_as_the_kernel_holds_them(cgroups: CgroupFolder) -> None:
    """Set, and read back; a new cgroup has none."""
    hierarchies = detect(Path("/"))
    path = cgroups.make("a")
    fresh = read_spec(hierarchies, path)
    assert (fresh.memory_limit_bytes, fresh.cpu_quota_us, fresh.cpu_period_us, fresh.pids_limit) == (0, 0, 100000, 0)
    assert fresh.memory_swap_limit_bytes in (0, UNSET)
    cgroups.limit_memory("a", 64 << 20)
    for controller, name, text in [("cpu", "cpu.max" if cgroups.v2 else "cpu.cfs_quota_us", "20000"), ("pids", "pids.max", "77")]:
        Path(hierarchies.file(controller, path, name) or "").write_text(text)
    spec = read_spec(hierarchies, path)
    assert (spec.memory_limit_bytes, spec.cpu_quota_us, spec.pids_limit) == (64 << 20, 20000, 77)
    assert spec.cpu_shares == (2597 if cgroups.v2 else 1024)
    assert spec.memory_swap_limit_bytes in (64 << 20, UNSET)


@pytest.mark.live
@pytest.mark.v2
def test_processes_of_a_cgroup(cgroups: CgroupFolder) -> None:
    """Those in it, not those below it; nobody in a new one; gone when removed."""
    hierarchies = detect(Path("/"))
    path = cgroups.make("a")
    assert read_procs(hierarchies, hierarchies.anchor, path) == []
    assert read_populated(hierarchies, path) in (False, None)
    process = cgroups.run("a", "sh", "-c", "echo; exec sleep 60")
    while read_procs(hierarchies, hierarchies.anchor, path) != [process.pid]:
        assert process.poll() is None
    assert read_populated(hierarchies, path) is (True if cgroups.v2 else None)
    process.kill()
    process.wait()
    cgroups.remove("a")
    with pytest.raises(Gone):
        read_procs(hierarchies, hierarchies.anchor, path)
    if cgroups.v2:
        with pytest.raises(Gone):
            read_populated(hierarchies, path)


@pytest.mark.live
@pytest.mark.v2
def test_nothing_limits_the_root() -> None:
    """Of this machine: no limit is 0 there too, whether the kernel has files for it or not."""
    spec = read_spec(detect(Path("/")), "/")
    limits = ("memory_limit_bytes", "memory_swap_limit_bytes", "memory_reservation_bytes", "cpu_quota_us", "pids_limit")
    assert [getattr(spec, name) for name in limits] == [0] * 5
    assert spec.cpuset_cpus is UNSET or spec.cpuset_cpus
