"""What a client may ask, and how it asks it over HTTP. Pure: text in, requests out, errors by cAdvisor's words.

Source: cAdvisor's `cmd/internal/api` (v0.60). Beyond it: times may be Unix seconds too, and a count that makes no sense
is an error where cAdvisor ends the connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from streamer.cadvisor import go
from streamer.cadvisor.errors import InvalidRequest

EVENT_TYPES: Final = ("oom", "oomKill", "containerCreation", "containerDeletion")

IdType = Literal["name", "docker", "podman"]
ID_TYPES: Final[tuple[IdType, ...]] = ("name", "docker", "podman")


class InfoRequest(Struct, frozen=True):
    """Which samples of a container to tell.

    num_stats   the newest so many; -1: all that there are, 0: none
    start, end  RFC 3339 or Unix seconds, both included; empty or Go's zero time: open
    """

    num_stats: int = 60
    start: str = ""
    end: str = ""


class RequestOptions(Struct, frozen=True):
    """Which containers, and which samples of them.

    type       what the name is: a cgroup path (`name`), or a name, id or beginning of an id of `docker` or `podman`
    count      the newest so many samples; -1: all that there are, 0: none
    recursive  those below it too
    max_age    how old the newest sample may be, in seconds, or a fresh one is taken; None: whatever there is
    """

    type: IdType = "name"
    count: int = 64
    recursive: bool = False
    max_age: float | None = None


class EventRequest(Struct, frozen=True):
    """Which events.

    container_name         a cgroup path; "": of any container
    include_subcontainers  those below it too
    event_types            some of `EVENT_TYPES`; none: no event
    max_events             the newest so many; -1: all, 0: none. Not for watching
    start_ns, end_ns       ns since 1970, both included; 0: open. Not for watching
    """

    container_name: str = "/"
    include_subcontainers: bool = False
    event_types: frozenset[str] = frozenset()
    max_events: int = 10
    start_ns: int = 0
    end_ns: int = 0


class Window(NamedTuple):
    """An `InfoRequest`, checked: the newest `most` samples from `start_ns` to `end_ns` (0: open)."""

    most: int
    start_ns: int = 0
    end_ns: int = 0


def window(request: InfoRequest) -> Window:
    """Check it.

    Raises:
        InvalidRequest: a count below -1, or a time that is none.
    """
    if request.num_stats < -1:
        raise InvalidRequest(f"invalid 'num_stats': only -1 and larger values allowed, not {request.num_stats}")
    try:
        return Window(request.num_stats, go.parse_time(request.start), go.parse_time(request.end))
    except ValueError as wrong:
        raise InvalidRequest(f"invalid time: {wrong}") from None


def checked(options: RequestOptions) -> RequestOptions:
    """The same options.

    Raises:
        InvalidRequest: a count below -1, or a type that is none.
    """
    if options.type not in ID_TYPES:
        raise InvalidRequest(f"invalid request type {go.quoted(options.type)}")
    if options.count < -1:
        raise InvalidRequest(f"invalid 'count' option: only -1 and larger values allowed, not {options.count}")
    return options


# as they come over HTTP


def info_request(body: bytes) -> InfoRequest:
    """A `ContainerInfoRequest` in JSON. Nothing and `null`: the defaults. Like Go: keys in any case, unknown ones and what follows
    the value are not looked at, null leaves a field as it is.

    Raises:
        InvalidRequest: not that.
    """
    text = body.decode("utf-8", "replace").lstrip()
    if not text:
        return InfoRequest()
    try:
        given, _ = _DECODER.raw_decode(text)
        if given is None:
            return InfoRequest()
        if not isinstance(given, dict):
            raise TypeError("it is not an object")
        fields = {str(key).lower(): value for key, value in given.items() if value is not None}
        request = InfoRequest(_count(fields.get("num_stats", 60)), _time(fields.get("start", "")), _time(fields.get("end", "")))
    except (TypeError, ValueError, RecursionError) as wrong:
        raise InvalidRequest(f"unable to decode the json value: {wrong}") from None
    window(request)
    return request


_DECODER: Final = json.JSONDecoder()


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("num_stats is not a whole number")
    if not go.fits(value):
        raise ValueError("num_stats is not a number of 64 bits")
    return value


def _time(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("a time is neither text nor a number")
    text = str(value)
    go.parse_time(text)
    return text


def request_options(query: Mapping[str, str]) -> RequestOptions:
    """The query string of v2, its first values. Unknown parameters are not looked at.

    Raises:
        InvalidRequest: a value that is none.
    """
    kind, count, age = query.get("type", ""), query.get("count", ""), query.get("max_age", "")
    types: dict[str, IdType] = {"": "name", **{name: name for name in ID_TYPES}}
    if kind not in types:
        raise InvalidRequest(f"unknown 'type' {go.quoted(kind)}")
    number = go.parse_int(count) if count else 64
    if number is None:
        raise InvalidRequest(f"failed to parse 'count' option: {count[:100]}")
    try:
        max_age = go.parse_duration(age) if age else None
    except ValueError as wrong:
        raise InvalidRequest(f"failed to parse 'max_age' option: {wrong}") from None
    return checked(RequestOptions(types[kind], number, query.get("recursive") == "true", max_age))


_TYPE_PARAMETERS: Final = {
    "oom_events": "oom",
    "oom_kill_events": "oomKill",
    "creation_events": "containerCreation",
    "deletion_events": "containerDeletion",
}


def event_request(container_name: str, query: Mapping[str, str]) -> tuple[EventRequest, bool]:
    """The query string of the events endpoint, its first values, and whether it asks for a stream.

    As in cAdvisor, what cannot be read is not looked at.

    Raises:
        InvalidRequest: `max_events` below -1.
    """

    def told(name: str) -> bool:
        return go.parse_bool(query.get(name, "")) is True

    wanted = {kind for name, kind in _TYPE_PARAMETERS.items() if told(name)}
    most = go.parse_int(query.get("max_events", ""))
    request = EventRequest(
        container_name=container_name,
        include_subcontainers=told("subcontainers"),
        event_types=frozenset(EVENT_TYPES if told("all_events") else wanted),
        max_events=10 if most is None else most,
        start_ns=_time_or_open(query.get("start_time", "")),
        end_ns=_time_or_open(query.get("end_time", "")),
    )
    if request.max_events < -1:
        raise InvalidRequest(f"invalid 'max_events' option: only -1 and larger values allowed, not {request.max_events}")
    return request, told("stream")


def _time_or_open(text: str) -> int:
    try:
        return go.parse_time(text)
    except ValueError:
        return 0
