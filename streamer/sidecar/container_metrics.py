"""The families of `families.py` as text: a generator of pieces, so that the event loop can do other things in between.

What does not change from scrape to scrape is made once: the text of a container's labels for as long as it has them. All
else is one list comprehension for each family and some hundred containers: a host with 2000 containers has 150 000 series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple

from msgspec import UNSET, structs

from streamer.config import Metrics
from streamer.contracts import Clock
from streamer.memory import Container
from streamer.model.messages import HostInfo
from streamer.model.spec import ContainerSpec
from streamer.sidecar import families as f
from streamer.sidecar.textformat import Format, escape

BLOCK: Final = 128
"""Containers in one piece of work: about 0.1 ms for a family, some tenths for taking them apart."""

SLICE: Final = 1024
"""Containers looked at without a pause; about 0.3 ms."""

_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")
_NO_SPEC: Final = ContainerSpec()


class Facts(NamedTuple):
    """What `families.Known` may name. UNSET: not known. Times in whole seconds since 1970."""

    created: Any
    started: Any
    oom_kills: int


class Rows:
    """Lines' parts but for the name and the number, side by side: labels up to `} `, the end with the time, what has the number."""

    __slots__ = ("ends", "labels", "of")

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.ends: list[str] = []
        self.of: list[Any] = []

    def add(self, labels: str, end: str, of: Any) -> None:
        self.labels.append(labels)
        self.ends.append(end)
        self.of.append(of)


class Block:
    """Some containers, taken apart by where values stand."""

    def __init__(self) -> None:
        self.known = Rows()
        self.specs = Rows()
        self.quotas = Rows()  # those whose CPU is limited
        self.samples = Rows()
        self.limited = Rows()  # samples of those
        self.interfaces = Rows()
        self.devices = Rows()
        self.numbered = Rows()  # the same with `major` and `minor`
        self.disks = Rows()
        self.other_disks = Rows()  # those that are not among the container's devices
        self.filesystems = Rows()


class _Text(NamedTuple):
    """A container's labels as text, and what they were made from."""

    labels: object
    name: object
    image: object
    text: str


class ContainerMetrics:
    """Renders containers and machines; keeps the text of labels between scrapes."""

    def __init__(self, settings: Metrics, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._texts: dict[tuple[str, str, str], _Text] = {}

    def pieces(self, containers: Iterable[Container], hosts: Iterable[HostInfo], form: Format) -> Iterator[str]:
        """The families as text, about a millisecond of work at a time; an empty piece is only a pause.

        containers  deleted ones are left out; of several with one cgroup path on one host the one that was sampled last is taken
        hosts       the latest `host.info` of each
        """
        now_ms = self._clock.wall_ns() // 1_000_000
        known = {host.host_id: host for host in hosts}
        there = [container for container in containers if not container.deleted_ms]
        by_path: dict[tuple[str, str], tuple[Container, Any]] = {}
        for start in range(0, len(there), SLICE):
            _newest([(container, container.latest) for container in there[start : start + SLICE]], by_path)
            yield ""
        present = list(by_path.values())
        yield from _machine(known.values(), form)
        several = len({container.key[0] for container, _ in present}) > 1
        texts: dict[tuple[str, str, str], _Text] = {}
        blocks = []
        for start in range(0, len(present), BLOCK):
            blocks.append(self._block(present[start : start + BLOCK], known, texts, form, several=several))
            yield ""
        self._texts = texts
        seen = form.time(now_ms) if self._settings.timestamps else "\n"
        for family in f.CONTAINER:
            head = form.head(family.name, family.kind, family.help)
            for block in blocks:
                if lines := _lines(family, block, now_ms, seen):
                    yield head + "".join(lines)
                    head = ""

    def _block(
        self,
        present: Sequence[tuple[Container, Any]],
        hosts: dict[str, HostInfo],
        texts: dict[tuple[str, str, str], _Text],
        form: Format,
        *,
        several: bool,
    ) -> Block:
        block = Block()
        devices = {host_id: _device_names(host) for host_id, host in hosts.items()}
        for container, latest in present:
            facts = container.facts
            text = self._text(container, texts)
            labels = f'host="{escape(facts.get("host", ""))}",{text}' if several else text
            spec = facts.get("spec") or _NO_SPEC
            if facts.get("cgroup_path") == "/" and (host := hosts.get(container.key[0])) is not None:
                spec = _of_machine(spec, host)
            limited = bool(spec.cpu_quota_us)  # UNSET is false, too
            block.known.add(labels, "\n", _facts(facts))
            block.specs.add(labels, "\n", spec)
            if limited:
                block.quotas.add(labels, "\n", spec)
            if latest is not None:
                end = form.time(latest.time_ms) if self._settings.timestamps else "\n"
                block.samples.add(labels, end, latest)
                if limited:
                    block.limited.add(labels, end, latest)
                used = _add_parts(block, labels, end, latest, devices.get(container.key[0], {}))
                if container.filesystems:  # measured less often than sampled
                    end = form.time(container.filesystems_ns // 1_000_000) if self._settings.timestamps else "\n"
                    _add_filesystems(block, labels, end, container.filesystems, used)
        return block

    def _text(self, container: Container, texts: dict[tuple[str, str, str], _Text]) -> str:
        facts, key = container.facts, container.key
        labels, name, image = facts.get("labels"), facts.get("name"), facts.get("image")
        text = self._texts.get(key)
        if text is None or text.labels is not labels or text.name != name or text.image != image:
            text = _Text(labels, name, image, self._make_text(facts))
        texts[key] = text
        return text.text

    def _make_text(self, facts: dict[str, Any]) -> str:
        raw = facts.get("runtime") == "raw"  # a name here would count a slice beside the containers in it
        name, image = ("", "") if raw else (facts.get("name", ""), facts.get("image", ""))
        pairs = {"id": facts.get("cgroup_path", ""), "image": image, "name": name}
        labels = facts.get("labels") or {}
        for label in sorted(labels):
            if self._settings.container_labels or _allowed(label, self._settings.allow_labels):
                pairs.setdefault(label_name(label), labels[label])
        return ",".join(f'{label}="{escape(value)}"' for label, value in pairs.items()) + "} "


def label_name(label: str) -> str:
    """`com.example/a` -> `container_label_com_example_a`. Of several that become the same, the first in order is shown."""
    return "container_label_" + _NOT_IN_A_NAME.sub("_", label)


def _allowed(label: str, patterns: Sequence[str]) -> bool:
    return any(label.startswith(p[:-1]) if p.endswith("*") else label == p for p in patterns)


def _newest(present: Iterable[tuple[Container, Any]], by_path: dict[tuple[str, str], tuple[Container, Any]]) -> None:
    """One for each path. Where a container was started again and the end of the run before waits for its exit code, two are
    there for some seconds."""
    for container, latest in present:
        where = (container.key[0], container.facts.get("cgroup_path", ""))
        other = by_path.get(where)
        if other is None or (latest is not None and (other[1] is None or latest.time_ms > other[1].time_ms)):
            by_path[where] = (container, latest)


def _facts(facts: dict[str, Any]) -> Facts:
    since = facts.get("since")  # of an incarnation, also where no runtime tells
    created, started = facts.get("created_at") or since, facts.get("started_at") or since or facts.get("created_at")
    return Facts(_seconds(created) if created else UNSET, _seconds(started) if started else UNSET, facts.get("oom_kills", 0))


def _seconds(time: str) -> int:
    """RFC 3339, UTC -> whole seconds since 1970."""
    return int(datetime.fromisoformat(time[:19] + "+00:00").timestamp())


def _device_names(host: HostInfo) -> dict[tuple[int, int], str]:
    return {(disk.major, disk.minor): f"/dev/{disk.name}" for disk in host.disks}


def _add_parts(block: Block, labels: str, end: str, latest: Any, names: dict[tuple[int, int], str]) -> set[str]:
    """The parts of a sample that have a number for each interface or device; the names of the devices."""
    for interface in latest.network_interfaces or ():
        block.interfaces.add(f'interface="{escape(interface.name)}",{labels}', end, interface)
    used = set()
    for device in latest.io_devices or ():
        # loop devices and the like have no row in `HostInfo`
        name = names.get((device.major, device.minor)) or f"{device.major}:{device.minor}"
        used.add(name)
        named = f'device="{escape(name)}",{labels}'
        block.devices.add(named, end, device)
        block.numbered.add(f'major="{device.major}",minor="{device.minor}",{named}', end, device)
    return used


def _add_filesystems(block: Block, labels: str, end: str, filesystems: Sequence[Any], used: set[str]) -> None:
    """What has a number for each file system. `used`: devices that the container's own I/O is told of."""
    mounted = set()
    for filesystem in filesystems:
        name = filesystem.device
        if name in mounted:
            continue
        mounted.add(name)
        named = f'device="{escape(name)}",{labels}'
        block.filesystems.add(named, end, filesystem)
        if filesystem.disk is not UNSET:
            block.disks.add(named, end, filesystem.disk)
            if name not in used:
                block.other_disks.add(named, end, filesystem.disk)


def _lines(family: f.Family, block: Block, now_ms: int, seen: str) -> list[str]:
    """A family's lines for the containers of one block."""
    match family.source:
        case f.Measured(columns, divisor, limited):
            rows = block.limited if limited else block.samples
            return [line for labels, column in columns for line in _each(family.name, labels, rows, column, divisor)]
        case f.Specified(field, limited):
            return _each(family.name, "", block.quotas if limited else block.specs, field)
        case f.Known(fact):
            return _each(family.name, "", block.known, fact)
        case f.Seen():
            end = f"{now_ms // 1000}{seen}"
            return [f"{family.name}{{{labels}{end}" for labels in block.known.labels]
        case f.PerInterface(field):
            return _each(family.name, "", block.interfaces, field)
        case f.PerFilesystem(field):
            return _each(family.name, "", block.filesystems, field)
        case f.PerDevice(operations, disk, divisor, numbered):
            rows = block.numbered if numbered else block.devices
            lines = [line for labels, field in operations for line in _each(family.name, labels, rows, field)]
            if disk:
                lines += _each(family.name, "", block.other_disks if operations else block.disks, disk, divisor)
            return lines


def _each(name: str, labels: str, rows: Rows, field: str, divisor: int = 1) -> list[str]:
    """One line for each row that has the value."""
    start = f"{name}{{{labels}"
    parts = zip(rows.labels, map(attrgetter(field), rows.of), rows.ends, strict=True)
    if divisor == 1:
        return [f"{start}{text}{value}{end}" for text, value, end in parts if value is not UNSET]
    return [f"{start}{text}{value / divisor}{end}" for text, value, end in parts if value is not UNSET]


def _of_machine(spec: ContainerSpec, host: HostInfo) -> ContainerSpec:
    """The root's limit is what there is: rules divide by it."""
    return spec if spec.memory_limit_bytes else structs.replace(spec, memory_limit_bytes=host.memory_capacity_bytes)


def _machine(hosts: Iterable[HostInfo], form: Format) -> Iterator[str]:
    hosts = list(hosts)
    names = [label for label, _ in f.MACHINE_LABELS]
    for family in f.MACHINE:
        lines = [
            f"{family.name}{{{_pairs((*names, *family.labels), (*of_machine, *labels))}}} {value}\n"
            for host in hosts
            for of_machine in [f.machine_labels(host)]
            for labels, value in family.read(host)
            if value is not UNSET
        ]
        if lines:
            yield form.head(family.name, "gauge", family.help) + "".join(lines)


def _pairs(names: Sequence[str], values: Sequence[object]) -> str:
    return ",".join(f'{name}="{escape(str(value))}"' for name, value in zip(names, values, strict=True))
