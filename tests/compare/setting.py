"""What two answers show of the containers and the machine: by this a row of `expected.py` says for which of them it holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from tests.compare.fields import NO_TIME
from tests.compare.tree import Difference, seconds_of

SORTS: Final = {
    "root": "the host, `/`",
    "docker": "cAdvisor knows it by Docker",
    "hosted": "of Docker, in the host's network: cAdvisor tells the host's interfaces of it",
    "alone": "without an interface",
    "raw": "any other cgroup",
    "parent": "there are others below it",
    "diskless": "cAdvisor tells file systems of it, none of which is on a block device",
    "there": "of Docker, made before ours was started",
    "early": "a cgroup of no runtime, there before ours was started",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """sorts  name of a container -> the sorts (above) that it is of
    disks    names of block devices, as the machine's `disk_map` has them
    started  name of a container -> when it was started, where that is known
    began    when ours was started; all times in seconds since 1970
    disk_operations  reads, or writes, that the host's file systems had at least
    """

    sorts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    disks: frozenset[str] = frozenset()
    started: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    disk_operations: int = 0

    def is_of(self, difference: Difference, sorts: str) -> bool:
        """Whether it is about a container of one of these sorts, separated by `|`."""
        return not self.sorts.get(difference.whose, frozenset()).isdisjoint(sorts.split("|"))

    def is_on_disk(self, device: str) -> bool:
        """Whether this file system's device is a block device or a part of one."""
        return is_on_disk(device, self.disks)


def setting(theirs: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], began: float) -> Setting:
    """By cAdvisor's /subcontainers and /machine; `began`: when ours was started, in seconds since 1970."""
    root = next((container for container in theirs if container["name"] == "/"), {})
    disks = frozenset(str(disk["name"]) for disk in (machine.get("disk_map") or {}).values())
    parents = {str(container["name"]).rpartition("/")[0] or "/" for container in theirs if container["name"] != "/"}
    return Setting(
        {container["name"]: frozenset(_sorts(container, _interfaces(root), parents, disks, began)) for container in theirs},
        disks,
        {
            container["name"]: seconds_of(container["spec"]["start_time"])
            for container in theirs
            if container["spec"].get("start_time", NO_TIME) != NO_TIME
        },
        began,
        min(_operations(root), default=0),
    )


def _sorts(container: Mapping[str, Any], of_the_host: Set[str], parents: Set[str], disks: Set[str], began: float) -> Iterator[str]:
    name, interfaces = container["name"], _interfaces(container)
    was_there = seconds_of(container["spec"]["creation_time"]) < began
    if name in parents:
        yield "parent"
    if not interfaces:
        yield "alone"
    devices = [str(each["device"]) for each in _newest(container).get("filesystem") or ()]
    if devices and not any(is_on_disk(device, disks) for device in devices):
        yield "diskless"
    if name == "/":
        yield "root"
    elif container.get("namespace") == "docker":
        yield "docker"
        if interfaces == of_the_host:
            yield "hosted"
        if was_there:
            yield "there"
    else:
        yield "raw"
        if was_there:
            yield "early"


def is_on_disk(device: str, disks: Set[str]) -> bool:
    """Whether this file system's device is a block device or a part of one."""
    name = device.removeprefix("/dev/")
    return name != device and any(name.startswith(disk) for disk in disks)


def _newest(container: Mapping[str, Any]) -> Mapping[str, Any]:
    newest: Mapping[str, Any] = (container.get("stats") or [{}])[-1]
    return newest


def _interfaces(container: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(interface["name"] for interface in (_newest(container).get("network") or {}).get("interfaces") or ())


def _operations(root: Mapping[str, Any]) -> Iterator[int]:
    for disk in _newest(root).get("filesystem") or ():
        yield from (count for count in (disk["reads_completed"], disk["writes_completed"]) if count)
