"""Takes URLs apart as RFC 3986 says (appendix B), host lists included.

`urllib.parse.urlsplit` will not do: which lists of hosts with an IPv6 address among them it takes for an error depends
on the Python version.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_PARTS: Final = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)


class Url(NamedTuple):
    """The parts of a URL as they are written; "" for one that is not there."""

    scheme: str
    netloc: str
    path: str
    query: str


def split(url: str) -> Url:
    """Take a URL apart; every text is one, so nothing is raised."""
    match = _PARTS.fullmatch(url)
    return Url(*(part or "" for part in match.groups())) if match else Url("", "", url, "")
