"""The state file on a real disk that is full or read-only, after a run that was killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.config import Outbox as OutboxSettings
from streamer.outbox.lock import StoreFailed
from streamer.outbox.state import State, open_state
from streamer.outbox.store import Work
from streamer.testing.messages import Speaker, encoded

pytestmark = [pytest.mark.live]

_KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from streamer.config import Outbox
from streamer.model.inventory import Checkpoint
from streamer.outbox.state import open_state
from streamer.outbox.leftovers import Cursor
from streamer.outbox.store import Work
from streamer.testing.messages import Speaker, encoded
state = open_state(Path(sys.argv[1]), Outbox(), 1)
speaker = Speaker(epoch=1000)
point = Checkpoint(epoch=1000, boot_id="b", alive_ns=5)
state.store.commit([Work(encoded([speaker.oom(str(n)) for n in range(50)]), (), point, [Cursor("k", "kafka", 10)])], 1)
state.lock.sign(1000)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
state.store.close()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "streamer-test", str(where)], check=True)
    yield where
    subprocess.run(["umount", str(where)], check=True)


def _earlier_run(where: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_RUN, str(where), how], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == (-9 if how == "killed" else 0)


def _fill(where: Path) -> Path:
    ballast = where / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


def _close(state: State) -> None:
    assert state.store is not None and state.lock is not None
    state.store.close()
    state.lock.close()


@pytest.mark.parametrize("how", ["killed", "ended"])
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_what_was_left_is_read_and_written_to_again_when_the_disk_is_mended(disk: Path, how: str, fault: str) -> None:
    """A start on a disk that takes nothing: the past and the messages are there, and the file is used once it can be."""
    _earlier_run(disk, how)
    ballast = disk / "ballast"
    if fault == "full":
        _fill(disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    state = open_state(disk, OutboxSettings(), 1)
    assert state.store is not None and state.past.epoch == 1000 and state.past.alive_ns == 5
    entries, _ = state.store.read("durable", 0, 999, frozenset({"oom"}), 10**9)
    assert len(entries) == 40 and state.store.leftovers.cursors()["k"].durable == 10
    more = encoded([Speaker(epoch=2000).oom("x", labels={"a": "b" * 200_000})], first_position=100)
    with pytest.raises(StoreFailed) as failed:
        state.store.commit([Work(more)], 2)
    assert not failed.value.damaged
    if fault == "full":
        ballast.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    state.store.commit([Work(more)], 2)
    state.store.commit([Work()], 3)
    assert state.store.file.writable
    assert len(state.store.read("durable", 0, 999, frozenset({"oom"}), 10**9)[0]) == 41
    _close(state)
    again = open_state(disk, OutboxSettings(), 4)
    assert (again.trouble, again.store.last[0] if again.store else 0) == ("", 100)
    _close(again)


def test_the_first_start_on_a_full_disk_begins_when_there_is_room(disk: Path) -> None:
    """Nothing was left, nothing can be written; then it can."""
    ballast = _fill(disk)
    state = open_state(disk, OutboxSettings(), 1)
    assert state.trouble and state.store is not None and state.past.epoch == 0
    ballast.unlink()
    state.store.commit([Work(encoded([Speaker().oom("x")]))], 2)
    assert len(state.store.read("durable", 0, 999, frozenset({"oom"}), 10**9)[0]) == 1
    _close(state)


def test_a_file_that_could_only_be_read_later_is_put_aside(disk: Path) -> None:
    """Its messages cannot be sent in order any more, and must not be deleted unsent either."""
    _earlier_run(disk, "ended")
    file = disk / "state.db"
    file.rename(disk / "hidden")
    file.mkdir()  # neither readable nor damaged: it cannot be opened
    state = open_state(disk, OutboxSettings(), 1)
    assert state.trouble and state.store is not None and state.past.unread and state.past.epoch == 1000
    file.rmdir()
    (disk / "hidden").rename(file)
    with pytest.raises(StoreFailed) as failed:
        state.store.commit([Work(encoded([Speaker().oom("x")]))], 2)
    assert failed.value.damaged
    assert Path(state.store.set_aside(9)).exists()
    state.store.commit([Work(encoded([Speaker().oom("x")]))], 2)
    _close(state)
