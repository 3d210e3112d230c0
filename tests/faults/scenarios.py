"""The faults: each is a function that does one thing to a world in which containers come and go, at random moments.

A scenario begins when the agent is ready and the containers are coming. It may leave everything broken that
`World.settle` mends: proxies, brokers, a frozen or killed agent. What else it changes it undoes with `at_the_end`.
Every chance is drawn from `world.chance`, so that a seed repeats the choices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.containers import Docker
from tests.faults.proxy import DIRECTIONS, FaultProxy
from tests.faults.world import World
from tests.support.brokers import Server
from tests.support.docker_engine import DockerEngine

_QUEUE: Final = Path("/proc/sys/fs/inotify/max_queued_events")
_WRITERS_OF_THE_LOG: Final = Path("/proc/sys/kernel/printk_devkmsg")
_FULL_SECONDS: Final = 60.0
_STATE_DISK_BYTES: Final = 8 << 20


# the agent


def agent_killed(world: World) -> None:
    for _ in range(world.kills):
        world.wait(0.3, 1.5)
        world.agent.kill()
        world.wait(0.0, 0.5)
        world.agent.start()


def agent_killed_without_kafka(world: World) -> None:
    """Killed while Kafka is down; started again after containers were removed and made meanwhile; then Kafka comes back."""
    world.wait(0.5, 1.5)
    world.parts.kafka.kill()
    world.wait(0.5, 1.5)
    world.agent.kill()
    world.wait(0.5, 2.0)
    world.agent.start()
    world.agent.wait_ready()
    world.wait(0.2, 1.0)
    world.parts.kafka.start()
    world.wait(0.5, 1.0)


def agent_paused(world: World) -> None:
    for _ in range(2):
        world.wait(0.2, 1.0)
        world.agent.pause()
        world.wait(0.5, 2.0)
        world.agent.resume()


def two_agents(world: World) -> None:
    world.wait(0.2, 1.0)
    with (world.directory / "second.log").open("wb") as log:
        second = world.agent.spawn(log)
        try:
            code = second.wait(90)
        except subprocess.TimeoutExpired:
            second.kill()
            code = second.wait()
            world.problems.append("a second agent on the same state directory runs")
    said = (world.directory / "second.log").read_text(errors="replace")
    if code != 78 or "state_dir" not in said:
        world.problems.append(f"a second agent on the same state directory ended with {code}: {said[-300:]!r}")
    world.wait(0.5, 1.0)


# brokers


def _with_kafka(act: Callable[[World, Server, FaultProxy], None]) -> Callable[[World], None]:
    def with_kafka(world: World) -> None:
        world.wait(0.2, 1.5)
        act(world, world.parts.kafka, world.kafka_proxy)
        world.wait(0.0, 1.0)

    return with_kafka


def _with_redis(act: Callable[[World, Server, FaultProxy], None]) -> Callable[[World], None]:
    def with_redis(world: World) -> None:
        world.wait(0.2, 1.5)
        act(world, world.parts.redis, world.redis_proxy)
        world.wait(0.0, 1.0)

    return with_redis


def _killed(world: World, server: Server, _: FaultProxy) -> None:
    server.kill()
    world.wait(0.0, 2.0)
    server.start()


def _paused(world: World, server: Server, _: FaultProxy) -> None:
    server.pause()
    world.wait(1.0, 4.0)
    server.resume()


def _cut_off(world: World, _: Server, proxy: FaultProxy) -> None:
    for _again in range(2):
        proxy.refuse()
        world.wait(0.3, 2.0)
        proxy.forward()
        world.wait(0.2, 1.5)


def _half_open(world: World, _: Server, proxy: FaultProxy) -> None:
    proxy.blackhole()
    world.wait(1.0, 4.0)
    proxy.forward()


def _one_way(world: World, _: Server, proxy: FaultProxy) -> None:
    for direction in world.chance.sample(DIRECTIONS, 2):
        proxy.drop(direction)
        world.wait(0.5, 3.0)
        proxy.forward()
        world.wait(0.2, 1.0)


def _slow(world: World, _: Server, proxy: FaultProxy) -> None:
    proxy.slow(delay_seconds=world.chance.uniform(0.05, 0.5))
    world.wait(1.0, 2.0)
    proxy.slow(bytes_per_second=world.chance.uniform(2_000, 50_000))
    world.wait(1.0, 3.0)
    proxy.forward()


def _reset(world: World, _: Server, proxy: FaultProxy) -> None:
    for _again in range(world.chance.randint(4, 10)):
        if world.chance.random() < 0.5:
            proxy.cut_after(world.chance.randint(1, 20_000))
        else:
            proxy.reset()
        world.wait(0.05, 0.8)


def both_brokers(world: World) -> None:
    world.wait(0.2, 1.0)
    servers: list[Server] = [world.parts.kafka, world.parts.redis]
    world.chance.shuffle(servers)
    for server in servers:
        server.kill()
        world.wait(0.0, 1.0)
    world.wait(0.5, 2.0)
    world.chance.shuffle(servers)
    for server in servers:
        server.start()


def kafka_full(world: World) -> None:
    """Its disk: the broker ends when it can write no more."""
    kafka = world.parts.kafka
    world.wait(0.2, 1.0)
    ballast = world.parts.kafka_disk / "ballast"
    world.at_the_end(lambda: ballast.unlink(missing_ok=True))
    _fill(ballast)
    deadline = time.monotonic() + _FULL_SECONDS  # what room is left in the last page of each of its files goes first
    while kafka.running and time.monotonic() < deadline:
        world.wait(0.5, 1.5)
    if kafka.running:
        world.problems.append("the broker did not mind its full disk")
    ballast.unlink()
    world.parts.mend()
    world.wait(0.5, 1.0)


def kafka_refusing(world: World) -> None:
    """More replicas in sync are asked for than there are."""
    world.wait(0.2, 1.0)
    world.set_in_topics("min.insync.replicas", "2")
    world.wait(1.0, 3.0)
    world.set_in_topics("min.insync.replicas", "1")
    world.wait(0.5, 1.0)


def redis_full(world: World) -> None:
    redis = world.parts.redis
    world.at_the_end(lambda: redis.cli("CONFIG", "SET", "maxmemory", "0"))
    world.wait(0.2, 1.0)
    redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.cli("CONFIG", "SET", "maxmemory", "1")
    world.wait(1.0, 3.0)
    redis.cli("CONFIG", "SET", "maxmemory", "0")


def redis_emptied(world: World) -> None:
    world.wait(0.5, 1.5)
    world.parts.redis.cli("FLUSHALL")
    world.wait(0.5, 1.5)


# state on disk


def _state_disk(world: World) -> None:
    """A small disk of its own under the state directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_STATE_DISK_BYTES}", "tmpfs", str(world.state_dir)], check=True)
    world.at_the_end(lambda: subprocess.run(["umount", "--lazy", str(world.state_dir)], check=True))


def state_disk_full(world: World) -> None:
    world.wait(0.2, 1.0)
    ballast = world.state_dir / "ballast"
    _fill(ballast)
    world.wait(1.0, 3.0)
    if world.chance.random() < 0.5:
        world.agent.kill()
        world.memory_kept = False  # what could not be written down is gone with it
        world.agent.start()
        world.agent.wait_ready()
        world.wait(0.5, 1.0)
    ballast.unlink()
    world.wait(0.5, 1.5)


def _fill(ballast: Path) -> None:
    """Until nothing more goes on that disk."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def state_read_only(world: World) -> None:
    world.wait(0.5, 1.0)
    world.agent.stop()
    world.memory_kept = False  # of the run that now begins
    _remount(world, "ro")
    world.agent.start()
    world.agent.wait_ready()
    world.wait(1.0, 2.0)
    world.agent.stop()
    _remount(world, "rw")
    world.agent.start()
    world.agent.wait_ready()
    world.wait(0.5, 1.0)


def _remount(world: World, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(world.state_dir)], check=True)


def state_damaged(world: World) -> None:
    for _ in range(2):
        world.wait(0.5, 1.5)
        world.agent.kill()
        world.memory_kept = False
        for file in sorted(path for path in world.state_dir.glob("*.db*") if path.stat().st_size and "damaged" not in path.name):
            _damage(world, file)
        world.wait(0.0, 0.5)
        world.agent.start()
        world.agent.wait_ready()


def _damage(world: World, file: Path) -> None:
    size = file.stat().st_size
    if world.chance.random() < 0.3:
        os.truncate(file, world.chance.randrange(size))
        return
    with file.open("r+b") as data:
        for _ in range(world.chance.randint(1, 20)):
            data.seek(world.chance.randrange(size))
            data.write(world.chance.randbytes(world.chance.randint(1, 200)))
        if world.chance.random() < 0.5:  # its head too
            data.seek(0)
            data.write(world.chance.randbytes(100))


# Docker


def _with_docker(world: World) -> None:
    """An engine of its own, which the agent listens to."""
    world.docker_engine = world.enter(DockerEngine(live_restore=True))
    world.configure(docker={"enabled": True, "host": world.docker_engine.host})


def docker_restarted(world: World) -> None:
    """Containers go on while the daemon is away; one ends meanwhile, others come and go afterwards."""
    engine = world.docker_engine
    docker = Docker(engine, world.ledger)
    running = [docker.run() for _ in range(3)]
    world.wait(0.2, 1.0)
    if world.chance.random() < 0.5:
        engine.stop()
    else:
        engine.kill()
    world.wait(0.2, 1.0)
    ended = docker.end_process(running.pop())
    world.wait(0.2, 1.0)
    engine.start()
    ended()
    docker.run()
    docker.remove(running.pop(0))
    docker.run_and_end()
    world.wait(0.2, 0.5)


# the kernel's word


def kernel_log_overrun(world: World) -> None:
    before = _WRITERS_OF_THE_LOG.read_text()
    world.at_the_end(lambda: _WRITERS_OF_THE_LOG.write_text(before))
    _WRITERS_OF_THE_LOG.write_text("on\n")
    world.wait(0.2, 1.0)
    world.agent.pause()
    for number in range(3):
        world.workload.kill_by_oom(f"unread{number}")
    _flood_the_kernel_log(world)
    for number in range(2):
        world.workload.kill_by_oom(f"read{number}")
    world.agent.resume()
    world.wait(0.5, 1.0)


def _flood_the_kernel_log(world: World) -> None:
    """Write until what stood there is overwritten; our own reader keeps up."""
    line = b"<7>streamer fault suite: " + b"x" * 900
    writer = os.open("/dev/kmsg", os.O_WRONLY)
    try:
        for _ in range(1000):
            world.log.read()
            for _ in range(40):
                os.write(writer, line)
            if _oldest_record() > max(world.log.kills.values()):
                return
    finally:
        os.close(writer)
    world.problems.append("the kernel log could not be overrun")


def _oldest_record() -> int:
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(os.read(log, 16_384).split(b",", 2)[1])
    finally:
        os.close(log)


def _with_a_short_queue(world: World) -> None:
    before = _QUEUE.read_text()
    world.at_the_end(lambda: _QUEUE.write_text(before))
    _QUEUE.write_text("256")  # holds for what is opened from now on


def inotify_overflow(world: World) -> None:
    world.wait(0.2, 0.5)
    world.agent.pause()
    for number in range(world.chance.randint(60, 120)):
        world.workload.make(f"burst{number}")
        if world.chance.random() < 0.7:
            world.workload.remove(f"burst{number}")
    world.wait(0.0, 1.0)
    world.agent.resume()
    world.wait(0.5, 1.0)


def clock_stepped(world: World) -> None:
    """Only where the clock is this kernel's own: a host that steps its clock by an hour is not a test's to make.

    Raises:
        RuntimeError: this is no guest.
    """
    if "User Mode Linux" not in Path("/proc/cpuinfo").read_text():
        raise RuntimeError("the clock is stepped inside the guest alone: tests/guest/run -- python -m tests.faults clock-stepped")
    world.times_hold = False
    for _ in range(2):
        world.wait(0.5, 1.5)
        step = world.chance.choice((-1, 1)) * world.chance.uniform(1.0, 5000.0)
        time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
    world.wait(0.5, 1.5)


class Fault(NamedTuple):
    """A row of the table.

    act      does it to a world
    about    what it does, for people
    prepare  changes the world before its agent is started
    guest    only inside the guest: it changes what belongs to the whole machine
    """

    act: Callable[[World], None]
    about: str
    prepare: Callable[[World], object] = lambda world: None
    guest: bool = False


FAULTS: Final[dict[str, Fault]] = {
    "none": Fault(lambda world: world.wait(1.0, 3.0), "nothing: what the others are compared with"),
    "agent-killed": Fault(agent_killed, "SIGKILL again and again at any moment, started anew after a random pause"),
    "agent-killed-without-kafka": Fault(agent_killed_without_kafka, "SIGKILL while Kafka is down, started, then Kafka is started"),
    "agent-paused": Fault(agent_paused, "SIGSTOP and SIGCONT"),
    "two-agents": Fault(two_agents, "a second agent on the same state directory has to refuse with 78"),
    "kafka-killed": Fault(_with_kafka(_killed), "SIGKILL, started anew with its data"),
    "redis-killed": Fault(_with_redis(_killed), "the same for Redis"),
    "both-killed": Fault(both_brokers, "both brokers killed and started in any order"),
    "kafka-paused": Fault(_with_kafka(_paused), "SIGSTOP and SIGCONT: connected, no answer, and then the answer"),
    "redis-paused": Fault(_with_redis(_paused), "the same for Redis"),
    "kafka-cut-off": Fault(_with_kafka(_cut_off), "connections are reset and refused, twice"),
    "redis-cut-off": Fault(_with_redis(_cut_off), "the same for Redis"),
    "kafka-half-open": Fault(_with_kafka(_half_open), "connections are accepted, what is sent disappears"),
    "redis-half-open": Fault(_with_redis(_half_open), "the same for Redis"),
    "kafka-one-way": Fault(_with_kafka(_one_way), "requests arrive and answers do not, and the other way round"),
    "redis-one-way": Fault(_with_redis(_one_way), "the same for Redis"),
    "kafka-slow": Fault(_with_kafka(_slow), "answers take long, then few bytes a second"),
    "redis-slow": Fault(_with_redis(_slow), "the same for Redis"),
    "kafka-reset": Fault(_with_kafka(_reset), "connections reset at any byte"),
    "redis-reset": Fault(_with_redis(_reset), "the same for Redis"),
    "kafka-full": Fault(kafka_full, "its disk is full, it ends, its disk has room, it is started"),
    "kafka-refusing": Fault(kafka_refusing, "NOT_ENOUGH_REPLICAS for a while"),
    "redis-full": Fault(redis_full, "OOM command not allowed for a while"),
    "redis-emptied": Fault(redis_emptied, "FLUSHALL: everything it had acknowledged is gone"),
    "docker-restarted": Fault(docker_restarted, "the daemon stopped or killed and started, containers go on", _with_docker),
    "state-disk-full": Fault(state_disk_full, "no byte of room in --state-dir for a while", _state_disk),
    "state-read-only": Fault(state_read_only, "--state-dir cannot be written for a whole run", _state_disk),
    "state-damaged": Fault(state_damaged, "random bytes in the database of --state-dir, or a part of it, twice"),
    "kernel-log-overrun": Fault(
        kernel_log_overrun, "more records than the ring holds while the agent is stopped, kills among them"
    ),
    "inotify-overflow": Fault(inotify_overflow, "more events than the queue holds while the agent is stopped", _with_a_short_queue),
    "clock-stepped": Fault(clock_stepped, "the wall clock jumps forward and back", guest=True),
}
