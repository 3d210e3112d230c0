"""The unit as it is in deploy/, run by a real systemd in the cgroup v2 guest: `boot-service` boots, `trial.py` acts and looks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]  # the first test also waits for the guest

REPOSITORY: Final = Path(__file__).parents[2]
SYSLOG: Final = 1 << 34  # CAP_SYSLOG of linux/capability.h


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the trial saw of the service, from its start to its end."""
    debian = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert debian.stdout.split() == [str(n) for n in sys.version_info[:2]], "the guest uses this machine's Python with our packages"
    command: list[str | Path] = ["bash", REPOSITORY / "tests/guest/run", "--memory", "1024M", "--timeout", "500", "--"]
    command += ["bash", REPOSITORY / "tests/deploy/boot-service", REPOSITORY, sysconfig.get_path("platlib")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=550, check=False)
    found = re.search(r"^\{.*\}\s*\Z", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}", pytrace=False)
    told: dict[str, Any] = json.loads(found[0])
    assert "problem" not in told, told
    return told


def test_systemd_starts_it_and_is_told_that_it_is_ready(seen: dict[str, Any]) -> None:
    """Active only comes with READY=1; nothing was started twice."""
    assert (seen["started"]["ActiveState"], seen["started"]["NRestarts"]) == ("active", "0"), seen["journal"]


def test_it_is_an_ordinary_user_with_one_capability(seen: dict[str, Any]) -> None:
    """No more than the unit gives, also where the capability could be had again; in the group docker, as sysusers made it."""
    process = seen["process"]
    assert process["uid"] != 0
    assert process["capabilities"] == dict.fromkeys(("CapPrm", "CapEff", "CapBnd", "CapAmb"), SYSLOG)
    assert (process["no_new_privileges"], process["seccomp"]) == ("1", "2")
    docker = re.search(r"^docker:x:(\d+):streamer$", seen["groups_file"], re.MULTILINE)
    assert docker is not None and docker[1] in process["groups"]


def test_the_watching_thread_may_go_first(seen: dict[str, Any]) -> None:
    """One thread at nice -10 without CAP_SYS_NICE; and the limits of the unit are in force."""
    process = seen["process"]
    assert process["nice"][:2] == [-10, 0]
    assert (process["open_files"], process["oom_score_adj"]) == (["65536"], "-500")


def test_an_oom_kill_is_read_from_a_kernel_log_that_not_everybody_may_read(seen: dict[str, Any]) -> None:
    """With kernel.dmesg_restrict=1; life and kill of a container are told, with what only the log has."""
    assert seen["oom_told"], seen["journal"]
    (kill,) = [m for m in seen["messages"] if m["type"] == "container.oom"]
    assert (kill["process"], kill["memory_limit_bytes"], kill["evidence"]) == ("tail", 16 << 20, ["kmsg"])
    assert [m["event"] for m in seen["messages"] if m["type"] == "container.lifecycle" and m["event"] != "updated"] == [
        "created",
        "deleted",
    ]


def test_nothing_but_docker_is_missed(seen: dict[str, Any]) -> None:
    """There is no Docker in the guest; every other part works behind the unit's walls, and the health check says so."""
    degraded = [m["component"] for m in seen["messages"] if m.get("kind") == "degraded"]
    assert degraded == ["source.docker"], seen["journal"]
    assert seen["healthcheck"].startswith("ok"), seen["healthcheck"]


def test_reload_is_a_reload(seen: dict[str, Any]) -> None:
    """The same process goes on with the configuration read again."""
    assert (seen["reload"], seen["reloaded"]) == ("", seen["started"])
    assert "reloaded" in seen["journal"]


def test_stop_delivers_what_is_left(seen: dict[str, Any]) -> None:
    """Exit code 0, and the last message says that it has stopped."""
    assert (seen["stopped"]["ActiveState"], seen["stopped"]["Result"]) == ("inactive", "success"), seen["journal"]
    assert seen["messages"][-1]["kind"] == "stopped"


def test_a_bad_configuration_is_not_tried_again(seen: dict[str, Any]) -> None:
    """Exit code 78, no restart, and the journal names the key."""
    refused = seen["refused"]
    assert (refused["ActiveState"], refused["ExecMainStatus"], refused["NRestarts"]) == ("failed", "78", "0")
    assert "sampling.interval" in seen["journal"]


def test_its_files_are_its_own(seen: dict[str, Any]) -> None:
    """What it writes below LogsDirectory= can be read by its group and by nobody else."""
    assert seen["owner"] == [seen["process"]["uid"], "0o640"]
