"""Kernel-log records and the OOM kills in them: lines of real kernels, and variants of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.kernel.kmsg import OomParser, Record, parse_record, skim
from streamer.model.observations import OomKilled

KILLED: Final = (
    "Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:23140kB, anon-rss:20352kB, file-rss:1468kB, "
    "shmem-rss:4kB, UID:{uid} pgtables:88kB oom_score_adj:{adj}"
)
SUMMARY: Final = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={cpuset},mems_allowed=0,oom_memcg={limit},"
    "task_memcg={killed},task={comm},pid={pid},uid={uid}"
)
CAPTURED: Final = Path(__file__).parent / "kernel_logs"


def killed(pid: int = 1, comm: str = "tail", uid: int = 0, adj: int = 0) -> str:
    return KILLED.format(pid=pid, comm=comm, uid=uid, adj=adj)


def summary(pid: int = 1, comm: str = "tail", *, limit: str = "/b", under: str = "/a", cpuset: str = "/", uid: int = 0) -> str:
    return SUMMARY.format(pid=pid, comm=comm, limit=limit, killed=under, cpuset=cpuset, uid=uid)


def told(*texts: str | Record, step_us: int = 10) -> list[OomKilled]:
    """The kills in a log of these lines, printed one after the other."""
    parser = OomParser()
    kills = []
    for number, text in enumerate(texts):
        record = text if isinstance(text, Record) else Record(4, 100 + number, 5_000_000 + number * step_us, text)
        kills += parser.feed(record, 1_000)
    return kills


def test_record_is_taken_apart() -> None:
    """Header fields, text, escapes; lines with further keys are left out."""
    raw = b"6,339,5140900,-,caller=T12;a\\x0ab \\x5c \\xc3\\xa9\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:01.0\n"
    assert parse_record(raw) == Record(6, 339, 5140900, "a\nb \\ é", "-", "T12")


def test_bytes_that_are_no_text_are_kept_as_in_file_names() -> None:
    """So that a cgroup's name in the log equals its directory's."""
    assert parse_record(b"6,1,2,-;/a\\xff\n").text.encode("utf-8", "surrogateescape") == b"/a\xff"


@pytest.mark.parametrize(
    "raw", [b"", b"6,1,2;text\n", b"x,1,2,-;text\n", b"6,1,2,-", b"6,,2,-;text\n", b"-6,1,2,-;text\n", b"6,\xb2,2,-;x"]
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    """With one clear error."""
    with pytest.raises(ValueError, match="no record"):
        parse_record(raw)


@given(st.binary() | st.binary().map(lambda raw: b"6,1,2,-;" + raw))
def test_any_bytes_are_a_record_or_refused(raw: bytes) -> None:
    """Nothing else is raised."""
    try:
        OomParser().feed(parse_record(raw), 0)
    except ValueError as problem:
        assert "no record" in str(problem)  # noqa: PT017  either outcome is right


PIECES: Final = [
    "oom-kill:constraint=CONSTRAINT_", "MEMCG", ",nodemask=(null)", ",oom_memcg=", ",task_memcg=", ",global_oom", "/a", ",task=", "x", ",pid=", "1", ",uid=0",
    "Memory cgroup out of memory: ", "Killed process ", "Kill process ", " (x)", " total-vm:1kB", " invoked oom-killer: ", "memory: usage 1kB, limit 9kB",
    "Task in ", " killed as a result of limit of ", "Tasks in ", " are going to be killed due to memory.oom.group set",
]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=9).map("".join),
            st.sampled_from("-c+"),
            st.integers(0, 10**7),
        ),
        max_size=20,
    )
)
def test_any_lines_are_followed_without_a_crash(lines: list[tuple[str, str, int]]) -> None:
    """And a kill is only told on a `Killed process` line."""
    parser = OomParser()
    for seq, (text, flags, time_us) in enumerate(lines):
        kills = parser.feed(Record(6, seq, time_us, text, flags), 0)
        assert len(kills) <= 1
        for kill in kills:
            assert kill.seq == seq
            msgspec.json.encode(kill.process)


def test_state_stays_bounded_whatever_is_logged() -> None:
    """A log full of beginnings without ends."""
    parser = OomParser()
    for seq in range(5000):
        for text in (
            "x invoked oom-killer: y",
            summary(seq),
            f"Task in /{seq} killed as a result of limit of /b",
            "oom-kill:constraint=CONSTRAINT_MEMCG,",
        ):
            parser.feed(Record(4, seq, seq, text, "-", f"T{seq}"), 0)
    held = [value for value in vars(parser).values() if isinstance(value, dict | list)]
    assert held
    assert all(len(value) <= 66 for value in held)


@pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURED.glob("*.log")))
def test_logs_of_real_kernels(name: str) -> None:
    """Every kill that these kernels logged, with everything they said of it (6.18 on v1, 6.1 on v2)."""
    parser = OomParser()
    kills = []
    for line in (CAPTURED / f"{name}.log").read_bytes().splitlines():
        kills += parser.feed(parse_record(line + b"\n"), 0)
    assert msgspec.to_builtins(kills) == json.loads((CAPTURED / f"{name}.json").read_text())


def told_anew(records: list[Record], cut: int) -> list[OomKilled]:
    """The kills of a log whose reader is replaced after `cut` records by one that resumes where nothing was left open."""
    first, second = OomParser(), OomParser()
    kills = [kill for record in records[:cut] for kill in first.feed(record, 0)]
    if cut:
        first.settle(records[cut - 1].time_us)
    resume_after = records[cut - 1].seq if cut and first.begun is None else (first.begun or 0) - 1
    return kills + [kill for record in records if record.seq > resume_after for kill in second.feed(record, 0)]


def same(kills: list[OomKilled]) -> list[OomKilled]:
    """Each once; a kill that is told again is told alike, or it stands here twice."""
    return sorted(dict.fromkeys(kills), key=lambda kill: kill.seq)


@pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURED.glob("*.log")))
def test_a_reader_that_resumes_where_nothing_is_open_misses_and_changes_nothing(name: str) -> None:
    """Real logs, cut after each of their records."""
    records = [parse_record(line + b"\n") for line in (CAPTURED / f"{name}.log").read_bytes().splitlines()]
    parser = OomParser()
    uncut = [kill for record in records for kill in parser.feed(record, 0)]
    assert uncut
    for cut in range(len(records) + 1):
        assert same(told_anew(records, cut)) == uncut


@pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURED.glob("*.log")))
def test_what_is_skimmed_over_changes_nothing(name: str) -> None:
    """Of real logs: its number and time are right, the kills and where a reader resumes are the same without it."""
    lines = [line + b"\n" for line in (CAPTURED / f"{name}.log").read_bytes().splitlines()]
    whole, skimmed = OomParser(), OomParser()
    over = 0
    for line in lines:
        record, short = parse_record(line), skim(line)
        assert short in (None, record._replace(text="", caller=""))
        assert whole.feed(record, 0) == skimmed.feed(short or record, 0)
        assert whole.begun == skimmed.begun
        over += short is not None
    assert over > len(lines) // 3


@pytest.mark.parametrize(
    "raw",
    [
        b"6,1,2,-;tail invoked oom-killer: gfp\n", b"6,1,2,-;Killed process 1 (x)\n", b"6,1,2,-;memory: usage 1kB\n", b"6,1,2,c;a piece\n",
        b"6,1,2,+;a piece\n", b"6,1,2;text\n", b"x,1,2,-;text\n", b"6,1,2,-", b"6,,2,-;text\n", b"6,\xb2,2,-;x", b"6,1," + b"2" * 20 + b",-;x", b"",
    ],
)  # fmt: skip
def test_what_may_matter_or_is_no_record_is_not_skimmed_over(raw: bytes) -> None:
    """It is parsed, and refused where that is due."""
    assert skim(raw) is None


@given(st.binary() | st.binary().map(lambda raw: b"6,1,2,-;" + raw) | st.sampled_from([b"4,7,8,-,caller=T1;eth0\n SUBSYSTEM=x\n"]))
def test_what_is_skimmed_over_is_a_record(raw: bytes) -> None:
    """And parsing finds the same number and time."""
    if (short := skim(raw)) is not None:
        assert short == parse_record(raw)._replace(text="", caller="")


LINES: Final = st.sampled_from(
    [
        "eth0: link is up",
        "oom_reaper: reaped process 1 (tail)",
        "tail invoked oom-killer: gfp_mask=0",
        "memory: usage 1kB, limit 1kB, failcnt 1",
        "memory: usage 2kB, limit 2kB, failcnt 1",
        "Task in /a killed as a result of limit of /b",
        "Memory cgroup out of memory: Kill process 1 (tail) score 1001 or sacrifice child",
        "Tasks in /g are going to be killed due to memory.oom.group set",
        *[summary(pid, limit=f"/limit{pid}", under=f"/limit{pid}/a") for pid in (1, 2)],
        *[killed(pid) for pid in (1, 2)],
        summary(1)[:60],
        summary(1)[60:],
    ]
)


@given(
    st.lists(
        st.tuples(
            LINES, st.sampled_from("--c"), st.sampled_from([1, 50_000, 200_000, 11_000_000]), st.sampled_from(["", "T1", "C2"])
        ),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_any_log_may_be_cut_anywhere(lines: list[tuple[str, str, int, str]], cut: int) -> None:
    """Kills between each other, without ends, in pieces, long ago or just now, groups: what is told is the same, by id and in detail."""
    records, now_us = [], 0
    for seq, (text, flags, pause_us, caller) in enumerate(lines, 1):
        now_us += pause_us
        records.append(Record(6, seq, now_us, text, flags, caller))
    parser = OomParser()
    uncut = [kill for record in records for kill in parser.feed(record, 0)]
    assert same(told_anew(records, min(cut, len(records)))) == uncut


def test_nothing_is_open_a_moment_after_a_kill() -> None:
    """A container that is killed every second does not keep its whole history waiting."""
    parser = OomParser()
    open_since = []
    for number in range(5):
        at_us = 5_000_000 + number * 1_000_000
        for offset, text in enumerate(
            ("x invoked oom-killer: y", "memory: usage 1kB, limit 1kB, failcnt 1", summary(1), killed(1))
        ):
            parser.feed(Record(6, 10 * number + offset, at_us + offset, text), 0)
        open_since.append(parser.begun)
    assert open_since == [0, 10, 20, 30, 40]
    parser.settle(10_000_000)
    assert parser.begun is None


def test_kill_at_a_limit_is_told_with_everything() -> None:
    """Summary and kill are joined by pid; the limit is the report's; the time is the kill's."""
    [kill] = told(
        "tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "memory: usage 20480kB, limit 20480kB, failcnt 19",
        "memory+swap: usage 20480kB, limit 9007199254740988kB, failcnt 0",
        summary(42, uid=7),
        killed(42, uid=7, adj=-5),
    )
    assert kill == OomKilled(
        seq=104, time_ns=5_000_041_000, pid=42, process="tail", killed_cgroup="/a", limit_cgroup="/b", constraint="memcg", uid=7,
        total_vm_bytes=23140 * 1024, anon_rss_bytes=20352 * 1024, file_rss_bytes=1468 * 1024, shmem_rss_bytes=4096,
        oom_score_adj=-5, memory_limit_bytes=20 << 20,
    )  # fmt: skip


def test_host_that_ran_out_of_memory() -> None:
    """The victim's cgroup is told, no limit's."""
    [kill] = told(
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/glob,task=tail,pid=749,uid=0",
        "Out of memory: Killed process 749 (tail) total-vm:1kB, anon-rss:1kB, file-rss:8kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:900",
    )
    assert (kill.constraint, kill.killed_cgroup, kill.limit_cgroup, kill.memory_limit_bytes) == ("global", "/glob", "", None)


@pytest.mark.parametrize(("word", "constraint"), [("CPUSET", "cpuset"), ("MEMORY_POLICY", "mempolicy")])
def test_a_cpuset_or_memory_policy_that_ran_out(word: str, constraint: str) -> None:
    """The kernel's constraint in our words."""
    line = (
        f"oom-kill:constraint=CONSTRAINT_{word},nodemask=0-1,cpuset=/x,mems_allowed=0-1,global_oom,task_memcg=/a,task=t,pid=1,uid=0"
    )
    [kill] = told(line, killed().replace("Memory cgroup out", "Out"))
    assert (kill.constraint, kill.killed_cgroup) == (constraint, "/a")


def test_kernel_without_cpusets_and_without_memory_cgroups() -> None:
    """What is not configured is not in the line."""
    [kill] = told("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/b,task_memcg=/a,task=tail,pid=1,uid=0", killed())
    assert (kill.limit_cgroup, kill.killed_cgroup) == ("/b", "/a")
    [kill] = told(
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,task=tail,pid=1,uid=0",
        "Out of memory: Killed process 1 (tail)",
    )
    assert (kill.constraint, kill.killed_cgroup, kill.uid, kill.total_vm_bytes) == ("global", "", 0, None)


def test_storm_in_which_the_kernel_prints_only_the_kills() -> None:
    """Each line is a kill; what the kernel did not say is not made up."""
    kills = told(summary(1), killed(1), *[killed(pid) for pid in range(2, 6)])
    assert [kill.pid for kill in kills] == [1, 2, 3, 4, 5]
    assert [kill.killed_cgroup for kill in kills] == ["/a", "", "", "", ""]
    assert {kill.constraint for kill in kills} == {"memcg"}
    assert told("Out of memory: Killed process 1 (x) total-vm:1kB")[0].constraint == "global"


def test_group_is_killed_as_a_whole() -> None:
    """All members belong to the group; the first victim, which the kernel prints again among them, is marked as repeated."""
    kills = told(
        "memory: usage 20480kB, limit 20480kB, failcnt 202",
        summary(733, limit="/grp", under="/grp/in"),
        killed(733),
        "Tasks in /grp are going to be killed due to memory.oom.group set",
        killed(730, "sh"),
        killed(731, "sleep"),
        killed(733),
    )
    assert [(kill.pid, kill.killed_cgroup, kill.limit_cgroup, kill.repeated) for kill in kills] == [
        (733, "/grp/in", "/grp", False),
        (730, "/grp", "/grp", False),
        (731, "/grp", "/grp", False),
        (733, "/grp", "/grp", True),
    ]
    assert {kill.memory_limit_bytes for kill in kills} == {20 << 20}


def test_kill_after_a_group_is_not_a_member() -> None:
    """Neither with a report of its own, nor, while the kernel prints no reports, some time later."""
    group = "Tasks in /grp are going to be killed due to memory.oom.group set"
    assert told(group, killed(1), summary(2), killed(2))[1].killed_cgroup == "/a"
    assert told(group, killed(1), killed(2), step_us=200_000)[1].killed_cgroup == ""


@pytest.mark.parametrize(
    "comm", ["tail", "a b", "x) y,pid=1\n=é", "(sd-pam)", ",task=x", "a,pid=3,uid=4", ") total-vm:1kB", "", "Killed process"]
)
@pytest.mark.parametrize(
    ("limit", "under"),
    [
        ("/b", "/b/a"),
        ("/", "/x"),
        ("/a, b)=(c", "/a, b)=(c"),
        ("/x,task_memcg=/x", "/x,task_memcg=/x/y"),
        ("/x", "/x/,task_memcg=/z"),
        ("/q invoked oom-killer: ", "/q invoked oom-killer: /r"),
    ],
)
def test_names_may_hold_any_characters(comm: str, limit: str, under: str) -> None:
    """Spaces, commas, parentheses, `=`, line ends, and words of the format itself."""
    [kill] = told(summary(5, comm, limit=limit, under=under, cpuset="/c,mems_allowed=0,oom_memcg=/no"), killed(5, comm))
    assert kill.process == comm
    if comm != ") total-vm:1kB":  # indistinguishable, and harmless
        assert kill.total_vm_bytes == 23140 * 1024
    assert kill.killed_cgroup.endswith(under)


def test_name_that_is_no_text_can_be_encoded() -> None:
    """A process may give itself any bytes as a name."""
    [kill] = told(parse_record(rb"3,7,9,-;Memory cgroup out of memory: Killed process 1 (\xff\xfe) total-vm:1kB"))
    assert kill.process == "\ufffd\ufffd"


def test_two_kills_at_once_are_told_apart_by_pid() -> None:
    """Reports between each other; a limit that may be either's is not told."""
    kills = told(
        "a invoked oom-killer: gfp_mask=0",
        "b invoked oom-killer: gfp_mask=0",
        "memory: usage 1kB, limit 1kB, failcnt 1",
        "memory: usage 2kB, limit 2kB, failcnt 1",
        summary(1, "a", limit="/one", under="/one"),
        summary(2, "b", limit="/two", under="/two"),
        killed(2, "b"),
        killed(1, "a"),
    )
    assert [(kill.pid, kill.killed_cgroup) for kill in kills] == [(2, "/two"), (1, "/one")]
    assert kills[1].memory_limit_bytes is None


def test_line_that_was_cut_into_records_is_put_together() -> None:
    """The kernel prints the summary in pieces; another CPU's message in between makes them records of their own."""
    line = summary(9, limit="/b,c", under="/b,c/d")
    cuts = [line[:40], line[40:70], line[70:]]
    kills = told(
        Record(6, 1, 10, cuts[0]),
        Record(6, 2, 11, "eth0: link is up"),
        Record(6, 3, 12, cuts[1], "c"),
        Record(6, 4, 13, "something else"),
        Record(6, 5, 14, cuts[2], "c"),
        Record(3, 6, 15, killed(9)),
    )
    assert [(kill.limit_cgroup, kill.killed_cgroup) for kill in kills] == [("/b,c", "/b,c/d")]


def test_pieces_of_two_callers_are_kept_apart() -> None:
    """Where the kernel says who prints."""
    lines = {"T1": summary(1, limit="/one", under="/one"), "C2": summary(2, limit="/two", under="/two")}
    records = [Record(6, 0, 0, line[:50], "-", caller) for caller, line in lines.items()]
    records += [Record(6, 1, 1, line[50:], "c", caller) for caller, line in lines.items()]
    kills = told(*records, Record(6, 3, 2, killed(1)), Record(6, 4, 3, killed(2)))
    assert [kill.limit_cgroup for kill in kills] == ["/one", "/two"]


def test_old_report_does_not_stick_to_a_new_process_of_the_same_number() -> None:
    """The victim was gone before it could be killed; much later its pid is another's."""
    kills = told(summary(1), killed(1), step_us=11_000_000)
    assert [kill.killed_cgroup for kill in kills] == [""]


LEGACY: Final = [
    "java invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
    "Task in /docker/aa killed as a result of limit of /docker",
    "memory: usage 512000kB, limit 512000kB, failcnt 5881",
    "memory+swap: usage 512000kB, limit 1024000kB, failcnt 0",
    "Memory cgroup out of memory: Kill process 12345 (java) score 1001 or sacrifice child",
]


@pytest.mark.parametrize(
    "line",
    [
        "Killed process 12345 (java) total-vm:100kB, anon-rss:50kB, file-rss:4kB",
        "Killed process 12345 (java), UID 0, total-vm:100kB, anon-rss:50kB, file-rss:4kB, shmem-rss:0kB",
        "Killed process 12345 (java) vsz:100kB, anon-rss:50kB, file-rss:4kB",
    ],
)
def test_kernels_before_the_summary_line(line: str) -> None:
    """Names come in a line of their own, before the process is chosen (to 4.20; the second form is Red Hat's)."""
    [kill] = told(*LEGACY, line)
    assert (kill.killed_cgroup, kill.limit_cgroup, kill.constraint) == ("/docker/aa", "/docker", "memcg")
    assert (kill.process, kill.total_vm_bytes, kill.anon_rss_bytes, kill.memory_limit_bytes) == (
        "java",
        102400,
        51200,
        512000 * 1024,
    )


def test_old_kernel_that_killed_a_child_instead() -> None:
    """`sacrifice child`: the pid is another, the report is its."""
    [kill] = told(*LEGACY[:4], "Killed process 777 (child) total-vm:100kB, anon-rss:50kB, file-rss:4kB")
    assert (kill.pid, kill.killed_cgroup) == (777, "/docker/aa")


def test_what_users_write_into_the_log_is_not_believed() -> None:
    """Whoever may open /dev/kmsg may write there; the kernel marks that by another facility."""
    assert told(Record(8 + 4, 1, 1, summary(1)), Record(8 + 3, 2, 2, killed(1))) == []


def test_limit_that_is_none_is_not_told() -> None:
    """The kernel prints the highest number."""
    [kill] = told("memory: usage 1kB, limit 9007199254740988kB, failcnt 0", summary(1), killed(1))
    assert kill.memory_limit_bytes is None
