"""The systemd unit, as systemd's own tools read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from streamer.config import Settings, load, seconds

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
UNIT: Final = DEPLOY / "streamer.service"
PROGRAM: Final = "/opt/streamer/bin/streamer"
MOST_EXPOSED: Final = 2.2
"""What `systemd-analyze security` finds left is what the agent is for: the network, the kernel log, foreign processes."""


def analyze(*arguments: str) -> str:
    """What systemd-analyze prints, warnings too; on a warning alone its exit code is 0, so the caller looks at the text."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.fail("systemd-analyze is missing: apt-get install -y --no-install-recommends systemd", pytrace=False)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def installed(tmp_path: Path, text: str) -> Path:
    """The unit with a program that exists on this machine."""
    unit = tmp_path / "streamer.service"
    assert PROGRAM in text
    unit.write_text(text.replace(PROGRAM, "/bin/true"))
    return unit


def settings_of(text: str) -> dict[str, list[str]]:
    """Every `Name=value` of the unit; lists are repeated names."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_systemd_reads_the_unit_without_a_warning(tmp_path: Path) -> None:
    """No misspelt key, no value that systemd would ignore."""
    assert analyze("verify", "--man=no", str(installed(tmp_path, UNIT.read_text()))) == ""


def test_the_examples_in_comments_are_valid_too(tmp_path: Path) -> None:
    """Who removes a # from an example line gets a unit that systemd reads without a warning."""
    text, examples = re.subn(r"^#(?=[A-Z][A-Za-z]+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    assert examples >= 3
    assert analyze("verify", "--man=no", str(installed(tmp_path, text))) == ""


def test_a_misspelt_key_would_be_found(tmp_path: Path) -> None:
    """The check above sees what it is there to see."""
    text = UNIT.read_text().replace("ProtectClock=", "ProtectClok=")
    assert "ProtectClok" in analyze("verify", "--man=no", str(installed(tmp_path, text)))


def test_the_exposure_is_what_was_argued(tmp_path: Path) -> None:
    """systemd's own score does not get worse than what the comments of the unit give reasons for."""
    told = analyze("security", "--offline=true", "--no-pager", str(installed(tmp_path, UNIT.read_text())))
    score = re.search(r"Overall exposure level for streamer\.service: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) <= MOST_EXPOSED


def test_the_unit_waits_longer_than_the_agent_drains() -> None:
    """systemd must not kill an agent that is still delivering."""
    (stop,) = settings_of(UNIT.read_text())["TimeoutStopSec"]
    assert float(stop) > seconds(Settings().drain)


def test_the_nice_value_asked_for_is_allowed() -> None:
    """LimitNICE= reaches as far as the watching thread wants to go, so that it needs no capability."""
    from streamer.sources import cgroup

    (limit,) = settings_of(UNIT.read_text())["LimitNICE"]
    assert int(limit) == cgroup._QUICK_NICE


def test_the_environment_of_the_unit_is_a_configuration() -> None:
    """What the unit and the example of its environment file set are keys that there are, with values that are allowed."""
    lines = settings_of(UNIT.read_text())["Environment"]
    lines += re.findall(r"^#?(STREAMER_.*)$", (DEPLOY / "streamer.default").read_text(), re.MULTILINE)
    environment = dict(line.split("=", 1) for line in lines)
    settings = load(Path(os.devnull), environment, {})
    assert settings.state_dir == "/var/lib/streamer"
    assert len(environment) >= 3


def test_the_user_and_dockers_group_are_made(tmp_path: Path) -> None:
    """No group is demanded that a host without Docker would not have: sysusers makes both, and the membership."""
    sysusers = shutil.which("systemd-sysusers")
    if sysusers is None:
        pytest.fail("systemd-sysusers is missing: apt-get install -y --no-install-recommends systemd", pytrace=False)
    (tmp_path / "etc").mkdir()
    wanted = tmp_path / "usr/lib/sysusers.d/streamer.conf"
    wanted.parent.mkdir(parents=True)
    shutil.copy(DEPLOY / "streamer.sysusers.conf", wanted)
    subprocess.run([sysusers, f"--root={tmp_path}"], capture_output=True, text=True, timeout=60, check=True)
    unit = settings_of(UNIT.read_text())
    (user,), (group,) = unit["User"], unit["Group"]
    assert re.search(rf"^{user}:x:\d+:\d+:.*:/usr/sbin/nologin$", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    groups = (tmp_path / "etc/group").read_text()
    assert re.search(rf"^docker:x:\d+:{user}$", groups, re.MULTILINE) and re.search(rf"^{group}:x:", groups, re.MULTILINE)
    assert "SupplementaryGroups" not in unit
