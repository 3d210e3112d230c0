"""THE TABLE of routes. A new route is one row; its documentation is its handler's, in the OpenAPI document, too."""

from __future__ import annotations

import functools
from typing import Final

from streamer.model.messages import HostInfo
from streamer.sidecar import api, cadvisor, containers, events, following, openapi, shapes, static, validate
from streamer.sidecar.context import Context, Query
from streamer.sidecar.query import Answer, Param, encode, flag, label, some_of, whole, word
from streamer.sidecar.rates import MOST_POINTS
from streamer.sidecar.route import Route

OWN: Final = "/api/streamer/v1"


@functools.cache
def contract() -> bytes:
    """The OpenAPI document of all routes, as JSON."""
    return encode(openapi.document(ROUTES))


def describe(_context: Context, _query: Query) -> Answer:
    """This document: every route, its parameters and its answers, as OpenAPI 3.1."""
    return Answer(contract())


_CONTAINER: Final = Param("container", word, None, "only about this container: its id, beginning of its id, name or cgroup path")
_LABEL: Final = Param("label", label, (), "only containers with this label, `name` or `name=value`; given several times: all of them", several=True)  # fmt: skip
_RUNTIME: Final = Param(
    "runtime", word, None, "only containers of this runtime: docker, podman, containerd, crio, lxc, systemd-nspawn, raw"
)
_LATEST: Final = (
    _CONTAINER,
    Param("limit", whole(1, api.MOST_EVENTS), 100, f"most events in the answer, the newest, 1 to {api.MOST_EVENTS}"),
)

ROUTES: Final[tuple[Route, ...]] = (
    Route("/", static.index, text_types=("text/html",), tagged=True, answered_with=static.HEADERS),
    Route(
        "/page/{name}",
        static.file,
        text_types=("text/css", "text/javascript", "image/svg+xml"),
        tagged=True,
        answered_with=static.HEADERS,
    ),
    Route("/healthz", api.healthz, access="open"),
    Route(
        "/readyz",
        api.readyz,
        (Param("require_sinks", flag, False, "true: every sink must be connected, too"),),
        shape=shapes.Ready,
        unready=shapes.Ready,
    ),
    Route("/validate/", validate.report),
    Route("/openapi.json", describe, shape=dict, tagged=True),
    Route(
        "/metrics",
        api.metrics,
        text_types=("text/plain", "application/openmetrics-text"),
        heavy=True,
        scraped=True,
        access="metrics",
    ),
    Route(
        "/events",
        events.follow,
        (
            Param("types", some_of(*following.TYPES), None, "lifecycle, oom, control, stats, with commas between; the first three"),
            _CONTAINER,
            _LABEL,
            _RUNTIME,
            Param(
                "since", following.since, None, "where to begin: an id that was told, an RFC 3339 time, or a duration like 10m; now"
            ),
        ),
        text_types=(following.SSE.content_type, following.LINES.content_type),
        endless=True,
        headers=(Param("Last-Event-ID", word, None, "the id that was told last, to go on behind it; goes before `since`"),),
    ),
    Route(
        f"{OWN}/containers",
        containers.containers,
        (
            Param("name", word, None, "only containers of this name or alias; a trailing * matches any ending"),
            Param("image", word, None, "only containers of this image; a trailing * matches any ending"),
            _LABEL,
            _RUNTIME,
            Param("all", flag, False, "true: recently deleted containers, too"),
            Param("sort", containers.order, None, "cpu, memory, io, network, name, started, oom; -cpu: the largest first"),
            Param(
                "limit",
                whole(1, containers.MOST_CONTAINERS),
                500,
                f"most containers in an answer, 1 to {containers.MOST_CONTAINERS}",
            ),
            Param("after", word, None, "`next` of the answer before, to go on from there"),
        ),
        shape=shapes.Containers,
        heavy=True,
    ),
    Route(
        f"{OWN}/containers/{{id}}",
        containers.container,
        (
            Param(
                "samples", whole(0, containers.MOST_SAMPLES), 10, f"most samples, 0 to {containers.MOST_SAMPLES}, as far as kept"
            ),
            Param("events", whole(0, api.MOST_EVENTS), 100, f"most events, 0 to {api.MOST_EVENTS}, as far as kept"),
        ),
        shape=shapes.One,
        heavy=True,
    ),
    Route(f"{OWN}/rates", containers.rates, shape=shapes.AllRates, heavy=True),
    Route(
        f"{OWN}/series",
        containers.series,
        (
            Param("since_ms", whole(0, 10**15), 0, "only what was after this time, ms since 1970"),
            Param("points", whole(1, MOST_POINTS), 60, f"most points of each container, 1 to {MOST_POINTS}"),
            Param("container", word, None, "only this one: its id, beginning of its id, name or path"),
        ),
        shape=shapes.AllSeries,
        heavy=True,
    ),
    Route(f"{OWN}/lifecycle", api.lifecycle, _LATEST, shape=shapes.Lifecycle, heavy=True),
    Route(f"{OWN}/oom", api.oom, _LATEST, shape=shapes.Oom, heavy=True),
    Route(f"{OWN}/hosts", api.hosts, shape=shapes.Hosts),
    Route(f"{OWN}/host", api.host, shape=HostInfo),
    Route(f"{OWN}/stream", api.stream, shape=shapes.Stream),
    *cadvisor.ROUTES,
)
