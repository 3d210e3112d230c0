"""The processes of a cgroup as /proc tells of them."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from streamer.kernel import proc
from streamer.kernel.processes import Status, parse_stat, parse_status


def test_a_line_of_stat() -> None:
    """Fields by their places, whatever the name has in it."""
    numbers = list(range(4, 53))  # field n holds n
    stat = parse_stat(b"25 (a) (b c)) R " + b" ".join(b"%d" % number for number in numbers))
    assert stat is not None
    assert (stat.name, stat.state) == ("a) (b c)", "R")
    assert (stat.parent_pid, stat.group, stat.session, stat.foreground_group) == (4, 5, 6, 8)
    ticks = os.sysconf("SC_CLK_TCK")
    assert (stat.cpu_ns, stat.started_ns) == ((14 + 15) * 10**9 // ticks, 22 * 10**9 // ticks)
    assert (stat.nice, stat.threads, stat.virtual_bytes, stat.cpu) == (19, 20, 23, 39)
    assert stat.resident_bytes == 24 * os.sysconf("SC_PAGE_SIZE")


def test_this_process() -> None:
    stat = parse_stat(proc.read("/proc/self/stat"))
    assert stat is not None
    assert (stat.parent_pid, stat.session, stat.nice) == (os.getppid(), os.getsid(0), os.getpriority(os.PRIO_PROCESS, 0))


@given(st.binary(max_size=200))
def test_what_is_no_such_line_is_none(raw: bytes) -> None:
    """Any bytes: an answer or none, never an exception."""
    assert parse_stat(raw) is None or b")" in raw


def test_lines_of_status() -> None:
    """The effective user; what has no memory says nothing of it; a name cannot pass for a line: the kernel writes its line ends out."""
    raw = b"Name:\tUid: 1 1\\nUid:\nUmask:\t0022\nUid:\t0\t33\t0\t0\nVmLck:\t       8 kB\nVmRSS:\t    1024 kB\n"
    assert parse_status(raw) == Status(33, 1 << 20, locks_memory=True)
    assert parse_status(b"Uid:\t5\t6\t5\t5\n") == Status(6, None, locks_memory=False)
    assert parse_status(b"\xff") == Status(0, None, locks_memory=False)
