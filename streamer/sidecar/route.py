"""One row of the table of routes: everything that serving, counting and describing it need."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from streamer.sidecar.access import Rule
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import Lines, Pieces
from streamer.sidecar.query import Answer, Param

Given = Answer | Pieces | Lines


class Route(NamedTuple):
    """One path: GET and HEAD, and POST where a body is read. `{id}` or `{name}` takes the rest of the path, slashes too.

    shape        type of the JSON in an answer 200; None: text
    text_types   media types of that text; of several, one is chosen by the request's `Accept`, in the query as `accept`
    body         type of the JSON that a request may bring
    cadvisor     belongs to cAdvisor's API: its rules for paths and parameters, its errors as text
    bare         also answers without the rest of the path, and the slash before it
    heavy        may be large: waits for a turn before it is made
    scraped      does not wait for the other large answers that are under way
    tagged       seldom changes: has an entity tag
    endless      goes on until the client, or the server, ends it
    headers      those of the request that matter; in the query by their names in lower case, None where there is none
    before       what is waited for before a turn is
    unready      type of the JSON in an answer 503 that is no refusal
    access       who may ask
    answered_with  headers of an answer 200 or 304
    """

    path: str
    answer: Callable[[Context, Query], Given | Awaitable[Given]]
    params: tuple[Param, ...] = ()
    shape: Any = None
    text_types: tuple[str, ...] = ("text/plain",)
    body: Any = None
    cadvisor: bool = False
    bare: bool = False
    heavy: bool = False
    scraped: bool = False
    tagged: bool = False
    endless: bool = False
    headers: tuple[Param, ...] = ()
    before: Callable[[Context, Query], Awaitable[None]] | None = None
    unready: Any = None
    access: Rule = "guarded"
    answered_with: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's documentation."""
        return " ".join(inspect.cleandoc(self.answer.__doc__ or "").split("\n\n")[0].split())

    @property
    def strict(self) -> bool:
        """Whether unknown query parameters are refused."""
        return self.path.startswith(("/api/", "/events")) and not self.cadvisor

    @property
    def methods(self) -> tuple[str, ...]:
        """What is answered; nothing changes anything."""
        return ("GET", "HEAD", "POST") if self.cadvisor else ("GET", "HEAD")

    @property
    def paths(self) -> tuple[str, ...]:
        """The path, and the one without its rest where that is answered, too."""
        return (self.path[: self.path.rindex("/")], self.path) if self.bare else (self.path,)

    @property
    def refusals(self) -> tuple[str, ...]:
        """The statuses that a refusal may have."""
        kept_out = ("421",) if self.access == "open" else ("401", "403", "421")
        if self.cadvisor:
            return ("400", "404", "413", "503", *kept_out)
        found = ["400"]
        if "{" in self.path or self.path.endswith(("/host", "/series")):
            found += ["404", "409"]
        return (*found, *(("503",) if self.heavy or self.endless else ()), *kept_out)
