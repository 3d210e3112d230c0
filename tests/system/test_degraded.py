"""A host that lacks something: the agent runs with the rest, and says what is missing and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live]

NOWHERE = {"STREAMER_DOCKER__HOST": "unix:///nowhere/docker.sock"}
# an ordinary user's view of the host, with few inotify watches: limits of a user namespace are its own (user_namespaces(7))
FEW_WATCHES = ("unshare", "--user", "--map-root-user", "sh", "-c", 'echo 1 > /proc/sys/user/max_inotify_watches; exec "$@"', "sh")
ORDINARY_USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def test_without_docker_kernel_log_and_broker_it_runs_and_says_so(cgroups: CgroupFolder) -> None:
    """As an ordinary user: raw discovery and samples go on, each missing part is told once with a remedy."""
    environment = {**NOWHERE, "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}
    sinks = ("--sink", "stdout:", "--sink", "redis://127.0.0.1:1", "--sink", "kafka://127.0.0.1:1")
    with Agent(*sinks, "--listen", "off", environment=environment, command=ORDINARY_USER) as agent:
        agent.ready()
        path = cgroups.make("seen")
        agent.wait_said(type="container.stats", container_id=path)
        cgroups.remove("seen")
        agent.wait_said(event="deleted", container_id=path)
        for component in ("source.docker", "source.kmsg", "sink.redis", "sink.kafka"):
            (degraded,) = agent.wait_said(kind="degraded", component=component)
            assert degraded["reason"] and (degraded.get("remedy") or component.startswith("sink"))
        agent.process.terminate()
        agent.wait()
    assert not any("Traceback" in line for line in agent.errors)


def test_with_a_single_inotify_watch_cgroups_are_still_found(cgroups: CgroupFolder) -> None:
    """Scans find what cannot be watched; the message names the limit to raise."""
    with Agent("--listen", "off", environment=NOWHERE, command=FEW_WATCHES) as agent:
        agent.ready()
        path = cgroups.make("scanned")
        (created,) = agent.wait_said(event="created", container_id=path)
        cgroups.remove("scanned")
        (deleted,) = agent.wait_said(event="deleted", container_id=path)
        (degraded,) = agent.said(kind="degraded", component="source.cgroup")
        assert agent.stop() == 0
    assert (created["found"], deleted["found"]) == ("reconciled", "reconciled")
    assert deleted["not_before"] <= deleted["time"]
    assert "max_user_watches" in degraded["remedy"]


def test_check_says_what_is_missing_and_what_to_do() -> None:
    """One line each, exit 0 as long as nothing failed."""
    done = subprocess.run(
        [*ORDINARY_USER, sys.executable, "-m", "streamer", "check"],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **NOWHERE, "PYTHONDONTWRITEBYTECODE": "1", "STREAMER_HTTP__LISTEN": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith(("ok", "degraded", "failed"))}
    assert any("degraded" in line and "CAP_SYSLOG" in line for line in done.stdout.splitlines()) or "CAP_SYSLOG" in done.stdout
    assert "docker" in done.stdout.lower() and lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sink", "file:///proc/nowhere/out.jsonl"], ["/proc/nowhere"]),
        (["--sink", "file:///"], ["file:///"]),
    ],
)
def test_a_file_that_cannot_be_written_is_a_clear_error(arguments: list[str], words: list[str]) -> None:
    """The path and what to do, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "run", "--listen", "off", "--require-sinks", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "STREAMER_STATE_DIR": "off", **NOWHERE},
    )  # fmt: skip
    assert done.returncode in (69, 78)
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr


def test_a_wrong_configuration_ends_with_78_and_names_key_value_line_and_remedy(tmp_path: Path) -> None:
    """The message is enough to mend it."""
    file = tmp_path / "bad.toml"
    for text, words in (
        ('[sampling]\nintervall = "1s"\n', ["intervall", "interval", "2"]),
        ("[sampling]\ninterval = 5\n", ["sampling.interval", "5", "2"]),
        ('[[sinks]]\nurl = "kafka:/x"\n', ["kafka:/x", "2"]),
    ):
        file.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "streamer", "run", "--config", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 78, done.stderr
        assert all(word in done.stderr for word in (*words, str(file))) and "Traceback" not in done.stderr


def test_sigterm_delivers_everything_and_leaves_nothing(cgroups: CgroupFolder) -> None:
    """Exit 0, the last line is `stopped`, and its high-water marks are what was delivered."""
    with Agent("--listen", "127.0.0.1:0", environment=NOWHERE) as agent:
        agent.ready()
        path = cgroups.make("last")
        agent.wait_said(event="created", container_id=path)
        assert agent.stop() == 0
    last = agent.lines[-1]
    assert last["kind"] == "stopped"
    for kind, high in last["high_water"].items():
        assert max(line["seq"] for line in agent.lines if line["type"] == kind and line is not last) == high
    assert not any("never awaited" in line or "Traceback" in line or "Unclosed" in line for line in agent.errors)


def test_sighup_takes_over_a_valid_configuration_and_keeps_the_old_one_otherwise(tmp_path: Path, cgroups: CgroupFolder) -> None:
    """Nothing stops for it; a mistake is logged with key and line."""
    import signal

    file = tmp_path / "s.toml"
    file.write_text('[sampling]\ninterval = "10s"\n')
    with Agent("--listen", "off", "--config", str(file), environment=NOWHERE) as agent:
        agent.ready()
        path = cgroups.make("paced")
        file.write_text('[sampling]\ninterval = "never"\n')
        agent.process.send_signal(signal.SIGHUP)
        agent.until(lambda: any("not reloaded" in line and "never" in line for line in agent.errors), "the mistake was not told")
        file.write_text('[sampling]\ninterval = "200ms"\n')
        agent.process.send_signal(signal.SIGHUP)
        agent.until(lambda: any("configuration reloaded" in line for line in agent.errors), "the new pace was not taken")
        agent.wait_said(8, type="container.stats", container_id=path)
        assert agent.stop() == 0
    assert json.dumps(agent.said(kind="started")[0])
