"""The page for people: files that lie in `page/`, sent as they are. No build, no template: what is in the tree is what is run.

Nothing that a container can choose stands in them; they are as open as the program's source. What the page shows it asks
of the API, with whatever the API wants to see.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Final

from streamer.sidecar.context import Context, Query
from streamer.sidecar.query import Answer, Refused

INDEX: Final = "index.html"

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By ending; a file with another one is not sent."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""Even if a name were taken for markup, nothing of it would run, be loaded, or be sent anywhere."""


@functools.cache
def all_files() -> dict[str, Answer]:
    """Every file of the page, by its name: read once, a change needs a restart."""
    found = {}
    for file in files(__package__).joinpath("page").iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind and file.is_file():
            found[file.name] = Answer(file.read_bytes(), content_type=kind)
    return found


def index(_context: Context, _query: Query) -> Answer:
    """The page for people: what is running now, what happened of late, and how sources and sinks are."""
    return all_files()[INDEX]


def file(_context: Context, query: Query) -> Answer:
    """A file of which the page is made."""
    found = all_files().get(query["name"])
    if found is None or query["name"] == INDEX:
        raise Refused(404, "the page has no such file", "the page is at /")
    return found
