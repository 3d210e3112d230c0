"""A picture of 24 bits a pixel with 256 colours instead: a third of the bytes, and no eye sees it on a page of text and lines.

The format: https://www.w3.org/TR/png-3/. Only what Chromium writes is read: 8 bits a channel, not interlaced.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}
_COLOURS = 256
_HARDLY = 100
"""Sum of the squares of the differences of red, green and blue."""


def smaller(picture: bytes) -> bytes:
    """The same picture in 256 of its colours, each other one as the nearest of these."""
    width, height, rows = _pixels(picture)
    palette = _palette(Counter(colour for row in rows for colour in row))

    @functools.cache
    def nearest(colour: bytes) -> int:
        return min(range(len(palette)), key=lambda at: _apart(palette[at], colour))

    lines = b"".join(b"\0" + bytes(nearest(colour) for colour in row) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return _MAGIC + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _palette(colours: Counter[bytes]) -> list[bytes]:
    """The most frequent ones, but none that is hardly another than one before it: there is room for what is rare and bright."""
    chosen: list[bytes] = []
    for colour, _ in colours.most_common():
        if len(chosen) < _COLOURS and all(_apart(colour, other) > _HARDLY for other in chosen):
            chosen.append(colour)
    return chosen


def _apart(a: bytes, b: bytes) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _pixels(picture: bytes) -> tuple[int, int, list[list[bytes]]]:
    """Width, height, and rows of colours."""
    chunks = list(_chunks(picture))
    width, height, depth, kind, *_, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, interlaced) == (8, 0)
    step = _CHANNELS[kind]
    raw = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    before = bytearray(width * step)
    rows = []
    for at in range(0, len(raw), width * step + 1):
        before = _unfiltered(raw[at], bytearray(raw[at + 1 : at + 1 + width * step]), before, step)
        rows.append([bytes(before[x : x + 3]) for x in range(0, len(before), step)])
    return width, height, rows


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_MAGIC)
    while at < len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        yield picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        at += size + 12


def _unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    for x in range(len(line)):
        left = line[x - step] if x >= step else 0
        corner = above[x - step] if x >= step else 0
        line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2, _paeth(left, above[x], corner))[kind]) & 255
    return line


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((abs(guess - left), 0, left), (abs(guess - above), 1, above), (abs(guess - corner), 2, corner))[2]
