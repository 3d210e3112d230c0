"""The JSON Lines sink on real files, pipes and devices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.wire import Entry
from streamer.sinks.jsonl import JsonLinesSink
from streamer.testing.contract import Kept, RemoteSinkContract, SinkContract
from streamer.testing.messages import Speaker, encoded


def _kept(text: bytes) -> list[Kept]:
    kept = []
    for line in text.split(b"\n")[:-1]:
        kind = json.loads(line)["type"]
        kept.append(Kept({"host.info": "host", "control": "control"}.get(kind, kind.rpartition(".")[2]), line))
    return kept


class TestPipeContract(RemoteSinkContract):
    """What every sink must do, into a pipe whose reader stops reading."""

    @pytest.fixture(autouse=True)
    def _pipe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.path = tmp_path / "read"
        with self.path.open("wb") as copy, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=copy) as self.reader:
            monkeypatch.setattr(sys, "__stdout__", self.reader.stdin)
            yield
            self.reader.kill()

    async def make_sink(self) -> JsonLinesSink:
        return JsonLinesSink()

    async def read_back(self) -> list[Kept]:
        assert self.reader.stdin is not None
        self.reader.stdin.close()
        self.reader.wait(30)
        return [one for one in _kept(self.path.read_bytes()) if one.topic != "state"]

    async def read_state(self) -> None:
        return None

    async def stall(self) -> None:
        self.reader.send_signal(signal.SIGSTOP)

    async def resume(self) -> None:
        self.reader.send_signal(signal.SIGCONT)


class TestFileContract(SinkContract):
    """What every sink must do, in a file."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "ö out.jsonl"

    async def make_sink(self) -> JsonLinesSink:
        return JsonLinesSink(str(self.path))

    async def read_back(self) -> list[Kept]:
        return [one for one in _kept(self.path.read_bytes()) if one.topic != "state"]

    async def read_state(self) -> None:
        return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def _batch(count: int = 100) -> list[Entry]:
    return encoded([Speaker("h").stats(f"c{number}") for number in range(count)])


def _lines(entries: list[Entry]) -> bytes:
    return b"".join((entry.value or b"") + b"\n" for entry in entries)


async def test_tombstones_are_left_out(path: Path) -> None:
    """An entry without a value is acknowledged and leaves no line."""
    speaker = Speaker("h")
    sink = JsonLinesSink(str(path))
    await sink.connect()
    assert not (await sink.send(encoded([speaker.tombstone("c")]))).rejected
    await sink.close()
    assert path.read_bytes() == b""


async def test_a_rotated_file_is_begun_anew(path: Path) -> None:
    """After a rename or a removal the next batch goes into a new file of the same name; the old one is left alone."""
    batch = _batch(6)
    sink = JsonLinesSink(str(path))
    await sink.connect()
    await sink.send(batch[:2])
    path.rename(path.with_suffix(".1"))
    await sink.send(batch[2:4])
    path.unlink()
    await sink.send(batch[4:])
    await sink.close()
    assert path.with_suffix(".1").read_bytes() == _lines(batch[:2])
    assert path.read_bytes() == _lines(batch[4:])


async def test_a_torn_last_line_is_cut_off_when_the_file_is_opened(path: Path) -> None:
    """What a killed agent left of a line goes; the whole lines before it stay, however long the torn one is."""
    whole, torn = _lines(_batch(3)), b'{"type":"' + b"x" * 3_000_000
    for before in (whole, b""):
        path.write_bytes(before + torn)
        sink = JsonLinesSink(str(path))
        await sink.connect()
        await sink.close()
        assert path.read_bytes() == before


async def test_a_file_that_is_not_ours_is_not_touched(path: Path) -> None:
    """A last line without an end that is no JSON object belongs to somebody else: refused, nothing cut."""
    path.write_bytes(b"root:x:0:0")
    sink = JsonLinesSink(str(path))
    with pytest.raises(PermanentlyRefused, match="none of ours"):
        await sink.connect()
    await sink.close()
    assert path.read_bytes() == b"root:x:0:0"


async def test_two_writers_of_one_file_are_refused(path: Path) -> None:
    """The second sink on a file is refused until the first one lets go."""
    first, second = JsonLinesSink(str(path)), JsonLinesSink(str(path))
    await first.connect()
    with pytest.raises(PermanentlyRefused, match="another process"):
        await second.connect()
    await first.close()
    await second.connect()
    await second.close()


async def test_a_path_that_cannot_be_opened_names_the_remedy(tmp_path: Path) -> None:
    """Missing directory, directory instead of a file: refused, with path, the system's words, and what to do."""
    for bad, words, remedy in (
        (tmp_path / "no" / "x", "No such file", "create the directory"),
        (tmp_path, "Is a directory", "name a file"),
    ):
        sink = JsonLinesSink(str(bad))
        with pytest.raises(PermanentlyRefused, match=words) as refused:
            await sink.connect()
        await sink.close()
        assert str(bad) in refused.value.problem
        assert remedy in refused.value.remedy


async def test_a_full_disk_leaves_whole_lines_and_is_retried(full_disk: Path) -> None:
    """ENOSPC in the middle of a batch: NotConnected, the file is JSON Lines all the same; with room again all is there, once."""
    filler = full_disk / "filler"
    path = full_disk / "out.jsonl"
    batch = _batch(2000)
    filler.write_bytes(b"x" * 700_000)
    sink = JsonLinesSink(str(path))
    await sink.connect()
    with pytest.raises(NotConnected, match="No space left"):
        await sink.send(batch)
    part = path.read_bytes()
    assert part
    assert _lines(batch).startswith(part)
    assert part.endswith(b"\n")
    with pytest.raises(NotConnected, match="No space left"):
        await sink.send(batch)
    await sink.close()
    filler.unlink()
    await sink.connect()
    await sink.send(batch)
    await sink.close()
    assert path.read_bytes() == _lines(batch)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_reader_of_stdout_that_went_away_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """`streamer run | head -1`: nothing can bring the reader back, so that is the end of this sink."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        monkeypatch.setattr(sys, "__stdout__", stdout)
        sink = JsonLinesSink()
        await sink.connect()
        with pytest.raises(PermanentlyRefused, match="went away") as refused:
            await sink.send(_batch(1))
        await sink.close()
        assert refused.value.final


async def test_a_line_that_was_torn_by_a_deadline_is_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocked pipe has got a part of a batch when the send is cancelled: the rest of it follows, no line twice, none torn."""
    reading, writing = os.pipe()
    batch = _batch(1000)
    with os.fdopen(writing, "wb") as stdout, os.fdopen(reading, "rb") as reader:
        monkeypatch.setattr(sys, "__stdout__", stdout)
        sink = JsonLinesSink()
        await sink.connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await sink.send(batch)
        await sink.close()
        await sink.connect()
        read = asyncio.ensure_future(asyncio.to_thread(reader.read))
        urgent = encoded([Speaker("h").control()], first_position=5000)
        await sink.send(urgent)
        await sink.send(batch)
        await sink.close()
        stdout.close()
        kept = (await read).split(b"\n")[:-1]
        urgent_value = urgent[0].value or b""
        assert kept.count(urgent_value) == 1
        assert [line for line in kept if line != urgent_value] == [entry.value for entry in batch]


async def test_a_fifo_without_a_reader_is_retried(path: Path) -> None:
    """A FIFO that nobody reads is not connected; with a reader it is."""
    os.mkfifo(path)
    sink = JsonLinesSink(str(path))
    with pytest.raises(NotConnected):
        await sink.connect()
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.connect()
    await sink.send(_batch(1))
    assert os.read(reading, 100_000) == _lines(_batch(1))
    os.close(reading)
    with pytest.raises(NotConnected):
        await sink.send(_batch(1))
    await sink.close()


async def test_labels_are_nobody_elses_business(path: Path) -> None:
    """A new file can be read by its owner and group only."""
    sink = JsonLinesSink(str(path))
    await sink.connect()
    await sink.close()
    assert path.stat().st_mode & 0o007 == 0


async def test_a_file_system_that_became_read_only_is_the_operators_matter(full_disk: Path) -> None:
    """EROFS is refused with a remedy; writable again, the rest is appended."""
    path = full_disk / "out.jsonl"
    batch = _batch(4)
    sink = JsonLinesSink(str(path))
    await sink.connect()
    await sink.send(batch[:2])
    await sink.close()
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    with pytest.raises(PermanentlyRefused, match="Read-only") as refused:
        await sink.connect()
    await sink.close()
    assert "writable" in refused.value.remedy
    subprocess.run(["mount", "-o", "remount,rw", str(full_disk)], check=True)
    await sink.connect()
    await sink.send(batch[2:])
    await sink.close()
    assert path.read_bytes() == _lines(batch)
