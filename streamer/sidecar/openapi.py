"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), made of the table of routes and the types it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

import streamer
from streamer.sidecar import shapes
from streamer.sidecar.query import Param
from streamer.sidecar.route import Route

_REFERENCE: Final = "#/components/schemas/{name}"

_ERRORS: Final = {
    "400": "The question cannot be understood.",
    "401": "Who asks has to say who they are: a token or a certificate of the client.",
    "403": "Who asks has to show a certificate.",
    "404": "There is no such thing.",
    "409": "Several things fit.",
    "413": "The body is too large.",
    "421": "The request is addressed to another host.",
    "503": "Too many large answers are being made; ask again.",
}


_ABOUT: Final = """Recent state of the containers of a host, from memory; nothing can be changed here.

`/api/streamer/v1` speaks the vocabulary of the messages (see the JSON Schemas beside this document); `/api/v1.0` to
`/api/v2.1` are cAdvisor's, for its clients. Every GET is answered to HEAD, too. Names of containers are paths: their
slashes may be written as they are. Whether who asks has to say who they are is a matter of configuration: a token or a
certificate of the client lets in, each by itself; `/healthz` is open to all, `/metrics` may be."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """All of it, as JSON values."""
    types = [shape for route in routes for shape in (route.shape, route.body) if shape is not None]
    types += [shapes.Error, *(shape for shape in (route.unready for route in routes) if shape is not None)]
    made, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = _Schemas(types, list(made))
    paths: dict[str, Any] = {}
    for route in routes:
        for path in route.paths:
            paths[path] = {method.lower(): _operation(route, path, method, schemas) for method in route.methods if method != "HEAD"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "streamer", "version": streamer.__version__, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}, {"certificate": []}, {}],
        "paths": paths,
        "components": {
            "parameters": {f"cadvisor-{p.name}": _of_query(p) for route in routes if route.cadvisor for p in route.params},
            "responses": _refusals(schemas.of(shapes.Error)),
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}, "certificate": {"type": "mutualTLS"}},
        },
    }


class _Schemas:
    """Type -> its schema; types are not always hashable."""

    def __init__(self, types: list[Any], made: list[dict[str, Any]]) -> None:
        self._types, self._made = types, made

    def of(self, shape: Any) -> dict[str, Any]:
        return self._made[next(place for place, each in enumerate(self._types) if each is shape or each == shape)]


def _operation(route: Route, path: str, method: str, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": route.summary,
        "tags": ["cAdvisor" if route.cadvisor else "streamer"],
        "parameters": [
            *_of_path(path),
            *(_place(param) if route.cadvisor else _of_query(param) for param in route.params),
            *({**_of_query(param), "in": "header"} for param in route.headers),
        ],
        "responses": dict(sorted(_responses(route, path, schemas))),
    }
    if route.access == "open":
        operation["security"] = []
    if method == "POST":
        accepted = {"schema": schemas.of(route.body)} if route.body is not None else {}
        operation["requestBody"] = {"required": False, "content": {"application/json": accepted}}
    return operation


def _of_path(path: str) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _place(param: Param) -> dict[str, Any]:
    """Where a parameter of cAdvisor's API is described: each means the same everywhere."""
    return {"$ref": f"#/components/parameters/cadvisor-{param.name}"}


def _of_query(param: Param) -> dict[str, Any]:
    default = {} if param.default is None or param.several else {"default": param.default}
    schema = {"type": "array", "items": param.kind.schema} if param.several else {**param.kind.schema, **default}
    return {
        "name": param.name,
        "in": "query",
        "required": False,
        "description": param.help,
        "schema": schema,
    }


def _responses(route: Route, path: str, schemas: _Schemas) -> Iterator[tuple[str, Any]]:
    good = _text(route.text_types) if route.shape is None else {"application/json": {"schema": schemas.of(route.shape)}}
    yield "200", {"description": "The answer.", "content": good}
    if route.tagged:
        yield "304", {"description": "The client holds this version already (`If-None-Match`)."}
    if route.unready is not None:
        yield "503", {"description": "Not ready.", "content": {"application/json": {"schema": schemas.of(route.unready)}}}
    for status in route.refusals:
        yield status, {"$ref": f"#/components/responses/{_refusal(route.cadvisor, status)}"}


def _text(types: Sequence[str] = ("text/plain",)) -> dict[str, Any]:
    return {each: {"schema": {"type": "string"}} for each in types}


def _refusal(cadvisor: bool, status: str) -> str:
    return f"{'text' if cadvisor else 'json'}-{status}"


def _refusals(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        _refusal(cadvisor, status): {
            "description": about,
            "content": _text() if cadvisor else {"application/json": {"schema": schema}},
        }
        for cadvisor in (False, True)
        for status, about in _ERRORS.items()
    }
