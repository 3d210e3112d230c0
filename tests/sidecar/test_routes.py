"""The table of routes: all of it answers, is documented, and no request brings it down."""

from __future__ import annotations

import asyncio
import json
import re
from string import printable
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from streamer.sidecar import routes
from streamer.sidecar.routes import ROUTES, Route, application

if TYPE_CHECKING:
    from tests.sidecar.conftest import House


def an_address(route: Route) -> str:
    return route.path.replace("{id}", "web")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_every_route_answers_and_is_documented(house: House, route: Route) -> None:
    """200 with the declared type, HEAD with the same length and no body, a summary, and help for each parameter."""
    async with house.client() as client:
        got = await client.get(an_address(route))
        head = await client.head(an_address(route))
    assert got.status_code == head.status_code == 200
    assert got.headers["content-type"].startswith("text/plain" if route.path in ("/healthz", "/metrics") else "application/json")
    if got.headers["content-type"] == "application/json":
        assert isinstance(got.json(), dict)
    if route.path != "/metrics":  # which counts the requests in between
        assert head.headers["content-length"] == str(len(got.content))
    assert re.fullmatch(r"[A-Z].{20,}\.", route.summary), route.summary
    assert all(len(param.help) > 20 for param in route.params)
    assert house.telemetry.value("streamer_http_requests_total", route.path, "200") == 2


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_an_agent_that_has_just_started_answers_too(empty_house: House, route: Route) -> None:
    """With nothing in memory every route answers: empty, or 404 with what to do."""
    async with empty_house.client() as client:
        got = await client.get(an_address(route))
    assert got.status_code in (200, 404)
    if got.status_code == 404:
        assert set(got.json()) == {"error", "remedy"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_nothing_can_be_changed(house: House, method: str) -> None:
    """Methods other than GET and HEAD are 405, with the methods that are allowed."""
    async with house.client() as client:
        got = await client.request(method, "/api/streamer/v1/containers")
    assert got.status_code == 405
    assert got.headers["allow"] in ("GET, HEAD", "HEAD, GET")
    assert "GET" in got.json()["error"]


async def test_an_unknown_path_names_the_paths(house: House) -> None:
    """404 lists what there is, and is counted under one name whatever the path was."""
    async with house.client() as client:
        for path in ("/", "/api/streamer/v1/container", "/healthz/", "/%00"):
            got = await client.get(path)
            assert got.status_code == 404
            assert "/api/streamer/v1/containers" in got.json()["remedy"]
    assert house.telemetry.value("streamer_http_requests_total", routes.UNROUTED, "404") == 4


async def test_a_fault_is_a_500_that_is_raised_on(house: House) -> None:
    """A handler's exception answers as JSON and reaches the server, which logs it."""

    def broken() -> list[object]:
        raise ZeroDivisionError("a bug")

    app = application(house.context._replace(statuses=broken))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://s") as client:
        got = await client.get("/readyz")
        assert got.status_code == 500
        assert set(got.json()) == {"error", "remedy"}
        assert "a bug" not in got.text
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://s") as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/readyz")


PATHS = st.sampled_from([route.path for route in ROUTES])
NAMES = st.sampled_from([param.name for route in ROUTES for param in route.params]) | st.text(max_size=8)
VALUES = st.sampled_from(["", "0", "-1", "1", "true", "10000000000000", "\u0661", "a/b/c", "%", "*", "1e3"]) | st.text(max_size=12)
SEGMENTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(printable, max_size=30)


@settings(deadline=None, max_examples=300)
@given(path=PATHS, segment=SEGMENTS, pairs=st.lists(st.tuples(NAMES, VALUES), max_size=4), raw=st.binary(max_size=20))
def test_no_query_and_no_path_is_a_fault(path: str, segment: str, pairs: list[tuple[str, str]], raw: bytes) -> None:
    """Any text in any path and parameter, any bytes as the query: an answer or a refusal in JSON, never a 5xx."""
    from tests.sidecar.conftest import House

    house = House()
    house.fill()
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs).encode()
    for query_string in (query, raw, query + b"&" + raw):
        status, body = asyncio.run(call(house.app, path.replace("{id}", segment), query_string))
        assert status in (200, 400, 404, 409), body
        if status != 200:
            assert {"error", "remedy"} <= set(json.loads(body))
            assert len(body) < 4000


async def call(app: ASGIApp, path: str, query_string: bytes) -> tuple[int, bytes]:
    """Call an application as a server would, with a path and a query string that no client library would let through."""
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": query_string,
        "headers": [],
    }
    await app(scope, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said)
