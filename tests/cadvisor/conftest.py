"""A memory with one host's containers, and the operations over it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from streamer.cadvisor import Operations
from streamer.clock import SystemClock
from streamer.memory import Memory
from streamer.model import messages as m
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
WEBBER = "4f6b" + "2" * 60
POD = "9999" + "3" * 60


class House:
    """Two Docker containers, one of containerd, raw cgroups in folders, among them /lab/one and /lab-two."""

    def __init__(self) -> None:
        self.memory = Memory(samples=60)
        self.tell = Teller(self.memory)
        self.operations = Operations(self.memory, SystemClock())

    def fill(self) -> None:
        tell = self.tell
        tell.say(m.HOST)
        tell.created(WEB, name="web", aliases=["web"], cgroup_path=f"/docker/{WEB}")
        tell.created(WEBBER, name="webber", aliases=["webber"], cgroup_path=f"/docker/{WEBBER}")
        tell.created(POD, name="web", runtime="containerd", cgroup_path=f"/kubepods/pod1/{POD}")
        for path in ("/lab/one", "/lab/one/inner", "/lab-two"):
            self.raw(path)

    def raw(self, path: str, **about: Any) -> None:
        self.tell.created(path, **raw(path), **about)

    def docker(self, container_id: str = WEB, name: str = "web", **about: Any) -> None:
        """A sample of a Docker container."""
        self.tell.sampled(container_id, name=name, aliases=[name], cgroup_path=f"/docker/{container_id}", **about)

    def sampled(self, path: str, **about: Any) -> None:
        """A sample of a raw cgroup."""
        self.tell.sampled(path, **raw(path), **about)


def raw(path: str) -> dict[str, Any]:
    """What a message about a raw cgroup says of it."""
    return {
        "runtime": "raw", "name": path, "cgroup_path": path,
        "aliases": UNSET, "labels": UNSET, "image": UNSET, "image_id": UNSET, "compose_project": UNSET, "compose_service": UNSET,
    }  # fmt: skip


@pytest.fixture
def house() -> House:
    house = House()
    house.fill()
    return house
