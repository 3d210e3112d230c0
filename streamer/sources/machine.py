"""Facts about the machine: said at the start, when they change, and every hour."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from msgspec import UNSET, structs

import streamer
from streamer.contracts import Clock, Emit, Status
from streamer.errors import Unsupported
from streamer.kernel import proc
from streamer.model import observations as o
from streamer.model.machine import Filesystem, HostFacts
from streamer.model.stats import FilesystemUsage
from streamer.sources.aside import aside
from streamer.sources.bounds import REMEDY, Bounds, told
from streamer.sources.cloud import Cloud, cloud
from streamer.sources.filesystems import Filesystems
from streamer.sources.hardware import Cpu, disks, huge_pages, listed, memory_modules, network_devices, text
from streamer.sources.topology import Topology
from streamer.telemetry import Telemetry

_LOOK_SECONDS: Final = 60.0
_UNREAD_REMEDY: Final = "raise the limit of open files (LimitNOFILE=) if there were none left; /proc has to be readable"
_SAY_NS: Final = 3600 * 1_000_000_000
_TREMBLE_MS: Final = 2000  # the kernel works the boot time out anew from the wall clock whenever it is read


class DaemonVersion(Protocol):
    """What a container runtime's daemon calls itself."""

    @property
    def version(self) -> str: ...

    @property
    def api_version(self) -> str: ...


class MachineSource:
    """Emits `HostDescribed`; `Degraded` while it cannot be read or lists in messages are cut, its own or those of samples.

    docker_version  asked at each look; None, or its answer None: not known (yet)
    bounds          told by whoever cuts a list
    """

    name = "source.machine"

    def __init__(
        self,
        host_root: str,
        cgroup_mode: str,
        clock: Clock,
        filesystems: Filesystems,
        docker_version: Callable[[], DaemonVersion | None] | None = None,
        bounds: Bounds | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._host_root, self._cgroup_mode, self._clock = host_root, cgroup_mode, clock
        self._filesystems, self._docker_version = filesystems, docker_version
        self._bounds = bounds if bounds is not None else Bounds()
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._cpu: Cpu | None = None
        self._cloud: Cloud | None = None
        self._topology = Topology(Path(host_root))
        self._status = Status(self.name, "starting", since_ms=clock.wall_ns() // 1_000_000)

    def status(self) -> Status:
        return self._status

    async def run(self, emit: Emit) -> None:
        """Until cancelled."""
        said: HostFacts | None = None
        said_ns = 0
        while True:
            unread = ""
            try:
                facts = await aside(self.read, "machine")
            except (OSError, Unsupported) as problem:  # no descriptor left: what was said stands, and the containers go on
                unread = f"the machine's facts could not be read: {problem}"
            else:
                now_ns = self._clock.monotonic_ns()
                if said is not None and abs(facts.boot_time_ms - said.boot_time_ms) <= _TREMBLE_MS:
                    facts = structs.replace(facts, boot_time_ms=said.boot_time_ms)
                if facts != said or now_ns - said_ns >= _SAY_NS:
                    said, said_ns = facts, now_ns
                    emit(o.HostDescribed(self._clock.wall_ns(), facts))
            self._tell_of_trouble(emit, unread)
            await asyncio.sleep(_LOOK_SECONDS)

    def _tell_of_trouble(self, emit: Emit, unread: str) -> None:
        beyond = self._bounds.beyond()
        self._telemetry.replace("streamer_left_out", {(what,): count for what, count in beyond.items()})
        reason, now_ns = unread or told(beyond), self._clock.wall_ns()
        remedy = _UNREAD_REMEDY if unread else REMEDY
        self._telemetry.set("streamer_source_up", 0 if reason else 1, self.name)
        was = self._status.state
        if was == "starting" or reason != self._status.reason:
            self._status = Status(self.name, "degraded" if reason else "ok", reason, remedy if reason else "", now_ns // 1_000_000)
            if reason:
                emit(o.Degraded(self.name, now_ns, reason, remedy))
            elif was == "degraded":
                emit(o.Recovered(self.name, now_ns))

    def read(self) -> HostFacts:
        """Read all of it. What this host does not tell is absent.

        Raises:
            Unsupported: /proc is not mounted below the host's root.
        """
        root = Path(self._host_root)
        if self._cpu is None:
            self._cpu = Cpu(root)  # never changes, and a current frequency would seem to
        if self._cloud is None:
            self._cloud = cloud(root)
        memory, system, docker = proc.meminfo(root), os.uname(), self._docker_version() if self._docker_version else None
        return HostFacts(
            boot_id=proc.boot_id(root),
            boot_time_ms=proc.btime(root) * 1000,
            kernel_version=system.release,
            os=proc.os_release(root),
            architecture=system.machine,
            cgroup_mode=self._cgroup_mode,
            num_cores=os.cpu_count() or 1,
            num_physical_cores=self._cpu.cores,
            num_sockets=self._cpu.sockets,
            cpu_frequency_khz=self._cpu.frequency_khz,
            cpu_vendor=self._cpu.vendor,
            cpu_model=self._cpu.model,
            memory_capacity_bytes=memory.get("MemTotal", 0),
            swap_capacity_bytes=memory.get("SwapTotal", 0),
            system_uuid=_system_uuid(root) or UNSET,
            machine_id=proc.machine_id(root) or UNSET,
            docker_version=docker.version if docker else UNSET,
            docker_api_version=docker.api_version if docker else UNSET,
            streamer_version=streamer.__version__,
            filesystems=[_filesystem(usage) for usage in self._filesystems.measure()],
            disks=list(disks(root)),
            network_devices=list(network_devices(root)),
            huge_pages=list(huge_pages(root / "sys/kernel/mm/hugepages")),
            memory_modules=list(memory_modules(root)),
            topology=self._topology.read(),
            cloud_provider=self._cloud.provider,
            instance_type=self._cloud.instance_type,
            instance_id=self._cloud.instance_id,
        )


def _filesystem(usage: FilesystemUsage) -> Filesystem:
    return Filesystem(
        device=usage.device,
        mountpoint=usage.mountpoint or "",
        fstype=usage.fstype or "",
        capacity_bytes=usage.capacity_bytes,
        inodes=usage.inodes,
    )


# who it is


def host_identity(host_root: str) -> tuple[str, str]:
    """The host's name, and an id that is the same after every reboot: 32 hexadecimal digits.

    The id is the machine id; where there is none (a bare image), the firmware's UUID; where there is none either (a small
    board, a guest), a hash of the name and of the addresses burnt into the network cards: both outlive a reboot, unlike
    the boot id, and unlike the name alone they differ between hosts made from one image.
    """
    root = Path(host_root)
    name = _host_name(root)
    host_id = proc.machine_id(root) or _system_uuid(root).replace("-", "").lower()
    if not re.fullmatch("[0-9a-f]{32}", host_id) or len(set(host_id)) == 1:  # firmware that was never given one: 0000…, ffff…
        facts = "\n".join([name, *sorted(_hardware_addresses(root))])
        host_id = hashlib.sha256(f"streamer host\n{facts}".encode()).hexdigest()[:32]
    return name, host_id


def _host_name(root: Path) -> str:
    # /proc/sys/kernel/hostname answers with the reader's own name, whichever mount it is read through: in a container
    # that is the container's.
    if root != Path("/"):
        for line in text(root / "etc/hostname").splitlines():
            if line.strip() and not line.startswith("#"):
                return line.strip()
    return os.uname().nodename or "localhost"


def _system_uuid(root: Path) -> str:
    for name in ("sys/class/dmi/id/product_uuid", "proc/device-tree/system-id", "proc/device-tree/vm,uuid"):
        if said := text(root / name).rstrip("\0"):
            return said
    return ""


def _hardware_addresses(root: Path) -> Iterator[str]:
    for device in listed(root / "sys/class/net"):
        if (device / "device").exists() and text(device / "addr_assign_type") == "0":  # NET_ADDR_PERM: not made up at boot
            yield text(device / "address")
