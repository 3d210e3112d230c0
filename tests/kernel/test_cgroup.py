"""Samples of a cgroup: on this machine's kernel, and on made-up files for what a kernel does seldom."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import Gone
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget
from streamer.kernel.hierarchy import Hierarchies, detect
from streamer.kernel.network import NetDev
from streamer.kernel.proc import meminfo
from streamer.model.stats import ABSENT, COLUMNS, FILES, STATS, IoDevice, Sample
from streamer.sources.hardware import network_devices
from tests.support.cgroups import CgroupFolder

PLENTY: Final = 1000


def naive(hierarchies: Hierarchies, path: str) -> dict[str, Any]:
    """The columns of a cgroup as the plainest program would read them; what is absent is left out."""
    v2 = hierarchies.mode == "v2"
    values: dict[str, Any] = {}
    for stat in STATS:
        name, _, key = (stat.v2 if v2 else stat.v1).partition(":")
        file = Path(hierarchies.file(FILES[name].controller, path, name) or "/nowhere") if name else None
        if file is None or not file.exists():
            continue
        lines = file.read_text().splitlines()
        layout, scale = FILES[name].layout, stat.scale_v2 if v2 else stat.scale_v1
        words = [line.replace("=", " ").split() for line in lines]
        if layout == "single":
            values[stat.name] = int(lines[0]) * scale
        elif layout == "lines":
            values[stat.name] = len(lines)
        elif layout == "flat":
            values.update((stat.name, int(line[1]) * scale) for line in words if line[0] == key)
        elif layout == "operations":
            values[stat.name] = sum(int(line[2]) for line in words if line[1] == key)
        elif layout == "nested":
            values[stat.name] = sum(int(line[line.index(key) + 1]) for line in words if key in line)
        else:
            share, _, number = key.partition(".")
            values.update((stat.name, stat.number(line[line.index(number) + 1]) * scale) for line in words if line[0] == share)
    if "memory_usage_bytes" in values and "memory_inactive_file_bytes" in values:
        values["memory_working_set_bytes"] = max(0, values["memory_usage_bytes"] - values["memory_inactive_file_bytes"])
    return values


def known(sample: Sample) -> dict[str, Any]:
    """The columns that are not absent."""
    return {name: value for name, value in zip(COLUMNS, sample.values, strict=True) if value is not ABSENT}


@pytest.fixture
def host() -> Hierarchies:
    return detect(Path("/"))


class Reader:
    """Makes readers that are closed at the end."""

    def __init__(self) -> None:
        self.made: list[CgroupReader] = []
        self.budget = DescriptorBudget(PLENTY)

    def __call__(self, hierarchies: Hierarchies, path: str, budget: DescriptorBudget | None = None, pid: int = 0) -> CgroupReader:
        self.made.append(CgroupReader(hierarchies, path, budget or self.budget, pid))
        return self.made[-1]


@pytest.fixture
def reader() -> Iterator[Reader]:
    make = Reader()
    yield make
    for each in make.made:
        each.close()
        assert each.descriptors == 0
    assert make.budget.used == 0


# This machine's kernel


@pytest.mark.live
@pytest.mark.v2
@pytest.mark.parametrize("limit", [PLENTY, 0])
def test_numbers_are_those_in_the_files(host: Hierarchies, cgroups: CgroupFolder, reader: Reader, limit: int) -> None:
    """Every column, with files held open and without, of a cgroup that has worked and of one that has not."""
    busy, idle = cgroups.make("busy"), cgroups.make("idle")
    assert (
        cgroups.run(
            "busy", "sh", "-c", "for i in $(seq 2000); do :; done; head -c 3000000 /dev/zero | tail -c 1000000 >/dev/null"
        ).wait()
        == 0
    )
    for path in (busy, idle):
        look = reader(host, path, DescriptorBudget(limit))
        deadline = time.monotonic() + 20
        while (sample := known(look.read(1))) != (plain := naive(host, path)):  # the kernel still books the end of a process
            assert time.monotonic() < deadline, {
                key: (sample.get(key), plain.get(key)) for key in plain | sample if sample.get(key) != plain.get(key)
            }
        assert len(sample) > 25
    assert known(reader(host, busy).read(1))["cpu_usage_ns"] > 0


@pytest.mark.live
@pytest.mark.v2
@pytest.mark.parametrize("limit", [PLENTY, 0])
def test_removed_cgroup_is_gone(host: Hierarchies, cgroups: CgroupFolder, reader: Reader, limit: int) -> None:
    """Also when another one has its name by then: that one is never read."""
    look = reader(host, cgroups.make("a"), DescriptorBudget(limit))
    assert look.inode == 0
    look.read(1)
    assert look.inode == os.stat(host.directory(host.anchor, f"{cgroups.path}/a")).st_ino
    cgroups.remove("a")
    with pytest.raises(Gone):
        look.read(2)
    cgroups.make("a")
    with pytest.raises(Gone):
        look.read(3)


@pytest.mark.live
@pytest.mark.v2
def test_cgroup_that_never_was_is_gone(host: Hierarchies, reader: Reader) -> None:
    """At the first read."""
    with pytest.raises(Gone):
        reader(host, "/streamer-test-none").read(1)


@pytest.mark.live
@pytest.mark.v2
def test_processes_are_counted_as_they_are_now(host: Hierarchies, cgroups: CgroupFolder, reader: Reader) -> None:
    """Within a second of the last look, too: the kernel shows an old list to a descriptor of v1 that is held open."""
    path = cgroups.make("a")
    look = reader(host, path)
    for number in range(4):
        assert known(look.read(1))["processes"] == number
        process = cgroups.run("a", "sh", "-c", "echo; exec sleep 60")
        while str(process.pid) not in Path(host.file("pids", path, "cgroup.procs") or "").read_text().split():
            assert process.poll() is None
    assert known(look.read(1))["threads"] == 4


@pytest.mark.live
@pytest.mark.v2
def test_more_processes_than_the_kernel_gives_at_once(host: Hierarchies, cgroups: CgroupFolder, reader: Reader) -> None:
    """A list of more than a page."""
    path = cgroups.make("a")
    process = cgroups.run("a", "perl", "-e", "for (1..900) { fork or do { sleep 600; exit } } sleep 600")
    look = reader(host, path)
    most, deadline = -1, 0.0
    while (processes := known(look.read(1))["processes"]) != 901:
        if processes > most:  # forking is the slowest thing in a guest: minutes, where the host is busy too
            most, deadline = processes, time.monotonic() + 60
        assert time.monotonic() < deadline and process.poll() is None, f"{processes} processes and no more"
        time.sleep(0.05)  # the pace of looking


@pytest.mark.live
def test_cgroup_in_one_hierarchy_only_tells_what_that_one_has(host: Hierarchies, cgroups: CgroupFolder, reader: Reader) -> None:
    """v1: a plain memory cgroup; when the others come, they are found; when it loses one, that one's numbers are absent."""
    path = f"{cgroups.path}/partial"
    memory = Path(host.directory("memory", path))
    memory.mkdir()
    look = reader(host, path)
    sample = known(look.read(1))
    assert {"memory_usage_bytes", "memory_oom_kills", "processes"} <= set(sample)
    assert not {"cpu_usage_ns", "io_read_bytes", "threads"} & set(sample)
    others = [Path(host.directory(name, path)) for name in host.watched if name != "memory"]
    for directory in others:
        directory.mkdir()
    look.read(2)  # seeks after 1, 2, 4 reads
    assert {"memory_usage_bytes", "cpu_usage_ns", "io_read_bytes", "threads"} <= set(known(look.read(3)))
    memory.rmdir()
    sample = known(look.read(4))
    assert "cpu_usage_ns" in sample and "memory_usage_bytes" not in sample
    memory.mkdir()  # another cgroup, though of the same name
    for number in range(5, 20):
        assert "memory_usage_bytes" not in known(look.read(number))
    for directory in [*others, memory]:
        directory.rmdir()
    with pytest.raises(Gone):
        look.read(20)


@pytest.mark.live
@pytest.mark.v2
def test_descriptors_are_held_within_the_budget(host: Hierarchies, cgroups: CgroupFolder, reader: Reader) -> None:
    """All files of a reader or none; what is given back can be taken by another."""
    paths = [cgroups.make(name) for name in "ab"]
    first = reader(host, paths[0])
    first.read(1)
    budget = DescriptorBudget(first.descriptors)
    first.close()
    one, other = (reader(host, path, budget) for path in paths)
    before = len(os.listdir("/proc/self/fd"))
    one.read(1), other.read(1)
    assert (budget.used, one.descriptors, other.descriptors) == (budget.limit, budget.limit, 0)
    assert len(os.listdir("/proc/self/fd")) == before + budget.limit
    one.close()
    other.read(2)
    assert (budget.used, other.descriptors) == (budget.limit, budget.limit)
    assert known(one.read(3)).keys() == known(other.read(3)).keys()


@pytest.mark.live
@pytest.mark.v2
@pytest.mark.parametrize("limit", [PLENTY, 0])
def test_network_counters_of_a_process(host: Hierarchies, cgroups: CgroupFolder, reader: Reader, limit: int) -> None:
    """The interfaces that it sees; none when it has ended, and none when its counters are not to be read."""
    process = cgroups.run("a", "sleep", "600") if cgroups.make("a") else None
    assert process is not None
    names = sorted(set(os.listdir("/sys/class/net")) - {"lo", "bonding_masters"})
    look = reader(host, f"{cgroups.path}/a", DescriptorBudget(limit), process.pid)
    assert sorted(interface.name for interface in look.read(1).interfaces) == names
    look.set_net_dev_pid(process.pid, read=False)
    assert (look.net_dev_pid, look.read(2).interfaces) == (process.pid, ())
    look.set_net_dev_pid(process.pid)
    assert len(look.read(3).interfaces) == len(names)
    process.kill()
    process.wait()
    assert look.read(4).interfaces == ()
    look.set_net_dev_pid(process.pid)
    assert look.read(5).interfaces == ()


@pytest.mark.live
def test_block_devices_are_told_one_by_one(
    host: Hierarchies, cgroups: CgroupFolder, reader: Reader, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """v1: what was written past the page cache, on the disk that holds the file; none before."""
    directory = next((at for at in (tmp_path, Path(__file__).parent) if os.major(os.stat(at).st_dev)), None)
    assert directory is not None, "neither the temporary directory nor this one is on a block device"
    number, file = os.stat(directory).st_dev, directory / f"written-{os.getpid()}"
    request.addfinalizer(lambda: file.unlink(missing_ok=True))
    path = cgroups.make("a")
    limit = Path(host.file("blkio", path, "blkio.throttle.write_bps_device") or "")
    limit.write_text(f"{os.major(number)}:{os.minor(number)} 100000000000")  # since 6.10 nothing is counted before the first limit
    look = reader(host, path)
    assert look.read(1).devices == ()
    done = cgroups.run("a", "dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=5", "oflag=direct", "status=none")
    assert done.wait() == 0
    sample = look.read(2)
    (device,) = sample.devices
    assert (device.major, device.minor) == (os.major(number), os.minor(number))
    assert 5 << 20 <= device.write_bytes < 7 << 20
    assert device.write_operations >= 5
    for name in ("read_bytes", "write_bytes", "read_operations", "write_operations"):
        assert getattr(device, name) == sample.get(f"io_{name}")


@pytest.mark.live
@pytest.mark.v2
def test_root_stands_for_the_whole_machine(host: Hierarchies, reader: Reader) -> None:
    """CPU, memory, pressure and the host's own network, on v2 without memory.current."""
    look = reader(host, "/", pid=1)
    sample, total = look.read(1), meminfo("/")["MemTotal"]
    usage, working_set = sample.get("memory_usage_bytes"), sample.get("memory_working_set_bytes")
    assert 0 < working_set < usage < total
    if host.mode == "v2":
        assert usage == sample.get("memory_rss_bytes") + sample.get("memory_cache_bytes")
    assert sample.get("cpu_usage_ns") > 0
    assert look.read(2).get("cpu_usage_ns") >= sample.get("cpu_usage_ns")
    names = {interface.name for interface in sample.interfaces}
    assert names == {device.name for device in network_devices(Path("/"))}


# Made-up files


V2: Final = {
    "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 7\nnr_bursts 0\nburst_usec 0\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 1\nfile 2\nkernel 3\nshmem 4\nfile_mapped 5\nfile_dirty 6\nfile_writeback 7\ninactive_file 300\nactive_file 9\npgfault 10\npgmajfault 11\n",
    "memory.peak": "2000\n",
    "memory.swap.current": "0\n",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
    "pids.current": "3\n",
    "cgroup.procs": "1\n2\n",
}  # fmt: skip


@pytest.fixture
def v2(tmp_path: Path) -> Hierarchies:
    """A v2 hierarchy with the cgroup /a that has the files above."""
    (tmp_path / "a").mkdir()
    for name, text in V2.items():
        (tmp_path / "a" / name).write_text(text)
    return Hierarchies("v2", {"unified": str(tmp_path)}, ("unified",), str(tmp_path / "proc"))


def test_sample_of_v2(v2: Hierarchies, reader: Reader) -> None:
    """Every column that these files give, scaled; the others are absent; the time is the one handed in."""
    look = reader(v2, "/a")
    for time_ns in (7, 8):
        sample = look.read(time_ns)
        assert sample.time_ns == time_ns
        assert known(sample) == naive(v2, "/a")
    assert sample.get("memory_working_set_bytes") == 700
    assert sample.get("psi_cpu_some_avg10_percent") == 1.5
    assert sample.get("psi_memory_some_ns") is ABSENT


def test_unchanged_and_changed_files_alike(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """What a file said last is only reused for the very same bytes."""
    look = reader(v2, "/a")
    for number in (1, 1, 2, 2, 1):
        (tmp_path / "a/memory.events").write_text(V2["memory.events"].replace("oom_kill 4", f"oom_kill {number}"))
        assert look.read(1).get("memory_oom_kills") == number


def test_idle_cgroup_gives_the_very_same_values(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """So that nobody has to compare them; a list of processes that changed alone, as no kernel does it, is seen later."""
    for name in ("memory.pressure", "io.pressure"):  # while one is missing, it is looked for now and then, and all begins anew
        (tmp_path / "a" / name).write_text(V2["cpu.pressure"])
    look = reader(v2, "/a")
    first = look.read(1).values
    assert look.read(2).values is first
    (tmp_path / "a/cgroup.procs").write_text("1\n2\n3\n")
    later = [look.read(number).get("processes") for number in range(40)]
    assert set(later) == {2, 3} and later == sorted(later)
    (tmp_path / "a/cgroup.procs").write_text("1\n")
    (tmp_path / "a/pids.current").write_text("2\n")
    assert (look.read(50).get("processes"), look.read(51).get("threads")) == (1, 2)


def test_usage_is_only_made_up_of_its_parts_for_the_root(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """Elsewhere a missing memory.current is a missing usage."""
    (tmp_path / "a/memory.current").unlink()
    sample = reader(v2, "/a").read(1)
    assert sample.get("memory_usage_bytes") is sample.get("memory_working_set_bytes") is ABSENT
    stat = V2["memory.stat"].replace("anon 1", "anon 1000")
    (tmp_path / "memory.stat").write_text(stat)
    (tmp_path / "cpu.stat").write_text(V2["cpu.stat"])
    look = reader(v2, "/")
    assert [look.read(1).get(name) for name in ("memory_usage_bytes", "memory_working_set_bytes", "cpu_usage_ns")] == [
        1002,
        702,
        5000,
    ]
    (tmp_path / "memory.stat").write_text(stat.replace("anon 1000\n", ""))
    assert look.read(2).get("memory_usage_bytes") is ABSENT


def test_devices_follow_the_file_and_idle_ones_are_left_out(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """By device, in the order of their numbers, whatever the order of keys and lines; the same tuple while nothing changes."""
    look, idle = reader(v2, "/a"), "7:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n"
    one, other = IoDevice(8, 0, 1, 2, 3, 4), IoDevice(8, 16, 10, 20, 30, 40)
    assert look.read(1).devices == (one,)
    (tmp_path / "a/io.stat").write_text("8:16 wbytes=20 rbytes=10 wios=40 rios=30\n" + idle + V2["io.stat"])
    assert look.read(2).devices == (one, other)
    third = look.read(3).devices
    assert third == (one, other)
    assert look.read(4).devices is third
    (tmp_path / "a/io.stat").write_text("")
    assert look.read(5).devices == ()


def test_devices_of_v1_are_joined_from_two_files(reader: Reader, tmp_path: Path) -> None:
    """One has the bytes, the other the operations; a device may stand in one only."""
    (tmp_path / "a").mkdir()
    files = {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\n9:0 Read 7\nTotal 10\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 4\n8:0 Total 7\n8:16 Read 0\nTotal 7\n",
    }
    for name, text in files.items():
        (tmp_path / "a" / name).write_text(text)
    look = reader(Hierarchies("v1", {"blkio": str(tmp_path)}, ("blkio",)), "/a")
    expected = (IoDevice(8, 0, 1, 2, 3, 4), IoDevice(9, 0, 7, 0, 0, 0))
    assert look.read(1).devices == expected
    (tmp_path / "a/blkio.throttle.io_serviced_recursive").write_text("8:0 Read 30\n8:0 Write 4\nTotal 34\n")
    assert look.read(2).devices == (IoDevice(8, 0, 1, 2, 30, 4), expected[1])


def test_devices_are_not_told_from_a_file_that_fails(v2: Hierarchies, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather absent than old; another file's failure leaves them."""
    look = reader(v2, "/a")
    really, failing = os.pread, "io.stat"

    def read(fd: int, *rest: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(failing):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(fd, *rest)

    there = look.read(1).devices
    assert there
    monkeypatch.setattr(os, "pread", read)
    assert look.read(2).devices == ()
    failing = "memory.stat"
    assert look.read(3).devices == there


def test_working_set_is_never_below_nothing(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """Usage and its parts are not read at the same instant."""
    (tmp_path / "a/memory.current").write_text("299\n")
    assert reader(v2, "/a").read(1).get("memory_working_set_bytes") == 0


def test_file_that_appears_is_found_though_not_sought_each_time(
    v2: Hierarchies, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 1, 2, 4, 8 reads: a controller may be enabled late."""
    look = reader(v2, "/a")
    opened: list[str] = []
    really = os.open

    def noted(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(str(path))
        return really(path, *rest, **more)

    monkeypatch.setattr(os, "open", noted)
    sought = []
    for number in range(20):
        before = len(opened)
        look.read(number)
        if "io.pressure" in opened[before:]:
            sought.append(number)
    assert sought == [0, 1, 2, 4, 8, 16]
    (tmp_path / "a/io.pressure").write_text(V2["cpu.pressure"])
    assert look.read(20).get("psi_io_some_ns") is ABSENT
    for number in range(21, 33):
        sample = look.read(number)
    assert sample.get("psi_io_some_ns") == 9000


@pytest.mark.parametrize(
    ("code", "held", "back"),
    [(errno.EOPNOTSUPP, False, False), (errno.EACCES, False, False), (errno.EIO, True, True), (errno.ENODEV, False, True)],
)
def test_file_that_answers_with_an_error_is_absent(
    code: int, held: bool, back: bool, v2: Hierarchies, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told. What will never answer is let go of; a passing fault passes, a controller may be enabled again."""
    look = reader(v2, "/a")
    look.read(1)
    descriptors = look.descriptors
    really = os.pread

    def failing(fd: int, *rest: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/memory.stat"):
            raise OSError(code, os.strerror(code))
        return really(fd, *rest)

    monkeypatch.setattr(os, "pread", failing)
    expected = {
        name: value
        for name, value in naive(v2, "/a").items()
        if name in {"memory_usage_bytes", "memory_peak_bytes"} or "memory.stat:" not in _address(name)
    }
    del expected["memory_working_set_bytes"]
    assert known(look.read(2)) == expected
    assert look.descriptors == descriptors - (not held)
    monkeypatch.undo()
    later = known(look.read(3))
    assert ("memory_rss_bytes" in later) == back


def _address(column: str) -> str:
    return next(stat.v2 for stat in STATS if stat.name == column)


@pytest.mark.parametrize("limit", [PLENTY, 0])
@pytest.mark.parametrize("enough_for", [0, 3])
def test_process_that_has_no_descriptor_left(
    limit: int, enough_for: int, v2: Hierarchies, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not the end of the cgroup: what could not be opened is absent and counted, and back as soon as there are some."""
    budget = DescriptorBudget(limit)
    look = reader(v2, "/a", budget)
    for number in range(3):
        look.read(number)
    look.close()
    really, opened = os.open, 0

    def few(*rest: Any, **more: Any) -> int:
        nonlocal opened
        opened += 1
        if opened > enough_for:
            raise OSError(errno.EMFILE, "Too many open files")
        return really(*rest, **more)

    monkeypatch.setattr(os, "open", few)
    assert len(known(look.read(3))) < 10
    assert budget.starved > 0
    monkeypatch.undo()
    assert known(look.read(4)) == naive(v2, "/a")


@pytest.mark.parametrize("limit", [PLENTY, 0])
def test_cgroup_that_says_nothing_new_has_the_very_same_values(limit: int, v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """Also where its files are opened anew for each sample; and what is new is read."""
    look = reader(v2, "/a", DescriptorBudget(limit))
    first = look.read(1)
    assert look.read(2).values is first.values
    (tmp_path / "a/memory.current").write_text("4242\n")
    assert known(look.read(3))["memory_usage_bytes"] == 4242
    assert known(look.read(4)) == naive(v2, "/a")


def test_lowered_limit_of_descriptors_is_kept_to(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """What is held beyond it is given back at the next read, which says what it would have said; and taken again later."""
    budget = DescriptorBudget(PLENTY)
    looks = [reader(v2, "/a", budget) for _ in range(3)]
    before = len(os.listdir("/proc/self/fd"))
    first = [look.read(1) for look in looks]
    each = budget.used // 3
    assert len(os.listdir("/proc/self/fd")) == before + 3 * each
    budget.limit = 2 * each
    assert [look.read(2).values for look in looks] == [sample.values for sample in first]
    assert budget.used == 2 * each and len(os.listdir("/proc/self/fd")) == before + 2 * each
    (tmp_path / "a/memory.current").write_text("4242\n")
    budget.limit = 0
    for turn in (3, 4):
        assert all(known(look.read(turn)) == naive(v2, "/a") for look in looks)
        assert budget.used == 0 and len(os.listdir("/proc/self/fd")) == before
    budget.limit = PLENTY
    assert {look.read(5).values for look in looks} == {looks[0].read(6).values}
    assert budget.used == 3 * each


def test_lowered_limit_holds_for_network_counters_too() -> None:
    """The process's directory is given back, and opened for each reading."""
    budget = DescriptorBudget(1)
    with contextlib.closing(NetDev("/proc", budget)) as network:
        network.follow(os.getpid())
        assert budget.used == 1
        names = [interface.name for interface in network.read()]
        budget.limit = 0
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            assert [interface.name for interface in network.read()] == names != []
            assert budget.used == 0 and len(os.listdir("/proc/self/fd")) == before - 1


def test_file_longer_than_expected_is_read_whole(v2: Hierarchies, reader: Reader, tmp_path: Path) -> None:
    """A host with many disks, a kernel with many lines; and a number that is none is absent."""
    devices = "".join(f"8:{minor} rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n" for minor in range(500))
    (tmp_path / "a/io.stat").write_text(devices)
    (tmp_path / "a/memory.stat").write_text("".join(f"filler_{number} {number}\n" for number in range(3000)) + V2["memory.stat"])
    (tmp_path / "a/memory.peak").write_text("max\n")
    (tmp_path / "a/cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(3000)))
    for limit in (PLENTY, 0):
        look = reader(v2, "/a", DescriptorBudget(limit))
        for number in range(3):
            sample = look.read(number)
            assert [sample.get(name) for name in ("io_read_bytes", "io_write_operations", "memory_rss_bytes", "processes")] == [
                500,
                2000,
                1,
                3000,
            ]
            assert sample.get("memory_peak_bytes") is ABSENT


@given(
    st.dictionaries(st.sampled_from(sorted(V2)), st.binary(max_size=60) | st.sampled_from([text.encode() for text in V2.values()])),
    st.booleans(),
)
def test_any_bytes_in_any_file_give_a_sample(files: dict[str, bytes], hold: bool) -> None:
    """A number or absent for every column."""
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "a").mkdir()
        for name, raw in files.items():
            (Path(root) / "a" / name).write_bytes(raw)
        look = CgroupReader(Hierarchies("v2", {"unified": root}, ("unified",)), "/a", DescriptorBudget(PLENTY * hold))
        for number in range(2):
            sample = look.read(number)
            assert len(sample.values) == len(COLUMNS)
            assert all(value is ABSENT or isinstance(value, int | float) for value in sample.values)
        look.close()


def test_network_of_another_process_of_the_same_number_is_not_read(v2: Hierarchies, reader: Reader) -> None:
    """Above the budget a process is known by its number only: its namespace is compared."""
    process = Path(v2.proc, "42")
    line = "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
    for limit in (PLENTY, 0):
        (process / "net").mkdir(parents=True)
        (process / "net/dev").write_text(line)
        look = reader(v2, "/a", DescriptorBudget(limit), 42)
        assert [interface.rx_bytes for interface in look.read(1).interfaces] == [1]
        process.rename(process.with_name("ended"))
        (process / "net").mkdir(parents=True)
        (process / "net/dev").write_text(line.replace(" 1 ", " 999 "))
        (process.with_name("ended") / "net/dev").unlink()
        assert look.read(2).interfaces == ()
        (process.with_name("ended") / "net").rmdir()
        process.with_name("ended").rmdir()
        (process / "net/dev").unlink()
        (process / "net").rmdir()
        process.rmdir()
