"""cAdvisor's REST API, v1.0 to v1.3, v2.0 and v2.1, on its manager's operations (`streamer.cadvisor`).

Paths, parameters, bodies and error texts are those of cAdvisor v0.60. What differs, and why:

- Errors have the status that fits them instead of 500 (see `application.py`); the text is the same.
- Numbers that make cAdvisor's handler panic (`num_stats`, `max_events` below -1) are refused.
- A sample is fresh for 0.1 s, and for 1 s where subcontainers are asked for, too, whatever `max_age` says: a client that asks over
  and over does not set the pace at which this host is observed.
- Unknown methods are 405; cAdvisor takes any.
- A stream of events has a content type. A client that does not read holds up nobody: it gets what waited for it, and then the
  stream ends, in order, as cAdvisor's Go client takes any other end for a reason to end the whole program.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from msgspec import Meta, Struct, structs

from streamer.cadvisor.channel import EventChannel
from streamer.cadvisor.errors import RequestFailed
from streamer.cadvisor.go import quoted
from streamer.cadvisor.requests import ID_TYPES, EventRequest, RequestOptions, event_request, info_request, request_options
from streamer.cadvisor.shapes import ContainerInfo, Event
from streamer.cadvisor.shapes_machine import MachineInfo
from streamer.cadvisor.shapes_v2 import (
    Attributes,
    ContainerInfoV2,
    ContainerSpecV2,
    DeprecatedContainerStats,
    DerivedStats,
    FsInfo,
    MachineStats,
    ProcessInfo,
)
from streamer.cadvisor.tree import canonical
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import Lines, Pieces
from streamer.sidecar.query import MOST_PARAMETERS, Answer, Kind, Param, Refused, encode
from streamer.sidecar.route import Given, Route

V1: Final = ("v1.0", "v1.1", "v1.2", "v1.3")
V2: Final = ("v2.0", "v2.1")
VERSIONS: Final = (*V1, *V2)

T = TypeVar("T")

# the question


class InfoBody(Struct):
    """Which samples: the newest `num_stats` (-1: all) between `start` and `end` (RFC 3339; left out or Go's zero time: open)."""

    num_stats: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    start: str | None = None
    end: str | None = None


def find(path: str) -> tuple[Route, dict[str, Any]]:
    """The row that answers a path, with the rest of the path: its elements, and the container's name that they are.

    Raises:
        Refused: there is none, with the texts of cAdvisor.
    """
    found = _PATH.match(path)
    if found is None:
        raise Refused(400, f"Supported API versions: {','.join(VERSIONS)}")
    version, kind, rest = found.groups()
    types = _ROUTES.get(version)
    if types is None:
        raise Refused(404, f"unsupported API version {quoted(version)}")
    if not kind:
        raise Refused(400, f"Supported request types: {quoted(','.join(sorted(types)))}")
    if kind not in types:
        raise Refused(404, f"unknown request type {quoted(kind)}")
    elements = rest.removeprefix("/").split("/") if rest.strip("/") else []
    return types[kind], {"elements": elements, "name": canonical(rest)}


_PATH: Final = re.compile(r"/api/([^/]+)/?([^/]+)?(.*)", re.DOTALL)


def question(route: Route, rest: dict[str, Any], query_string: bytes, body: bytes) -> Query:
    """What is asked of a row: `elements` and `name` as in the path; `given`: the parameters, of repeated ones the first;
    `options`: of v2, read whether they matter or not; `body`.

    Raises:
        Refused: there are too many parameters.
        RequestFailed: an option cannot be read.
    """
    try:
        pairs = parse_qsl(query_string.decode("utf-8", "replace"), max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise Refused(400, f"more than {MOST_PARAMETERS} query parameters") from None
    given = dict(reversed(pairs))
    options = _soon(request_options(given)) if route.params[: len(_OPTIONS)] == _OPTIONS else None
    return {**rest, "given": given, "options": options, "body": body}


def _soon(options: RequestOptions) -> RequestOptions:
    if options.max_age is None:
        return options
    floor = _SOONEST_OF_MANY_SECONDS if options.recursive else _SOONEST_SECONDS
    return structs.replace(options, max_age=max(floor, options.max_age))


_SOONEST_SECONDS: Final = 0.1
_SOONEST_OF_MANY_SECONDS: Final = 1.0

_FLAG: Final = Kind(str, {"type": "string", "enum": ["true", "false"]})
_NUMBER: Final = Kind(str, {"type": "integer", "minimum": -1, "maximum": 2**63 - 1})
_TEXT: Final = Kind(str, {"type": "string"})
_TIME: Final = Kind(str, {"type": "string", "format": "date-time"})
_DURATION: Final = Kind(str, {"type": "string", "pattern": r"^[0-9]{1,9}(ms|s|m|h)$"})

# read by `requests.request_options`
_OPTIONS: Final = (
    Param(
        "type", Kind(str, {"enum": [*ID_TYPES]}), "name", "what the path names: a cgroup (name), or an id, its beginning or a name"
    ),
    Param("count", _NUMBER, RequestOptions().count, "most samples of each container, the newest; -1: all"),
    Param("recursive", _FLAG, "false", "true: subcontainers at any depth, too"),
    Param("max_age", _DURATION, None, "oldest that the newest sample may be, as a Go duration (5s); older ones are taken anew"),
)

# read by `requests.event_request`
_EVENTS: Final = (
    Param("stream", _FLAG, "false", "true: events as they happen, one line each, instead of those of the past"),
    Param("subcontainers", _FLAG, "false", "true: events of subcontainers at any depth, too"),
    Param("all_events", _FLAG, "false", "true: events of every type"),
    Param("oom_events", _FLAG, "false", "true: OOM kills, by the container of the process killed"),
    Param("oom_kill_events", _FLAG, "false", "true: OOM kills, by the container whose limit was hit"),
    Param("creation_events", _FLAG, "false", "true: containers that were created"),
    Param("deletion_events", _FLAG, "false", "true: containers that were deleted"),
    Param("max_events", _NUMBER, EventRequest().max_events, "most events of the past, the newest; -1: all"),
    Param("start_time", _TIME, None, "oldest event of the past: RFC 3339, or seconds since 1970"),
    Param("end_time", _TIME, None, "newest event of the past: RFC 3339, or seconds since 1970"),
)

_FILESYSTEMS: Final = (
    Param("label", _TEXT, None, "only file systems with this label: root, docker-images"),
    Param("uuid", _TEXT, None, "only the file system with this uuid, by itself"),
)

# the answers


async def machine(context: Context, _query: Query) -> Answer:
    """The machine: cores, memory, file systems, disks, network devices, topology, cloud."""
    return Answer(encode(await context.operations.machine_info()))


async def containers(context: Context, query: Query) -> Answer:
    """One container by the path of its cgroup: direct subcontainers, limits, samples."""
    request = info_request(query["body"])
    with _telling(f"failed to get container {quoted(query['name'])}"):
        return Answer(encode(await context.operations.container_info(query["name"], request)))


async def subcontainers(context: Context, query: Query) -> Pieces:
    """A container and all below it, at any depth, each with limits and samples."""
    request = info_request(query["body"])
    with _telling(f"failed to get subcontainers for container {quoted(query['name'])}"):
        return Pieces(_array(_begun(context.operations.each_subcontainer(query["name"], request))))


async def docker(context: Context, query: Query) -> Given:
    """All Docker containers by the paths of their cgroups, or the one of this id, beginning of its id, or name."""
    request = info_request(query["body"])
    match query["elements"]:
        case []:
            with _telling("failed to get all Docker containers"):
                return Pieces(_object(_begun(context.operations.each_docker_container(request))))
        case [alias]:
            with _telling(f"failed to get Docker container {quoted(alias)}"):
                found = await context.operations.docker_container(alias, request)
            return Answer(encode({found.name: found}))
        case several:
            raise Refused(400, f"unknown request for Docker container [{' '.join(several)}]")


async def events(context: Context, query: Query) -> Given:
    """What happened to a container: creations, deletions, OOM kills; of the past as a list, or as it happens as lines."""
    request, stream = event_request(query["name"], query["given"])
    if not stream:
        return Answer(encode(await context.operations.past_events(request)))
    channel = context.operations.watch_for_events(request)

    def close() -> None:
        channel.close()
        if channel.dropped:
            context.telemetry.count("streamer_http_streams_dropped_total")
            context.telemetry.count("streamer_http_events_dropped_total", by=channel.dropped)

    return Lines(_lines(channel), close)


async def version(context: Context, _query: Query) -> Answer:
    """The version of this program."""
    return Answer(encode((await context.operations.version_info()).cadvisor_version))


async def attributes(context: Context, _query: Query) -> Answer:
    """Versions and machine in one."""
    return Answer(encode(await context.operations.attributes()))


async def machine_stats(context: Context, query: Query) -> Answer:
    """Samples of the whole machine; null when it is not watched, as only the scope `all` does."""
    return Answer(encode(await context.operations.machine_stats(query["options"]) or None))


async def freshen(context: Context, query: Query) -> None:
    """Wait for fresh samples, where they are asked for."""
    await context.operations.freshen(query["name"], query["options"])


async def samples_of(context: Context, query: Query) -> Pieces:
    """Samples of a container, or of it and all below it, by the paths of their cgroups."""
    options = query["options"]
    return Pieces(_object(_begun(context.operations.each_deprecated(query["name"], options))))


async def stats(context: Context, query: Query) -> Pieces:
    """Limits and samples of a container, or of it and all below it, by the paths of their cgroups; never of `/` itself."""
    options = query["options"]
    found = _begun(context.operations.each_requested_v2(query["name"], options))
    return Pieces(_object((path, info) for path, info in found if path != "/"))


async def spec(context: Context, query: Query) -> Answer:
    """Limits of a container, or of it and all below it, by the paths of their cgroups."""
    return Answer(encode(await context.operations.container_spec(query["name"], query["options"])))


async def summary(context: Context, query: Query) -> Pieces:
    """CPU and memory over the last minute, hour and day, of a container, or of it and all below it."""
    options = query["options"]
    return Pieces(_object(_begun(context.operations.each_derived(query["name"], options))))


async def storage(context: Context, query: Query) -> Answer:
    """The machine's file systems, those with a label, or the one with a uuid."""
    label, uuid = query["given"].get("label", ""), query["given"].get("uuid", "")
    found = await context.operations.fs_info(label=label, uuid=uuid)
    return Answer(encode(found[0] if uuid else found))


async def processes(context: Context, query: Query) -> Answer:
    """The processes of a container."""
    try:
        return Answer(encode(await context.operations.process_list(query["name"], query["options"])))
    except RequestFailed as failed:
        raise type(failed)(f"process listing failed: {failed}") from None


async def app_metrics(context: Context, query: Query) -> Answer:
    """Metrics that a container's program offers: none, as nothing is collected from inside of containers."""
    await context.operations.container_spec(query["name"], query["options"])
    return Answer(encode({query["name"]: {}}))


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except RequestFailed as failed:
        raise type(failed)(f"{what} with error: {failed}") from None


def _begun(items: Iterable[T]) -> Iterator[T]:
    """The same items with the first one made: whatever is refused is refused here."""
    iterator = iter(items)
    for first in iterator:
        return chain((first,), iterator)
    return iterator


def _array(items: Iterable[Any]) -> Iterator[bytes]:
    before = b"["
    for item in items:
        yield before + encode(item)
        before = b","
    yield b"[]" if before == b"[" else b"]"


def _object(items: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    before = b"{"
    for name, value in items:
        yield before + encode(name) + b":" + encode(value)
        before = b","
    yield b"{}" if before == b"{" else b"}"


async def _lines(channel: EventChannel) -> AsyncIterator[bytes]:
    async for event in channel:
        yield encode(event) + b"\n"


# the table


def _rows(
    versions: Sequence[str], kind: str, answer: Any, shape: Any, params: tuple[Param, ...] = (), **more: Any
) -> Iterator[Route]:
    rest = "/{name}" if more.get("bare") else ""
    for each in versions:
        every = (*(_OPTIONS if each in V2 else ()), *params)
        yield Route(f"/api/{each}/{kind}{rest}", answer, every, shape, cadvisor=True, **more)


_TABLE: Final[tuple[Iterator[Route], ...]] = (
    _rows(VERSIONS, "machine", machine, MachineInfo, tagged=True),
    _rows(V1, "containers", containers, ContainerInfo, bare=True, body=InfoBody),
    _rows(V1[1:], "subcontainers", subcontainers, list[ContainerInfo], bare=True, body=InfoBody, heavy=True),
    _rows(V1[2:], "docker", docker, dict[str, ContainerInfo], bare=True, body=InfoBody, heavy=True),
    _rows((V1[-1], *V2), "events", events, list[Event], _EVENTS, bare=True),
    _rows(V2, "version", version, str, tagged=True),
    _rows(V2, "attributes", attributes, Attributes, tagged=True),
    _rows(V2[1:], "machinestats", machine_stats, list[MachineStats] | None),
    _rows(V2[:1], "stats", samples_of, dict[str, list[DeprecatedContainerStats]], bare=True, heavy=True, before=freshen),
    _rows(V2[1:], "stats", stats, dict[str, ContainerInfoV2], bare=True, heavy=True, before=freshen),
    _rows(V2, "spec", spec, dict[str, ContainerSpecV2], bare=True, tagged=True),
    _rows(V2, "summary", summary, dict[str, DerivedStats], bare=True, heavy=True, before=freshen),
    _rows(V2, "storage", storage, list[FsInfo] | FsInfo, _FILESYSTEMS),
    _rows(V2, "ps", processes, list[ProcessInfo], bare=True, heavy=True),
    _rows(V2, "appmetrics", app_metrics, dict, bare=True),
)

ROUTES: Final = tuple(route for rows in _TABLE for route in rows)

_ROUTES: Final[dict[str, dict[str, Route]]] = {version: {} for version in VERSIONS}
for _route in ROUTES:
    _place = _route.path.split("/")
    _ROUTES[_place[2]][_place[3]] = _route
