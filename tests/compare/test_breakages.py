"""Every fault of `breakages.py`, put into answers that are the same on both sides, is found: no row of the table hides it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.compare import answers, exposition
from tests.compare.answers import Answer, Since
from tests.compare.breakages import BREAKAGES, Kept, proofs
from tests.compare.questions import Question
from tests.compare.setting import setting
from tests.compare.tree import Difference, Walk

BEGAN = 1_767_322_800.0  # 2026-01-02T03:00:00Z
BEFORE, AFTER = "2026-01-02T02:00:00Z", "2026-01-02T03:00:30Z"
COUNTS = ("bytes", "packets", "errors", "dropped")


def network(*names: str) -> dict[str, Any]:
    interfaces = [
        {"name": name, **{f"{way}_{what}": size * (1 + place) for way, size in (("rx", 70_000), ("tx", 30_000)) for place, what in enumerate(COUNTS)}}
        for name in names
    ]  # fmt: skip
    return {**interfaces[0], "interfaces": interfaces} if interfaces else {"name": "", "interfaces": []}


def disk(device: str, **counts: int) -> dict[str, Any]:
    return {
        "device": device, "type": "vfs", "capacity": 1 << 38, "usage": 1 << 33, "available": 1 << 37, "base_usage": 1 << 32,
        "reads_completed": 800_000, "writes_completed": 900_000, "io_time": 200_000, **counts,
    }  # fmt: skip


def one(name: str, made: str, aliases: tuple[str, ...] = (), **sample: Any) -> dict[str, Any]:
    """A container with three samples in which nothing happens."""
    whole = {
        "diskio": {"io_service_bytes": [{"major": 254, "minor": 0, "stats": {"Read": 1 << 20, "Write": 1 << 24}}]},
        **sample,
    }  # fmt: skip
    return {
        "name": name,
        **({"aliases": list(aliases), "namespace": "docker"} if aliases else {}),
        "spec": {
            "creation_time": made, "has_network": "network" in sample, "labels": {"team": "shop"} if aliases else {},
            "memory": {"limit": 1 << 26, "reservation": 1 << 25},
        },
        "stats": [{"timestamp": f"2026-01-02T03:04:{second:02d}Z", **whole} for second in (1, 2, 3)],
    }  # fmt: skip


CONTAINERS = [
    one("/", "2026-01-01T00:00:00Z", network=network("eth0", "eth1"), filesystem=[disk("/dev/vda")]),
    one("/docker", BEFORE),
    one("/docker/web", BEFORE, ("web", "1f"), network=network("eth0"), filesystem=[disk("/dev/vda", reads_completed=0)]),
    one("/docker/late", AFTER, ("late", "2f"), network=network("eth0"), filesystem=[disk("/dev/vda", reads_completed=0)]),
    one("/docker/host", BEFORE, ("host", "3f"), network=network("eth0", "eth1")),
    one("/docker/none", BEFORE, ("none", "4f"), network=network()),
    one("/new", AFTER),
]
MACHINE = {
    "network_devices": [{"name": "eth0"}], "filesystems": [{"device": "/dev/vda", "capacity": 1}],
    "disk_map": {"254:0": {"name": "vda", "size": 1}},
}  # fmt: skip
STORAGE = [{"device": "/dev/vda", "mountpoint": "/", "capacity": 1, "labels": ["root"]}]
EVENTS = [
    {"container_name": name, "timestamp": at, "event_type": kind, "event_data": {}}
    for name, at, kind in (
        ("/docker/web", BEFORE, "containerCreation"), ("/docker/late", AFTER, "containerCreation"), ("/new", AFTER, "containerCreation"),
        ("/docker/late", "2026-01-02T03:00:40Z", "oom"),
    )
]  # fmt: skip

NAMES = {each["name"]: each.get("aliases", [""])[0] for each in CONTAINERS}


def metrics() -> str:
    """Families with a series, or one for each device, of each container."""
    families: dict[str, list[str]] = {}

    def add(name: str, whose: str, value: float, more: str = "", at: str = " 1767323043000") -> None:
        families.setdefault(name, []).append(f'{name}{{{more}id="{whose}",image="",name="{NAMES[whose]}"}} {value}{at}')

    for each in CONTAINERS:
        whose, sample = each["name"], each["stats"][-1]
        for interface in sample.get("network", {}).get("interfaces", ()):
            for family, key in (("receive", "rx_bytes"), ("transmit", "tx_bytes")):
                add(f"container_network_{family}_bytes_total", whose, interface[key], f'interface="{interface["name"]}",')
        for filesystem in sample.get("filesystem", ()):
            device = f'device="{filesystem["device"]}",'
            add("container_fs_limit_bytes", whose, filesystem["capacity"], device)
            add("container_fs_usage_bytes", whose, filesystem["usage"], device)
            add("container_fs_reads_total", whose, 8_000, device)
            add("container_fs_writes_total", whose, 9_000, device)
            add("container_fs_reads_bytes_total", whose, 80_000, device)
            add("container_fs_writes_bytes_total", whose, 90_000, device)
            add("container_fs_io_time_seconds_total", whose, 200.0, device)
        add("container_blkio_device_usage_total", whose, 1 << 20, 'device="/dev/vda",major="254",minor="0",operation="Read",')
        add("container_cpu_system_seconds_total", whose, 12.0)
        add("container_memory_failures_total", whose, 1000, 'failure_type="pgfault",scope="container",')
        add("container_creation_time_seconds", whose, 1_767_300_000, at="")
        add("container_start_time_seconds", whose, 1_767_300_000, at="")
    return "".join(
        f"# HELP {name} Help.\n# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n" + "\n".join(lines) + "\n"
        for name, lines in families.items()
    )


SETTING = setting(CONTAINERS, MACHINE, BEGAN)


def kept(question: Question, value: Any) -> Kept:
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    answer = Answer(200, {}, body)
    return Kept(question, answer, (answer, answer) if question.root == "/metrics" else (answer,))


ASKED = {
    "Containers": kept(Question("/c", "Containers"), CONTAINERS),
    "Machine": kept(Question("/m", "Machine"), MACHINE),
    "Storage": kept(Question("/s", "Storage"), STORAGE),
    "Events": kept(Question("/e", "Events"), EVENTS),
    "/metrics": kept(Question("/metrics", "/metrics"), metrics()),
    "refusal /api/v1.3/docker/x": Kept(
        Question("/r", title="refusal /api/v1.3/docker/nobody-of-this-name"), Answer(404, {}, b"no"), (Answer(500, {}, b"no"),)
    ),
}


def judge(one: Kept) -> list[Difference]:
    if one.question.root == "/metrics":
        return list(exposition.compare(*(answer.body.decode() for answer in (one.ours, *one.theirs))))
    return list(answers.compare(Walk(), one.question, one.ours, one.theirs[0], Since(BEGAN, frozenset(NAMES))))


PROOFS = {proof.name: proof for proof in proofs(ASKED, SETTING, judge)}


def test_nothing_differs_before() -> None:
    """So what is found is the fault."""
    assert [found for name, one in ASKED.items() if name[0].isupper() or name[0] == "/" for found in judge(one)] == []


@pytest.mark.parametrize("name", PROOFS)
def test_each_fault_is_found(name: str) -> None:
    """There is a place for it here, and a difference that no row expects."""
    assert PROOFS[name].found, str(PROOFS[name])


def test_each_is_tried() -> None:
    """Of the table, and other statuses of a refusal."""
    assert sum(
        name.startswith(breakage.root) for breakage in BREAKAGES for name in [f"{breakage.root}: {breakage.name}"] if name in PROOFS
    ) == len(BREAKAGES)
    assert sum("instead of 404" in name for name in PROOFS) == 4


def test_a_fault_that_a_row_hides_is_told() -> None:
    """A comparison that finds nothing proves nothing."""
    blind = list(proofs({"Containers": copy.deepcopy(ASKED["Containers"])}, SETTING, lambda _: []))
    assert all(not proof.found for proof in blind)
    assert any(str(proof).startswith("NOT FOUND") for proof in blind)
    assert any(str(proof).startswith("no place") for proof in blind)
