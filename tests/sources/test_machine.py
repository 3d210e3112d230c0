"""Facts about the machine: this one's, and those of hosts made up of files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from streamer.clock import SystemClock
from streamer.contracts import Clock
from streamer.errors import Unsupported
from streamer.kernel import proc
from streamer.model import observations as o
from streamer.sources import machine
from streamer.sources.cloud import Cloud, cloud
from streamer.sources.filesystems import Filesystems
from streamer.sources.hardware import disks, huge_pages, memory_modules, network_devices
from streamer.sources.machine import MachineSource, host_identity
from streamer.testing.clock import FakeClock

MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class Version(NamedTuple):
    version: str
    api_version: str


def machine_source(
    root: str, docker_version: Callable[[], Version | None] | None = None, clock: Clock | None = None
) -> MachineSource:
    clock = clock or SystemClock()
    return MachineSource(root, "v1", clock, Filesystems(root, clock), docker_version)


def test_this_machine_is_described() -> None:
    """What the kernel says is there, and the whole can be sent."""
    facts = machine_source("/", lambda: Version("20.10", "1.41")).read()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.kernel_version == os.uname().release
    assert facts.num_cores >= 1 and facts.memory_capacity_bytes > 0
    assert abs(facts.boot_time_ms / 1000 + time.clock_gettime(time.CLOCK_BOOTTIME) - time.time()) < 60
    assert (facts.docker_version, facts.docker_api_version) == ("20.10", "1.41")
    assert msgspec.json.decode(msgspec.json.encode(facts))["cgroup_mode"] == "v1"


async def heard_from(source: MachineSource, until: Callable[[list[o.HostDescribed]], bool]) -> list[o.HostDescribed]:
    heard: list[o.HostDescribed] = []
    task = asyncio.create_task(source.run(heard.append))  # type: ignore[arg-type]
    deadline = time.monotonic() + 20
    while not until(heard):
        assert time.monotonic() < deadline, heard
        await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return heard


async def test_it_is_said_at_the_start_on_a_change_and_every_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when nothing is new."""
    monkeypatch.setattr(machine, "_LOOK_SECONDS", 0.001)
    clock, looks = FakeClock(), 0

    def version() -> Version | None:
        nonlocal looks
        looks += 1
        if looks == 20:
            clock.advance(3601)
        return None if looks < 10 else Version("20.10", "1.41")

    heard = await heard_from(machine_source("/", version, clock), lambda _: looks >= 30)
    assert ["docker_version" in msgspec.to_builtins(told.facts) for told in heard] == [False, True, True]


async def test_facts_that_cannot_be_read_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when no descriptor is left: said once, with what to do, and over once they can be read again."""
    monkeypatch.setattr(machine, "_LOOK_SECONDS", 0.001)
    really, looks = proc.boot_id, 0

    def failing(root: str) -> str:
        nonlocal looks
        looks += 1
        if looks in range(3, 9):
            raise Unsupported("no boot id") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(root)

    monkeypatch.setattr(machine.proc, "boot_id", failing)
    heard = await heard_from(machine_source("/"), lambda _: looks >= 20)
    said = [type(told) for told in heard]
    assert said == [o.HostDescribed, o.Degraded, o.Recovered]
    assert "no boot id" in heard[1].reason and "LimitNOFILE" in heard[1].remedy


def test_a_file_system_that_hangs_holds_up_neither_the_facts_nor_the_end(tmp_path: Path) -> None:
    """The event loop ends while the question is still unanswered."""
    root = host(tmp_path, {"proc/sys/kernel/random/boot_id": "b", "proc/1/mountinfo": "2 0 8:1 / / rw - ext4 /dev/sda1 rw\n"})
    asked, released = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        released.wait(60)

    async def told_until_asked() -> None:
        clock = SystemClock()
        source = MachineSource(str(root), "v1", clock, Filesystems(str(root), clock, hang))
        heard = await heard_from(source, lambda _: asked.is_set())
        assert heard == []

    try:
        asyncio.run(told_until_asked())
        assert not released.is_set()
    finally:
        released.set()


# who it is


def test_the_host_id_is_the_machine_id(tmp_path: Path) -> None:
    """Of the host, not of the container that the agent is in; the name is the host's too."""
    host(tmp_path, {"etc/machine-id": f"{MACHINE_ID}\n", "etc/hostname": "# set by us\nweb-7\n"})
    assert host_identity(str(tmp_path)) == ("web-7", MACHINE_ID)


def test_an_empty_machine_id_falls_back_to_dbus_and_then_to_the_firmware(tmp_path: Path) -> None:
    """An image that has not been booted yet has an empty file."""
    host(tmp_path, {"etc/machine-id": "", "sys/class/dmi/id/product_uuid": "12345678-9ABC-DEF0-1234-56789ABCDEF0\n"})
    assert host_identity(str(tmp_path))[1] == "123456789abcdef0123456789abcdef0"
    host(tmp_path, {"var/lib/dbus/machine-id": MACHINE_ID})
    assert host_identity(str(tmp_path))[1] == MACHINE_ID


@pytest.mark.parametrize(
    "uuid", ["", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "Not Settable"]
)
def test_without_any_id_it_is_made_of_what_outlives_a_reboot(tmp_path: Path, uuid: str) -> None:
    """The name and the network cards' own addresses: the same each time, another on another host."""
    card = {"addr_assign_type": "0\n", "address": "02:fc:00:00:00:01\n", "device/vendor": "x"}
    made = {f"sys/class/net/eth0/{name}": text for name, text in card.items()}
    files = {"etc/hostname": "web-7", "sys/class/dmi/id/product_uuid": uuid, **made}
    one, two, three = (host(tmp_path / name, files) for name in "123")
    host(two, {"sys/class/net/eth0/address": "02:fc:00:00:00:02"})
    host(three, {"sys/class/net/veth1/address": "aa:aa", "sys/class/net/veth1/addr_assign_type": "3", "proc/uptime": "1"})
    ids = [host_identity(str(root))[1] for root in (one, two, three)]
    assert ids[0] == ids[2] != ids[1]
    assert all(len(id_) == 32 for id_ in ids)


def test_a_bare_host_has_a_name(tmp_path: Path) -> None:
    """Ours, when its own cannot be told."""
    assert host_identity(str(tmp_path))[0] == os.uname().nodename


# what it has


def test_disks_are_those_with_a_platter_or_a_chip(tmp_path: Path) -> None:
    """Loops, RAM disks, CDs and hidden paths of multipath disks are left out."""
    for name, number in (
        ("sda", "8:0"),
        ("loop0", "7:0"),
        ("ram0", "1:0"),
        ("zram0", "252:0"),
        ("sr0", "11:0"),
        ("nvme0c0n1", "259:1"),
    ):
        host(tmp_path, {f"sys/block/{name}/dev": number, f"sys/block/{name}/size": "8"})
    host(tmp_path, {"sys/block/nvme0c0n1/hidden": "1", "sys/block/sda/queue/scheduler": "none [mq-deadline] kyber"})
    (disk,) = disks(tmp_path)
    assert (disk.name, disk.major, disk.minor, disk.size_bytes, disk.scheduler) == ("sda", 8, 0, 4096, "mq-deadline")


def test_network_devices_are_the_host_s_own(tmp_path: Path) -> None:
    """Not those that runtimes make for containers; a speed of -1 is not known."""
    for name in ("eth0", "lo", "veth12", "docker0", "br-12"):
        host(
            tmp_path,
            {f"sys/class/net/{name}/address": "aa:bb", f"sys/class/net/{name}/mtu": "1500", f"sys/class/net/{name}/speed": "-1"},
        )
    host(tmp_path, {"sys/class/net/bonding_masters": ""})
    (device,) = network_devices(tmp_path)
    assert msgspec.to_builtins(device) == {"name": "eth0", "mac_address": "aa:bb", "mtu": 1500}


def test_huge_pages_and_memory_modules(tmp_path: Path) -> None:
    """Pages by size; modules of a kind together, wherever they are plugged in."""
    host(
        tmp_path,
        {
            "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "2\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
            "sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type": "Registered-DDR4\n",
            "sys/devices/system/edac/mc/mc0/dimm0/size": "16384\n",
            "sys/devices/system/edac/mc/mc0/dimm0/dimm_label": "A1\n",
            "sys/devices/system/edac/mc/mc1/dimm3/dimm_mem_type": "Registered-DDR4\n",
            "sys/devices/system/edac/mc/mc1/dimm3/size": "16384\n",
            "sys/devices/system/edac/mc/mc1/dimm4/dimm_mem_type": "Non-volatile-RAM\n",
            "sys/devices/system/edac/mc/mc1/dimm4/size": "129408\n",
            "sys/devices/system/edac/mc/mc1/csrow0/size": "32768\n",
            "sys/devices/system/edac/mc/mc1/mc_name": "x\n",
        },
    )
    assert msgspec.to_builtins(list(huge_pages(tmp_path / "sys/kernel/mm/hugepages"))) == [
        {"page_size_bytes": 2 << 20, "num_pages": 512},
        {"page_size_bytes": 1 << 30, "num_pages": 2},
    ]
    assert msgspec.to_builtins(list(memory_modules(tmp_path))) == [
        {"kind": "Non-volatile-RAM", "capacity_bytes": 129408 << 20, "count": 1},
        {"kind": "Registered-DDR4", "capacity_bytes": 32 << 30, "count": 2},
    ]
    assert list(memory_modules(tmp_path / "none")) == list(huge_pages(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"sys_vendor": "Amazon EC2", "product_name": "m7a.4xlarge", "board_asset_tag": "i-0c1f0a6be0a5d9f3e"},
            Cloud("AWS", "m7a.4xlarge", "i-0c1f0a6be0a5d9f3e"),
        ),
        ({"sys_vendor": "Amazon EC2", "product_name": "m5.metal", "board_asset_tag": "Not Specified"}, Cloud("AWS", "m5.metal")),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon", "product_name": "HVM domU"}, Cloud("AWS")),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine", "product_serial": "GoogleCloud-1"}, Cloud("GCE")),
        (
            {
                "sys_vendor": "Microsoft Corporation",
                "product_name": "Virtual Machine",
                "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
                "product_uuid": "12345678-9ABC-DEF0-1234-56789ABCDEF0",
            },
            Cloud("Azure", instance_id="12345678-9abc-def0-1234-56789abcdef0"),
        ),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine", "chassis_asset_tag": "0000"}, Cloud()),
        ({"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R740"}, Cloud()),
        ({}, Cloud()),
    ],
)
def test_the_cloud_is_told_by_the_firmware(tmp_path: Path, files: dict[str, str], expected: Cloud) -> None:
    """Each provider's mark; a machine of one's own, a Hyper-V of one's own too, has none."""
    host(tmp_path, {f"sys/class/dmi/id/{name}": text + "\n" for name, text in files.items()})
    assert cloud(tmp_path) == expected
