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

from streamer.sidecar.application import UNROUTED, application
from streamer.sidecar.route import Route
from streamer.sidecar.routes import ROUTES

CGROUP = "/system.slice/docker-4f6b1d0c9a2e7f35b8c41d6e0a93f27c5b18e4d2760fa9c3e1b54d8f2a6c7093.scope"
"""Where the example's container lives."""

if TYPE_CHECKING:
    from tests.sidecar.conftest import House


def an_address(path: str) -> str:
    docker = "/docker/{name}" in path
    path = path.replace("/page/{name}", "/page/app.js")
    return path.replace("{id}", "web").replace("{name}", "web" if docker else quote(CGROUP))


PATHS = {path: route for route in ROUTES for path in route.paths if not route.endless}
"""Those whose answers end; of the others see `test_events.py`."""
NOT_HERE = ("storage", "/ps", "/summary$")
"""What needs more than this house has: file systems and samples of the root cgroup, processes."""


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_answers_and_is_documented(house: House, path: str) -> None:
    """200 with the declared type, HEAD with the same head and no body, a summary, and help for each parameter."""
    route = PATHS[path]
    async with house.client() as client:
        got = await client.get(an_address(path))
        head = await client.head(an_address(path))
    expected = 404 if any(re.search(what, path) for what in NOT_HERE) else 200
    assert got.status_code == head.status_code == expected, got.text
    text = route.shape is None or (route.cadvisor and expected != 200)
    assert got.headers["content-type"].startswith(route.text_types if text else "application/json")
    assert got.headers["x-content-type-options"] == "nosniff"
    if not text:
        got.json()
    assert head.content == b""
    if not route.heavy:  # those are made while they are sent
        assert head.headers["content-length"] == str(len(got.content))
    assert re.fullmatch(r"[A-Z].{20,}\.", route.summary), route.summary
    assert all(len(param.help) > 20 for param in route.params)
    assert house.telemetry.value("streamer_http_requests_total", route.path, str(expected)) == 2


@pytest.mark.parametrize("path", PATHS)
async def test_an_agent_that_has_just_started_answers_too(empty_house: House, path: str) -> None:
    """With nothing in memory every route answers: empty, or 404 with what is missing."""
    async with empty_house.client() as client:
        got = await client.get(an_address(path))
    assert got.status_code in (200, 404)
    if got.status_code == 404 and not PATHS[path].cadvisor:
        assert set(got.json()) == {"error", "remedy"}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.tagged], ids=lambda route: route.path)
async def test_what_seldom_changes_is_sent_once(house: House, route: Route) -> None:
    """A client that shows the tag it holds gets 304 and no body, until the answer is another."""
    async with house.client() as client:
        first = await client.get(an_address(route.path))
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "no-cache"
        for held in (tag, f'W/{tag}, "other"', f'"other",{tag}', "*"):
            again = await client.get(an_address(route.path), headers={"if-none-match": held})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in again.headers
        for other in ('"other"', "W/*", tag.strip('"')):
            assert (await client.get(an_address(route.path), headers={"if-none-match": other})).content == first.content


async def test_metrics_come_in_the_format_that_is_asked_for(house: House) -> None:
    """A scraper that reads OpenMetrics gets it; caches between keep the two apart."""
    async with house.client() as client:
        text = await client.get("/metrics")
        strict = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert strict.text.endswith("# EOF\n")
    assert text.headers["vary"] == strict.headers["vary"] == "accept"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_nothing_can_be_changed(house: House, method: str) -> None:
    """Methods other than GET and HEAD are 405, with the methods that are allowed."""
    async with house.client() as client:
        got = await client.request(method, "/api/streamer/v1/containers")
        old = await client.request(method, "/api/v1.3/machine")
    assert (got.status_code, got.headers["allow"]) == (405, "GET, HEAD")
    assert "GET" in got.json()["error"]
    if method == "POST":
        assert old.status_code == 200  # as cAdvisor's own clients ask
    else:
        assert (old.status_code, old.headers["allow"]) == (405, "GET, HEAD, POST")
        assert old.text == "only GET, HEAD, POST are answered: nothing can be changed here\n"


async def test_an_unknown_path_names_the_paths(house: House) -> None:
    """404 lists what there is, and is counted under one name whatever the path was."""
    async with house.client() as client:
        for path in ("/nothing", "/api/streamer/v1/container", "/api/streamer/", "/healthz/", "/%00"):
            got = await client.get(path)
            assert got.status_code == 404
            assert "/api/streamer/v1/containers" in got.json()["remedy"]
        assert "error" in (await client.post("/api/streamer/v1/container")).json()
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "404") == 6


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


NAMES = st.sampled_from(sorted({param.name for route in ROUTES for param in route.params} - {"stream"})) | st.text(max_size=8)
VALUES = st.sampled_from(
    ["", "docker", "2026-01-02T15:04:05Z", "5s", "0", "-1", "1", "true", "10000000000000", "\u0661", "a/b/c", "%", "*", "1e3"]
) | st.text(max_size=12)
SEGMENTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(printable, max_size=30)
BODIES = st.sampled_from(
    [b"null", b'{"num_stats":-1}', b'{"num_stats":-2}', b'{"start":"0001-01-01T00:00:00Z"}', b'{"end":7}', b"[" * 9999, b"\xff"]
) | st.binary(max_size=20)


@settings(deadline=None, max_examples=3 * settings().max_examples)
@given(
    path=st.sampled_from(sorted(PATHS)),
    segment=SEGMENTS,
    pairs=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    raw=st.binary(max_size=20),
    body=BODIES,
)
def test_no_query_no_path_and_no_body_is_a_fault(
    path: str, segment: str, pairs: list[tuple[str, str]], raw: bytes, body: bytes
) -> None:
    """Any text in any path and parameter, any bytes as query and body: an answer or a refusal that says why, never a 5xx."""
    from tests.sidecar.conftest import House

    house = House()
    house.fill()
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs).encode()
    for query_string in (query, raw, query + b"&" + raw):
        place = path.replace("{id}", segment).replace("{name}", segment)
        status, said = asyncio.run(call(house.app, place, query_string, body))
        assert status in (200, 400, 404, 409), said
        if status != 200:
            assert len(said) < 4000
            own = not place.startswith("/api/") or place.startswith("/api/streamer/")
            assert {"error", "remedy"} <= set(json.loads(said)) if own else said.endswith(b"\n"), (place, said)


async def call(app: ASGIApp, path: str, query_string: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Call an application as a server would, with a path and a query string that no client library would let through."""
    said: list[Message] = []
    asked: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return asked.pop() if asked else await asyncio.get_running_loop().create_future()

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
