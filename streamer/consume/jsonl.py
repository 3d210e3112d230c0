"""Reads a file of JSON Lines up to the size it has when it is opened: bytes in, lines out, a chunk at a time."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from typing import BinaryIO, Final, Self
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from streamer.consume import Batch, Place, Progress, Raw, Selection
from streamer.consume.values import BROKEN, topic_of, unwrap
from streamer.errors import ConfigError, NotConnected, PermanentlyRefused
from streamer.model.messages import CONTROL

_CHUNK_BYTES: Final = 1 << 20
LONGEST_LINE: Final = 16 << 20  # of what is longer only so much is looked at: it is none of ours


class _Head(Struct):
    time_ms: int
    seq: int


_head: Final = msgspec.json.Decoder(_Head)


class JsonLinesReader:
    """`file:///path.jsonl`, also while an agent writes to it."""

    def __init__(self, path: str, selection: Selection) -> None:
        self.kind = "file"
        self.notes: list[str] = []
        self._path, self._since_ms = path, selection.since_ms
        self._file: BinaryIO | None = None
        self._size = self._done = 0
        self._begun = selection.since_ms is None

    @classmethod
    def from_url(cls, url: str, selection: Selection, *, password: str | None) -> Self:
        """`reader`'s entry. Raises ConfigError for a URL that names no absolute path."""
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc or not url.startswith("file:///") or path.endswith("/") or "\0" in path:
            raise ConfigError("not the absolute path of a file", key="URL", value=url, remedy="write file:///directory/name.jsonl")
        return cls(path, selection)

    def describe(self) -> str:
        return f"file://{self._path}"

    async def open(self) -> None:
        try:
            # Non-blocking: a FIFO without a writer would be waited for.
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise PermanentlyRefused(
                f"{self._path}: {os.strerror(error.errno or 0)}", remedy="name a file that can be read"
            ) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise PermanentlyRefused(f"{self._path} is no regular file", remedy="let what comes go into a file, and name that")
        self._file, self._size = os.fdopen(fd, "rb", buffering=0), status.st_size

    async def batches(self) -> AsyncIterator[Batch]:
        place = Place(self._path, "line ", trimmed="--since" if self._since_ms is not None else "", from_ms=self._since_ms)
        lines, told = Lines(), False
        while self._done < self._size:
            chunk = await asyncio.to_thread(self._chunk)
            if not chunk:
                self.notes.append(f"{self._path} was cut short while it was read")
                break
            records = self._records(lines.feed(chunk))
            if records:
                if not told and not place.trimmed and not _first_of_a_run(records[0]):
                    place = place._replace(trimmed="the file begins in the middle of a run")
                told = True
                yield Batch(place, records)
        if lines.torn:
            self.notes.append(f"the last line has no end: it is being written, or its writer was stopped ({lines.torn} bytes)")
        if not told:
            yield Batch(place, ())

    def progress(self) -> Progress:
        return Progress(self._done, self._size, "bytes")

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _chunk(self) -> bytes:
        if self._file is None:
            raise NotConnected("not open")
        try:
            chunk = self._file.read(min(_CHUNK_BYTES, self._size - self._done)) or b""
        except OSError as error:
            raise NotConnected(f"{self._path}: {os.strerror(error.errno or 0)}") from error
        self._done += len(chunk)
        return chunk

    def _records(self, lines: list[tuple[int, bytes]]) -> list[Raw]:
        records: list[Raw] = []
        for number, line in lines:
            value, transport_id = unwrap(line)
            if not self._begun:
                self._begun = _is_from(value, self._since_ms or 0)
            if self._begun:
                records.append(Raw(topic_of(value), value, number, None, transport_id))
        return records


class Lines:
    """Chunks in, whole lines out with their numbers. A line longer than `LONGEST_LINE` is told cut off, once."""

    def __init__(self) -> None:
        self.torn = 0  # bytes after the last line end so far
        self._number = 0
        self._rest = b""
        self._overlong = False

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """The lines that end in this chunk."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        found: list[tuple[int, bytes]] = []
        for line in whole:
            self._number += 1
            if not self._overlong:
                found.append((self._number, line))
            self._overlong = False
        self.torn = len(rest) + (0 if whole else self.torn - len(self._rest))
        if len(rest) > LONGEST_LINE and not self._overlong:
            found.append((self._number + 1, rest[:LONGEST_LINE]))
            self._overlong = True
        self._rest = b"" if self._overlong else rest
        return found


def _is_from(value: bytes, since_ms: int) -> bool:
    try:
        return _head.decode(value).time_ms >= since_ms
    except BROKEN:
        return False


def _first_of_a_run(record: Raw) -> bool:
    try:
        return record.topic is CONTROL and _head.decode(record.value).seq == 1
    except BROKEN:
        return False
