"""THE TABLE of routes, and the application made of it. A new route is one row; its documentation is its handler's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from streamer.sidecar import api
from streamer.sidecar.api import Context, Query
from streamer.sidecar.query import Answer, Param, Refused, encode, flag, parse, whole, word

OWN: Final = "/api/streamer/v1"
UNROUTED: Final = "none"
"""The `route` label of requests that no row answers: a client cannot make new series."""


class Route(NamedTuple):
    """One path: GET and HEAD, nothing else. `{id}` in it takes the rest of the path, slashes too."""

    path: str
    answer: Callable[[Context, Query], Answer]
    params: tuple[Param, ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's documentation."""
        return " ".join(inspect.cleandoc(self.answer.__doc__ or "").split("\n\n")[0].split())

    @property
    def strict(self) -> bool:
        """Whether unknown query parameters are refused."""
        return self.path.startswith("/api/")


ROUTES: Final[tuple[Route, ...]] = (
    Route("/healthz", api.healthz),
    Route("/readyz", api.readyz, (Param("require_sinks", flag, False, "true: every sink must be connected, too"),)),
    Route("/metrics", api.metrics),
    Route(
        f"{OWN}/containers",
        api.containers,
        (
            Param("name", word, None, "only containers of this name or alias; a trailing * matches any ending"),
            Param(
                "runtime", word, None, "only containers of this runtime: docker, podman, containerd, crio, lxc, systemd-nspawn, raw"
            ),
            Param("all", flag, False, "true: recently deleted containers, too"),
            Param("limit", whole(1, api.MOST_CONTAINERS), 500, f"most containers in an answer, 1 to {api.MOST_CONTAINERS}"),
            Param("after", word, None, "`next` of the answer before, to go on from there"),
        ),
    ),
    Route(
        f"{OWN}/containers/{{id}}",
        api.container,
        (Param("samples", whole(0, api.MOST_SAMPLES), 10, f"most samples in the answer, 0 to {api.MOST_SAMPLES}, as far as kept"),),
    ),
    Route(f"{OWN}/hosts", api.hosts),
    Route(f"{OWN}/host", api.host),
    Route(
        f"{OWN}/oom",
        api.oom,
        (Param("limit", whole(1, api.MOST_EVENTS), 100, f"most kills in the answer, 1 to {api.MOST_EVENTS}"),),
    ),
    Route(f"{OWN}/stream", api.stream),
)


def application(context: Context) -> Starlette:
    """The ASGI application: every route counted, every refusal as JSON."""

    def counted(route: str, answer: Answer, headers: dict[str, str] | None = None) -> Response:
        context.telemetry.count("streamer_http_requests_total", route, str(answer.status))
        return Response(answer.body, answer.status, {**(headers or {}), "content-type": answer.content_type})

    def endpoint(route: Route) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            try:
                query = parse(request.scope["query_string"], route.params, strict=route.strict)
                return counted(route.path, route.answer(context, {**request.path_params, **query}))
            except Refused as refused:
                return counted(route.path, refused.answer())

        return answer

    async def unrouted(_request: Request, error: Exception) -> Response:
        status, headers = (error.status_code, dict(error.headers or {})) if isinstance(error, HTTPException) else (500, {})
        what, remedy = _UNROUTED.get(status, ("this request cannot be answered", ""))
        return counted(UNROUTED, Answer(encode({"error": what, "remedy": remedy}), status), headers)

    app = Starlette(
        routes=[StarletteRoute(route.path.replace("{id}", "{id:path}"), endpoint(route), methods=["GET"]) for route in ROUTES],
        # the one for Exception answers; the exception goes on to the server, which logs it
        exception_handlers={HTTPException: unrouted, Exception: unrouted},
    )
    app.router.redirect_slashes = False  # the last slash may belong to a cgroup's path
    return app


_UNROUTED: Final = {
    404: ("there is nothing at this path", "paths: " + ", ".join(route.path for route in ROUTES)),
    405: ("only GET and HEAD are answered: nothing can be changed here", "use GET"),
    500: ("a fault in the agent; its log says more", "report it with the lines of the log"),
}
