"""How long our own API and cAdvisor's routes take to answer while every container is sampled: p50 and p99, path by path."""

from __future__ import annotations

import gc
import time
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.asking import Got, connection, get

_PAUSE_SECONDS: Final = 0.03
"""Between two questions, so that they meet sampling at all of its moments."""
_MS: Final = 1e3


class Question(NamedTuple):
    """`{one}` in the path stands for a container, another one each time."""

    about: str
    path: str
    body: bytes | None = None


_NEWEST: Final = b'{"num_stats": 1}'
QUESTIONS: Final = (
    Question("one container", "/api/streamer/v1/containers/{one}"),
    Question("its series", "/api/streamer/v1/series?container={one}"),
    Question("all containers", "/api/streamer/v1/containers?limit=1000"),
    Question("all, by CPU", "/api/streamer/v1/containers?limit=1000&sort=-cpu"),
    Question("all, by memory", "/api/streamer/v1/containers?limit=1000&sort=-memory"),
    Question("ten, by CPU", "/api/streamer/v1/containers?limit=10&sort=-cpu"),
    Question("rates of all", "/api/streamer/v1/rates"),
    Question("series of all", "/api/streamer/v1/series"),
    Question("cAdvisor v1.3, one", "/api/v1.3/containers{one}"),
    Question("cAdvisor v1.3, all, newest sample", "/api/v1.3/subcontainers", _NEWEST),
    Question("cAdvisor v2.1, one", "/api/v2.1/stats{one}?count=1"),
    Question("cAdvisor v2.1, all, newest sample", "/api/v2.1/stats?recursive=true&count=1"),
)


def measure(url: str, paths: list[str], requests: int) -> dict[str, list[Got]]:
    """Each question by turns, one request at a time, over one kept connection. `paths`: of the containers."""
    client = connection(url)
    got: dict[str, list[Got]] = {question.about: [] for question in QUESTIONS}
    gc.disable()  # ours would be taken for the agent's time
    try:
        for turn in range(requests):
            for number, question in enumerate(QUESTIONS):
                one = paths[(turn * len(QUESTIONS) + number) * 37 % len(paths)]
                named = one.replace("/", "%2F") if "streamer" in question.path else one
                got[question.about].append(get(client, question.path.format(one=named), question.body))
                time.sleep(_PAUSE_SECONDS)
    finally:
        gc.enable()
    return got


def table(got: dict[str, list[Got]]) -> str:
    """One row for each question."""
    rows = []
    for question in QUESTIONS:
        mine = got[question.about]
        times = sorted(each.seconds * _MS for each in mine)
        size = mine[-1].bytes
        rows.append((question.about, len(mine), *(f"{at(times, share):.1f}" for share in (50, 90, 99, 100)), _size(size)))
    return report.table(("question", "asked", "p50 ms", "p90", "p99", "longest", "kB"), rows)


def figures(got: dict[str, list[Got]]) -> dict[str, Any]:
    return {about: [each._asdict() for each in mine] for about, mine in got.items()}


def at(ordered: list[float], percent: int) -> float:
    """The value below which so many percent of sorted ones are."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _size(size: int) -> str:
    return f"{size / 1000:.1f}"
