"""Facts from `/proc` and `/etc` of the host (proc(5)). `host_root` is `/`, or where the host's root is mounted.

What belongs to a process raises `Gone` when that process has ended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from streamer.errors import Gone, Unsupported
from streamer.model.stats import NETWORK, DiskCounters, NetworkInterface

StrPath = str | os.PathLike[str]

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_POSITIONS: Final = tuple(position for _, position in NETWORK)
_NET_COLUMNS: Final = 16  # numbers in a line of net/dev
_PAGE: Final = 4096
_MORE: Final = 65_536


def read(path: StrPath) -> bytes:
    """The whole file; `OSError` as the kernel says it."""
    # Not by `open`: asking for the kind, the place and the size of what has none of these takes as long as reading it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = os.read(fd, _PAGE)
        while more := os.read(fd, _MORE):
            raw += more
        return raw
    finally:
        os.close(fd)


def _of(host_root: StrPath, pid: int, name: str) -> bytes:
    try:
        return read(os.path.join(host_root, "proc", str(pid), name))
    except (FileNotFoundError, ProcessLookupError) as problem:
        raise Gone(f"process {pid} has ended") from problem


# the host


def boot_id(host_root: StrPath) -> str:
    """The id of this boot.

    Raises:
        Unsupported: `/proc` is not mounted below `host_root`.
    """
    try:
        return read(os.path.join(host_root, "proc/sys/kernel/random/boot_id")).decode("ascii", "replace").strip()
    except OSError as problem:
        raise Unsupported(
            f"the boot id cannot be read: {problem}", remedy=f"mount the host's /proc at {os.path.join(host_root, 'proc')}"
        ) from problem


def btime(host_root: StrPath) -> int:
    """When this boot began, seconds since 1970; 0 when the kernel does not say."""
    found = re.search(rb"^btime (\d+)$", _optional(os.path.join(host_root, "proc/stat")), re.MULTILINE)
    return int(found[1]) if found else 0


def machine_id(host_root: StrPath) -> str:
    """The host's machine id (machine-id(5)), "" when it has none."""
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        text = _optional(os.path.join(host_root, name)).decode("ascii", "replace").strip()
        if re.fullmatch("[0-9a-f]{32}", text):  # a golden image may hold the word `uninitialized`
            return text
    return ""


def os_release(host_root: StrPath) -> str:
    """PRETTY_NAME of the host's os-release(5), "" when it has none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        text = _optional(os.path.join(host_root, name)).decode("utf-8", "replace")
        found = re.search(r"""^PRETTY_NAME=(["']?)(.*)\1[ \t]*$""", text, re.MULTILINE)
        if found:
            return re.sub(r"\\(.)", r"\1", found[2])
    return ""


def meminfo(host_root: StrPath) -> dict[str, int]:
    """`/proc/meminfo`: name -> bytes (what has no unit there: the number)."""
    return parse_meminfo(_optional(os.path.join(host_root, "proc/meminfo")))


def parse_meminfo(raw: bytes) -> dict[str, int]:
    """`MemTotal:  16384 kB` a line -> `{"MemTotal": 16777216}`; other lines are skipped."""
    return {
        name.decode("ascii", "replace"): int(number) * (1024 if unit else 1)
        for name, number, unit in re.findall(rb"^([^\s:]+):[ \t]+(\d{1,19})( kB)?$", raw, re.MULTILINE)
    }


def _optional(path: str) -> bytes:
    try:
        return read(path)
    except OSError:  # absent or not for us: the caller has a word for not known
        return b""


# processes


def comm(host_root: StrPath, pid: int) -> str:
    """The process's name, at most 15 bytes.

    Raises:
        Gone: it has ended.
    """
    return _of(host_root, pid, "comm").decode("utf-8", "replace").removesuffix("\n")


def cgroup_of(host_root: StrPath, pid: int) -> dict[str, str]:
    """The cgroup of a process by v1 controller, and by "" on v2; paths as seen from our own cgroup namespace.

    Raises:
        Gone: it has ended.
    """
    return parse_cgroup(_of(host_root, pid, "cgroup"))


def parse_cgroup(raw: bytes) -> dict[str, str]:
    """`5:cpu,cpuacct:/a` a line -> `{"cpu": "/a", "cpuacct": "/a"}` (cgroups(7)); other lines are skipped."""
    cgroups = {}
    for line in os.fsdecode(raw).split("\n"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number.isdecimal() and colon and path.startswith("/"):
            cgroups.update(dict.fromkeys(controllers.split(","), path.removesuffix(" (deleted)")))
    return cgroups


def net_namespace(host_root: StrPath, pid: int) -> int:
    """A number that two processes have in common just when they are in the same network namespace.

    It is the inode number of `net/dev`, which each namespace has for itself. Unlike the link `ns/net` it can be had
    without the right to trace the process, which even root may lack for the host's first one.

    Raises:
        Gone: it has ended.
    """
    return net_namespace_at(os.path.join(host_root, "proc", str(pid)))


def net_namespace_at(process: StrPath | int) -> int:
    """The same by the directory of a process: its path, or a descriptor of it.

    Raises:
        Gone: it has ended.
    """
    try:
        if isinstance(process, int):
            return os.stat("net/dev", dir_fd=process).st_ino
        return os.stat(os.path.join(process, "net/dev")).st_ino
    except OSError as problem:  # also EINVAL: a process that is about to end has no network any more
        raise Gone("the process has ended") from problem


def sees_host_pids(proc: str) -> bool:
    """Whether processes have the same numbers for us as for the host whose `/proc` this is (pid_namespaces(7))."""
    try:
        return int(os.readlink(f"{proc}/self")) == os.getpid()
    except (OSError, ValueError):  # the host's /proc does not know us: we are in another namespace
        return False


def shares_host_network(host_root: StrPath, pid: int) -> bool:
    """Whether a process is in the network namespace of the host's first process; True also when that cannot be told.

    Counters that may be the host's must never be said to be a container's.
    """
    try:
        return net_namespace(host_root, pid) == net_namespace(host_root, 1)
    except Gone:
        return True


def parse_net_dev(raw: bytes, wanted: Callable[[str], bool] | None = None) -> tuple[NetworkInterface, ...]:
    """The interfaces of `/proc/<pid>/net/dev` without the loopback, those that are wanted; lines of another form are skipped."""
    interfaces = []
    for line in raw.split(b"\n"):
        device, colon, text = line.rpartition(b":")  # an alias may have a colon in its name
        name = device.strip().decode("utf-8", "replace")
        if not colon or name == "lo" or (wanted is not None and not wanted(name)):
            continue
        numbers = text.split()
        if len(numbers) == _NET_COLUMNS:
            try:
                counters = [int(numbers[position]) for position in _POSITIONS]
            except ValueError:
                continue
            interfaces.append(NetworkInterface(name, *counters))
    return tuple(interfaces)


# disks


def diskstats(host_root: StrPath) -> dict[str, DiskCounters]:
    """What each block device has done, by number (`8:1`) and by name (`sda1`)."""
    return parse_diskstats(_optional(os.path.join(host_root, "proc/diskstats")))


def parse_diskstats(raw: bytes) -> dict[str, DiskCounters]:
    """`8 1 sda1 100 …` a line, the counters in the order of the record's fields; lines of another form are skipped."""
    found = {}
    for line in raw.decode("utf-8", "replace").split("\n"):
        major, minor, name, *numbers = line.split() if line.count(" ") > 3 else ("", "", "")
        counters = [int(number) for number in numbers[: len(DiskCounters.__struct_fields__)] if number.isdecimal()]
        if len(counters) == len(DiskCounters.__struct_fields__):  # later kernels append more
            found[f"{major}:{minor}"] = found[name] = DiskCounters(
                **dict(zip(DiskCounters.__struct_fields__, counters, strict=True))
            )
    return found


# mounts


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)): `root` is the folder of the file system that is mounted at `mountpoint`."""

    root: str
    mountpoint: str
    fstype: str
    source: str
    options: tuple[str, ...]  # of the superblock; on cgroup v1 the controllers are among them
    number: str  # of the device, `8:1`; the major is 0 where there is none, or several


def parse_mountinfo(raw: bytes) -> Iterator[Mount]:
    """Every mount in the order of the file, that is of mounting; lines of another form are skipped."""
    for line in os.fsdecode(raw).split("\n"):
        before, _, after = line.partition(" - ")
        mount, filesystem = before.split(" "), after.split(" ")
        if len(mount) >= 6 and len(filesystem) >= 3:
            options = tuple(filesystem[2].split(","))
            yield Mount(_plain(mount[3]), _plain(mount[4]), filesystem[0], _plain(filesystem[1]), options, mount[2])


def _plain(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash in octal."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
