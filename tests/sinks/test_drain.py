"""The benchmark of draining can be run: a small backlog, to real ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.live
def test_a_small_backlog_is_drained_and_measured() -> None:
    """Stats and events to Redis and a file: rates, costs and Redis's floor are printed."""
    command = [sys.executable, "-m", "benchmarks", "drain", "--messages", "600", "--repetitions", "1", "--sinks", "redis", "file"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row[1].strip(): row[2].split("|") for row in re.finditer(r"^\| (\w+, \w+) +\|(.*)\|$", done.stdout, re.MULTILINE)}
    assert set(rows) == {"redis, stats", "redis, events", "file, stats", "file, events"}
    for name, cells in rows.items():
        assert float(cells[1].split("/")[1]) > 0, name
        assert bool(cells[4].strip()) == name.startswith("redis"), name
