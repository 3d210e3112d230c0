"""The application: a request finds its row, waits for its turn, is answered, and is counted. Thin: rows decide.

Refusals are JSON (`error`, `remedy`) but below `/api/v…`, where they are text, as cAdvisor's clients read it. Which
status they have there is a deliberate difference: cAdvisor says 500 to everything, also to a misspelt name. Here it is
404 for what does not exist (container, version, type of request), 400 for what makes no sense, and 500 only for our own
faults, so that probes, proxies and alerts can tell them apart. cAdvisor's clients look for anything but 200 and show the
text, which is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from streamer.cadvisor.errors import NotFound, RequestFailed
from streamer.sidecar import cadvisor
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import BodyTooLarge, Exchange, Lines, Pieces, tag_of
from streamer.sidecar.query import Answer, Refused, encode, parse
from streamer.sidecar.route import Given, Route
from streamer.sidecar.routes import ROUTES
from streamer.sidecar.slots import Busy, Left, Slots

UNROUTED: Final = "none"
"""The `route` label of requests that no row answers: a client cannot make new series."""
MOST_STREAMS: Final = 256
"""Answers that go on for ever, at a time: each keeps a connection of those there are (`places.MOST_CONNECTIONS`)."""

_TEXT: Final = "text/plain; charset=utf-8"
_CLIENT_LEFT: Final = "aborted"

Headers = Sequence[tuple[str, str]]


class _Rest(Convertor[str]):
    """The rest of a path: anything, line breaks too, which names of cgroups may hold."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rest", _Rest())


class Endpoint:
    """Answers the requests of one row, or of all of cAdvisor's: those share a pattern that no list of paths can express."""

    def __init__(self, desk: Desk, route: Route | None) -> None:
        self._desk, self._route = desk, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        route, label = self._route, UNROUTED
        try:
            route, rest = (route, scope["path_params"]) if route else cadvisor.find(scope["path"])
            label = route.path
            await self._desk.answer(exchange, route, await _question(exchange, scope, route, rest))
        except Left:
            self._desk.count(label, _CLIENT_LEFT)
        except (Refused, RequestFailed, Busy, BodyTooLarge) as error:
            refused = _refusal(error)
            answer = refused.answer() if self._route else Answer(_line(refused.error), refused.status, _TEXT)
            await self._desk.give(exchange, label, answer, _refusal_headers(refused.status, route))
        finally:
            await exchange.close()


async def _question(exchange: Exchange, scope: Scope, route: Route, rest: dict[str, Any]) -> Query:
    """Everything that was asked: the rest of the path, the parameters, and a body where there may be one."""
    if scope["method"] not in route.methods:
        raise Refused(405, f"only {', '.join(route.methods)} are answered: nothing can be changed here", "use GET")
    if not route.cadvisor:
        query = {**rest, **parse(scope["query_string"], route.params, strict=route.strict)}
        query |= {param.name.lower(): exchange.header(param.name.lower().encode()) or None for param in route.headers}
        return {**query, "accept": exchange.header(b"accept")} if len(route.text_types) > 1 else query
    body = await exchange.body()  # also of GET: cAdvisor reads it whatever the method
    return cadvisor.question(route, rest, scope["query_string"], body)


class Desk:
    """What all requests share: the context, the turns of large answers, the number of streams."""

    def __init__(self, context: Context, ending: asyncio.Event) -> None:
        self._context, self._ending = context, ending
        self._slots = Slots()
        self._streams = 0

    async def answer(self, exchange: Exchange, route: Route, query: Query) -> None:
        """Make a row's answer and send it.

        Raises:
            Refused, RequestFailed, Busy: nothing was sent.
            Left: the client went away.
        """
        if route.before is not None:
            await route.before(self._context, query)
        if not route.heavy:
            await self._answered(exchange, route, await _made(route, self._context, query))
            return
        async with self._slots.turn(exchange.gone, scrape=route.scraped) as turn:
            given = await _made(route, self._context, query)
            if isinstance(given, Pieces):
                self.count(route.path, 200)
                await exchange.send_pieces(given, turn, _VARY if len(route.text_types) > 1 else ())
                return
        await self._answered(exchange, route, given)

    async def give(self, exchange: Exchange, label: str, answer: Answer, headers: Headers = ()) -> None:
        """Send a whole answer."""
        self.count(label, answer.status)
        await exchange.send_whole(answer, headers)

    def count(self, label: str, status: int | str) -> None:
        self._context.telemetry.count("streamer_http_requests_total", label, str(status))

    async def _answered(self, exchange: Exchange, route: Route, given: Given) -> None:
        if isinstance(given, Lines):
            await self._stream(exchange, route, given)
        elif isinstance(given, Pieces):
            raise TypeError(f"{route.path} is answered in pieces: its row has to say heavy")
        elif route.tagged and given.status == 200:
            tag = tag_of(given.body)
            headers = (*route.answered_with, ("etag", tag), ("cache-control", "no-cache"))
            await self.give(exchange, route.path, Answer(b"", 304) if exchange.has_current(tag) else given, headers)
        else:
            await self.give(exchange, route.path, given, route.answered_with)

    async def _stream(self, exchange: Exchange, route: Route, given: Lines) -> None:
        with contextlib.closing(given):
            if not exchange.chunks_understood:
                raise Refused(400, "a stream needs HTTP/1.1")
            if self._streams >= MOST_STREAMS:
                raise Busy
            self._count_streams(+1)
            try:
                self.count(route.path, 200)
                await exchange.send_lines(given, self._ending)
            finally:
                self._count_streams(-1)

    def _count_streams(self, by: int) -> None:
        self._streams += by
        self._context.telemetry.set("streamer_http_streams", self._streams)


async def _made(route: Route, context: Context, query: Query) -> Given:
    given = route.answer(context, query)
    return given if isinstance(given, Answer | Pieces | Lines) else await given


def _refusal(error: Exception) -> Refused:
    match error:
        case Refused():
            return error
        case NotFound():
            return Refused(404, str(error))
        case RequestFailed():
            return Refused(400, str(error))
        case BodyTooLarge():
            return Refused(413, "request body too large")
        case _:
            return Refused(503, "too many large or endless answers are being given", "ask again in a moment, or ask for less")


def _refusal_headers(status: int, route: Route | None) -> Headers:
    match status:
        case 405 if route:
            return (("allow", ", ".join(route.methods)),)
        case 413:
            return (("connection", "close"),)
        case 503:
            return (("retry-after", "1"),)
        case _:
            return ()


def _line(text: str) -> bytes:
    return f"{text}\n".encode("utf-8", "replace")


def application(context: Context, ending: asyncio.Event | None = None) -> Starlette:
    """The ASGI application: every route counted. `ending`: set when answers that go on for ever have to end."""
    desk = Desk(context, ending or asyncio.Event())

    async def unrouted(_request: Request, error: Exception) -> Response:
        status, headers = (error.status_code, dict(error.headers or {})) if isinstance(error, HTTPException) else (500, {})
        what, remedy = _UNROUTED.get(status, ("this request cannot be answered", ""))
        context.telemetry.count("streamer_http_requests_total", UNROUTED, str(status))
        body = encode({"error": what, "remedy": remedy})
        return Response(body, status, {**headers, **_SAFE, "content-type": "application/json"})

    def own(route: Route, path: str) -> StarletteRoute:
        return StarletteRoute(path.replace("{id}", "{id:rest}"), Endpoint(desk, route))

    app = Starlette(
        routes=[
            *(own(route, path) for route in ROUTES if not route.cadvisor for path in route.paths),
            StarletteRoute("/api", _moved, methods=["GET", "HEAD"]),
            Mount("/api/streamer", _nothing),  # of any method: the next row would take it for a version of cAdvisor's
            StarletteRoute("/api/{rest:rest}", Endpoint(desk, None)),
        ],
        # the one for Exception answers; the exception goes on to the server, which logs it
        exception_handlers={HTTPException: unrouted, Exception: unrouted},
    )
    app.router.redirect_slashes = False  # the last slash may belong to a cgroup's path
    return app


async def _moved(_request: Request) -> Response:
    return Response(b"", 301, {**_SAFE, "location": "/api/"})


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise HTTPException(404)


_VARY: Final = (("vary", "accept"),)
_SAFE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

_UNROUTED: Final = {
    404: ("there is nothing at this path", "paths: " + ", ".join(route.path for route in ROUTES if not route.cadvisor)),
    405: ("only GET, HEAD are answered: nothing can be changed here", "use GET"),
    500: ("a fault in the agent; its log says more", "report it with the lines of the log"),
}
