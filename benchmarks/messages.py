"""Messages to measure with: what the real fleet says of made-up but lifelike containers, over and over, each different.

Names, labels, limits and counters are those of `streamer.model.examples` (a web server in Docker Compose, every column of
cgroup v2, one network interface), moved about at random from a fixed seed, so that compression finds what it would find
in an agent's stream: the same keys, the same container's values again and again, numbers that differ.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

from msgspec import UNSET

from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Host, Now
from streamer.model import examples
from streamer.model import observations as o
from streamer.model.messages import Message
from streamer.model.spec import ContainerSpec
from streamer.model.stats import NETWORK, STATS, NetworkInterface, Sample

HOST_ID: Final = "8c1f0a52d6e94b7f9f3e2a6b5d407c18"
_BOOT: Final = uuid.UUID("9d2b6f14-3a70-4c58-8e21-b7c05f6a1d93")
_START_NS: Final = 1_763_971_200_417_902_633
_SECOND_NS: Final = 1_000_000_000
_EXAMPLE: Final[Any] = examples.EXAMPLES["container.stats"]["container.stats"]
_SPEC: Final = ContainerSpec(
    memory_limit_bytes=268_435_456, cpu_shares=1024, cpu_quota_us=50_000, cpu_period_us=100_000, pids_limit=512
)


class Tenants:
    """A host full of containers, seen by the agent's own fleet. Another `seed` is another host."""

    def __init__(self, containers: int, *, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.host_id: Final = f"{int(HOST_ID, 16) + seed - 1:032x}"
        boot_id = str(uuid.UUID(int=_BOOT.int + seed - 1))
        self._fleet = Fleet(Host(f"web-{seed + 2}", self.host_id, boot_id, _START_NS // 1_000_000, "0"), kmsg=False)
        self._now_ns = _START_NS
        self._inode = 48_000
        self._kills = 4_000
        self._living: dict[str, tuple[int, list[Any]]] = {}
        self.born: list[Message] = [message for _ in range(containers) for message in self._begin()]

    def stats(self, count: int) -> Iterator[Message]:
        """`count` samples: every container once a second, in turn."""
        said = 0
        while True:
            pause_ns = _SECOND_NS // len(self._living)
            for container_id, (inode, values) in self._living.items():
                if said == count:
                    return
                self._now_ns += pause_ns
                yield from self._fleet.observe(o.Sampled(_path(container_id), inode, self._moved(values)), self._now())
                said += 1

    def events(self, count: int) -> Iterator[Message]:
        """`count` messages of lives: created, state, an OOM kill in every second one, deleted, the state's end."""
        said = 0
        while True:
            for message in [*self._begin(), *self._end(killed=self._random.random() < 0.5)]:
                if said == count:
                    return
                yield message
                said += 1

    def _now(self) -> Now:
        return Now(self._now_ns, self._now_ns - _START_NS)

    def _begin(self) -> list[Message]:
        self._now_ns += 1_000_000 + self._random.randrange(1_000_000)
        self._inode += 1
        container_id = self._random.randbytes(32).hex()
        values = [getattr(_EXAMPLE, row.name) for row in STATS]
        self._living[container_id] = (
            self._inode,
            [value if value is UNSET else type(value)(value * self._random.uniform(0.3, 3)) for value in values],
        )
        appeared = o.Appeared(_path(container_id), "unified", self._inode, self._now_ns, "live", _SPEC)
        described = o.Described(
            runtime="docker",
            container_id=container_id,
            time_ns=self._now_ns,
            name=f"shop-web-{self._inode}",
            image=_EXAMPLE.image,
            image_id=_EXAMPLE.image_id,
            labels=_EXAMPLE.labels,
            created_at_ns=self._now_ns - 40_000_000,
            started_at_ns=self._now_ns,
            pid=self._random.randrange(1000, 60_000),
            state="running",
            restart_count=0,
        )
        return self._fleet.observe(appeared, self._now()) + self._fleet.observe(described, self._now())

    def _end(self, *, killed: bool) -> list[Message]:
        container_id = next(reversed(self._living))
        inode, values = self._living.pop(container_id)
        path = _path(container_id)
        said: list[Message] = []
        self._now_ns += 700_000
        if killed:
            self._kills += 1
            kill = o.OomKilled(
                self._kills,
                self._now_ns,
                21_903,
                "nginx",
                path,
                path,
                "memcg",
                101,
                412_958_720,
                239_468_544,
                3_932_160,
                4_194_304,
                0,
            )
            said += self._fleet.observe(kill, self._now())
        said += self._fleet.observe(o.Emptied(path, inode, self._moved(values)), self._now())
        die = o.RuntimeEvent(
            runtime="docker", action="die", container_id=container_id, time_ns=self._now_ns, exit_code=137 if killed else 0
        )
        said += self._fleet.observe(die, self._now())
        said += self._fleet.observe(o.Vanished(path, inode, self._now_ns), self._now())
        self._now_ns += 2 * _SECOND_NS
        return said + self._fleet.tick(self._now())

    def _moved(self, values: list[Any]) -> Sample:
        """The next look at a container: counters that count go up, gauges move, what is 0 in the example mostly stays so."""
        draw = self._random.random
        for index, (row, value) in enumerate(zip(STATS, values, strict=True)):
            if value and value is not UNSET:
                if row.kind == "counter":
                    values[index] = value + int(value * 0.001 * draw())
                elif row.unit == "percent":
                    values[index] = round(draw() * 0.3, 2)
                elif draw() < 0.5:
                    values[index] = max(1, int(value * (0.98 + 0.04 * draw())))
        network = {
            suffix: getattr(_EXAMPLE.network_interfaces[0], suffix) + (self._now_ns - _START_NS) // 20_000 for suffix, _ in NETWORK
        }
        return Sample(self._now_ns, tuple(values), (NetworkInterface(name="eth0", **network),))


def _path(container_id: str) -> str:
    return f"/system.slice/docker-{container_id}.scope"
