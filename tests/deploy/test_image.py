"""The image, built as deploy/build-image builds it and started as deploy/README.md says, on a host with a real Docker Engine.

No registry can be reached here: the base is this Debian's own Python (`python_base.py`). The documented command is run as it
is but for names, the sink and the port, and for what the test machine itself may not do: `rslave` needs a `/` that is a shared
mount, and three resource settings need CAP_SYS_RESOURCE, which a virtual machine or container may have been denied.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from streamer import __version__
from streamer.config import Settings, seconds
from tests.deploy import python_base
from tests.support.brokers import free_port
from tests.support.docker_engine import IMAGE as BUSYBOX
from tests.support.docker_engine import DockerEngine

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]  # the first test also waits for the image

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
IMAGE: Final = "streamer:test"


def documented() -> list[str]:
    """The `docker run` of deploy/README.md, in words."""
    found = re.search(r"^docker run -d --name streamer(?:.*\\\n)+.*$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return shlex.split(found[0].replace("\\\n", ""))


class Contained:
    """An agent in a container, started by the documented command."""

    def __init__(self, engine: DockerEngine, name: str, *options: str) -> None:
        self.engine, self.name = engine, name
        self.state = f"{name}-state"
        words = documented()[1:]  # the engine knows that it is docker
        image = words.index("streamer:latest")
        words[image:] = [*options, IMAGE, "run", "--sink", "stdout:"]
        words[words.index("streamer")] = name  # after --name
        words = [f"{self.state}:{w.partition(':')[2]}" if w.startswith("streamer-state:") else w for w in words]
        if not _is_shared("/"):
            words = [w.removesuffix(",rslave") for w in words]
        if not _may_raise_limits():
            for value in ("nofile=65536", "nice=30", "-500"):
                del words[words.index(value) - 1 : words.index(value) + 1]
        environment = {"STREAMER_DOCKER__HOST": f"unix:///host{engine.socket}", "STREAMER_HTTP__LISTEN": f"127.0.0.1:{free_port()}"}
        for key, value in environment.items():
            words[1:1] = ["--env", f"{key}={value}"]
        self.id = engine.cli(*words)

    def __enter__(self) -> Contained:
        try:
            self.until(lambda: "watching" in self._logs()[1], "it did not become ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.cli("rm", "-f", self.name)
        self.engine.cli("volume", "rm", self.state)

    def said(self, **fields: Any) -> list[dict[str, Any]]:
        """Every message so far in which all these fields have these values."""
        lines = [json.loads(line) for line in self._logs()[0].splitlines()]
        return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]

    def wait_said(self, **fields: Any) -> dict[str, Any]:
        """Wait for such a message; returns the first."""
        told: list[dict[str, Any]] = self.until(lambda: self.said(**fields), f"{fields} was not said")
        return told[0]

    def until(self, condition: Callable[[], Any], otherwise: str, seconds: float = 60.0) -> Any:
        """Wait for a truthy answer and return it; fail with what the agent said otherwise."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                out, err = self._logs()
                told = "\n".join(line[:400] for line in out.splitlines() if '"container.stats"' not in line)
                pytest.fail(f"{otherwise} within {seconds:g} s\n--- said:\n{told[-6000:]}\n--- log:\n{err[-4000:]}", pytrace=False)
            time.sleep(0.1)  # the pace of looking; the deadline is above
        return answer

    def inside(self, *command: str) -> tuple[int, str]:
        """Run a command in its container; exit code and output."""
        done = subprocess.run(
            ["docker", "--host", self.engine.host, "exec", self.name, *command],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _logs(self) -> tuple[str, str]:
        done = subprocess.run(
            ["docker", "--host", self.engine.host, "logs", self.name], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout, done.stderr


def _is_shared(mountpoint: str) -> bool:
    mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return any(fields[4] == mountpoint and any(f.startswith("shared:") for f in fields[6:]) for fields in mounts)


def _may_raise_limits() -> bool:
    (effective,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(int(effective, 16) >> 24 & 1)  # CAP_SYS_RESOURCE of linux/capability.h


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine) -> str:
    """The image, built without a network from wheels that the lock files name."""
    subprocess.run(
        ["docker", "--host", docker_engine.host, "import", "-", python_base.NAME],
        input=python_base.root_file_system(), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    done = subprocess.run(
        [DEPLOY / "build-image", "--offline", "--base", python_base.NAME, "--tag", IMAGE],
        env={**os.environ, "DOCKER_HOST": docker_engine.host, "DOCKER_BUILDKIT": "0", "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE


@pytest.fixture(scope="module")
def elder(docker_engine: DockerEngine) -> Iterator[str]:
    """A container that runs before the agent does."""
    container = docker_engine.run("--name", "image-elder")
    yield container
    docker_engine.cli("rm", "-f", container)


@pytest.fixture(scope="module")
def agent(docker_engine: DockerEngine, image: str, elder: str) -> Iterator[Contained]:
    """The agent in its container; asks for its health every second, so that a test need not wait for half a minute."""
    with Contained(docker_engine, "image-agent", "--health-interval", "1s") as running:
        yield running


def test_the_image_says_what_it_is(docker_engine: DockerEngine, image: str) -> None:
    """Version, licence and stop signal are in its description, and the program answers with the same version."""
    config = json.loads(docker_engine.cli("image", "inspect", image))[0]["Config"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["StopSignal"] == "SIGTERM"
    assert docker_engine.cli("run", "--rm", "--network", "none", image, "--version") == f"streamer {__version__}"


def test_the_image_holds_what_runs_and_not_what_built_it(docker_engine: DockerEngine, image: str) -> None:
    """No sources, no wheels, no builder; and the byte code is there, because a read-only root cannot be given it later."""
    code = (
        "import importlib.util as u, os, streamer;"
        "assert not os.path.exists('/src') and u.find_spec('hatchling') is None;"
        "print(os.path.exists(u.cache_from_source(streamer.__file__)))"
    )
    run = ("run", "--rm", "--network", "none", "--read-only", "--entrypoint", "/opt/streamer/bin/python")
    assert docker_engine.cli(*run, image, "-c", code) == "True"


def test_messages_name_the_host_and_not_the_container(agent: Contained) -> None:
    """Host name, machine id, boot and system are those of the machine."""
    info = agent.wait_said(type="host.info")
    machine_id = Path("/etc/machine-id")
    if machine_id.exists() and (told := machine_id.read_text().strip()):
        assert (info["host_id"], info["machine_id"]) == (told, told)
    assert info["host"] == Path("/etc/hostname").read_text().strip()
    assert info["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert info["os"] in Path("/etc/os-release").read_text()
    assert agent.id[:12] not in (info["host"], info["host_id"])


def test_a_container_that_was_there_is_told(agent: Contained, elder: str) -> None:
    """With its name, its image, and the pid and the cgroup that the host knows."""
    created = agent.wait_said(type="container.lifecycle", event="created", container_id=elder)
    assert (created["found"], created["name"], created["image"]) == ("startup", "image-elder", BUSYBOX)
    state = json.loads(agent.engine.cli("inspect", elder))[0]["State"]
    told = agent.until(
        lambda: {line["pid"] for line in agent.said(type="container.lifecycle", container_id=elder) if "pid" in line},
        "its pid was not said",
    )
    assert told == {state["Pid"]}
    assert f":{created['cgroup_path']}\n" in Path(f"/proc/{state['Pid']}/cgroup").read_text()


def test_a_life_beside_the_agent_is_told_from_its_start_to_its_end(agent: Contained) -> None:
    """`created` live, by its name, and `deleted` with its exit code."""
    container = agent.engine.run("--name", "image-life", command=("sh", "-c", "exit 7"))
    try:
        created = agent.wait_said(type="container.lifecycle", event="created", container_id=container)
        deleted = agent.wait_said(type="container.lifecycle", event="deleted", container_id=container)
    finally:
        agent.engine.cli("rm", "-f", container)
    assert (created["found"], created["name"]) == ("live", "image-life")
    assert deleted["exit_code"] == 7


def test_samples_come_with_the_agents_permissions(agent: Contained, elder: str) -> None:
    """The usual controllers are read through the mount, and processes of other pid namespaces are seen."""
    sample = agent.wait_said(type="container.stats", container_id=elder)
    assert {"cpu_usage_ns", "memory_usage_bytes"} <= sample.keys()
    assert sample["processes"] == 1


def test_an_oom_kill_of_a_neighbour_is_read_from_the_kernel_log(agent: Contained) -> None:
    """The device and the capability are enough: pid and limit, which only the kernel log has, are told."""
    container = agent.engine.run("--name", "image-oom", "--memory", "20m", command=("sh", "-c", "tail /dev/zero; sleep 600"))
    try:
        kill = agent.wait_said(type="container.oom", container_id=container)
    finally:
        agent.engine.cli("rm", "-f", container)
    assert (kill["name"], kill["process"], kill["constraint"]) == ("image-oom", "tail", "memcg")
    assert "kmsg" in kill["evidence"] and kill["pid"] > 0


def test_whose_network_it_is_can_be_told(agent: Contained, elder: str) -> None:
    """No capability is needed to see that one container has a network of its own and the other one the host's."""
    guest, own = (json.loads(agent.engine.cli("inspect", name))[0]["State"]["Pid"] for name in (elder, agent.id))
    code = f"from streamer.kernel.proc import shares_host_network as s; print(s('/host', {guest}), s('/host', {own}))"
    assert agent.inside("python", "-c", code) == (0, "False True\n")


def test_the_check_finds_nothing_that_a_permission_would_mend(agent: Contained) -> None:
    """Run inside, with the environment of the agent: what the documented command grants is what is wanted."""
    code, told = agent.inside("streamer", "check", "--json")
    findings = {finding["what"]: finding for finding in map(json.loads, told.splitlines())}
    assert code == 0, told
    granted = ("cgroups", "controllers", "kernel log", "docker", "open files", "processes", "sidecar")
    assert {what: findings[what]["state"] for what in granted} == dict.fromkeys(granted, "ok"), told


def test_the_health_check_answers(agent: Contained) -> None:
    """`streamer healthcheck` inside says ok, and Docker says healthy."""
    assert agent.inside("streamer", "healthcheck")[0] == 0
    health = ("inspect", "--format", "{{.State.Health.Status}}", agent.id)
    agent.until(lambda: agent.engine.cli(*health) == "healthy", "Docker did not find it healthy")


def test_it_may_write_its_state_and_no_other_place(agent: Contained) -> None:
    """The root is read-only, and so is the host's; and it holds one capability."""
    code = (
        "import os\n"
        "for place in ('/', '/tmp', '/opt/streamer', '/host', '/host/etc', '/var/lib/streamer'):\n"
        "    try: open(f'{place}/.written', 'w').close(); os.unlink(f'{place}/.written'); print(place)\n"
        "    except OSError: pass\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapBnd', 'NoNewPrivs'))))\n"
    )
    syslog = f"{1 << 34:016x}"  # linux/capability.h
    assert agent.inside("python", "-c", code) == (0, f"/var/lib/streamer\n{syslog} {syslog} 1\n")


def test_docker_stop_ends_it_in_order(docker_engine: DockerEngine, image: str) -> None:
    """Exit code 0, everything delivered, before Docker's patience is over, which is longer than `drain`."""
    with Contained(docker_engine, "image-stopped") as agent:
        settled = json.loads(docker_engine.cli("inspect", agent.id))[0]
        assert settled["Config"]["StopTimeout"] > seconds(Settings().drain)
        docker_engine.cli("stop", agent.id)
        state = json.loads(docker_engine.cli("inspect", agent.id))[0]["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        stopped = agent.wait_said(type="control", kind="stopped")
        last: dict[str, int] = {}
        for line in agent.said():
            last[line["type"]] = max(last.get(line["type"], 0), line["seq"])
        promised = {topic.removeprefix("streamer."): seq for topic, seq in stopped["high_water"].items()}
        assert {name: promised.get(name) for name in last if name != "control"} == {n: s for n, s in last.items() if n != "control"}


def test_compose_says_the_same() -> None:
    """Every option of the documented command has its line in compose.yaml."""
    compose = (DEPLOY / "compose.yaml").read_text()
    same = {
        "--pid host": "pid: host",
        "--cgroupns host": "cgroup: host",
        "--network host": "network_mode: host",
        "-v /:/host:ro,rslave": "source: /\n        target: /host\n        read_only: true\n        bind:\n          propagation: rslave",
        "-v streamer-state:/var/lib/streamer": "- state:/var/lib/streamer",
        "--device /dev/kmsg:/dev/kmsg:r": "- /dev/kmsg:/dev/kmsg:r",
        "--read-only": "read_only: true",
        "--cap-drop ALL": "cap_drop: [ALL]",
        "--cap-add SYSLOG": "cap_add: [SYSLOG]",
        "--security-opt no-new-privileges": "security_opt: [no-new-privileges]",
        "--ulimit nofile=65536": "nofile: 65536",
        "--ulimit nice=30": "nice: 30",
        "--oom-score-adj -500": "oom_score_adj: -500",
        "--stop-timeout 30": "stop_grace_period: 30s",
        "--restart unless-stopped": "restart: unless-stopped",
    }
    command = " ".join(documented())
    for option, line in same.items():
        assert f" {option}" in command, option
        assert line in compose, option
        command = command.replace(f" {option}", "", 1)
    assert command == "docker run -d --name streamer streamer:latest run --sink kafka://broker:9092"
