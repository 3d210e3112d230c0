"""Faults put into our answers on purpose, each of which the comparison has to find: the proof that `expected.py` hides none of them.

Pure: an answer in, the same answer with one fault out, or None where there is nothing in it that could be broken like this.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.compare.answers import Answer
from tests.compare.expected import reason_of
from tests.compare.fields import NO_TIME
from tests.compare.questions import Question
from tests.compare.setting import Setting
from tests.compare.tree import Difference

Tree = Any


@dataclass(frozen=True, slots=True)
class Breakage:
    """`root`: of the answers it is put into, `/metrics` for that; `change` alters a tree, or returns another text, and says whether it could."""

    name: str
    root: str
    change: Callable[[Tree, Setting], bool] | Callable[[str, Setting], str]

    def put_into(self, body: bytes, setting: Setting) -> bytes | None:
        """The answer with the fault."""
        if self.root == "/metrics":
            text = body.decode()
            broken = self.change(text, setting)
            assert isinstance(broken, str)
            return broken.encode() if broken != text else None
        tree = copy.deepcopy(json.loads(body))
        return json.dumps(tree).encode() if self.change(tree, setting) else None


def _of(tree: Tree, setting: Setting, sort: str, without: str = "") -> Iterator[Tree]:
    for container in tree:
        sorts = setting.sorts.get(container["name"], frozenset[str]())
        if sort in sorts and without not in sorts:
            yield container


def _each_sample(sort: str, change: Callable[[Tree], bool], without: str = "") -> Callable[[Tree, Setting], bool]:
    """Changes all samples of the containers of a sort."""

    def apply(tree: Tree, setting: Setting) -> bool:
        return sum(change(sample) for container in _of(tree, setting, sort, without) for sample in container.get("stats") or ()) > 0

    return apply


def _each_spec(sort: str, change: Callable[[Tree], bool], without: str = "") -> Callable[[Tree, Setting], bool]:
    def apply(tree: Tree, setting: Setting) -> bool:
        return sum(change(container["spec"]) for container in _of(tree, setting, sort, without)) > 0

    return apply


def _swap(value: Tree, one: str, other: str) -> bool:
    if value.get(one) == value.get(other):
        return False
    value[one], value[other] = value[other], value[one]
    return True


def _interfaces(change: Callable[[Tree], bool]) -> Callable[[Tree], bool]:
    def apply(sample: Tree) -> bool:
        network = sample.get("network") or {}
        return sum(change(each) for each in (*(network.get("interfaces") or ()), network) if "rx_bytes" in each) > 0

    return apply


def _first_interface(sample: Tree) -> bool:
    """Only the first one's counters at the top of `network` are wrong."""
    network = sample.get("network") or {}
    return "rx_bytes" in network and _add(network, "tx_bytes", 10**9)


def _add(value: Tree, key: str, more: int) -> bool:
    if key not in value:
        return False
    value[key] += more
    return True


def _drop(key: str) -> Callable[[Tree], bool]:
    return lambda value: value.pop(key, None) is not None


def _drop_first(*keys: str) -> Callable[[Tree], bool]:
    def apply(value: Tree) -> bool:
        for key in keys:
            value = value.get(key) or {}
        return bool(value) and (value.pop(0) is not None)

    return apply


def _filesystems(change: Callable[[Tree], bool]) -> Callable[[Tree], bool]:
    return lambda sample: sum(change(each) for each in sample.get("filesystem") or ()) > 0


def _devices(what: str, change: Callable[[Tree], bool]) -> Callable[[Tree], bool]:
    return lambda sample: sum(change(each) for each in (sample.get("diskio") or {}).get(what) or ()) > 0


def _shift(key: str, seconds: int = 10) -> Callable[[Tree], bool]:
    """A time that is known, `seconds` later."""

    def apply(value: Tree) -> bool:
        said = value.get(key, NO_TIME)
        if said == NO_TIME:
            return False
        value[key] = f"{(datetime.fromisoformat(said[:19]) + timedelta(seconds=seconds)).isoformat()}Z"
        return True

    return apply


def _set(key: str, new: Any) -> Callable[[Tree], bool]:
    def apply(value: Tree) -> bool:
        if key not in value or value[key] == new:
            return False
        value[key] = new
        return True

    return apply


def _made_up(kind: str) -> Callable[[Tree, Setting], bool]:
    """One that never was, of a container that is there."""

    def apply(events: Tree, setting: Setting) -> bool:
        known = [event for event in events if event["container_name"] in setting.sorts]
        if not known:
            return False
        newest = max(known, key=lambda event: str(event["timestamp"]))
        now = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
        events.append({**newest, "event_type": kind, "event_data": {}, "timestamp": now})
        return True

    return apply


def _event(kind: str, change: Callable[[Tree], bool], sort: str = "docker") -> Callable[[Tree, Setting], bool]:
    def apply(events: Tree, setting: Setting) -> bool:
        found = [
            event for event in events
            if event["event_type"] == kind and sort in setting.sorts.get(event["container_name"], frozenset[str]())
        ]  # fmt: skip
        return sum(change(event) for event in found) > 0

    return apply


def _lose(kind: str) -> Callable[[Tree, Setting], bool]:
    def apply(events: Tree, setting: Setting) -> bool:
        kept = [event for event in events if event["event_type"] != kind or event["container_name"] not in setting.sorts]
        lost = len(kept) < len(events)
        events[:] = kept
        return lost

    return apply


def _text(pattern: str, new: str) -> Callable[[str, Setting], str]:
    """A change to all lines of `/metrics` in which it is found."""
    return lambda text, _: re.sub(pattern, new, text, flags=re.MULTILINE)


def _exchange(one: str, other: str) -> Callable[[str, Setting], str]:
    """The names of two families, in their samples."""

    def apply(text: str, _: Setting) -> str:
        return re.sub(
            rf"^({one}|{other})(?=[{{ ])", lambda match: other if match[1] == one else one, text, flags=re.MULTILINE
        )  # fmt: skip

    return apply


def _times(family: str, factor: float) -> Callable[[str, Setting], str]:
    def apply(text: str, _: Setting) -> str:
        return re.sub(
            rf"^({family}(?:\{{.*\}})?) (\S+)", lambda match: f"{match[1]} {float(match[2]) * factor!r}", text, flags=re.MULTILINE
        )  # fmt: skip

    return apply


BREAKAGES: Final = (
    # networks
    *(
        Breakage(f"received and sent are exchanged, of {sort}", "Containers",
                 _each_sample(sort, _interfaces(lambda each: _swap(each, "rx_bytes", "tx_bytes") | _swap(each, "rx_packets", "tx_packets"))))
        for sort in ("root", "docker")
    ),
    Breakage("more was sent than was, in the first interface's place", "Containers", _each_sample("root", _first_interface)),
    Breakage("errors are made up", "Containers", _each_sample("docker", _interfaces(lambda each: _add(each, "rx_errors", 1000)))),
    Breakage("an interface of the host is missing", "Containers", _each_sample("root", _drop_first("network", "interfaces"))),
    Breakage("a container's own network is missing", "Containers", _each_sample("docker", _drop("network"), without="hosted")),
    Breakage("the host's network is missing", "Containers", _each_sample("root", _drop("network"))),
    Breakage("a container is said to have no network", "Containers", _each_spec("docker", _set("has_network", new=False), without="hosted")),
    Breakage("a raw cgroup is said to have a network", "Containers", _each_spec("raw", _set("has_network", new=True))),
    Breakage("a network device of the machine is missing", "Machine", lambda tree, _: _drop_first("network_devices")(tree)),
    # file systems and disks
    Breakage("a file system of the host is missing", "Containers", _each_sample("root", _drop_first("filesystem"))),
    Breakage("all file systems of the host are missing", "Containers", _each_sample("root", _drop("filesystem"))),
    Breakage("a container's disk usage is missing", "Containers", _each_sample("docker", _drop("filesystem"))),
    Breakage("a container takes too much disk", "Containers", _each_sample("docker", _filesystems(lambda each: _add(each, "usage", 10**9)))),
    Breakage("the disk is larger", "Containers", _each_sample("root", _filesystems(lambda each: _add(each, "capacity", 4096)))),
    Breakage("used and free are exchanged", "Containers", _each_sample("root", _filesystems(lambda each: _swap(each, "usage", "available")))),
    Breakage("a disk's reads and writes are exchanged", "Containers",
             _each_sample("root", _filesystems(lambda each: _swap(each, "reads_completed", "writes_completed")))),
    Breakage("a disk has been busy for longer than it is up", "Containers",
             _each_sample("root", _filesystems(lambda each: _add(each, "io_time", 10**12)))),
    Breakage("bytes read and written are exchanged", "Containers",
             _each_sample("docker", _devices("io_service_bytes", lambda each: _swap(each["stats"], "Read", "Write")))),
    Breakage("a device's I/O is missing", "Containers", _each_sample("docker", _drop_first("diskio", "io_service_bytes"))),
    Breakage("a file system of the machine is missing", "Machine", lambda tree, _: _drop_first("filesystems")(tree)),
    Breakage("a disk of the machine is missing", "Machine", lambda tree, _: tree["disk_map"].popitem() is not None),
    Breakage("a file system cannot be looked up", "Storage", lambda tree, _: tree.pop() is not None),
    # what a container is
    Breakage("a Docker container was created 10 s later", "Containers", _each_spec("docker", _shift("creation_time"))),
    Breakage("when a Docker container was created is not known", "Containers", _each_spec("docker", _set("creation_time", NO_TIME))),
    Breakage("a cgroup seen to come was created 10 s later", "Containers", _each_spec("raw", _shift("creation_time"), without="early")),
    Breakage("when a cgroup seen to come was created is not known", "Containers",
             _each_spec("raw", _set("creation_time", NO_TIME), without="early")),
    Breakage("a cgroup that was there has a creation time made up", "Containers",
             _each_spec("early", _set("creation_time", "2001-01-01T00:00:00Z"))),
    Breakage("the host was booted 1000 s later", "Containers", _each_spec("root", _shift("creation_time", 1000))),
    Breakage("a memory limit is ten pages more", "Containers", _each_spec("docker", lambda spec: _add(spec["memory"], "limit", 40960))),
    Breakage("a memory limit is not told", "Containers", _each_spec("raw", lambda spec: spec["memory"].pop("limit", None) is not None)),
    Breakage("a reservation is not told", "Containers", _each_spec("docker", lambda spec: spec["memory"].pop("reservation", None) is not None)),
    Breakage("labels are those of nobody", "Containers", _each_spec("docker", lambda spec: spec.update(labels={"made": "up"}) is None)),
    # events
    Breakage("a creation is told 10 s late", "Events", _event("containerCreation", _shift("timestamp"))),
    Breakage("a kill is told 10 s late", "Events", lambda tree, _: sum(_shift("timestamp")(one) for one in tree if one["event_type"] == "oom") > 0),
    *(Breakage(f"an event is made up, {kind}", "Events", _made_up(kind)) for kind in ("oom", "oomKill", "containerDeletion")),
    Breakage("creations are lost", "Events", _lose("containerCreation")),
    # /metrics
    Breakage("received and sent are exchanged", "/metrics", _exchange("container_network_receive_bytes_total", "container_network_transmit_bytes_total")),
    Breakage("an interface is missing", "/metrics", _text(r'^container_network_.*interface="eth0".*\n', "")),
    Breakage("a network family is missing", "/metrics", _text(r"^(# (HELP|TYPE) )?container_network_receive_bytes_total.*\n", "")),
    Breakage("a file system family is missing", "/metrics", _text(r"^(# (HELP|TYPE) )?container_fs_usage_bytes.*\n", "")),
    Breakage("a disk family is missing", "/metrics", _text(r"^(# (HELP|TYPE) )?container_fs_reads_total.*\n", "")),
    Breakage("the host's disk is missing", "/metrics", _text(r'^container_fs_(usage|limit)_bytes\{.*id="/".*\n', "")),
    Breakage("containers' disk usage is missing", "/metrics", _text(r'^container_fs_usage_bytes\{.*id="/docker/.*\n', "")),
    Breakage("a disk's reads and writes are exchanged", "/metrics", _exchange("container_fs_reads_total", "container_fs_writes_total")),
    Breakage("bytes read and written are exchanged", "/metrics", _exchange("container_fs_reads_bytes_total", "container_fs_writes_bytes_total")),
    Breakage("the disk is twice as large", "/metrics", _times("container_fs_limit_bytes", 2)),
    Breakage("disks were busy in milliseconds", "/metrics", _times("container_fs_io_time_seconds_total", 1000)),
    Breakage("Docker containers were created 0.1 s per year later", "/metrics", _times("container_creation_time_seconds", 1 + 1e-8)),
    Breakage("when containers started is missing", "/metrics", _text(r'^container_start_time_seconds\{.*id="/docker/.*\n', "")),
    Breakage("when containers were created is missing", "/metrics", _text(r'^container_creation_time_seconds\{.*id="/docker/.*\n', "")),
    Breakage("I/O of a device is missing", "/metrics", _text(r'^container_blkio_device_usage_total\{.*id="/docker/.*\n', "")),
    Breakage("CPU time in system mode is missing", "/metrics", _text(r'^container_cpu_system_seconds_total\{.*id="/docker/.*\n', "")),
    Breakage("faults are those of another", "/metrics", _times("container_memory_failures_total", 3)),
)  # fmt: skip

_STATUSES: Final = (200, 400, 403, 404, 405, 500)
"""Each of these instead of a refusal's own has to be found."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A question with what both answered; theirs is two answers where ours lies between them."""

    question: Question
    ours: Answer
    theirs: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """A fault and the paths at which it was found; None: there was nothing to put it into."""

    name: str
    found: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.found is None:
            return f"no place for   {self.name}"
        more = f" and {len(self.found) - 1} more" if len(self.found) > 1 else ""
        return (
            f"{'found         ' if self.found else 'NOT FOUND     '} {self.name}{f': {self.found[0]}{more}' if self.found else ''}"
        )


def proofs(kept: Mapping[str, Kept], setting: Setting, judge: Callable[[Kept], list[Difference]]) -> Iterator[Proof]:
    """Every fault, one at a time. kept: by the answer's root or, without one, the question's title."""

    def unexpected(one: Kept) -> set[tuple[str, str, str]]:
        return {(each.path, each.kind, each.where) for each in judge(one) if reason_of(each, setting) is None}

    whole = {name: unexpected(one) for name, one in kept.items()}
    for breakage in BREAKAGES:
        one = kept.get(breakage.root)
        body = breakage.put_into(one.ours.body, setting) if one is not None and one.ours.status == one.theirs[-1].status else None
        name = f"{breakage.root}: {breakage.name}"
        if one is None or body is None:
            yield Proof(name, None)
        else:
            found = unexpected(replace(one, ours=replace(one.ours, body=body))) - whole[breakage.root]
            yield Proof(name, tuple(sorted({path for path, _, _ in found})))
    for title, one in kept.items():
        if one.theirs[-1].status >= 400 and title.startswith("refusal"):
            for status in _STATUSES:
                if status != one.ours.status and status != one.theirs[-1].status:
                    found = unexpected(replace(one, ours=replace(one.ours, status=status))) - whole[title]
                    yield Proof(f"{title}: {status} instead of {one.ours.status}", tuple(path for path, _, _ in found))
