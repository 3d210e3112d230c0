"""How full file systems are: this machine's, and those of hosts made up of files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from streamer.clock import SystemClock
from streamer.model.stats import DiskCounters, FilesystemUsage
from streamer.sources import filesystems
from streamer.sources.bounds import Bounds
from streamer.sources.filesystems import Filesystems, Mounted, measured, mounted
from streamer.testing.clock import FakeClock


def host(root: Path, mountinfo: str, diskstats: str = "") -> Path:
    (root / "proc/1").mkdir(parents=True)
    (root / "proc/1/mountinfo").write_text(mountinfo)
    (root / "proc/diskstats").write_text(diskstats)
    return root


def found(root: Path) -> tuple[FilesystemUsage, ...]:
    return Filesystems(str(root), SystemClock()).measure()


def test_this_machine() -> None:
    """Each on a block device is as full as df says, and the counters are those of its disk."""
    for usage in found(Path("/")):
        size = os.statvfs(usage.mountpoint or "")
        assert usage.capacity_bytes == size.f_blocks * size.f_frsize
        assert 0 < usage.usage_bytes <= usage.capacity_bytes
        assert 0 <= (usage.available_bytes or 0) <= usage.capacity_bytes - usage.usage_bytes
        number = os.stat(usage.mountpoint or "").st_dev
        if os.major(number):
            lines = [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
            (line,) = [words for words in lines if words[:2] == [str(os.major(number)), str(os.minor(number))]]
            assert usage.disk
            assert 0 < usage.disk.reads_completed <= int(line[3])
            assert usage.disk.sectors_written <= int(line[9])


def test_a_file_system_is_listed_once_and_only_where_it_can_be_seen(tmp_path: Path) -> None:
    """Bind mounts, images and what is no block device are left out; so is what is not mounted below the host's root here."""
    root = host(
        tmp_path,
        "1 0 8:1 /sub /bind rw - ext4 /dev/sda1 rw\n"
        "2 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "3 0 7:0 / /snap rw - squashfs /dev/loop0 rw\n"
        "4 0 0:1 / /tmp rw - tmpfs tmpfs rw\n"
        "5 0 8:2 / /not-here rw - ext4 /dev/sda2 rw\n"
        "6 0 0:99 / /fuse rw - fuse.sshfs /dev/fuse rw\n"
        "7 0 0:98 / /nfs rw - nfs4 server:/x rw\n",
        "   8       1 sda1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n   8       2 sda2 1 2 3\n",
    )
    assert [place.mountpoint for place in mounted(root)] == ["/", "/not-here"]
    (usage,) = found(root)
    assert (usage.device, usage.mountpoint, usage.fstype) == ("/dev/sda1", "/", "ext4")
    assert usage.disk and msgspec.structs.astuple(usage.disk) == tuple(range(1, 12))


def test_a_disk_is_found_by_name_where_the_file_system_has_no_number_of_it(tmp_path: Path) -> None:
    """As btrfs; and one that has no counters has none."""
    line = "259 1 nvme0n1p1 1 2 3 4 5 6 7 8 9 10 11\n"
    (usage,) = found(host(tmp_path / "a", "1 0 0:33 / / rw - btrfs /dev/nvme0n1p1 rw\n", line))
    assert usage.disk and usage.disk.weighted_io_time_ms == 11
    (usage,) = found(host(tmp_path / "b", "1 0 0:33 / / rw - zfs tank rw\n", line))
    assert usage.disk is msgspec.UNSET


def test_a_path_of_any_bytes_can_be_sent(tmp_path: Path) -> None:
    """mountinfo holds whatever somebody named a directory."""
    root = host(tmp_path, "")
    (root / "proc/1/mountinfo").write_bytes(b"1 0 8:1 / / rw - ext4 /dev/\xff rw\n")
    (usage,) = found(root)
    assert msgspec.json.decode(msgspec.json.encode(usage))["device"] == "/dev/\ufffd"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_one_that_hangs_hides_only_itself_until_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who asks for the latest waits; who asks for a measurement waits no longer than patience lasts."""
    monkeypatch.setattr(filesystems, "_PATIENCE_SECONDS", 1.0)
    root = host(tmp_path, "".join(f"{n} 0 8:{n} / /{n} rw - ext4 /dev/sda{n} rw\n" for n in (1, 2, 3)))
    hung, answer = threading.Event(), threading.Event()

    def measure(place: Mounted, disks: Mapping[str, DiskCounters]) -> FilesystemUsage | None:
        if place.device == "/dev/sda2" and not answer.is_set():
            hung.set()
            answer.wait(60)
        return measured(place._replace(mountpoint="/", path="/"), disks)

    watch = Filesystems(str(root), SystemClock(), measure)
    try:
        assert watch.fresh() == ()
        until(hung.is_set)
        assert [usage.device for usage in watch.measure()] == ["/dev/sda1", "/dev/sda3"]
        assert [usage.device for usage in watch.fresh()] == ["/dev/sda1", "/dev/sda3"]
        threads = [thread for thread in threading.enumerate() if thread.name == "filesystems"]
        until(lambda: sum(thread.is_alive() for thread in threads) == 1)
    finally:
        answer.set()
    until(lambda: len(watch.measure()) == 3)
    until(lambda: not any(thread.name == "filesystems" for thread in threading.enumerate()))


def test_each_measurement_is_told_once_and_the_next_is_made_when_it_is_time(tmp_path: Path) -> None:
    """However often samples are taken."""
    root, clock, measured_at = host(tmp_path, "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"), FakeClock(), list[int]()

    def measure(place: Mounted, disks: Mapping[str, DiskCounters]) -> FilesystemUsage | None:
        measured_at.append(clock.monotonic_ns())
        return measured(place, disks)

    watch, told = Filesystems(str(root), clock, measure), []
    for _ in range(21):
        told += watch.fresh()
        until(lambda: not any(thread.name == "filesystems" for thread in threading.enumerate()))
        clock.advance(1.0)
    assert [at - measured_at[0] for at in measured_at] == [0, 10_000_000_000, 20_000_000_000]
    assert len(told) == 2, "the third is told by the next sample"


def test_a_message_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many file systems those that were mounted first are measured, and it is known how many are not."""
    monkeypatch.setattr(filesystems, "MOST", 2)
    root = host(tmp_path, "".join(f"{n} 0 8:{n} / / rw - ext4 /dev/sda{n} rw\n" for n in range(1, 6)))
    bounds = Bounds()
    watch = Filesystems(str(root), SystemClock(), bounds=bounds)
    for _ in range(2):
        assert [usage.device for usage in watch.measure()] == ["/dev/sda1", "/dev/sda2"]
        assert bounds.beyond() == {"filesystems": 3}
    (root / "proc/1/mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    watch.measure()
    assert bounds.beyond() == {}
