"""Tables, sizes and colours for people. Pure but for the questions to the terminal in `Screen.of`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Final, NamedTuple, TextIO

_ESCAPES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Screen(NamedTuple):
    """Where text goes: how wide it is, and whether it shows colours and more than ASCII."""

    width: int
    colours: bool
    unicode: bool

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The screen behind a stream; without a terminal nothing is cut off (https://no-color.org is honoured)."""
        terminal = stream.isatty()
        colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        return cls(shutil.get_terminal_size().columns if terminal else 10_000, colours, unicode)

    def paint(self, text: str, *styles: str) -> str:
        """The text in a colour, where there are colours."""
        if not self.colours or not styles:
            return text
        return f"\x1b[{';'.join(_ESCAPES[style] for style in styles)}m{text}\x1b[0m"

    def cut(self, text: str, width: int) -> str:
        """At most `width` characters, with an ellipsis where something was cut off: of paths the end is kept."""
        if len(text) <= width:
            return text
        ellipsis = "…" if self.unicode else "..."
        if text.startswith("/") and width > len(ellipsis):
            return ellipsis + text[len(ellipsis) - width :]
        return text[: max(0, width - len(ellipsis))] + ellipsis[:width]

    def bar(self, share: float, width: int = 6) -> str:
        """`███░░░` for 0.5."""
        full = min(width, max(0, round(share * width)))
        on, off = ("█", "░") if self.unicode else ("#", ".")
        return on * full + off * (width - full)


class Column(NamedTuple):
    """A column: its heading, whether numbers stand in it, and what happens on a narrow screen.

    rank    the highest goes first when the screen is too narrow; 0 always stays
    least   it may be cut down to so many characters; 0: never
    """

    heading: str
    right: bool = False
    rank: int = 0
    least: int = 0


_GAP: Final = 2


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen) -> str:
    """Rows under headings, within the width of the screen."""
    keep = list(range(len(columns)))
    widths = [max([len(column.heading), *(len(row[at]) for row in rows)]) for at, column in enumerate(columns)]

    def narrowest(at: int) -> int:
        return min(widths[at], max(columns[at].least, len(columns[at].heading))) if columns[at].least else widths[at]

    while sum(map(narrowest, keep)) + _GAP * (len(keep) - 1) > screen.width:
        goes = max(keep, key=lambda at: columns[at].rank)
        if columns[goes].rank == 0:
            break  # narrower than anything can be made: let the terminal wrap
        keep.remove(goes)
    over = sum(widths[at] for at in keep) + _GAP * (len(keep) - 1) - screen.width
    while over > 0:  # one character at a time from the widest column that may shrink
        candidates = [at for at in keep if widths[at] > narrowest(at)]
        if not candidates:
            break
        widths[max(candidates, key=lambda at: widths[at])] -= 1
        over -= 1

    def line(cells: Sequence[str]) -> str:
        shown = [screen.cut(cells[at], widths[at]) for at in keep]
        return (
            (" " * _GAP)
            .join(
                text.rjust(widths[at]) if columns[at].right else text.ljust(widths[at])
                for at, text in zip(keep, shown, strict=True)
            )
            .rstrip()
        )

    heading = screen.paint(line([column.heading for column in columns]), "bold")
    return "\n".join([heading, *(line(row) for row in rows)]) + "\n"


def clean(text: str) -> str:
    """Names come from whoever made the container: nothing in them may steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def size(number: float) -> str:
    """Bytes with a binary unit and about three digits: `0B`, `12.3M`, `512M`, `1.5G`."""
    for unit in ("B", "K", "M", "G", "T", "P"):
        if number < 999.5 or unit == "P":
            break
        number /= 1024
    return f"{number:.0f}{unit}" if unit == "B" or number >= 99.95 else f"{number:.1f}{unit}"


def age(seconds: float) -> str:
    """The two leading units of a time span: `45s`, `12m`, `3h20m`, `5d4h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"
