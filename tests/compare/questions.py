"""What both are asked: every route of cAdvisor's API, for containers that both know, and every way to be refused.

Pure: made of what the two said they have.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_V1: Final = ("v1.0", "v1.1", "v1.2", "v1.3")
_V2: Final = ("v2.0", "v2.1")
_EACH: Final = 3  # containers of each sort that are asked for by name: more show the same
NOBODY: Final = "nobody-of-this-name"


@dataclass(frozen=True, slots=True)
class Question:
    """A request and what the answer is.

    root      type of the answer's root, where its paths begin; "" for a text, which is compared as it is
    title     how the question is called where the path of the answer does not say it: refusals and texts
    samples   how many samples were asked for, where that many must come
    any_text  only that there is a text counts, not what it says
    whose     the container that the answer is about, where it does not say itself
    """

    path: str
    root: str = ""
    method: str = "GET"
    body: bytes = b""
    title: str = ""
    samples: int = -1
    any_text: bool = False
    whose: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{' ' + self.body.decode() if self.body else ''}"


@dataclass(frozen=True, slots=True)
class Container:
    """One that both know: its cgroup, and names by which Docker knows it (none: it is not Docker's)."""

    name: str
    aliases: tuple[str, ...] = ()


def known_to_both(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[Container]:
    """Two answers of /api/v1.3/subcontainers to what can be asked about."""
    names = {container["name"] for container in ours}
    return sorted(
        (
            Container(other["name"], tuple(other.get("aliases", ())) if other.get("namespace") == "docker" else ())
            for other in theirs
            if other["name"] in names
        ),
        key=lambda container: container.name,
    )


def asked(containers: Sequence[Container], *, second: int) -> Iterator[Question]:
    """All questions; `second` is a Unix time in the future."""
    docker = [container for container in containers if container.aliases][:_EACH]
    raw = [container for container in containers if not container.aliases and container.name != "/"]
    raw = [*raw[:_EACH], *[container for container in raw[-_EACH:] if container not in raw[:_EACH]]]
    some = [Container("/"), *docker, *raw]
    for version in _V1:
        yield from _v1(version, some, docker, containers)
    for version in _V2:
        yield from _v2(version, some, docker)
    for place in ("v1.3", "v2.0", "v2.1"):
        base = f"/api/{place}/events"
        yield Question(f"{base}?all_events=true&subcontainers=true&max_events=100000", "Events")
        yield Question(f"{base}/?creation_events=true&subcontainers=true&max_events=100000", "Events")
        yield Question(base, "Events")  # no type asked for: none comes
        for container in some[:3]:
            yield Question(f"{base}{container.name}?creation_events=x&max_events=0x1&all_events=t", "EventsNewest")  # x is ignored
            yield Question(f"{base}{container.name}?creation_events=1", "EventsNewest")
    yield Question(
        f"/api/v1.3/events?creation_events=true&subcontainers=true&max_events=100000&start_time={second}", "EventsSinceUnixTime"
    )
    yield from _texts()
    yield from _refusals(docker)


def _v1(version: str, some: list[Container], docker: list[Container], containers: Sequence[Container]) -> Iterator[Question]:
    base = f"/api/{version}"
    yield Question(f"{base}/machine", "Machine")
    for container in some:
        yield Question(f"{base}/containers{container.name}", "Container")
    yield Question(f"{base}/containers", "Container")
    yield Question(f"{base}/containers/", "Container", "POST", _body(num_stats=1, start=_UNSET, end=_UNSET), samples=1)
    yield Question(f"{base}/containers/", "Container", "POST", _body(num_stats=0), samples=0)
    yield Question(f"{base}/containers/", "Container", "POST", _body(num_stats=-1))
    yield Question(f"{base}/containers/", "Container", "POST", b"null")
    yield Question(f"{base}/containers/", "Container", "GET", _body(num_stats=3), samples=3)
    yield Question(f"{base}/containers/", "Container", "POST", _body(end="2001-01-01T00:00:00Z"), samples=0)
    yield Question(f"{base}/containers/", "Container", "DELETE")
    if version == "v1.0":
        return
    yield Question(f"{base}/subcontainers", "Containers")
    yield Question(f"{base}/subcontainers/", "Containers", "POST", _body(num_stats=60, start=_UNSET, end=_UNSET))
    for container in some[1:]:
        others = (other.name for other in containers if other.name != container.name)
        shared = any(name.startswith(container.name) and not name.startswith(f"{container.name}/") for name in others)
        yield Question(f"{base}/subcontainers{container.name}", "SiblingsByPrefix" if shared else "Containers")
    if version == "v1.1":
        return
    yield Question(f"{base}/docker", "ContainerByName")
    yield Question(f"{base}/docker", "ContainerByName", "POST", _body(num_stats=60, start=_UNSET, end=_UNSET))
    for container in docker:
        name, whole = container.aliases[0], container.aliases[-1]
        for said in (name, whole, whole[:12], f"{name}/"):
            yield Question(f"{base}/docker/{said}", "ContainerByName")
        yield Question(f"{base}/docker/{name}", "ContainerByName", "POST", _body(num_stats=2, start=_UNSET, end=_UNSET), samples=2)


def _v2(version: str, some: list[Container], docker: list[Container]) -> Iterator[Question]:
    base = f"/api/{version}"
    stats = "SamplesV20ByName" if version == "v2.0" else "ContainerV2ByName"
    yield Question(f"{base}/version", "Version")
    yield Question(f"{base}/attributes", "Attributes")
    yield Question(f"{base}/machine", "Machine")
    if version == "v2.1":
        yield Question(f"{base}/machinestats", "MachineStats", whose="/")
        yield Question(f"{base}/machinestats?count=5", "MachineStats", samples=5, whose="/")
    yield Question(f"{base}/storage", "Storage")
    yield Question(f"{base}/storage?label=root", "Storage")
    for query in ("recursive=true", "recursive=TRUE", "type=docker&recursive=true", "recursive=true&type=name&count=64"):
        yield Question(f"{base}/stats?{query}", stats)
        yield Question(f"{base}/spec?{query}", "SpecV2ByName")
        yield Question(f"{base}/summary?{query}", "SummaryByName")
    yield Question(f"{base}/stats/?recursive=true&max_age=0s", stats)
    for container in some:
        yield Question(f"{base}/stats{container.name}", stats)
        yield Question(f"{base}/spec{container.name}", "SpecV2ByName")
        yield Question(f"{base}/summary{container.name}", "SummaryByName")
    for container in some[1:]:
        yield Question(f"{base}/ps{container.name}", "Processes", whose=container.name)
    for container in docker:
        for said in (container.aliases[0], container.aliases[-1][:12]):
            yield Question(f"{base}/stats/{said}?type=docker&count=60", stats)
            yield Question(f"{base}/spec/{said}?type=docker", "SpecV2ByName")
            yield Question(f"{base}/summary/{said}?type=docker", "SummaryByName")
        yield Question(f"{base}/ps/{container.aliases[0]}?type=docker", "Processes")
        yield Question(f"{base}/appmetrics/{container.aliases[0]}?type=docker", "AppMetrics")


def _texts() -> Iterator[Question]:
    yield Question("/healthz", title="/healthz")
    yield Question("/validate", title="/validate", any_text=True)
    yield Question("/validate/", title="/validate/", any_text=True)
    yield Question("/api", title="/api", any_text=True)
    for path in ("/api/", "/api/v9/machine", "/api/v1.3//machine", *(f"/api/{version}/" for version in (*_V1, *_V2))):
        yield Question(path, title=path)


def _refusals(docker: Sequence[Container]) -> Iterator[Question]:
    for path in (
        "v1.0/subcontainers/", "v1.0/docker/", "v1.1/docker/", "v1.2/events", "v1.3/version", "v1.3/spec/", "v2.0/containers/",
        "v2.0/machinestats", "v2.1/nonsense",
        f"v1.3/containers/{NOBODY}", f"v1.3/containers/{NOBODY}/../{NOBODY}2", f"v1.3/containers/%2F{NOBODY}", f"v1.3/subcontainers/{NOBODY}",
        f"v1.3/docker/{NOBODY}", "v1.3/docker/a/b",
    ):  # fmt: skip
        yield Question(f"/api/{path}", title=f"refusal /api/{path}")
    for version in _V2:
        for path in (
            "type=nonsense", "type=docker", "count=x", "count=-2", "max_age=x", "recursive=true", "type=docker&recursive=true", "",
        ):  # fmt: skip
            for what in ("stats", "spec", "summary", "ps"):
                yield Question(f"/api/{version}/{what}/{NOBODY}?{path}", title=f"refusal /api/{version}/{what}/…?{path}")
        for path in ("version?count=x", "attributes?max_age=1", "machine?type=x", "storage?count=x", f"storage?label={NOBODY}", f"storage?uuid={NOBODY}", "events?count=x"):  # fmt: skip
            yield Question(f"/api/{version}/{path}", title=f"refusal /api/{version}/{path}")
    for body in (b"{", b"[]", b'"x"', b'{"num_stats":"many"}', b'{"num_stats":1.5}', b'{"start":"yesterday"}', b'{"num_stats":-5}'):
        yield Question("/api/v1.3/containers/", method="POST", body=body, title=f"refusal of the body {body.decode()}")
    for query in ("stream=true&start_time=2001-01-01T00:00:00Z", "all_events=true&max_events=-5"):
        yield Question(f"/api/v1.3/events?{query}", title=f"refusal /api/v1.3/events?{query}")
    prefix = ambiguous([container.aliases[0] for container in docker])
    if prefix:
        yield Question(f"/api/v1.3/docker/{prefix}", title="refusal of a prefix that several have")
        yield Question(f"/api/v2.1/stats/{prefix}?type=docker", title="refusal of a prefix that several have")
    yield Question("/metrics?type=nonsense", title="refusal /metrics?type=nonsense")
    yield Question("/metrics?max_age=x", title="refusal /metrics?max_age=x")


def ambiguous(names: Sequence[str]) -> str:
    """A prefix of two of these names that is not a name itself; "" when there is none."""
    shared = (_shared(one, other) for one in names for other in names if one < other)
    return next((prefix for prefix in shared if prefix and prefix not in names), "")


def _shared(one: str, other: str) -> str:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(character for character, _ in same)


_UNSET: Final = "0001-01-01T00:00:00Z"  # how Go's client says that it does not limit the time


def _body(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
