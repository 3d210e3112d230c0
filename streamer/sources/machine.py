"""Facts about the machine: said at the start, when they change, and every hour."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from msgspec import UNSET, UnsetType, structs

import streamer
from streamer.contracts import Clock, Emit, Status
from streamer.kernel import proc
from streamer.model import observations as o
from streamer.model.machine import Disk, Filesystem, HostFacts, NetworkDevice

_LOOK_SECONDS: Final = 60.0
_SAY_NS: Final = 3600 * 1_000_000_000
_TREMBLE_MS: Final = 2000  # the kernel works the boot time out anew from the wall clock whenever it is read

_NO_DISKS: Final = ("loop", "ram", "zram", "sr", "fd")
_NO_NETWORK_DEVICES: Final = (
    "lo",
    "veth",
    "docker",
    "br-",
    "cni",
    "cali",
    "flannel",
    "lxc",
    "podman",
    "nerdctl",
    "virbr",
    "tap",
    "ifb",
)
_IMAGES: Final = frozenset({"squashfs", "iso9660", "udf", "erofs"})  # read-only images (snaps, CDs): no room to watch


class DaemonVersion(Protocol):
    """What a container runtime's daemon calls itself."""

    @property
    def version(self) -> str: ...

    @property
    def api_version(self) -> str: ...


class MachineSource:
    """Emits `HostDescribed`.

    docker_version  asked at each look; None, or its answer None: not known (yet)
    """

    name = "source.machine"

    def __init__(
        self, host_root: str, cgroup_mode: str, clock: Clock, docker_version: Callable[[], DaemonVersion | None] | None = None
    ) -> None:
        self._host_root, self._cgroup_mode, self._clock = host_root, cgroup_mode, clock
        self._docker_version = docker_version
        self._cpu: _Cpu | None = None
        self._status = Status(self.name, "starting", since_ms=clock.wall_ns() // 1_000_000)

    def status(self) -> Status:
        return self._status

    async def run(self, emit: Emit) -> None:
        """Until cancelled."""
        said: HostFacts | None = None
        said_ns = 0
        while True:
            facts = await asyncio.to_thread(self.read)  # a file system may take its time over its size
            now_ns = self._clock.monotonic_ns()
            if said is not None and abs(facts.boot_time_ms - said.boot_time_ms) <= _TREMBLE_MS:
                facts = structs.replace(facts, boot_time_ms=said.boot_time_ms)
            if facts != said or now_ns - said_ns >= _SAY_NS:
                said, said_ns = facts, now_ns
                emit(o.HostDescribed(self._clock.wall_ns(), facts))
            if self._status.state != "ok":
                self._status = Status(self.name, "ok", since_ms=self._clock.wall_ns() // 1_000_000)
            await asyncio.sleep(_LOOK_SECONDS)

    def read(self) -> HostFacts:
        """Read all of it. What this host does not tell is absent.

        Raises:
            Unsupported: /proc is not mounted below the host's root.
        """
        root = Path(self._host_root)
        if self._cpu is None:
            self._cpu = _Cpu(root)  # never changes, and a current frequency would seem to
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
            filesystems=list(filesystems(root)),
            disks=list(disks(root)),
            network_devices=list(network_devices(root)),
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
        for line in _text(root / "etc/hostname").splitlines():
            if line.strip() and not line.startswith("#"):
                return line.strip()
    return os.uname().nodename or "localhost"


def _system_uuid(root: Path) -> str:
    for name in ("sys/class/dmi/id/product_uuid", "proc/device-tree/system-id", "proc/device-tree/vm,uuid"):
        if text := _text(root / name).rstrip("\0"):
            return text
    return ""


def _hardware_addresses(root: Path) -> Iterator[str]:
    for device in _listed(root / "sys/class/net"):
        if (device / "device").exists() and _text(device / "addr_assign_type") == "0":  # NET_ADDR_PERM: not made up at boot
            yield _text(device / "address")


# what it has


class _Cpu:
    """What does not change while the machine runs."""

    def __init__(self, root: Path) -> None:
        import psutil

        info = _text(root / "proc/cpuinfo")
        self.cores: int | UnsetType = psutil.cpu_count(logical=False) or UNSET
        self.sockets: int | UnsetType = len(set(re.findall(r"^physical id\s*: (\d+)$", info, re.MULTILINE))) or UNSET
        self.vendor = _first(r"^vendor_id\s*: (.+)$", info)
        self.model = _first(r"^model name\s*: (.+)$", info)
        highest = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
        now = _first(r"^cpu MHz\s*: (\d+(?:\.\d+)?)$", info)
        self.frequency_khz: int | UnsetType = int(highest) if highest.isdecimal() else UNSET
        if self.frequency_khz is UNSET and isinstance(now, str):
            self.frequency_khz = round(float(now) * 1000)


def filesystems(root: Path) -> Iterator[Filesystem]:
    """The file systems on block devices, each once, at the place where it was mounted whole first."""
    seen = set()
    for mount in sorted(_mounts(root), key=lambda mount: mount.root != "/"):
        if mount.fstype in _IMAGES or not (mount.source.startswith("/dev/") or mount.fstype == "zfs") or mount.source in seen:
            continue
        seen.add(mount.source)
        path = os.path.join(root, mount.mountpoint.lstrip("/"))
        try:
            if mount.mountpoint != "/" and not os.path.ismount(path):
                continue  # not to be seen from here: this would be the size of another one
            size = os.statvfs(path)
        except OSError:  # unmounted meanwhile, or not for us: not a fact that can be told
            continue
        yield Filesystem(
            device=_printable(mount.source),
            mountpoint=_printable(mount.mountpoint),
            fstype=mount.fstype,
            capacity_bytes=size.f_blocks * size.f_frsize,
            inodes=size.f_files or UNSET,
        )


def _mounts(root: Path) -> list[proc.Mount]:
    for whose in ("1", "self"):  # the host's first process sees the host's mounts; ours may be a container's
        try:
            return list(proc.parse_mountinfo(proc.read(root / "proc" / whose / "mountinfo")))
        except OSError:  # hidden from us (hidepid)
            continue
    return []


def disks(root: Path) -> Iterator[Disk]:
    """The block devices, without those in memory, over files and for removable media."""
    for device in _listed(root / "sys/block"):
        number, size = re.fullmatch(r"(\d+):(\d+)", _text(device / "dev")), _text(device / "size")
        if device.name.startswith(_NO_DISKS) or _text(device / "hidden") == "1" or number is None or not size.isdecimal():
            continue
        yield Disk(
            name=device.name,
            major=int(number[1]),
            minor=int(number[2]),
            size_bytes=int(size) * 512,  # the unit is 512 bytes whatever the device's sector is
            scheduler=_first(r"\[(.+)\]", _text(device / "queue/scheduler")),
        )


def network_devices(root: Path) -> Iterator[NetworkDevice]:
    """The network devices, without the loopback and those that runtimes make for containers."""
    for device in _listed(root / "sys/class/net"):
        if not device.name.startswith(_NO_NETWORK_DEVICES) and device.is_dir():  # bonding_masters is a file
            mtu, speed = _text(device / "mtu"), _text(device / "speed")  # a speed that is not known is -1, or cannot be read
            yield NetworkDevice(
                name=device.name,
                mac_address=_text(device / "address") or UNSET,
                mtu=int(mtu) if mtu.isdecimal() else UNSET,
                speed_mbit=int(speed) if speed.isdecimal() else UNSET,
            )


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:  # no /sys there
        return []


def _text(path: Path) -> str:
    try:
        return proc.read(path).decode("utf-8", "replace").strip()
    except OSError:  # absent, not for us, or (speed of a link that is down) no answer
        return ""


def _printable(path: str) -> str:
    """A path may hold any bytes; a message holds text."""
    return os.fsencode(path).decode("utf-8", "replace")


def _first(pattern: str, text: str) -> str | UnsetType:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else UNSET
