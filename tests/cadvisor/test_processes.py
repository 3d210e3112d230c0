"""Processes in the shape of ps(1)."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.cadvisor.processes import parse_users, process_info
from streamer.kernel.processes import Process, Stat

NS = 1_000_000_000
BOOT = 1_700_000_000
STAT = Stat("sleep", "S", 1, 50, 50, -1, 0, 0, 1, 0, 4096, 2048, 1)


def shown(*, lived: int = 100, **about: Any) -> Any:
    process = Process(7, 0, STAT._replace(**about), 4, "")
    return process_info(process, users={0: "root"}, boot_ns=BOOT * NS, now_ns=(BOOT + lived) * NS, memory_bytes=1_000_000)


def test_shares_are_percents_with_one_digit() -> None:
    """Of a core since its start, and of the host's memory."""
    process = shown(cpu_ns=33_360_000_000, resident_bytes=123_456)
    assert (process.percent_cpu, process.percent_mem, process.running_time) == (33.3, 12.3, "00:00:33")
    assert (process.user, process.rss, process.virtual_size, process.fd_count, process.psr) == ("root", 123_456, 4096, 4, 1)


@pytest.mark.parametrize(
    ("lived", "start", "cpu_seconds", "running"),
    [(60, "22:13", 3661, "01:01:01"), (2 * 86_400, "Nov14", 86_400, "1-00:00:00"), (400 * 86_400, "2023", 0, "00:00:00")],
)
def test_times(lived: int, start: str, cpu_seconds: int, running: str) -> None:
    """The longer ago, the coarser."""
    process = shown(lived=lived, cpu_ns=cpu_seconds * NS)
    assert (process.start_time, process.running_time) == (start, running)


@pytest.mark.parametrize(
    ("about", "status"),
    [
        ({}, "S"),
        ({"nice": 5}, "SN"),
        ({"nice": -5, "state": "R"}, "R<"),
        ({"session": 7, "threads": 3, "foreground_group": 50}, "Ssl+"),
    ],
)
def test_the_status_of_a_process(about: dict[str, Any], status: str) -> None:
    """Letters in the order of ps(1)."""
    assert shown(**about).status == status


def test_users() -> None:
    """The first name of an id; lines that are none are skipped; who is not there is a number."""
    assert parse_users("root:x:0:0::/:\ntoor:x:0:0::/:\n\n+::\nbad\nweb:x:33:33::/:") == {0: "root", 33: "web"}
    assert process_info(Process(7, 5, STAT, 0, ""), users={}, boot_ns=0, now_ns=NS, memory_bytes=0).user == "5"
