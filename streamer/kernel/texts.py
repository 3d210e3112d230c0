"""What the files of one cgroup say, read together, and which of them say something new."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import repeat
from typing import Final

_START: Final = repeat(0)
_NONE: Final = ()
_PAGE: Final = 4000
_PAGE_NEARLY: Final = 2000
"""Of a list the kernel gives at most a page at once, and whole lines: less than this is the end of it."""


class Texts:
    """The files behind some descriptors, each read from its beginning. After an error it is of no more use.

    sizes  bytes to ask for, by place; grows where a file is longer, for all who share the list
    """

    def __init__(self, descriptors: Sequence[int], sizes: list[int]) -> None:
        self._descriptors, self._sizes = tuple(descriptors), sizes
        self._seen: list[bytes] = [b""] * len(self._descriptors)
        self._first = True

    def changed(self) -> Sequence[int]:
        """Read all of them; the places of those that do not say the same as at the last call, at the first call all.

        Raises:
            OSError: one cannot be read.
        """
        seen, sizes = self._seen, self._sizes
        # Reading and comparing run in C. One call into a C library for all files of a cgroup was no quicker than this.
        found = [*map(os.pread, self._descriptors, sizes, _START)]
        if found == seen and not self._first:
            return _NONE
        places = []
        for place, raw in enumerate(found):
            if raw != seen[place] or self._first:
                while len(raw) >= sizes[place]:
                    sizes[place] *= 2
                    raw = os.pread(self._descriptors[place], sizes[place], 0)  # noqa: PLW2901  the same file, more of it
                seen[place] = raw
                places.append(place)
        self._first = False
        return places

    def reopened(self, descriptors: Sequence[int]) -> None:
        """The very same files are behind these descriptors from now on."""
        self._descriptors = tuple(descriptors)

    def text(self, place: int) -> bytes:
        """What the file at this place said at the last call."""
        return self._seen[place]


def count_lines(descriptor: int, name: str = "") -> int:
    """Lines of an open list, or of the one of that name in an open directory.

    Raises:
        OSError: it cannot be read.
    """
    if not name:
        return _count_opened(descriptor)
    opened = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        return _count_opened(opened)
    finally:
        os.close(opened)


def _count_opened(descriptor: int) -> int:
    chunk = os.pread(descriptor, _PAGE, 0)
    lines, at = chunk.count(b"\n"), len(chunk)
    while len(chunk) >= _PAGE_NEARLY:
        chunk = os.pread(descriptor, _PAGE, at)
        lines += chunk.count(b"\n")
        at += len(chunk)
    return lines


def read_whole(descriptor: int) -> bytes:
    """All that a file says.

    Raises:
        OSError: it cannot be read.
    """
    size = _PAGE
    while len(raw := os.pread(descriptor, size, 0)) == size:
        size *= 2
    return raw
