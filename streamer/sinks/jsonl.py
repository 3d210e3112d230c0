"""JSON Lines on stdout or in a file: one value per line, tombstones left out.

Writing happens in a thread of the sink's own, because a pipe may block for hours (`streamer run | less`). It never
sits in a write that could block: it waits for room in slices and writes no more than a pipe takes at once, so it can
be called off. What was written before that is remembered: the next attempt ends the torn line and goes on behind it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import stat
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from streamer.config import Publishing, SinkSettings
from streamer.contracts import Receipt
from streamer.errors import ConfigError, NotConnected, PermanentlyRefused
from streamer.model.messages import Lane
from streamer.model.wire import Entry

_SLICE_MS: Final = 100  # how long a blocked writer takes to notice that it was called off
_PIPE_ROOM: Final = select.PIPE_BUF  # what a pipe that polls writable takes without blocking (pipe(7))
_FILE_ROOM: Final = 1 << 20
_MODE: Final = 0o640  # labels of containers are nobody else's business
_OURS: Final = b"{"  # how every line we write begins: only a torn tail of our own is cut off
_CLOSE_SECONDS: Final = 2.0

_REMEDIES: Final = {
    errno.EACCES: "give the agent's user permission to read and write it",
    errno.EPERM: "give the agent's user permission to read and write it",
    errno.EROFS: "choose a path on a writable file system",
    errno.ENOENT: "create the directory",
    errno.ENOTDIR: "a part of the path is no directory: correct the path",
    errno.EISDIR: "the path is a directory: name a file in it",
    errno.ENAMETOOLONG: "shorten the path",
    errno.ELOOP: "correct the symbolic links of the path",
}
"""Errors of opening that stay until somebody acts; all others (ENOSPC, EIO, ENXIO, EMFILE, …) may pass."""


class JsonLinesSink:
    """`stdout:` or `file:///path`. Acknowledged means handed to the kernel; a power failure can take the last seconds."""

    def __init__(self, path: str = "") -> None:
        """`path`: the file to append to; empty: this process's stdout."""
        self.name = "file" if path else "stdout"
        self._path = path
        self._fd = -1
        self._connected = False
        self._is_file = False
        self._executor: ThreadPoolExecutor | None = None
        self._writing: asyncio.Future[None] | None = None
        self._called_off = threading.Event()
        self._owed = b""  # the rest of a line that a pipe has the beginning of
        self._through: dict[Lane, set[int]] = {"durable": set(), "stats": set()}  # positions a failed batch got out

    @classmethod
    def from_settings(cls, settings: SinkSettings, publishing: Publishing, host_id: str) -> Self:
        """`make`'s entry. Raises ConfigError for a URL that names no absolute path."""
        if settings.url.startswith("stdout:"):
            return cls()
        parts = urlsplit(settings.url)
        path = unquote(parts.path)
        if parts.netloc or not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ConfigError(
                "not the absolute path of a file", key="sinks.url", value=settings.url, remedy="write file:///directory/name.jsonl"
            )
        return cls(path)

    def describe(self) -> str:
        return f"file://{self._path}" if self._path else "stdout:"

    async def connect(self) -> None:
        """Open the file, lock it, and repair a line that an earlier run left torn."""
        await self._in_thread(self._open)
        self._connected = True

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        if not self._connected:
            raise NotConnected("not connected")
        lines = [(entry.position, entry.value + b"\n") for entry in batch if entry.value is not None]
        if lines:
            await self._in_thread(self._write, batch[0].topic.lane, lines)
        return Receipt()

    async def close(self) -> None:
        """Call off what is being written and let the file go; a thread the kernel will not let go of is left behind."""
        self._connected = False
        self._called_off.set()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing], timeout=_CLOSE_SECONDS)
            if not self._writing.done():
                return  # `connect` refuses until it comes back
        self._shut()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        if self._writing is not None and not self._writing.done():
            raise NotConnected(f"{self.describe()} still blocks in an earlier write")
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"sink.{self.name}")
        self._called_off.clear()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._executor, work, *arguments)
        self._writing.add_done_callback(_seen)
        await asyncio.shield(self._writing)  # cancelled by a deadline, the thread goes on until `close` calls it off

    def _open(self) -> None:
        if self._path:
            self._open_path()
            return
        # Not sys.stdout: its buffer would keep lines back, and what is acknowledged here must be with the kernel.
        self._fd = sys.__stdout__.fileno() if sys.__stdout__ is not None else -1
        if not _is_open(self._fd):
            raise PermanentlyRefused("stdout is closed", remedy="do not close stdout, or configure another sink", final=True)

    def _open_path(self) -> None:
        if self._in_place():
            return
        self._shut()
        if not self._is_file:  # a FIFO's new reader has not seen the beginning of what the old one was owed
            self._owed, self._through = b"", {"durable": set(), "stats": set()}
        try:
            # Non-blocking only matters to a FIFO: without a reader it answers ENXIO instead of waiting for one.
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._is_file:
                self._lock()
                self._repair()
        except OSError as error:
            self._shut()
            raise self._refusal(error) from error

    def _lock(self) -> None:
        """One writer per file: a second one would be cut off in the middle of a line by the first one's repair."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._shut()
            raise PermanentlyRefused(
                f"{self._path}: another process writes to it", remedy="stop the other agent, or give this sink a file of its own"
            ) from error

    def _repair(self) -> None:
        """Cut off a last line that has no end: its writer was killed in the middle of it, and sends it again."""
        with open(self._path, "rb") as file:
            good, tail = file.seek(0, os.SEEK_END), b""
            while good > 0 and b"\n" not in tail:
                start = max(0, good - _FILE_ROOM)
                file.seek(start)
                tail, good = file.read(good - start) + tail, start
        line_end = tail.rfind(b"\n") + 1
        torn = tail[line_end:]
        if torn and not torn.startswith(_OURS):
            self._shut()
            raise PermanentlyRefused(
                f"{self._path}: its last line is none of ours", remedy="name a file that only this agent writes"
            )
        if torn:
            os.ftruncate(self._fd, good + line_end)

    def _in_place(self) -> bool:
        """Whether the path still names the open file: a rotated one is left alone and a new one begun."""
        try:
            there, here = os.stat(self._path), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _write(self, lane: Lane, lines: list[tuple[int, bytes]]) -> None:
        if self._path:
            self._open_path()
        before = self._through[lane]
        todo = [(position, line) for position, line in lines if position not in before]
        data = self._owed + b"".join(line for _, line in todo)
        cuts = list(accumulate((len(line) for _, line in todo), initial=len(self._owed)))  # where each line ends
        size = os.fstat(self._fd).st_size
        done = 0
        try:
            while done < len(data):
                self._wait_for_room()
                done += self._write_some(data, done)
        except OSError as error:
            raise self._refusal(error) from error
        finally:
            if self._is_file:
                whole = bisect_right(cuts, done) - 1
                if done > cuts[whole]:
                    self._cut_back(size + cuts[whole])
            else:
                whole = bisect_left(cuts, done)
                self._owed = data[done : cuts[whole]]
            finished = whole == len(todo) and not self._owed
            self._through[lane] = set() if finished else {position for position, _ in todo[:whole]} | before
            self._through[lane].intersection_update(position for position, _ in lines)

    def _write_some(self, data: bytes, start: int) -> int:
        try:
            return os.write(self._fd, data[start : start + (_FILE_ROOM if self._is_file else _PIPE_ROOM)])
        except BlockingIOError:  # somebody made our stdout non-blocking, and its room is smaller than poll() thinks
            self._called_off.wait(_SLICE_MS / 1000)
            return 0

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not self._called_off.is_set():
            if poll.poll(_SLICE_MS):  # writable, or an error that the write will name
                return
        raise NotConnected(f"{self.describe()} takes nothing")

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._shut()  # opening it again repairs it

    def _refusal(self, error: OSError) -> NotConnected | PermanentlyRefused:
        where = self._path or "stdout"
        text = f"{where}: {os.strerror(error.errno) if error.errno else error}"
        if not self._path and error.errno == errno.EPIPE:
            return PermanentlyRefused("stdout: the reader went away", final=True)
        if error.errno in _REMEDIES:
            return PermanentlyRefused(text, remedy=_REMEDIES[error.errno])
        return NotConnected(text)

    def _shut(self) -> None:
        if self._path and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _seen(work: asyncio.Future[None]) -> None:
    """An outcome nobody waits for any more is known all the same: `connect` and the next batch find what it left."""
    if not work.cancelled():
        work.exception()
