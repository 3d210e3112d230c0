"""Which sort a container is of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compare.setting import SORTS, Setting, setting
from tests.compare.tree import Difference


def one(
    name: str, made: int, *interfaces: str, namespace: str = "", devices: tuple[str, ...] = (), started: str = ""
) -> dict[str, Any]:
    sample = {
        "network": {"interfaces": [{"name": interface} for interface in interfaces]},
        "filesystem": [{"device": device, "reads_completed": 5, "writes_completed": 0} for device in devices],
    }  # fmt: skip
    times = {"creation_time": f"1970-01-01T00:00:{made:02d}Z", **({"start_time": started} if started else {})}
    return {"name": name, "namespace": namespace, "spec": times, "stats": [sample]}


KNOWN = setting(
    [
        one("/", 1, "eth0", "ifb0", devices=("/dev/vda1", "/dev/shm")),
        one("/docker", 9),
        one("/docker/own", 9, "eth0", namespace="docker", devices=("/run",), started="1970-01-01T00:00:12.5Z"),
        one("/docker/host", 11, "ifb0", "eth0", namespace="docker", devices=("/dev/vda1",)),
        one("/new", 11),
    ],
    {"disk_map": {"254:0": {"name": "vda"}}},
    10.0,
)


@pytest.mark.parametrize(
    ("name", "sorts"),
    [
        ("/", {"root", "parent"}),
        ("/docker", {"raw", "early", "parent", "alone"}),
        ("/docker/own", {"docker", "there", "diskless"}),
        ("/docker/host", {"docker", "hosted"}),
        ("/new", {"raw", "alone"}),
    ],
)
def test_sorts(name: str, sorts: set[str]) -> None:
    """By its namespace, times, interfaces and file systems."""
    assert KNOWN.sorts[name] == sorts
    assert sorts <= SORTS.keys()


def test_what_else_is_known() -> None:
    """Disks by name with their partitions, starts, and the least that the disks have done."""
    assert [KNOWN.is_on_disk(device) for device in ("/dev/vda", "/dev/vda1", "/dev/shm", "tmpfs", "vda")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (KNOWN.started, KNOWN.began, KNOWN.disk_operations) == ({"/docker/own": 12.5}, 10.0, 5)


def test_of_nobody_nothing_is_known() -> None:
    """A difference about no container, or one that came later, is of no sort."""
    assert KNOWN.is_of(Difference("x", "value", whose="/new"), "docker|raw")
    assert not KNOWN.is_of(Difference("x", "value"), "|".join(SORTS))
    assert not Setting().is_of(Difference("x", "value", whose="/new"), "raw")
