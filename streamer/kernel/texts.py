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

    sizes    bytes to ask for, by place; grows where a file is longer, for all who share the list
    follows  (place, leader): what the file at this place says changes only if the leader's does, in the same look or the next
    """

    def __init__(self, descriptors: Sequence[int], sizes: list[int], follows: Sequence[tuple[int, int]] = ()) -> None:
        self._descriptors, self._sizes, self._follows = tuple(descriptors), sizes, follows
        self._seen: list[bytes | None] = [None] * len(self._descriptors)
        self._resting: Sequence[int] = ()  # places that are not read while their leaders stand still
        self._ask()

    def _ask(self) -> None:
        """Read all but those that rest from now on."""
        self._places = [place for place in range(len(self._descriptors)) if place not in self._resting]
        self._asked = [self._descriptors[place] for place in self._places]
        self._bytes = [self._sizes[place] for place in self._places]
        self._said = [self._seen[place] for place in self._places]
        self._all_rest = len(self._resting) == len(self._follows)

    def changed(self) -> Sequence[int]:
        """Read them; the places of those that do not say the same as at the last call, at the first call all.

        Raises:
            OSError: one cannot be read.
        """
        # Reading and comparing run in C. One call into a C library for all files of a cgroup was no quicker than this.
        found = [*map(os.pread, self._asked, self._bytes, _START)]
        if found == self._said:
            if not self._all_rest:
                self._let_rest(_NONE)
            return _NONE
        places = []
        for at, raw in enumerate(found):
            if raw != self._said[at]:
                place = self._places[at]
                self._said[at], self._bytes[at] = self._take(place, raw, self._bytes[at])
                places.append(place)
        for place, leader in self._follows:
            if place in self._resting and leader in places:
                asked = self._sizes[place]
                raw = os.pread(self._descriptors[place], asked, 0)
                if raw != self._seen[place]:
                    self._take(place, raw, asked)
                    places.append(place)
        self._let_rest(places)
        return places

    def _take(self, place: int, raw: bytes, asked: int) -> tuple[bytes, int]:
        """What the file at this place says, of which so many bytes were asked for; and how many it takes.

        What was asked for tells whether there is more: the shared size may have grown meanwhile, by another's reading.
        """
        while len(raw) >= asked:
            asked = self._sizes[place] = max(self._sizes[place], 2 * asked)
            raw = os.pread(self._descriptors[place], asked, 0)
        self._seen[place] = raw
        return raw, asked

    def _let_rest(self, changed: Sequence[int]) -> None:
        """Those whose leader is not among the places that have changed."""
        resting = [place for place, leader in self._follows if leader not in changed]
        if resting != self._resting:
            self._resting = resting
            self._ask()

    def reopened(self, descriptors: Sequence[int]) -> None:
        """The very same files are behind these descriptors from now on."""
        self._descriptors = tuple(descriptors)
        self._ask()

    def text(self, place: int) -> bytes:
        """What the file at this place said at the last call."""
        return self._seen[place] or b""


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
