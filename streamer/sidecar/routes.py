"""THE TABLE of routes. A new route is one row; its documentation is its handler's, in the OpenAPI document, too."""

from __future__ import annotations

import functools
from typing import Final

from streamer.model.messages import HostInfo
from streamer.sidecar import api, cadvisor, openapi, shapes, validate
from streamer.sidecar.api import Context, Query
from streamer.sidecar.query import Answer, Param, encode, flag, whole, word
from streamer.sidecar.route import Route

OWN: Final = "/api/streamer/v1"


@functools.cache
def contract() -> bytes:
    """The OpenAPI document of all routes, as JSON."""
    return encode(openapi.document(ROUTES))


def describe(_context: Context, _query: Query) -> Answer:
    """This document: every route, its parameters and its answers, as OpenAPI 3.1."""
    return Answer(contract())


ROUTES: Final[tuple[Route, ...]] = (
    Route("/healthz", api.healthz),
    Route(
        "/readyz",
        api.readyz,
        (Param("require_sinks", flag, False, "true: every sink must be connected, too"),),
        shape=shapes.Ready,
        unready=shapes.Ready,
    ),
    Route("/validate/", validate.report),
    Route("/openapi.json", describe, shape=dict, tagged=True),
    Route("/metrics", api.metrics, text_types=("text/plain", "application/openmetrics-text"), heavy=True, scraped=True),
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
        shape=shapes.Containers,
        heavy=True,
    ),
    Route(
        f"{OWN}/containers/{{id}}",
        api.container,
        (Param("samples", whole(0, api.MOST_SAMPLES), 10, f"most samples in the answer, 0 to {api.MOST_SAMPLES}, as far as kept"),),
        shape=shapes.One,
        heavy=True,
    ),
    Route(f"{OWN}/hosts", api.hosts, shape=shapes.Hosts),
    Route(f"{OWN}/host", api.host, shape=HostInfo),
    Route(
        f"{OWN}/oom",
        api.oom,
        (Param("limit", whole(1, api.MOST_EVENTS), 100, f"most kills in the answer, 1 to {api.MOST_EVENTS}"),),
        shape=shapes.Oom,
        heavy=True,
    ),
    Route(f"{OWN}/stream", api.stream, shape=shapes.Stream),
    *cadvisor.ROUTES,
)
