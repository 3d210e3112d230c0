"""How a result looks: the machine it was measured on, tables as Markdown, and the file it is saved to."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import streamer

RESULTS: Final = Path(__file__).with_name("results")
_PACKAGES: Final = ("aiokafka", "msgspec", "orjson", "redis", "starlette", "uvicorn")


def machine() -> dict[str, str]:
    """Where and with what this was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "streamer": f"{streamer.__version__} ({_commit()})",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, and whether more than results of other runs has changed since."""
    named = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    return f"{named}-dirty" if named and changed else named or "no commit"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal; all columns but the first to the right."""
    cells = [list(head), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return "| " + " | ".join([row[0].ljust(len(first)), *others]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`min / median / max`."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def save(name: str, text: str, figures: dict[str, Any]) -> list[Path]:
    """Write the printed report and the raw figures; returns the files."""
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{figures['machine']['date'][:10]}-{name}"
    written = [stem.with_suffix(".md"), stem.with_suffix(".json")]
    written[0].write_text(text + "\n")
    written[1].write_text(json.dumps(figures, indent=1) + "\n")
    return written
