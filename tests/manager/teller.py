"""A fleet with a clock that moves by hand, and observations in short."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Host, Now
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.spec import ContainerSpec
from streamer.model.stats import COLUMNS, INDEX, NetworkInterface, Sample

T0 = 1_700_000_000_000_000_000
HOST = Host(name="web1", id="f" * 32, boot_id="01234567-89ab-cdef-0123-456789abcdef", epoch=1_700_000_000_000, version="0")
ID = "ab" * 32
PATH = f"/docker/{ID}"
SPEC = ContainerSpec(memory_limit_bytes=20_000_000)


class Teller:
    """A fleet with a clock that moves by hand; `said` is everything it said, in order."""

    def __init__(self, **options: Any) -> None:
        self.fleet = Fleet(options.pop("host", HOST), **options)
        if options.get("docker", True):
            self.fleet.observe(o.Recovered("source.docker", T0), Now(T0, 0))  # Docker answers
        self.ns = 1
        self.said: list[m.Message] = []

    def now(self) -> Now:
        return Now(T0 + self.ns, self.ns)

    def hear(self, *observations: o.Observation) -> list[Any]:
        new = [said for observation in observations for said in self.fleet.observe(observation, self.now())]
        self.said += new
        return records_of(new)

    def later(self, ns: int) -> list[Any]:
        self.ns += ns
        new = self.fleet.tick(self.now())
        self.said += new
        return records_of(new)

    def records(self, topic: m.Topic) -> list[Any]:
        return [said.record for said in self.said if said.topic is topic]


def records_of(said: list[m.Message]) -> list[Any]:
    return [message.record for message in said if message.record is not None and message.topic is not m.STATE]


def appeared(path: str = PATH, inode: int = 7, found: Any = "live", spec: ContainerSpec = SPEC, at: int = 0) -> o.Appeared:
    return o.Appeared(path, "memory", inode, T0 + at, found, spec)


def vanished(path: str = PATH, inode: int = 7, at: int = 0, not_before: int = 0) -> o.Vanished:
    return o.Vanished(path, inode, T0 + at, not_before)


def sample(at: int = 0, interfaces: tuple[NetworkInterface, ...] = (), **columns: Any) -> Sample:
    values: list[Any] = [UNSET] * len(COLUMNS)
    for name, value in {"cpu_usage_ns": 1000, "memory_usage_bytes": 5, **columns}.items():
        values[INDEX[name]] = value
    return Sample(T0 + at, tuple(values), interfaces)


def sampled(path: str = PATH, inode: int = 7, **columns: Any) -> o.Sampled:
    return o.Sampled(path, inode, sample(**columns))


def event(action: str, at: int = 0, **more: Any) -> o.RuntimeEvent:
    return o.RuntimeEvent(
        runtime="docker", action=action, container_id=ID, time_ns=T0 + at, **{"name": "web", "image": "nginx:1", **more}
    )


def described(**more: Any) -> o.Described:
    return o.Described(
        runtime="docker", container_id=ID, time_ns=T0, **{"name": "web", "image": "nginx:1", "state": "running", **more}
    )


def kill(seq: int = 9, pid: int = 42, cgroup: str = PATH, **more: Any) -> o.OomKilled:
    return o.OomKilled(seq=seq, time_ns=T0, pid=pid, process="tail", killed_cgroup=cgroup, **more)
