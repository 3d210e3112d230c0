"""The agent inside another program, on this machine's cgroups, and the example of the README."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from streamer.cadvisor import EventRequest, NotFound, RequestOptions
from streamer.config import Docker, Http, Sampling, Settings
from streamer.embed import ContainerManager
from streamer.errors import ConfigError, StreamerError
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live, pytest.mark.v2]

ROOT = Path(__file__).parents[2]
SELDOM = Settings(
    state_dir="off", http=Http(listen="off"), docker=Docker(enabled=False), sampling=Sampling(interval="5m", max_interval="5m")
)
CREATED_AND_DELETED = frozenset({"containerCreation", "containerDeletion"})


async def test_it_watches_answers_and_ends(cgroups: CgroupFolder, capfd: pytest.CaptureFixture[str]) -> None:
    """What is there at the start is known after it; what comes is heard; the end ends watches. stdout stays the program's."""
    path = cgroups.make("early", memory_limit_bytes=64 << 20)
    async with ContainerManager() as manager:
        await manager.start()  # again: nothing happens
        assert (await manager.machine_info()).num_cores == os.cpu_count()
        info = await manager.container_info(path)
        assert info.spec.memory.limit == 64 << 20
        watch = manager.watch_for_events(EventRequest(cgroups.path, True, CREATED_AND_DELETED))
        async with asyncio.timeout(30):
            late = cgroups.make("late")
            created = await anext(watch)
            cgroups.remove("late")
            heard = [created, await anext(watch)]
        assert [(event.event_type, event.container_name) for event in heard] == [
            ("containerCreation", late),
            ("containerDeletion", late),
        ]
    assert [event async for event in watch] == []
    assert (await manager.container_info(path)).name == path  # what was known can still be asked for
    await manager.stop()
    with pytest.raises(StreamerError, match="make another one"):
        await manager.start()
    assert capfd.readouterr().out == ""


async def test_a_real_kill_is_heard_as_two_events(cgroups: CgroupFolder) -> None:
    """Of the cgroup of the process and of the one whose limit was hit, here the same."""
    path = cgroups.make("limited", memory_limit_bytes=20 << 20)
    async with ContainerManager() as manager:
        watch = manager.watch_for_events(EventRequest(cgroups.path, True, frozenset({"oom", "oomKill"})))
        killed = cgroups.run("limited", "tail", "/dev/zero")
        async with asyncio.timeout(30):
            of_killed, of_limit = await anext(watch), await anext(watch)
        assert await asyncio.to_thread(killed.wait) == -signal.SIGKILL
        past = await manager.past_events(EventRequest(path, event_types=frozenset({"oom"})))
    assert (of_killed.event_type, of_killed.container_name) == ("oom", path)
    assert (of_limit.event_type, of_limit.container_name) == ("oomKill", path)
    oom = of_limit.event_data.oom
    assert oom is not None
    assert (oom.pid, oom.process_name, oom.constraint) == (killed.pid, "tail", "CONSTRAINT_MEMCG")
    assert past == [of_killed]


async def test_a_greatest_age_takes_a_sample_now(cgroups: CgroupFolder) -> None:
    """Every 5 minutes otherwise; young enough ones are not taken again."""
    path = cgroups.make("seldom")
    async with ContainerManager(SELDOM) as manager:

        async def newest(max_age: float | None) -> str:
            options = RequestOptions(count=1, max_age=max_age)
            return (await manager.requested_containers(path, options))[path].stats[-1].timestamp

        first = await newest(0.0)
        assert await newest(None) == await newest(300.0) == first
        second = await newest(0.0)
        assert second > first
        assert await newest(None) == second


async def test_processes_are_listed_as_ps_lists_them(cgroups: CgroupFolder) -> None:
    """Those of the cgroup itself; of the root all of the host, each with its cgroup."""
    path = cgroups.make("listed")
    sleeper = cgroups.run("listed", "sleep", "60")
    manager = ContainerManager(SELDOM)
    with pytest.raises(NotFound):
        await manager.process_list("/")
    async with manager:
        async with asyncio.timeout(30):
            while [(process.cmd, process.status[0]) for process in await manager.process_list(path)] != [("sleep", "S")]:
                await asyncio.sleep(0.01)  # the shell that joins becomes it
        (process,) = await manager.process_list(path)
        of_ps = subprocess.check_output(["ps", "-o", "user=,ppid=,stat=,vsz=,psr=", "-p", str(sleeper.pid)], text=True).split()
        assert [process.user, str(process.parent_pid), process.status, str(process.virtual_size // 1024)] == of_ps[:4]
        assert (process.pid, process.cgroup_path, process.running_time) == (sleeper.pid, "", "00:00:00")
        assert process.rss > 0 and process.fd_count >= 3
        everybody = {found.pid: found for found in await manager.process_list("/")}
        assert everybody[sleeper.pid].cgroup_path == path
        assert {1, os.getpid()} <= everybody.keys()
        with pytest.raises(NotFound, match=r"^unknown container "):
            await manager.process_list(f"{cgroups.path}/gone")


async def test_what_stops_a_start_is_raised() -> None:
    """As from the agent: the operator's mistake, in its words; nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        manager = ContainerManager(Settings(state_dir="off", http=Http(listen=listen)))
        with pytest.raises(ConfigError, match="another program listens there"):
            await manager.start()
    await manager.stop()


@pytest.mark.parametrize("wrong", [{"http": Http(listen="192.0.2.1:1", insecure=True)}, {"http": Http(listen="192.0.2.1:1")}])
async def test_a_state_directory_is_given_back(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """At the end of a run; and of one that failed at its start, before or after its parts were there."""
    good = {"state_dir": str(tmp_path), "docker": Docker(enabled=False), "http": Http(listen="off")}
    with pytest.raises(ConfigError, match=r"http\.listen"):
        await ContainerManager(Settings(**{**good, **wrong})).start()
    for _ in range(2):
        async with ContainerManager(Settings(**good)):
            with pytest.raises(ConfigError, match="another agent uses this directory"):
                await ContainerManager(Settings(**good)).start()


def test_the_readmes_example_runs(cgroups: CgroupFolder, tmp_path: Path) -> None:
    """Just as it stands there: it prints what is there, then what happens, until it is interrupted."""
    (block,) = [
        code for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "asyncio.run" in code
    ]
    script = tmp_path / "example.py"
    script.write_text(block)
    path = cgroups.make("shown", memory_limit_bytes=64 << 20)
    cgroups.run("shown", "sleep", "60")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as program:
        limit = threading.Timer(240, program.kill)
        limit.start()
        try:
            assert program.stdout is not None and program.stderr is not None
            lines = iter(program.stdout)
            shown = next(line for line in lines if line.startswith(path + " "))
            assert re.fullmatch(rf"{re.escape(path)} \[\] [1-9]\d* of {64 << 20} bytes\n", shown)
            cgroups.make("late")
            event = next(line for line in lines if line.endswith("/late\n"))
            assert re.fullmatch(rf"\S+Z containerCreation {re.escape(cgroups.path)}/late\n", event)
            program.send_signal(signal.SIGINT)
            errors = program.stderr.read()
        finally:
            limit.cancel()
            limit.join()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
