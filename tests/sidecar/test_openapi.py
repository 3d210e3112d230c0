"""The OpenAPI document: valid, complete, and what a real server answers to requests that are made from it."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from streamer.cadvisor.processes import process_info
from streamer.cadvisor.shapes_v2 import ProcessInfo
from streamer.kernel.processes import Process, Stat
from streamer.model import messages as m
from streamer.sidecar.routes import ROUTES, contract
from tests.sidecar.conftest import House

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
WEB = "4f6b" + "1" * 60
KNOWN = {"id": ["web", WEB[:8], "/lab/one", "job"], "name": ["/", "/lab", "/lab/one", f"/docker/{WEB}", "web", "docker"]}
"""Rests of paths that something answers to."""


def finite() -> dict[str, Any]:
    """The document without what asks for an answer that never ends."""
    document = copy.deepcopy(json.loads(contract()))
    for route in ROUTES:
        if route.endless:
            del document["paths"][route.path]
    for path in document["paths"].values():
        for operation in path.values():
            operation["parameters"] = [p for p in operation["parameters"] if not p.get("$ref", "").endswith("-stream")]
    return document


DOCUMENT = finite()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OLDER = ("/api/v1.0/", "/api/v1.1/", "/api/v1.2/")
"""Their rows are those of v1.3."""
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}


async def processes(path: str) -> list[ProcessInfo]:
    """The same one in each cgroup."""
    process = Process(7, 0, Stat("sleep", "S", 1, 50, 50, -1, 0, 0, 1, 0, 4096, 2048, 1), 4, "")
    return [process_info(process, users={}, boot_ns=0, now_ns=10**9, memory_bytes=1_000_000)]


def a_house() -> House:
    """A root cgroup with file systems, a Docker container, raw ones in a folder, one that ended in an OOM kill; all sampled."""
    house = House(processes)
    house.fill()
    for name, about in {
        "/": {"runtime": "raw", "name": "/", "aliases": [], "cgroup_path": "/"},
        "/lab/one": {"runtime": "raw", "name": "/lab/one", "aliases": [], "cgroup_path": "/lab/one"},
        WEB: {"name": "web", "aliases": ["web"], "cgroup_path": f"/docker/{WEB}"},
    }.items():
        house.tell.created(name, run=2, **about)
        for _ in range(70):
            house.tell.sampled(name, run=2, **about)
    return house


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A sidecar that really listens, on a thread of its own as its clients here are synchronous."""
    at: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with a_house().serving() as sidecar:
            at.append(f"http://{sidecar.address}")
            stop = asyncio.Event()
            end.append(lambda: loop.call_soon_threadsafe(stop.set))
            loop = asyncio.get_running_loop()
            ready.set()
            await stop.wait()

    end: list[Callable[[], object]] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield at[0]
    end[0]()
    thread.join()


def test_it_is_a_valid_document_that_names_every_route() -> None:
    """Every path of the table with its methods; every reference leads somewhere; every schema is one."""
    document = json.loads(contract())
    assert document["openapi"] == "3.1.0"
    expected = {(path, method.lower()) for route in ROUTES for path in route.paths for method in route.methods} - {
        (path, "head") for route in ROUTES for path in route.paths
    }
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == expected
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for below in node.values():
            yield from references(below)
    elif isinstance(node, list):
        for below in node:
            yield from references(below)


@pytest.mark.parametrize("requests", [4, pytest.param(30, marks=pytest.mark.live)])  # most of the time goes into making them up
@pytest.mark.parametrize("label", [label for label in OPERATIONS if not any(older in label for older in OLDER)])
def test_a_real_server_answers_as_the_document_says(address: str, label: str, requests: int) -> None:
    """Requests made from the document, sensible or not: never a fault; status, type and shape of each answer are described."""
    operation = OPERATIONS[label]
    strategies = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    for name, values in KNOWN.items():
        if f"{{{name}}}" in label:
            strategies += [operation.as_strategy(path_parameters={name: value}) for value in values]

    @settings(
        max_examples=max(2, requests * settings().max_examples // 100),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(strategies))
    def ask(case: Case) -> None:
        response = case.call(base_url=address, timeout=30)
        case.validate_response(response, checks=CHECKS)

    ask()


@pytest.mark.parametrize(
    "path", [path for route in ROUTES if route.shape is not None for path in route.paths if not path.startswith(OLDER)]
)
async def test_a_full_answer_fits_its_schema(path: str) -> None:
    """What a filled memory answers, held against the schema by a validator that is not ours."""
    house = a_house()
    operation = DOCUMENT["paths"][path]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    names = [value for values in KNOWN.values() for value in values] if "{" in path else [""]
    answered = 0
    async with house.client() as client:
        for name in names:
            for query in ("", "?all_events=true&subcontainers=true&recursive=true", "?type=docker"):
                if query and "/streamer/" in path:
                    continue
                got = await client.get(path.replace("{name}", name).replace("{id}", name) + query)
                if got.status_code == 200:
                    answered += 1
                    validator.validate(got.json())
    assert answered


def test_the_types_are_those_of_the_messages() -> None:
    """A field that a record has is in the document, with its unit."""
    schemas = json.loads(contract())["components"]["schemas"]
    oom = schemas["ContainerOom"]["properties"]
    assert set(oom) == {field.encode_name for field in m.msgspec.structs.fields(m.ContainerOom)}
