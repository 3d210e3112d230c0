"""Raw cgroups, without any runtime: the stream against what was really done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streamer.model.examples import EXAMPLES
from tests.support.agent import Agent, lives
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live, pytest.mark.v2]

NO_DOCKER = {"STREAMER_DOCKER__ENABLED": "false"}


def test_a_cgroup_is_created_sampled_and_deleted_with_its_totals(cgroups: CgroupFolder) -> None:
    """A process joins, runs and ends; the totals at its end are exact and its samples agree with them."""
    with Agent("--listen", "off", environment=NO_DOCKER) as agent:
        agent.ready()
        path = cgroups.make("worker")
        worker = cgroups.run("worker", "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
        agent.wait_said(type="container.stats", container_id=path)
        assert worker.wait() == 0
        expected = cgroups.cpu_usage_ns("worker")
        # a runtime needs some 20 ms between the end of a process and the removal of its cgroup; others may want the processor here
        time.sleep(0.5)
        cgroups.remove("worker")
        (deleted,) = agent.wait_said(event="deleted", container_id=path)
        assert agent.stop() == 0
    (created,) = agent.said(event="created", container_id=path)
    assert (created["runtime"], created["name"], created["found"]) == ("raw", path, "live")
    assert (deleted["totals_from"], deleted["total_cpu_usage_ns"]) == ("exit", expected)
    assert "exit_code" not in deleted


def test_what_was_there_before_is_told_as_found_at_startup(cgroups: CgroupFolder) -> None:
    """An agent that starts later tells of what is there, nested cgroups included."""
    outer, inner = cgroups.make("outer"), cgroups.make("outer/inner")
    with Agent("--listen", "off", environment=NO_DOCKER) as agent:
        agent.ready()
        for path in (outer, inner):
            (created,) = agent.wait_said(event="created", container_id=path)
            assert created["found"] == "startup"
        cgroups.remove("outer/inner")
        agent.wait_said(event="deleted", container_id=inner)
        assert agent.said(event="deleted", container_id=outer) == []
        assert agent.stop() == 0


def test_an_oom_kill_in_a_plain_cgroup_is_one_message(cgroups: CgroupFolder) -> None:
    """Without Docker the same: process, both cgroups, constraint and sizes, then deleted with oom_killed."""
    with Agent("--listen", "off", environment=NO_DOCKER) as agent:
        agent.ready()
        path = cgroups.make("greedy", memory_limit_bytes=20 << 20)
        assert cgroups.run("greedy", "tail", "/dev/zero").wait() == -9
        agent.wait_said(type="container.oom", container_id=path)
        cgroups.remove("greedy")
        (deleted,) = agent.wait_said(event="deleted", container_id=path)
        assert agent.stop() == 0
    (oom,) = agent.said(type="container.oom", container_id=path)
    assert (oom["killed_cgroup"], oom["limit_cgroup"], oom["process"], oom["constraint"]) == (path, path, "tail", "memcg")
    assert oom["memory_limit_bytes"] == 20 << 20 and oom["anon_rss_bytes"] > 10 << 20
    assert (deleted["oom_killed"], deleted["oom_kills"]) == (True, 1)


def test_a_change_of_limits_is_an_update(cgroups: CgroupFolder) -> None:
    """Whoever writes a limit makes an update that says what it is now."""
    with Agent("--listen", "off", environment=NO_DOCKER) as agent:
        agent.ready()
        path = cgroups.make("tuned", memory_limit_bytes=64 << 20)
        agent.wait_said(event="created", container_id=path)
        cgroups.limit_memory("tuned", 32 << 20)
        agent.until(
            lambda: any(line["spec"]["memory_limit_bytes"] == 32 << 20 for line in agent.said(event="updated", container_id=path)),
            "the new limit was not told",
        )
        assert agent.stop() == 0


def test_fifty_cgroups_a_second_are_all_told_once_and_in_order(cgroups: CgroupFolder) -> None:
    """For 20 seconds, each living 100 ms: every one has created and deleted, once, in order; every line is valid.

    Where others keep the agent from its CPU for so long, it declares what it could not look at: at most one in twenty.
    The guest has one slow core, and stands still as a whole when the host has none to give: there it is ten a second, for 500 ms.
    """
    rate, life = (10, 0.5) if "GUEST_DISK" in os.environ else (50, 0.1)
    with Agent("--listen", "off", environment=NO_DOCKER) as agent:
        agent.ready()
        made = churn(cgroups, seconds=20, rate=rate, life=life)

        def ended() -> int:
            return len({line["container_id"] for line in agent.said(event="deleted")} & made)

        def declared() -> int:
            return sum(gap["gap_count"] for gap in agent.said(kind="gap", component="source.cgroup"))

        agent.until(lambda: ended() + declared() >= len(made), f"{len(made)} were not all told of or declared")
        assert agent.stop() == 0
    told = {record["container_id"]: [] for record in agent.said(event="created")}
    for line in agent.said(type="container.lifecycle"):
        told[line["container_id"]].append(line["event"])
    of_ours = {path: [e for e in events if e != "updated"] for path, events in told.items() if path in made}
    assert of_ours == {path: ["created", "deleted"] for path in of_ours}
    assert len(made) - len(of_ours) <= min(declared(), len(made) // 20)
    assert {gap["component"] for gap in agent.said(kind="gap")} <= {"source.cgroup", "sampling"}
    assert all(life[0] == "created" for life in lives(agent.lines).values())
    assert not agent.bad_lines
    check_schemas(agent.lines)
    check_numbers(agent.lines)


def churn(cgroups: CgroupFolder, *, seconds: float, rate: int, life: float) -> set[str]:
    """Make `rate` cgroups a second, remove each after `life` seconds; returns their paths.

    And not before this process has slept twenty times meanwhile: when all of the machine stood still, nobody could look at them.
    """
    made: set[str] = set()
    ends: list[tuple[float, int, str]] = []
    start = time.monotonic()
    number = slept = 0
    while number < seconds * rate or ends:
        now = time.monotonic()
        if number < seconds * rate and now >= start + number / rate:
            name = f"churn-{number}"
            made.add(cgroups.make(name))
            ends.append((now + life, slept + 20, name))
            number += 1
        while ends and ends[0][0] <= now and ends[0][1] <= slept:
            cgroups.remove(ends.pop(0)[-1])
        time.sleep(0.001)  # the pace of the workload
        slept += 1
    return made


def check_schemas(lines: list[dict[str, Any]]) -> None:
    """Every line is valid by its published schema, by a validator that is not ours."""
    schemas = Path(__file__).parents[2] / "schemas"
    validators: dict[str, Callable[[Any], None]] = {}
    for kind in {line["type"] for line in lines}:
        schema = json.loads((schemas / f"{kind}.v1.schema.json").read_text())
        validators[kind] = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate
    assert set(validators) <= set(EXAMPLES)
    for line in lines:
        validators[line["type"]](line)


def check_numbers(lines: list[dict[str, Any]]) -> None:
    """Per type: one epoch, seq contiguous from 1, no id twice."""
    for kind in {line["type"] for line in lines}:
        of_kind = [line for line in lines if line["type"] == kind]
        assert sorted(line["seq"] for line in of_kind) == list(range(1, len(of_kind) + 1))
        assert len({line["epoch"] for line in of_kind}) == 1
        assert len({line["id"] for line in of_kind}) == len(of_kind)


def test_a_reader_that_goes_away_ends_the_agent_in_order(cgroups: CgroupFolder) -> None:
    """`streamer run | head -3`: three lines, then a calm end."""
    cgroups.make("seen")
    done = subprocess.run(
        ["bash", "-c", 'timeout 120 "$0" -m streamer run --state-dir off --listen off --interval 100ms | head -3; exit "${PIPESTATUS[0]}"', sys.executable],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert all(json.loads(line) for line in done.stdout.splitlines())
