"""A real-looking example of every record, built from its type: one web server's life on one host.

`schemas/examples/` and the tests are made of these. The first example of a type is named after it.
"""

from __future__ import annotations

from typing import Any, Final

from streamer.model import messages as m
from streamer.model.machine import Cache, Core, Disk, Filesystem, HugePages, MemoryModules, NetworkDevice, NumaNode
from streamer.model.spec import ContainerSpec
from streamer.model.stats import NETWORK, STATS, DiskCounters, FilesystemUsage, IoDevice, NetworkInterface

_ID: Final = "4f6b1d0c9a2e7f35b8c41d6e0a93f27c5b18e4d2760fa9c3e1b54d8f2a6c7093"
_HOST_ID: Final = "8c1f0a52d6e94b7f9f3e2a6b5d407c18"
_BOOT_ID: Final = "9d2b6f14-3a70-4c58-8e21-b7c05f6a1d93"
_BOOT: Final = _BOOT_ID.replace("-", "")[:16]
_INCARNATION: Final = f"{_BOOT}.unified.48213"
_EPOCH: Final = 1763971200417
_CGROUP: Final = f"/system.slice/docker-{_ID}.scope"
_IMAGE_ID: Final = "sha256:e4720093a3c1381245b53a5a51b417963b3c4472d3f47fc301930a4f3b17666a"

_CREATED: Final = ("2025-11-24T09:15:04.218736451Z", 1763975704218)
_SAMPLED: Final = ("2025-11-24T09:31:12.000413822Z", 1763976672000)
_KILLED: Final = ("2025-11-24T09:47:33.604128000Z", 1763977653604)
_DELETED: Final = ("2025-11-24T09:47:33.891204377Z", 1763977653891)
_STARTED: Final = ("2025-11-24T08:00:00.417902633Z", 1763971200417)


def _head(topic: m.Topic, id_: str, seq: int, when: tuple[str, int], noticed_after_ms: int = 1) -> dict[str, Any]:
    time, time_ms = when
    return {
        "type": topic.type,
        "schema": topic.schema,
        "id": id_,
        "epoch": _EPOCH,
        "seq": seq,
        "host": "web-3",
        "host_id": _HOST_ID,
        "time": time,
        "time_ms": time_ms,
        "observed_time_ms": time_ms + noticed_after_ms,
    }


_CONTAINER: Final[dict[str, Any]] = {
    "container_id": _ID,
    "incarnation": _INCARNATION,
    "runtime": "docker",
    "cgroup_path": _CGROUP,
    "name": "shop-web-1",
    "aliases": ["shop-web-1", _ID[:12]],
    "image": "nginx:1.29",
    "image_id": _IMAGE_ID,
    "labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "team": "storefront"},
    "compose_project": "shop",
    "compose_service": "web",
}

_POD: Final[dict[str, Any]] = {
    **_CONTAINER,
    "runtime": "containerd",
    "cgroup_path": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7c9e6679_7425_40de_944b_e07fc1f90ae7.slice/cri-containerd-{_ID}.scope",
    "name": "web",
    "aliases": [_ID[:12]],
    "labels": {"io.kubernetes.pod.name": "shop-web-6d9f7c5b4-x2x8k", "io.kubernetes.pod.namespace": "storefront"},
    "pod": "shop-web-6d9f7c5b4-x2x8k",
    "namespace": "storefront",
}
for _docker_only in ("compose_project", "compose_service"):
    del _POD[_docker_only]

_SPEC: Final = ContainerSpec(
    memory_limit_bytes=268_435_456,
    memory_swap_limit_bytes=268_435_456,
    memory_reservation_bytes=0,
    cpu_shares=1024,
    cpu_quota_us=50_000,
    cpu_period_us=100_000,
    cpuset_cpus="0-3",
    pids_limit=512,
)

_MEASURED: Final[dict[str, int | float]] = {
    "cpu_usage_ns": 41_382_915_000,
    "cpu_user_ns": 29_810_442_000,
    "cpu_system_ns": 11_572_473_000,
    "cpu_periods": 9_411,
    "cpu_throttled_periods": 37,
    "cpu_throttled_ns": 812_406_000,
    "cpu_burst_periods": 0,
    "cpu_burst_ns": 0,
    "memory_usage_bytes": 187_432_960,
    "memory_working_set_bytes": 143_290_368,
    "memory_rss_bytes": 121_634_816,
    "memory_cache_bytes": 59_817_984,
    "memory_mapped_file_bytes": 12_976_128,
    "memory_shmem_bytes": 4_194_304,
    "memory_active_file_bytes": 11_481_088,
    "memory_inactive_file_bytes": 44_142_592,
    "memory_dirty_bytes": 135_168,
    "memory_writeback_bytes": 0,
    "memory_kernel_bytes": 5_980_160,
    "memory_swap_bytes": 0,
    "memory_peak_bytes": 203_558_912,
    "memory_page_faults": 388_214,
    "memory_major_page_faults": 96,
    "memory_failcnt": 0,
    "memory_high_events": 0,
    "memory_max_events": 0,
    "memory_oom_events": 0,
    "memory_oom_kills": 0,
    "io_read_bytes": 48_660_480,
    "io_write_bytes": 7_340_032,
    "io_read_operations": 1_823,
    "io_write_operations": 402,
    "processes": 5,
    "threads": 9,
}
_BY_UNIT: Final[dict[str, int | float]] = {"ns": 184_027_000, "percent": 0.12, "bytes": 1_048_576}
"""Stands in for a statistic that has no row above."""

_INTERFACE: Final = NetworkInterface(
    name="eth0",
    rx_bytes=93_814_207,
    rx_packets=104_466,
    rx_errors=0,
    rx_drops=2,
    tx_bytes=412_905_118,
    tx_packets=121_090,
    tx_errors=0,
    tx_drops=0,
)


_LIFECYCLE: Final[dict[str, m.Record]] = {
    "container.lifecycle": m.ContainerLifecycle(
        **_head(m.LIFECYCLE, f"{_INCARNATION}/created", 17, _CREATED, 3),
        **_CONTAINER,
        event="created",
        found="live",
        state="running",
        created_at="2025-11-24T09:15:03.902114873Z",
        started_at="2025-11-24T09:15:04.241190027Z",
        pid=21_877,
        restart_count=0,
        spec=_SPEC,
    ),
    "container.lifecycle.updated": m.ContainerLifecycle(
        **_head(m.LIFECYCLE, f"{_INCARNATION}/updated/1763975892003118246", 18, ("2025-11-24T09:18:12.003118246Z", 1763975892003)),
        **_CONTAINER,
        event="updated",
        found="live",
        changed=["state"],
        state="paused",
        created_at="2025-11-24T09:15:03.902114873Z",
        started_at="2025-11-24T09:15:04.241190027Z",
        pid=21_877,
        restart_count=0,
        spec=_SPEC,
    ),
    "container.lifecycle.deleted": m.ContainerLifecycle(
        **_head(m.LIFECYCLE, f"{_INCARNATION}/deleted", 21, _DELETED, 12),
        **_CONTAINER,
        event="deleted",
        found="live",
        state="exited",
        created_at="2025-11-24T09:15:03.902114873Z",
        started_at="2025-11-24T09:15:04.241190027Z",
        spec=_SPEC,
        exit_code=137,
        oom_killed=True,
        lifetime_ms=1_949_650,
        totals_from="exit",
        totals_at_ms=1763977653889,
        total_cpu_usage_ns=83_104_772_000,
        total_cpu_throttled_ns=1_604_118_000,
        memory_peak_bytes=268_435_456,
        total_io_read_bytes=51_380_224,
        total_io_write_bytes=9_568_256,
        total_network_rx_bytes=190_227_451,
        total_network_tx_bytes=838_114_902,
        samples=1949,
        oom_kills=1,
    ),
    "container.lifecycle.reconciled": m.ContainerLifecycle(
        **_head(m.LIFECYCLE, f"{_INCARNATION}/deleted", 1, _STARTED, 240),
        **_POD,
        event="deleted",
        found="reconciled",
        not_before="2025-11-24T07:41:55.000000000Z",
        totals_from="last_sample",
        totals_at_ms=1763970114000,
        total_cpu_usage_ns=40_007_316_000,
        samples=731,
        oom_kills=0,
    ),
}

_OOM: Final[dict[str, m.Record]] = {
    "container.oom": m.ContainerOom(
        **_head(m.OOM, f"{_BOOT}/oom/4127", 2, _KILLED),
        **_CONTAINER,
        killed_cgroup=_CGROUP,
        limit_cgroup=_CGROUP,
        constraint="memcg",
        pid=21_903,
        process="nginx",
        uid=101,
        total_vm_bytes=412_958_720,
        anon_rss_bytes=239_468_544,
        file_rss_bytes=3_932_160,
        shmem_rss_bytes=4_194_304,
        oom_score_adj=0,
        memory_limit_bytes=268_435_456,
        evidence=["kmsg"],
    ),
}

_FILESYSTEM: Final = FilesystemUsage(
    device="/dev/nvme0n1p2",
    fstype="ext4",
    mountpoint="/",
    capacity_bytes=502_392_610_816,
    usage_bytes=1_409_024,
    layer_bytes=1_388_544,
    inodes_used=83,
    available_bytes=318_004_215_808,
    inodes=31_227_904,
    inodes_free=30_100_417,
    disk=DiskCounters(
        reads_completed=183_402,
        reads_merged=20_114,
        sectors_read=9_400_482,
        read_time_ms=71_002,
        writes_completed=902_114,
        writes_merged=711_320,
        sectors_written=40_112_640,
        write_time_ms=640_225,
        io_in_progress=1,
        io_time_ms=301_400,
        weighted_io_time_ms=711_227,
    ),
)

_SAMPLE: Final[dict[str, Any]] = {
    **{stat.name: _MEASURED.get(stat.name, _BY_UNIT.get(stat.unit, 12)) for stat in STATS},
    **{f"network_{suffix}": getattr(_INTERFACE, suffix) for suffix, _ in NETWORK},
    "network_interfaces": [_INTERFACE],
    "io_devices": [
        IoDevice(major=259, minor=0, read_bytes=51_380_224, write_bytes=9_568_256, read_operations=1_204, write_operations=611)
    ],
    "filesystems": [_FILESYSTEM],
}

_STATS: Final[dict[str, m.Record]] = {
    "container.stats": m.ContainerStats(
        **_head(m.STATS, f"{_INCARNATION}/stats/1763976672000413822", 40_118, _SAMPLED, 0), **_CONTAINER, **_SAMPLE
    ),
}

_STATE: Final[dict[str, m.Record]] = {
    "container.state": m.ContainerState(
        **_head(m.STATE, f"{_INCARNATION}/state/{_CREATED[1]}219502000", 17, _CREATED, 3),
        **_CONTAINER,
        state="running",
        since="2025-11-24T09:15:04.241190027Z",
        pid=21_877,
        spec=_SPEC,
        oom_kills=0,
    ),
}

_HOST: Final[dict[str, m.Record]] = {
    "host.info": m.HostInfo(
        **_head(m.HOST, f"{_HOST_ID}/{_EPOCH}/host/1763971200417902633", 1, _STARTED, 0),
        boot_id=_BOOT_ID,
        boot_time_ms=1763370011000,
        kernel_version="6.12.48-1-amd64",
        os="Debian GNU/Linux 13 (trixie)",
        architecture="x86_64",
        cgroup_mode="v2",
        num_cores=16,
        num_physical_cores=8,
        num_sockets=1,
        cpu_frequency_khz=4_400_000,
        cpu_vendor="AuthenticAMD",
        cpu_model="AMD EPYC 4364P 8-Core Processor",
        memory_capacity_bytes=67_344_449_536,
        swap_capacity_bytes=0,
        system_uuid="03000200-0400-0500-0006-000700080009",
        machine_id=_HOST_ID,
        docker_version="28.5.2",
        docker_api_version="1.51",
        streamer_version="0.1.0",
        filesystems=[
            Filesystem(device="/dev/nvme0n1p2", mountpoint="/", fstype="ext4", capacity_bytes=502_392_610_816, inodes=31_227_904)
        ],
        disks=[Disk(name="nvme0n1", major=259, minor=0, size_bytes=512_110_190_592, scheduler="none")],
        network_devices=[NetworkDevice(name="enp1s0", mac_address="02:42:5e:10:7a:91", mtu=1500, speed_mbit=10_000)],
        huge_pages=[HugePages(page_size_bytes=2_097_152, num_pages=0)],
        memory_modules=[MemoryModules(kind="Registered-DDR5", capacity_bytes=68_719_476_736, count=2)],
        topology=[
            NumaNode(
                node_id=0,
                memory_bytes=67_344_449_536,
                huge_pages=[HugePages(page_size_bytes=2_097_152, num_pages=0)],
                cores=[
                    Core(
                        core_id=0,
                        socket_id=0,
                        threads=[0, 8],
                        caches=[Cache(id=0, level=1, kind="Data", size_bytes=32_768)],
                        shared_caches=[Cache(id=0, level=2, kind="Unified", size_bytes=1_048_576)],
                    )
                ],
                caches=[Cache(id=0, level=3, kind="Unified", size_bytes=33_554_432)],
                distances=[10],
            )
        ],
        cloud_provider="AWS",
        instance_type="m7a.4xlarge",
        instance_id="i-0c1f0a6be0a5d9f3e",
    ),
}


def _control(number: int, when: tuple[str, int], **said: Any) -> m.Control:
    return m.Control(**_head(m.CONTROL, f"{_HOST_ID}/{_EPOCH}/control/{number}", number, when, 0), **said)


_MARKS: Final = {"container.lifecycle": 21, "container.oom": 2, "container.stats": 41_876, "host.info": 2, "control": 640}

_CONTROL: Final[dict[str, m.Record]] = {
    "control": _control(640, _DELETED, kind="heartbeat", containers=23, high_water=_MARKS),
    "control.started": _control(1, _STARTED, kind="started", version="0.1.0"),
    "control.gap": _control(
        412,
        _SAMPLED,
        kind="gap",
        component="sink.kafka",
        reason="backlog full: the oldest were dropped",
        gap_topic="container.stats",
        gap_first="31207",
        gap_last="31993",
        gap_count=787,
    ),
    "control.crashed": _control(
        2,
        _STARTED,
        kind="gap",
        component="outbox",
        reason="the agent ended without a word: samples that no sink had acknowledged yet were in memory",
        gap_topic="container.stats",
        gap_epoch=_STARTED[1] - 86_400_000,
        gap_first="90117",
    ),
    "control.degraded": _control(
        3,
        _STARTED,
        kind="degraded",
        component="source.docker",
        reason="/var/run/docker.sock: permission denied",
        remedy="run as a user of the group docker",
    ),
}

EXAMPLES: Final[dict[str, dict[str, m.Record]]] = {
    m.LIFECYCLE.type: _LIFECYCLE,
    m.OOM.type: _OOM,
    m.STATS.type: _STATS,
    m.STATE.type: _STATE,
    m.HOST.type: _HOST,
    m.CONTROL.type: _CONTROL,
}
"""Record type -> name of the example -> record."""
