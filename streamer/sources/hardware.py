"""What the machine is made of, by what `/proc` and `/sys` tell of it. What they do not tell is absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import UNSET, UnsetType

from streamer.kernel import proc
from streamer.kernel.network import of_the_host
from streamer.model.machine import Disk, HugePages, MemoryModules, NetworkDevice

_NO_DISKS: Final = ("loop", "ram", "zram", "sr", "fd")


class Cpu:
    """What does not change while the machine runs."""

    def __init__(self, root: Path) -> None:
        info = text(root / "proc/cpuinfo")
        self.cores: int | UnsetType = _physical_cores(root, info) or UNSET
        self.sockets: int | UnsetType = len(set(re.findall(r"^physical id\s*: (\d+)$", info, re.MULTILINE))) or UNSET
        self.vendor = first(r"^vendor_id\s*: (.+)$", info)
        self.model = first(r"^model name\s*: (.+)$", info)
        highest = text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
        now = first(r"^cpu MHz\s*: (\d+(?:\.\d+)?)$", info)
        self.frequency_khz: int | UnsetType = int(highest) if highest.isdecimal() else UNSET
        if self.frequency_khz is UNSET and isinstance(now, str):
            self.frequency_khz = round(float(now) * 1000)


def _physical_cores(root: Path, cpuinfo: str) -> int:
    """Sets of hardware threads that share one (Documentation/admin-guide/cputopology.rst); 0 when nothing tells."""
    cpus = [cpu for cpu in listed(root / "sys/devices/system/cpu") if re.fullmatch(r"cpu\d+", cpu.name)]
    for name in ("core_cpus_list", "thread_siblings_list"):  # the same; the second one is its old name
        threads = {said for cpu in cpus if (said := text(cpu / "topology" / name))}
        if threads:
            return len(threads)
    sockets = dict(re.findall(r"^physical id\s*: (\d+)(?:\n.+)*?\ncpu cores\s*: (\d+)$", cpuinfo, re.MULTILINE))
    return sum(map(int, sockets.values()))


def disks(root: Path) -> Iterator[Disk]:
    """The block devices, without those in memory, over files and for removable media."""
    for device in listed(root / "sys/block"):
        number, size = re.fullmatch(r"(\d+):(\d+)", text(device / "dev")), text(device / "size")
        if device.name.startswith(_NO_DISKS) or text(device / "hidden") == "1" or number is None or not size.isdecimal():
            continue
        yield Disk(
            name=device.name,
            major=int(number[1]),
            minor=int(number[2]),
            size_bytes=int(size) * 512,  # the unit is 512 bytes whatever the device's sector is
            scheduler=first(r"\[(.+)\]", text(device / "queue/scheduler")),
        )


def network_devices(root: Path) -> Iterator[NetworkDevice]:
    """The network devices, without the loopback and those that runtimes make for containers."""
    for device in listed(root / "sys/class/net"):
        if of_the_host(device.name) and device.is_dir():  # bonding_masters is a file
            mtu, speed = text(device / "mtu"), text(device / "speed")  # a speed that is not known is -1, or cannot be read
            yield NetworkDevice(
                name=device.name,
                mac_address=text(device / "address") or UNSET,
                mtu=int(mtu) if mtu.isdecimal() else UNSET,
                speed_mbit=int(speed) if speed.isdecimal() else UNSET,
            )


def huge_pages(directory: Path) -> Iterator[HugePages]:
    """What a directory like `/sys/kernel/mm/hugepages` says is set aside, the smallest pages first."""
    found = []
    for size in listed(directory):
        name, number = re.fullmatch(r"hugepages-(\d+)kB", size.name), text(size / "nr_hugepages")
        if name is not None and number.isdecimal():
            found.append((int(name[1]) * 1024, int(number)))
    for size_bytes, count in sorted(found):
        yield HugePages(page_size_bytes=size_bytes, num_pages=count)


def memory_modules(root: Path) -> Iterator[MemoryModules]:
    """The memory modules by kind, where an EDAC driver knows them (Documentation/driver-api/edac.rst)."""
    sizes: dict[str, list[int]] = {}
    for controller in listed(root / "sys/devices/system/edac/mc"):
        for module in listed(controller):
            kind, size = text(module / "dimm_mem_type"), text(module / "size")
            if module.name.startswith("dimm") and size.isdecimal():
                sizes.setdefault(kind or "Unknown", []).append(int(size) << 20)  # in MiB
    for kind, found in sorted(sizes.items()):
        yield MemoryModules(kind=kind, capacity_bytes=sum(found), count=len(found))


def listed(directory: Path) -> list[Path]:
    """What is in a directory, in order."""
    try:
        return sorted(directory.iterdir())
    except OSError:  # no /sys there
        return []


def text(path: Path) -> str:
    """What stands in a file, without the white space around it; "" where there is none."""
    try:
        return proc.read(path).decode("utf-8", "replace").strip()
    except OSError:  # absent, not for us, or (speed of a link that is down) no answer
        return ""


def first(pattern: str, said: str) -> str | UnsetType:
    """The first group of the pattern, where a line matches it."""
    found = re.search(pattern, said, re.MULTILINE)
    return found[1].strip() if found else UNSET
