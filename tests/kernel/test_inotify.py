"""inotify, on real directories."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import Unsupported
from streamer.kernel import inotify
from streamer.kernel.inotify import Event, Inotify, parse


@pytest.fixture
def watcher() -> Iterator[Inotify]:
    instance = Inotify()
    yield instance
    instance.close()


def test_directories_that_come_and_go_are_told(watcher: Inotify, tmp_path: Path) -> None:
    """With their names and in order; nothing more to read is an empty list."""
    wd = watcher.add(str(tmp_path), inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_ONLYDIR)
    (tmp_path / "a b").mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    (tmp_path / "a b").rmdir()
    assert select.select([watcher.fd], [], [], 10)[0]
    made, removed = inotify.IN_CREATE | inotify.IN_ISDIR, inotify.IN_DELETE | inotify.IN_ISDIR
    assert watcher.read() == [Event(wd, made, "a b"), Event(wd, made, os.fsdecode(b"\xff")), Event(wd, removed, "a b")]
    assert watcher.read() == []


def test_watch_of_a_removed_directory_ends(watcher: Inotify, tmp_path: Path) -> None:
    """IN_IGNORED is its last word; removing it then is no error."""
    directory = tmp_path / "a"
    directory.mkdir()
    wd = watcher.add(os.fsencode(directory), inotify.IN_DELETE_SELF)
    directory.rmdir()
    assert [(event.wd, event.name) for event in watcher.read()] == [(wd, ""), (wd, "")]
    watcher.remove(wd)


def test_removed_watch_tells_nothing_more(watcher: Inotify, tmp_path: Path) -> None:
    """But that it ended."""
    wd = watcher.add(str(tmp_path), inotify.IN_CREATE)
    watcher.remove(wd)
    (tmp_path / "a").mkdir()
    assert [event.mask for event in watcher.read()] == [inotify.IN_IGNORED]


@pytest.mark.slow
def test_queue_that_overflows_says_so(watcher: Inotify, tmp_path: Path) -> None:
    """More events than fs.inotify.max_queued_events, unread."""
    watcher.add(str(tmp_path), inotify.IN_CREATE | inotify.IN_DELETE)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 2):
        directory = str(tmp_path / str(number % 2))
        os.mkdir(directory)
        os.rmdir(directory)
    events = []
    while batch := watcher.read():
        events += batch
    assert events[-1] == Event(-1, inotify.IN_Q_OVERFLOW, "")
    assert len(events) == most + 1


def test_path_that_is_not_there(watcher: Inotify, tmp_path: Path) -> None:
    """Is said with the path."""
    with pytest.raises(FileNotFoundError) as problem:
        watcher.add(str(tmp_path / "no"), inotify.IN_CREATE)
    assert problem.value.filename == str(tmp_path / "no")


def test_path_that_is_not_for_us(watcher: Inotify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is unsupported, with a remedy: whoever watches goes on without it."""
    monkeypatch.setattr(inotify, "_libc", _Refusing(errno.EACCES))
    with pytest.raises(Unsupported, match="cannot be watched"):
        watcher.add(os.fsencode(tmp_path), inotify.IN_CREATE)


class _Refusing:
    """A libc whose calls fail: the limits of the machine are not ours to exhaust."""

    def __init__(self, code: int) -> None:
        self._code = code

    def _fail(self, *_: object) -> int:
        ctypes.set_errno(self._code)
        return -1

    inotify_init1 = inotify_add_watch = _fail


@pytest.mark.parametrize(("code", "word"), [(errno.EMFILE, "max_user_instances="), (errno.ENOSYS, "CONFIG_INOTIFY_USER")])
def test_no_instance_left_is_said_with_a_remedy(code: int, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE: too many instances of this user."""
    monkeypatch.setattr(inotify, "_libc", _Refusing(code))
    with pytest.raises(Unsupported) as problem:
        Inotify()
    assert word in problem.value.remedy


def test_no_watch_left_is_said_with_a_remedy(watcher: Inotify, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC: twice the present limit is proposed."""
    monkeypatch.setattr(inotify, "_libc", _Refusing(errno.ENOSPC))
    limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    with pytest.raises(Unsupported) as problem:
        watcher.add("/", inotify.IN_CREATE)
    assert problem.value.remedy == f"sysctl fs.inotify.max_user_watches={2 * limit}"


def test_closing_twice_is_closing_once() -> None:
    """The second time must not close somebody else's descriptor."""
    instance = Inotify()
    assert not os.get_inheritable(instance.fd)
    instance.close()
    assert instance.fd == -1
    instance.close()


@given(
    st.binary()
    | st.tuples(st.integers(-1, 9), st.integers(0, 2**32 - 1), st.binary(max_size=20)).map(
        lambda e: struct.pack("iIII", e[0], e[1], 0, len(e[2])) + e[2]
    )
)
def test_any_bytes_are_events_or_nothing(raw: bytes) -> None:
    """A cut-off record ends the list."""
    assert all(isinstance(event, Event) for event in parse(raw))
