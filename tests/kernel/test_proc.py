"""Facts from /proc and /etc: this machine's, made-up ones, and any bytes."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import Gone, Unsupported
from streamer.kernel import proc
from streamer.model.stats import NetworkInterface

ROOT = Path("/")


@pytest.fixture
def ended() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_this_host() -> None:
    """Facts that can be had in another way too."""
    assert proc.boot_id(ROOT) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(time.time() - uptime - proc.btime(ROOT)) < 5
    meminfo = proc.meminfo(ROOT)
    assert meminfo["MemTotal"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert proc.os_release(ROOT) == platform.freedesktop_os_release()["PRETTY_NAME"]


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    """However long it is; what is no file is said as the kernel says it."""
    for size in (0, 1, 4096, 4097, 500_000):
        (tmp_path / "file").write_bytes(text := os.urandom(size))
        assert proc.read(tmp_path / "file") == text
    with pytest.raises(IsADirectoryError):
        proc.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        proc.read(tmp_path / "none")


def test_this_process() -> None:
    """Name, cgroups, network namespace."""
    assert proc.comm(ROOT, os.getpid()) == Path("/proc/self/comm").read_text().strip()
    assert all(path.startswith("/") for path in proc.cgroup_of(ROOT, os.getpid()).values())
    assert proc.net_namespace(ROOT, os.getpid()) == proc.net_namespace(ROOT, 1)
    assert proc.shares_host_network("/", os.getpid())


@pytest.mark.live
@pytest.mark.v2
def test_process_with_a_network_of_its_own() -> None:
    """Its namespace is not the host's."""
    process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert not proc.shares_host_network("/", process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_process_that_has_ended(ended: int) -> None:
    """Is gone; and its network is never taken for a container's."""
    for ask in (proc.comm, proc.cgroup_of, proc.net_namespace):
        with pytest.raises(Gone):
            ask(ROOT, ended)
    assert proc.shares_host_network(ROOT, ended)


def test_host_that_is_mounted_somewhere_else(tmp_path: Path) -> None:
    """All paths are below its root; what it lacks is empty, but for the boot id."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "etc/os-release").write_text('NAME="x"\nPRETTY_NAME="My \\"own\\" OS 1.0"\n')
    assert proc.machine_id(tmp_path) == "0123456789abcdef0123456789abcdef"
    assert proc.os_release(tmp_path) == 'My "own" OS 1.0'
    assert (proc.meminfo(tmp_path), proc.btime(tmp_path)) == ({}, 0)
    with pytest.raises(Unsupported) as problem:
        proc.boot_id(tmp_path)
    assert str(tmp_path / "proc") in problem.value.remedy


def test_machine_id_of_an_image_that_was_never_booted(tmp_path: Path) -> None:
    """`uninitialized` is none; D-Bus may have one."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    assert proc.machine_id(tmp_path) == ""
    (tmp_path / "var/lib/dbus").mkdir(parents=True)
    (tmp_path / "var/lib/dbus/machine-id").write_text("f" * 32)
    assert proc.machine_id(tmp_path) == "f" * 32


@pytest.mark.parametrize(("line", "name"), [("PRETTY_NAME=Plain", "Plain"), ("PRETTY_NAME='Single'", "Single"), ("NAME=x", "")])
def test_os_release_forms(line: str, name: str, tmp_path: Path) -> None:
    """With and without quotes; in /usr/lib when not in /etc."""
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(f"ID=x\n{line}\n")
    assert proc.os_release(tmp_path) == name


NET_DEV = b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
eth0:1:11 12 13 14 5 6 7 8 19 20 21 22 13 14 15 16
 short: 1 2 3
   bad: x 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
"""


def test_net_dev_without_loopback_and_broken_lines() -> None:
    """Columns by proc(5); a name may have a colon and may touch the first number."""
    assert proc.parse_net_dev(NET_DEV) == (
        NetworkInterface("eth0", 1, 2, 3, 4, 9, 10, 11, 12),
        NetworkInterface("eth0:1", 11, 12, 13, 14, 19, 20, 21, 22),
    )
    assert [each.name for each in proc.parse_net_dev(NET_DEV, lambda name: name.endswith(":1"))] == ["eth0:1"]


def test_net_dev_of_this_host() -> None:
    """All of its interfaces."""
    names = {interface.name for interface in proc.parse_net_dev(Path("/proc/self/net/dev").read_bytes())}
    assert names == {name for _, name in socket.if_nameindex()} - {"lo"}


def test_cgroups_of_a_process() -> None:
    """v1 controllers, named hierarchies, and v2 under the empty name; a colon may be in the path."""
    raw = b"12:cpu,cpuacct:/a:b\n1:name=systemd:/x\n0::/user.slice (deleted)\nrubbish\n3:memory\n"
    assert proc.parse_cgroup(raw) == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/x", "": "/user.slice"}


def test_disk_counters_by_number_and_by_name() -> None:
    """The eleven counters of every kernel; later ones append more, an old partition's line has fewer."""
    raw = b"   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n 259 0 nvme0n1 11 10 9 8 7 6 5 4 3 2 1 0 0 0 0 0 0\n 8 1 sda1 1 2 3 4\n\nx\n"
    found = proc.parse_diskstats(raw)
    assert found.keys() == {"8:0", "sda", "259:0", "nvme0n1"}
    assert (found["sda"].reads_completed, found["sda"].write_time_ms, found["8:0"].weighted_io_time_ms) == (1, 8, 11)
    assert found["nvme0n1"] == found["259:0"]
    assert found["nvme0n1"].sectors_read == 9


@given(st.binary())
def test_disk_counters_take_any_bytes(raw: bytes) -> None:
    """What is no line of the kernel's is skipped."""
    proc.parse_diskstats(raw)


def test_mountinfo_with_optional_fields() -> None:
    """Their number varies; the dash ends them."""
    raw = rb"""36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/my\134root rw,errors=continue
x
35 1 0:1 / / rw - cgroup2 none rw,nsdelegate
"""
    assert list(proc.parse_mountinfo(raw)) == [
        proc.Mount("/mnt1", "/mnt 2", "ext3", "/dev/my\\root", ("rw", "errors=continue"), "98:0"),
        proc.Mount("/", "/", "cgroup2", "none", ("rw", "nsdelegate"), "0:1"),
    ]


@pytest.mark.parametrize(
    "parse", [proc.parse_net_dev, proc.parse_cgroup, proc.parse_meminfo, lambda raw: list(proc.parse_mountinfo(raw))]
)
@given(
    raw=st.binary()
    | st.lists(
        st.sampled_from([b"eth0:", b" 1" * 16, b" - ", b" a b c d e f", b"1:memory:/", b"Mem: 5 kB", b"\n", b"\\999"])
        | st.binary(max_size=3)
    ).map(b"".join)
)
def test_any_bytes_are_read_without_a_crash(parse, raw: bytes) -> None:  # type: ignore[no-untyped-def]
    """Lines of another form are skipped."""
    parse(raw)
