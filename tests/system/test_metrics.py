"""`/metrics` of the real agent over real containers, as Prometheus' own linter reads it."""

from __future__ import annotations

import subprocess
import urllib.request

import pytest

from tests.compare.exposition import families
from tests.support.agent import Agent
from tests.support.brokers import free_port
from tests.support.cgroups import CgroupFolder
from tests.support.docker_engine import DockerEngine

pytestmark = [pytest.mark.live, pytest.mark.v2]

NAMES_THAT_STAY = {
    "container_fs_inodes_total": 'non-counter metrics should not have "_total" suffix',
    "container_memory_failcnt": 'counter metrics should have "_total" suffix',
}
"""Names that dashboards know from cAdvisor and that stay as they are, and what promtool says of each."""


def promtool(text: bytes) -> subprocess.CompletedProcess[str]:
    """`promtool check metrics`: exit code 0, or 3 with a line for each name that is against the conventions, or 1 when unreadable."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_promtool_has_nothing_to_say(cgroups: CgroupFolder, docker_engine: DockerEngine) -> None:
    """A raw cgroup and a container whose label holds what the format escapes: readable, and named as Prometheus wants it."""
    port = free_port()
    with Agent("--listen", f"127.0.0.1:{port}", environment=docker_engine.environment) as agent:
        agent.ready()
        path = cgroups.make("worker")
        cgroups.run("worker", "sleep", "60")
        docker_engine.cli("run", "-d", "--network", "none", "--label", 'odd.label=a\\b "c"\n', "busybox:local", "sleep", "60")
        agent.wait_said(type="container.stats", container_id=path)
        agent.wait_said(type="container.stats", runtime="docker")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read()
        assert agent.stop() == 0
    assert families(text.decode())  # raises for what promtool does not look at: a series that is there twice
    done = promtool(text)
    assert (done.stdout, done.returncode in (0, 3)) == ("", True), done.stderr
    assert {tuple(line.split(" ", 1)) for line in done.stderr.splitlines()} <= NAMES_THAT_STAY.items()


@pytest.mark.parametrize(
    ("text", "code"),
    [("up 1\n", 3), ('up{a="b} 1\n', 1), ("# HELP made_total x\n# TYPE made_total gauge\nmade_total 1\n", 3)],
)
def test_promtool_says_something_when_there_is(text: str, code: int) -> None:
    """A metric without help, a label without an end, a gauge named like a counter."""
    done = promtool(text.encode())
    assert done.returncode == code
    assert done.stderr
