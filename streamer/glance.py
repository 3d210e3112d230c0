"""One look at this host: what `streamer once` shows."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

from streamer.app import Agent, cancel
from streamer.config import Settings
from streamer.contracts import Emit
from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Now
from streamer.model import observations as o
from streamer.model.messages import Message
from streamer.sources.watcher import Watcher

_NS: Final = 1_000_000_000


class Snapshot(NamedTuple):
    """One look at this host.

    messages  `created` and one `container.stats` for each container, in order
    rates     by incarnation: CPU in cores, network received and sent in bytes/s, over the look's two readings
    """

    messages: list[Message]
    rates: dict[str, tuple[float, float, float]]


def once(settings: Settings) -> Snapshot:
    """Look at this host once: what is there, and two readings half a second apart.

    Raises:
        Unsupported: this host has no cgroups at all.
    """
    return asyncio.run(_once(settings))


_BETWEEN_READINGS: Final = 0.5
_DOCKER_PATIENCE: Final = 3.0


async def _once(settings: Settings) -> Snapshot:
    agent = Agent(settings)
    said: list[Message] = []

    def hear(observation: o.Observation) -> None:
        said.extend(agent.fleet.observe(observation, Now(agent.clock.wall_ns(), agent.clock.monotonic_ns())))

    watcher = Watcher(agent.hierarchies, scope=settings.scope, clock=agent.clock, emit=hear)
    with contextlib.closing(agent.sampler), contextlib.closing(watcher):
        watcher.start()
        await _hear_docker(agent, hear)
        hear(o.Degraded("source.docker", agent.clock.wall_ns(), "only one look was asked for"))  # nothing is waited for any more
        looks = [container.look() for container in agent.fleet.containers()]
        first = {s.path: s for s in await agent.sampler.read(looks)}
        await asyncio.sleep(_BETWEEN_READINGS)
        rates = {}
        for second in await agent.sampler.read(looks):
            container = agent.fleet.get(second.path)
            hear(second)
            if container is not None and second.path in first:
                rates[container.incarnation] = _rates(first[second.path], second)
    return Snapshot([message for message in said if message.record is not None and message.topic.type in _SHOWN_ONCE], rates)


_SHOWN_ONCE: Final = ("container.lifecycle", "container.stats")


async def _hear_docker(agent: Agent, hear: Emit) -> None:
    """Listen to Docker until every container of its has a name, or it says that it cannot help."""
    if agent.docker is None:
        return
    answered = asyncio.Event()

    def listen(observation: o.Observation) -> None:
        hear(observation)
        if isinstance(observation, o.Degraded) or (isinstance(observation, o.Described) and not _nameless(agent.fleet)):
            answered.set()

    if not _nameless(agent.fleet):
        return
    listening = asyncio.create_task(agent.docker.run(listen))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DOCKER_PATIENCE):
            await answered.wait()
    await cancel({listening})


def _nameless(fleet: Fleet) -> bool:
    return any(c.owner.runtime == "docker" and c.details.name is None for c in fleet.containers())


def _rates(first: o.Sampled, second: o.Sampled) -> tuple[float, float, float]:
    span = max(1, second.sample.time_ns - first.sample.time_ns)
    before, after = first.sample.get("cpu_usage_ns"), second.sample.get("cpu_usage_ns")
    cores = (after - before) / span if isinstance(before, int) and isinstance(after, int) else 0.0
    received = sum(i.rx_bytes for i in second.sample.interfaces) - sum(i.rx_bytes for i in first.sample.interfaces)
    sent = sum(i.tx_bytes for i in second.sample.interfaces) - sum(i.tx_bytes for i in first.sample.interfaces)
    return max(0.0, cores), max(0.0, received * _NS / span), max(0.0, sent * _NS / span)
