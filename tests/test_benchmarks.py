"""The benchmarks can be run: a small one, against the real agent and real cgroups."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.answers import QUESTIONS

ROOT = Path(__file__).parents[1]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def cgroups() -> set[Path]:
    """Of any hierarchy, or of the only one."""
    root = Path("/sys/fs/cgroup")
    return {*root.glob("streamer-bench-*"), *root.glob("*/streamer-bench-*")}


def test_without_a_name_the_benchmarks_are_listed() -> None:
    """`python -m benchmarks` names each benchmark with what it measures."""
    listed = benchmarks()
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^sampling +\w+", listed.stdout, re.MULTILINE)


@pytest.mark.live
def test_sampling_prints_a_ratio_and_leaves_no_cgroup_behind() -> None:
    """A run over forty cgroups (CPU time is told in steps of 10 ms) finds what a sample costs beside the C loop, and takes its cgroups away."""
    before = cgroups()
    done = benchmarks(
        "sampling",
        "--containers",
        "40",
        "--seconds",
        "8",  # of less, the samples under way at either end are more than the share that may be missing
        "--warm-up",
        "1",
        "--repetitions",
        "1",
        "--sink",
        "file",
        "--http",
        "off",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = re.search(r"^\| file, HTTP off +\|(.*)\|$", done.stdout, re.MULTILINE)
    assert row is not None, done.stdout
    loop, agent, _, ratio, *_ = [cell.split(" / ")[1] for cell in row[1].split("|")[:4]]
    assert float(loop) > 0
    assert float(agent) > 0
    assert float(ratio) > 0
    assert cgroups() <= before


@pytest.mark.live
def test_sidecar_asks_our_own_api_each_question_and_leaves_no_cgroup_behind() -> None:
    """A row for each, with as many answers as were asked for."""
    before = cgroups()
    done = benchmarks("sidecar", "--parts", "own", "--containers", "5", "--warm-up", "2", "--requests", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| ([^|]+?) +\| +(\d+) \| +[\d.]+ \|", done.stdout, re.MULTILINE)
    assert {about for about, _ in rows} == {question.about for question in QUESTIONS}
    assert {asked for _, asked in rows} == {"10"}
    assert cgroups() <= before
