"""Made-up containers with a past of some minutes, told to a memory as an agent would, so that a page has something to show."""

from __future__ import annotations

import math
import random
import time
from typing import Any, NamedTuple

from streamer.clock import rfc3339
from streamer.model import messages as m
from streamer.model.spec import ContainerSpec
from tests.sidecar.conftest import House

_SECOND_NS = 1_000_000_000
_TRADES = ("nginx:1.27", "postgres:16", "redis:7.2", "shop/api:2025.11", "shop/worker:2025.11")
_PROJECTS = ("shop", "billing", "search", "mail")


class Resident(NamedTuple):
    """One container and how it behaves."""

    about: dict[str, Any]
    cpu_cores: float
    memory_bytes: int
    io_bytes_per_second: int
    network_bytes_per_second: int
    throttled: float
    pressure: float


class Town(House):
    """A house with as many containers as are asked for."""

    def __init__(self, residents: int = 0, *, past_seconds: int = 0, seed: int = 7) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.residents: list[Resident] = []
        self._totals: dict[str, list[float]] = {}
        self._samples = 0
        now_ns = time.time_ns()
        self.at(now_ns - past_seconds * _SECOND_NS)
        self.tell.say(m.HOST, time_ms=self.now_ns // 1_000_000, host="node-7")
        for number in range(residents):
            self.settle(**_somebody(number, self.chance))
        for second in range(past_seconds + 1):
            self.at(now_ns - (past_seconds - second) * _SECOND_NS)
            self.sample()

    def at(self, now_ns: int) -> None:
        """What is said from here on happens then."""
        self.now_ns = now_ns
        self.tell.now_ms = now_ns // 1_000_000

    def when(self) -> dict[str, Any]:
        return {"time": rfc3339(self.now_ns), "time_ms": self.now_ns // 1_000_000, "host": "node-7"}

    def settle(self, name: str, image: str = "busybox:1.37", **more: Any) -> Resident:
        """A container comes, and stays."""
        behaviour = {field: more.pop(field) for field in Resident._fields if field in more}
        chance = self.chance
        about = {
            "container_id": f"{chance.getrandbits(256):064x}", "name": name, "aliases": [name], "image": image,
            "spec": ContainerSpec(memory_limit_bytes=0, cpu_quota_us=0, cpu_period_us=100_000, cpu_shares=1024, pids_limit=0),
            "started_at": rfc3339(self.now_ns - chance.randrange(60, 400_000) * _SECOND_NS), **more,
        }  # fmt: skip
        about["cgroup_path"] = more.get("cgroup_path", f"/docker/{about['container_id']}")
        self.tell.created(**{"found": "live", **about, **self.when()})
        standard = {"cpu_cores": 0.02, "memory_bytes": 8 << 20, "io_bytes_per_second": 0, "network_bytes_per_second": 0, "throttled": 0.0, "pressure": 0.0}  # fmt: skip
        resident = Resident(about, **{**standard, **behaviour})
        self.residents.append(resident)
        return resident

    def job(self, name: str, seconds: float, *, killed: bool = False) -> None:
        """A container that came and has ended."""
        began_ns = self.now_ns
        identity = {
            "container_id": f"{self.chance.getrandbits(256):064x}",
            "name": name,
            "aliases": [name],
            "image": "shop/job:2025.11",
        }
        self.tell.created(**identity, **self.when())
        self.at(began_ns + int(seconds * _SECOND_NS))
        if killed:
            self.kill(identity, process="java")
        self.tell.deleted(
            **identity, **self.when(), exit_code=137 if killed else 0, oom_killed=killed, lifetime_ms=int(seconds * 1000),
            total_cpu_usage_ns=int(seconds * 3e8), memory_peak_bytes=self.chance.randrange(8 << 20, 400 << 20),
        )  # fmt: skip

    def kill(self, about: dict[str, Any], process: str = "tail") -> None:
        """The OOM killer ends a process in it."""
        known = {key: about[key] for key in ("container_id", "name", "aliases", "image")}
        incarnation = f"boot.{about['container_id'][-12:]}.1"
        self.tell.say(m.OOM, **known, incarnation=incarnation, process=process, memory_limit_bytes=512 << 20, **self.when())

    def sample(self) -> None:
        """One sample of each, now."""
        self._samples += 1
        for place, each in enumerate(self.residents):
            totals = self._totals.setdefault(each.about["container_id"], [0.0] * 5)
            wave = 1 + 0.5 * math.sin(self._samples / 9 + place) + self.chance.uniform(-0.15, 0.15)
            burst = wave if place % 3 else wave * 2 * (self._samples % 20 < 6)
            grown = (each.cpu_cores * wave * 1e9, each.io_bytes_per_second * burst, each.network_bytes_per_second * burst,
                     10 * each.throttled, each.pressure * 1e7)  # fmt: skip
            for column, more in enumerate(grown):
                totals[column] += more
            cpu, io, network, throttled, pressure = map(int, totals)
            memory = int(each.memory_bytes * (1 + 0.04 * math.sin(self._samples / 40 + place)))
            who = {key: each.about[key] for key in ("container_id", "name", "aliases", "image", "cgroup_path")}
            self.tell.say(
                m.STATS, **who, **self.when(), incarnation=f"boot.{who['container_id'][-12:]}.1",
                cpu_usage_ns=cpu, cpu_periods=self._samples * 10, cpu_throttled_periods=throttled, cpu_throttled_ns=throttled * 30_000_000,
                memory_working_set_bytes=memory, memory_usage_bytes=memory * 5 // 4,
                io_read_bytes=io, io_write_bytes=io // 3, network_rx_bytes=network, network_tx_bytes=network // 4,
                psi_cpu_some_ns=pressure, psi_memory_some_ns=0, psi_io_some_ns=io // 100, psi_cpu_some_avg10_percent=each.pressure,
            )  # fmt: skip


def _somebody(number: int, chance: random.Random) -> dict[str, Any]:
    """What a container of a common sort is and does."""
    image, project = _TRADES[number % len(_TRADES)], _PROJECTS[number // len(_TRADES) % len(_PROJECTS)]
    service = image.split(":")[0].rpartition("/")[2]
    limited = number % 3 == 0
    cores = chance.choice((0.004, 0.03, 0.12, 0.3, 0.7))
    memory = chance.randrange(12 << 20, 600 << 20)
    quota = max(10_000, int(cores * chance.uniform(1.4, 3) * 100_000)) if limited else 0
    limit = 0 if number % 2 else int(memory * chance.uniform(1.1, 3)) >> 20 << 20
    return {
        "found": "startup",
        "name": f"{project}-{service}-{number // 20 + 1}",
        "image": image,
        "compose_project": project,
        "compose_service": service,
        "labels": {"com.docker.compose.project": project, "com.docker.compose.service": service, "tier": "backend"},
        "spec": ContainerSpec(
            memory_limit_bytes=limit,
            memory_swap_limit_bytes=limit,
            cpu_quota_us=quota,
            cpu_period_us=100_000,
            cpu_shares=1024,
            pids_limit=0,
        ),
        "cpu_cores": cores,
        "memory_bytes": memory,
        "io_bytes_per_second": chance.choice((0, 0, 0, 40_000, 900_000)),
        "network_bytes_per_second": chance.choice((0, 20_000, 200_000, 2_000_000)),
        "throttled": chance.choice((0, 0, 0.05, 0.3)) if limited else 0.0,
        "pressure": chance.choice((0.0, 0.0, 0.4, 3.0, 14.0)),
    }
