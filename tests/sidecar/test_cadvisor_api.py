"""cAdvisor's API over HTTP: paths, bodies and texts as its clients know them. What the numbers are: `tests/cadvisor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from streamer.cadvisor.operations import Operations
from streamer.clock import SystemClock
from streamer.model import messages as m
from streamer.sidecar.application import application

if TYPE_CHECKING:
    from tests.sidecar.conftest import House

WEB = "4f6b" + "1" * 60
CGROUP = "/docker/" + WEB
NO_LIMITS_OF_TIME = b'{"num_stats":2,"start":"0001-01-01T00:00:00Z","end":"0001-01-01T00:00:00Z"}'
"""What cAdvisor's Go client sends: it cannot leave the times out."""


@pytest.fixture
def host(empty_house: House) -> House:
    """A Docker container and two raw cgroups in a folder, each with three samples."""
    tell = empty_house.tell
    tell.say(m.HOST)
    docker = {"cgroup_path": CGROUP, "name": "web", "aliases": ["web", WEB]}
    tell.created(WEB, **docker)
    for path in ("/lab/one", "/lab/two"):
        tell.created(path, runtime="raw", name=path, aliases=[], cgroup_path=path)
    for number in range(3):
        tell.sampled(WEB, cpu_usage_ns=number, **docker)
        for path in ("/lab/one", "/lab/two"):
            tell.sampled(path, runtime="raw", name=path, aliases=[], cgroup_path=path)
    return empty_house


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/", 400, "Supported API versions: v1.0,v1.1,v1.2,v1.3,v2.0,v2.1"),
        ("/api/v1.0", 400, 'Supported request types: "containers,machine"'),
        ("/api/v1.3/", 400, 'Supported request types: "containers,docker,events,machine,subcontainers"'),
        (
            "/api/v2.1/",
            400,
            'Supported request types: "appmetrics,attributes,events,machine,machinestats,ps,spec,stats,storage,summary,version"',
        ),
        ("/api/v9/machine", 404, 'unsupported API version "v9"'),
        ("/api/v1.3/podman", 404, 'unknown request type "podman"'),
        ("/api/v1.0/subcontainers", 404, 'unknown request type "subcontainers"'),
        ("/api/v2.0/machinestats", 404, 'unknown request type "machinestats"'),
        ("/api/v1.3/containers/x", 404, 'failed to get container "/x" with error: unknown container "/x"'),
        ("/api/v1.3/subcontainers/x", 404, 'failed to get subcontainers for container "/x" with error: no containers found'),
        (
            "/api/v1.3/docker/x",
            404,
            'failed to get Docker container "x" with error: unable to find container "x" in "docker" namespace',
        ),
        ("/api/v1.3/docker/a/b", 400, "unknown request for Docker container [a b]"),
        ("/api/v2.1/stats/x", 404, 'unknown container "/x"'),
        ("/api/v2.1/stats/x?recursive=true", 404, 'unknown container: "/x"'),
        ("/api/v2.0/summary/lab", 404, 'derived stats not enabled for container "/lab"'),
        ("/api/v2.1/machine?type=rkt", 400, "unknown 'type' \"rkt\""),
        ("/api/v2.1/machine?count=many", 400, "failed to parse 'count' option: many"),
        ("/api/v2.1/stats?count=-2", 400, "invalid 'count' option: only -1 and larger values allowed, not -2"),
        ("/api/v2.1/stats?max_age=x", 400, "failed to parse 'max_age' option: time: invalid duration \"x\""),
        ("/api/v2.1/ps/lab/one", 404, "process listing failed: processes are not listed here"),
        (
            "/api/v1.3/events?stream=true&start_time=2026-01-02T15:04:05Z",
            400,
            "for a call to watch, request.StartTime and request.EndTime must be uninitialized",
        ),
        ("/api/v1.3/containers?" + "&".join(f"a{n}=1" for n in range(40)), 400, "more than 32 query parameters"),
    ],
)
async def test_refusals_are_text_in_cadvisors_words(host: House, path: str, status: int, said: str) -> None:
    """One line; 404 for what is not there, 400 for what makes no sense; never to be taken for HTML."""
    async with host.client() as client:
        got = await client.get(path)
    assert (got.status_code, got.text) == (status, said + "\n")
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert got.headers["x-content-type-options"] == "nosniff"


async def test_the_root_of_the_api_moves_to_its_slash(host: House) -> None:
    """As a Go server does; nothing else is redirected: a redirected POST would arrive as GET."""
    async with host.client() as client:
        moved = await client.get("/api")
        assert (moved.status_code, moved.headers["location"]) == (301, "/api/")
        for path in ("/api/v1.3/docker", "/api/v1.3/containers", "/api/v1.3/docker/"):
            assert (await client.post(path, content=NO_LIMITS_OF_TIME)).status_code == 200


@pytest.mark.parametrize("path", ["/lab/one", "/lab//one/", "/lab/../lab/./one", "//lab/one", "/lab%2Fone"])
async def test_a_containers_name_is_the_rest_of_the_path(host: House, path: str) -> None:
    """Cleaned as a path, its slashes escaped or not."""
    async with host.client() as client:
        got = await client.get("/api/v1.3/containers" + path)
    assert got.json()["name"] == "/lab/one"


async def test_a_name_may_hold_anything_that_a_directorys_can(host: House) -> None:
    """Blanks, quotes, line breaks, letters beyond ASCII."""
    strange = '/lab/a "b"\n%ü'
    host.tell.created(strange, runtime="raw", name=strange, aliases=[], cgroup_path=strange)
    async with host.client() as client:
        got = await client.get("/api/v1.3/containers" + quote(strange))
        assert got.json()["name"] == strange
        got = await client.get("/api/streamer/v1/containers" + quote(strange))
        assert got.json()["cgroup_path"] == strange
        got = await client.get("/api/v1.3/containers" + quote(strange + "\n"))
        assert (
            got.text == 'failed to get container "/lab/a \\"b\\"\\n%ü\\n" with error: unknown container "/lab/a \\"b\\"\\n%ü\\n"\n'
        )


async def test_a_name_that_is_not_text_is_answered_as_it_was_published(host: House) -> None:
    """One such cgroup on a host does not keep the others from being answered."""
    path = "/lab\udcff"
    host.tell.sampled(path, runtime="raw", name=path, cgroup_path=path)
    async with host.client() as client:
        for question in ("v1.3/subcontainers", "v2.1/stats/?recursive=true", "v2.0/summary/?recursive=true", "v1.3/containers/"):
            answer = await client.get(f"/api/{question}")
            assert answer.status_code == 200
            assert "/lab\\\\udcff" in answer.text and "udcff" in json.dumps(answer.json())


@pytest.mark.parametrize("version", ["v1.0", "v1.1", "v1.2", "v1.3"])
async def test_each_version_answers_what_the_earlier_ones_do(host: House, version: str) -> None:
    """machine and containers of v1.0, subcontainers of v1.1, docker of v1.2, events of v1.3."""
    kinds = ["machine", "containers", "subcontainers", "docker", "events"][: 2 + int(version[-1])]
    async with host.client() as client:
        for kind in kinds:
            assert (await client.get(f"/api/{version}/{kind}")).status_code == 200


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        (b"", 3),
        (b"null", 3),
        (b"{}", 3),
        (NO_LIMITS_OF_TIME, 2),
        (b'{"num_stats":0}', 0),
        (b'{"num_stats":-1,"whatever":[1]}', 3),
        (b'{"num_stats":1}', 1),
        (b'{"num_stats":-1,"start":"2999-01-01T00:00:00+01:00"}', 0),
    ],
)
async def test_a_body_says_which_samples(host: House, body: bytes, samples: int) -> None:
    """The same with POST, as cAdvisor's clients ask, and with GET; other types of content, too."""
    async with host.client() as client:
        for method in ("POST", "GET"):
            for headers in ({"content-type": "application/json"}, {"content-type": "text/plain"}, {}):
                got = await client.request(method, f"/api/v1.3/containers{CGROUP}", content=body, headers=headers)
                assert len(got.json().get("stats", [])) == samples


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"\xff", b'{"num_stats":"1"}', b'{"num_stats":1e3}', b'{"start":"x"}', b"[" * 60_000]
)
async def test_a_body_that_is_none_is_refused(host: House, body: bytes) -> None:
    """400 with what is wrong."""
    async with host.client() as client:
        for path in ("containers", "subcontainers", "docker", "docker/web"):
            got = await client.post(f"/api/v1.3/{path}", content=body)
            assert got.status_code == 400
            assert got.text.startswith("unable to decode the json value: ")


async def test_a_body_that_is_too_large_is_refused(host: House) -> None:
    """413, and the connection is not used again."""
    async with host.client() as client:
        got = await client.post("/api/v1.3/containers", content=b" " * 65_537)
        assert (got.status_code, got.text, got.headers["connection"]) == (413, "request body too large\n", "close")
        assert (await client.post("/api/v1.3/containers", content=b" " * 65_536)).status_code == 200


async def test_what_a_go_client_asks(host: House) -> None:
    """The calls of cAdvisor's two client packages, as they put them on the wire."""
    async with host.client() as client:
        machine = (await client.get("/api/v1.3/machine")).json()
        assert machine["num_cores"] == 16
        one = (await client.post("/api/v1.3/docker/web", content=NO_LIMITS_OF_TIME)).json()
        assert [(name, len(info["stats"])) for name, info in one.items()] == [(CGROUP, 2)]
        by_prefix = (await client.post(f"/api/v1.3/docker/{WEB[:12]}", content=NO_LIMITS_OF_TIME)).json()
        assert by_prefix == one
        every = (await client.post("/api/v1.3/docker", content=NO_LIMITS_OF_TIME)).json()
        assert every == one
        below = (await client.post("/api/v1.3/subcontainers/lab", content=NO_LIMITS_OF_TIME)).json()
        assert [info["name"] for info in below] == ["/lab", "/lab/one", "/lab/two"]
        told = (await client.get("/api/v1.3/events/?creation_events=true&subcontainers=true&max_events=2")).json()
        assert [event["container_name"] for event in told] == ["/lab/one", "/lab/two"]
        stats = (await client.get(f"/api/v2.1/stats{CGROUP}?count=2&recursive=false&type=name")).json()
        assert {name: len(info["stats"]) for name, info in stats.items()} == {CGROUP: 2}
        assert (await client.get("/api/v2.1/version")).text.startswith('"')
        assert (await client.get("/api/v2.1/attributes")).json()["num_cores"] == 16
        assert (await client.get("/api/v2.1/machinestats?count=1")).text == "null"


async def test_v2_stats_leave_out_the_root(host: House) -> None:
    """v2.1's has limits and samples, v2.0's samples alone, and the root."""
    async with host.client() as client:
        assert (await client.get("/api/v2.1/stats/")).json() == {}
        newer = (await client.get("/api/v2.1/stats/?recursive=true")).json()
        older = (await client.get("/api/v2.0/stats/?recursive=true")).json()
    assert set(newer) == {"/docker", CGROUP, "/lab", "/lab/one", "/lab/two"}
    assert set(newer[CGROUP]) == {"spec", "stats"}
    assert set(older) == {"/", *newer}
    assert [sample["has_cpu"] for sample in older[CGROUP]] == [True, True, True]


async def test_fresh_samples_are_asked_for_but_not_too_often(host: House) -> None:
    """`max_age` goes to whoever samples, before the answer is made; below 0.1 s, or 1 s for many, it is that."""
    asked: list[tuple[set[str], float]] = []

    async def freshen(paths: Sequence[str], max_age_seconds: float) -> None:
        asked.append((set(paths), max_age_seconds))
        host.tell.sampled("/lab/one", runtime="raw", name="/lab/one", aliases=[], cgroup_path="/lab/one", cpu_usage_ns=len(asked))

    app = application(host.context._replace(operations=Operations(host.memory, SystemClock(), freshen=freshen)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sidecar") as client:
        got = await client.get("/api/v2.1/stats/lab/one?max_age=0s")
        assert got.json()["/lab/one"]["stats"][-1]["cpu"]["usage"]["total"] == 1  # the one that was taken for it
        await client.get("/api/v2.0/stats/lab/one?max_age=2m")
        await client.get("/api/v2.1/summary/lab?max_age=0s&recursive=true")
        assert (await client.get("/api/v2.1/stats/nobody?max_age=0s")).status_code == 404
        await client.get("/api/v2.1/stats/lab/one")
    assert asked == [({"/lab/one"}, 0.1), ({"/lab/one"}, 120.0), ({"/lab/one", "/lab/two"}, 1.0)]


async def test_several_summaries_are_of_those_that_have_samples(host: House) -> None:
    """A folder has none; asked for by itself that is an error, among others it is passed over."""
    async with host.client() as client:
        told = (await client.get("/api/v2.1/summary?recursive=true")).json()
        assert set(told) == {CGROUP, "/lab/one", "/lab/two"}
        assert set(told[CGROUP]) == {"timestamp", "latest_usage", "minute_usage", "hour_usage", "day_usage"}


async def test_a_container_that_ended_is_told_of_by_its_events(host: House) -> None:
    """In order, each as cAdvisor words it, the newest `max_events`."""
    host.tell.deleted(WEB, cgroup_path=CGROUP, exit_code=3)
    async with host.client() as client:
        told = (await client.get(f"/api/v1.3/events{CGROUP}?all_events=true")).json()
        assert [event["event_type"] for event in told] == ["containerCreation", "containerDeletion"]
        assert told[1]["event_data"] == {"container_deletion": {"exit_code": 3}}
        last = (await client.get(f"/api/v2.1/events{CGROUP}?all_events=true&max_events=1")).json()
        assert last == told[1:]
        assert (await client.get(f"/api/v1.3/events{CGROUP}")).text == "[]"
        assert (await client.get("/api/v1.3/containers" + CGROUP)).status_code == 404


async def test_an_answer_in_pieces_is_one_document(host: House) -> None:
    """Also when it is much longer than what is sent at a time."""
    for number in range(50):
        path = f"/lab/n{number}"
        host.tell.created(path, runtime="raw", name=path, aliases=[], cgroup_path=path)
        for _ in range(5):
            host.tell.sampled(path, runtime="raw", name=path, aliases=[], cgroup_path=path)
    async with host.client() as client:
        got = await client.get("/api/v1.3/subcontainers/lab")
    assert len(got.content) > 300_000
    assert len(json.loads(got.content)) == 53
