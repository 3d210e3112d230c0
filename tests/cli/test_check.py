"""`streamer check` on this very host, with each part made to be missing in turn."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamer.cli import main, probes
from streamer.cli.check import line
from streamer.cli.probes import PROBES, Finding
from streamer.cli.text import Screen
from streamer.config import Settings, load
from tests.support.brokers import free_port
from tests.support.http_answer import server


def settings(**flags: Any) -> Settings:
    return load(None, {}, flags)


def only(probe: probes.Probe, given: Settings) -> Finding:
    findings = list(probe(given))
    assert len(findings) == 1
    return findings[0]


def test_every_line_has_a_state_and_what_is_not_ok_has_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command on this host: nothing failed, whatever is degraded says what to do."""
    arguments = [
        "check",
        "--json",
        "--state-dir",
        str(tmp_path),
        "--sink",
        f"file://{tmp_path}/x.jsonl",
        "--listen",
        f"127.0.0.1:{free_port()}",
    ]
    assert main(arguments) == 0
    findings = [Finding(**json.loads(text)) for text in capsys.readouterr().out.splitlines()]
    assert {
        "configuration",
        "cgroups",
        "controllers",
        "inotify",
        "kernel log",
        "docker",
        "open files",
        "clock",
        "processes",
        "state",
        "sidecar",
    } <= {finding.what for finding in findings}
    for finding in findings:
        assert finding.found and (finding.state == "ok") == (not finding.remedy), finding
    assert list(tmp_path.iterdir()) == []


def test_what_failed_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One failed probe is enough; the others are still asked."""
    assert main(["check", "--sink", f"redis://:hunter2@127.0.0.1:{free_port()}/0", "--listen", "off"]) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [text for text in lines if text.startswith("failed ")]
    assert len(failed) == 1 and "sink redis://:***@127.0.0.1" in failed[0] and "—" in failed[0]
    assert lines[0] == "ok        configuration: --listen, --sink" and lines[-1].startswith("ok        sidecar: off")


def test_a_host_without_cgroups_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has nothing to watch."""
    from streamer.errors import Unsupported

    def detect(root: Path) -> None:
        raise Unsupported(f"no cgroups below {root}", remedy="mount them")

    monkeypatch.setattr("streamer.kernel.hierarchy.detect", detect)
    found = list(probes.cgroups(settings(host_root=str(tmp_path))))
    assert found == [Finding("failed", "cgroups", f"no cgroups below {tmp_path}", "mount them")]
    assert all(finding.state != "ok" for finding in probes.pressure(settings()))


@pytest.mark.parametrize(
    ("watches", "queue", "state", "word"),
    [
        ("1000000", "16384", "ok", "watches needed of 1000000"),
        ("1", "16384", "degraded", "max_user_watches="),
        ("1000000", "10", "degraded", "max_queued_events="),
        ("", "1", "degraded", "no limits"),
    ],
)
def test_inotify_limits(tmp_path: Path, watches: str, queue: str, state: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for every cgroup of this host, and for bursts."""
    directory = tmp_path / "proc/sys/fs/inotify"
    directory.mkdir(parents=True)
    for name, value in (("max_user_watches", watches), ("max_user_instances", "128"), ("max_queued_events", queue)):
        (directory / name).write_text(value + "\n")
    monkeypatch.setattr(probes, "_watches_needed", lambda _: 20)
    finding = only(probes.inotify, settings(host_root=str(tmp_path)))
    assert finding.state == state and word in f"{finding.found} {finding.remedy}"


def test_this_hosts_watches_are_counted() -> None:
    """One for each directory of every watched hierarchy: at least the roots."""
    assert probes._watches_needed(settings()) >= 1


def test_docker_that_answers_and_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, permission, nobody, somebody else; switched off."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    def docker(host: str) -> Finding:
        return only(probes.docker, load(None, {"STREAMER_DOCKER__HOST": host}, {}))

    path = str(tmp_path / "docker.sock")
    with server(200, {"Version": "20.10.24", "ApiVersion": "1.41"}, path):
        assert docker(f"unix://{path}") == Finding("ok", "docker", f"unix://{path}: Docker 20.10.24, API 1.41")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        assert only(probes.docker, settings()).state == "ok"
    assert "nobody" in docker(f"unix://{path}").remedy or docker(f"unix://{path}").state == "degraded"
    for answer in (b"<html>", {"Version": 1}, [1], b""):
        with server(200, answer) as url:
            assert docker(url.replace("http", "tcp")).remedy in ("correct docker.host", "")
    monkeypatch.delenv("DOCKER_HOST")
    assert "no Docker socket" in only(probes.docker, settings(host_root=str(tmp_path))).found
    assert only(probes.docker, load(None, {"STREAMER_DOCKER__ENABLED": "false"}, {})).state == "ok"


def test_a_sink_that_cannot_be_written(tmp_path: Path) -> None:
    """Missing parts of the path, files in the way; nothing is left behind by looking."""
    (tmp_path / "file").write_text("x")
    for url, state in (
        (f"file://{tmp_path}/file", "ok"),
        (f"file://{tmp_path}/new.jsonl", "ok"),
        (f"file://{tmp_path}/none/new.jsonl", "failed"),
        (f"file://{tmp_path}/file/new.jsonl", "failed"),
        ("stdout:", "ok"),
    ):
        assert only(probes.sinks, settings(sinks=[url])).state == state, url
    os.mkfifo(tmp_path / "fifo")
    assert "FIFO" in only(probes.sinks, settings(sinks=[f"file://{tmp_path}/fifo"])).found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file"]


def test_a_sink_that_never_answers_is_given_up() -> None:
    """Connected and silent: the connect timeout ends the wait."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        given = load(
            None, {"STREAMER_OUTBOX__CONNECT_TIMEOUT": "100ms"}, {"sinks": [f"redis://127.0.0.1:{bound.getsockname()[1]}/0"]}
        )
        finding = only(probes.sinks, given)
    assert finding.state == "failed" and "no answer within 100ms" in finding.found


def test_the_sidecars_address(tmp_path: Path) -> None:
    """Free, taken, an agent's own; a unix socket is not left behind."""
    assert "is free" in only(probes.sidecar, settings(**{"http.listen": f"127.0.0.1:{free_port()}"})).found
    assert "is free" in only(probes.sidecar, settings(**{"http.listen": f"unix:{tmp_path}/s.sock"})).found
    assert list(tmp_path.iterdir()) == []
    with server(200, b"ok") as url:
        assert "an agent answers" in only(probes.sidecar, settings(**{"http.listen": url.removeprefix("http://")})).found
    with server(200, b"something else") as url:
        taken = only(probes.sidecar, settings(**{"http.listen": url.removeprefix("http://")}))
        assert taken.state == "failed" and taken.remedy


def test_an_unbelievable_clock_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and times come from it."""
    monkeypatch.setattr("streamer.clock.SystemClock.wall_ns", lambda _: 1_000_000_000)
    assert only(probes.clock, settings()).state == "failed"


def test_few_descriptors_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit each sample opens its files anew."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    assert only(probes.descriptors, settings()).state == "degraded"


def test_a_line_is_for_people() -> None:
    """State, what, found, and what to do; ASCII where the terminal knows nothing else."""
    finding = Finding("degraded", "docker", "a\x1bb", "start it")
    assert line(finding, Screen(80, colours=False, unicode=True)) == "degraded  docker: a?b — start it"
    assert line(finding, Screen(80, colours=True, unicode=False)) == "\x1b[33mdegraded\x1b[0m  docker: a?b -- start it"


def test_a_probe_is_one_function_in_a_table() -> None:
    """Each is told by its docstring."""
    assert all(probe.__doc__ for probe in PROBES)


@pytest.mark.parametrize(
    ("release", "counted", "state"),
    [("6.18.44-x", "Total 0", "degraded"), ("6.18.44-x", "8:0 Read 1", "ok"), ("6.9.1", "Total 0", "ok"), ("7.0", "", "degraded")],
)
def test_disks_on_which_a_later_kernel_counts_no_io_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, counted: str, state: str
) -> None:
    """On cgroup v1 it waits for a limit; one that limits nothing will do."""
    blkio, disk = tmp_path / "sys/fs/cgroup/blkio", tmp_path / "sys/block/sda"
    for directory in (blkio, disk, tmp_path / "proc/1"):
        directory.mkdir(parents=True)
    (tmp_path / "proc/1/mountinfo").write_text("1 0 0:30 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n")
    (blkio / "cgroup.procs").touch()
    (blkio / "blkio.throttle.io_serviced_recursive").write_text(f"{counted}\n")
    (disk / "dev").write_text("8:0\n")
    (disk / "size").write_text("100\n")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    found = only(probes.block_io, settings(host_root=str(tmp_path)))
    assert found.state == state
    if state == "degraded":
        assert "sda" in found.found
        assert f"echo '8:0 0' > {blkio}/blkio.throttle.read_bps_device" in found.remedy
