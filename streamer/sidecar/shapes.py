"""The JSON of our own API as types, for the OpenAPI document: answers are joined from records, not made of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, Struct, UnsetType, defstruct, structs

from streamer.model import messages as m
from streamer.sidecar.recent import RecentSample


class Error(Struct):
    """A refusal: what is wrong, and what would help. `candidates`: what an ambiguous question may have meant."""

    error: str
    remedy: str
    candidates: list[Any] | UnsetType = UNSET


class Component(Struct):
    """A part of the agent. `reason` and `remedy`: of what is not ok."""

    component: str
    state: Literal["ok", "starting", "degraded", "down", "off"]
    reason: str | UnsetType = UNSET
    remedy: str | UnsetType = UNSET
    since: str | UnsetType = UNSET


class Ready(Struct):
    """`because`: what keeps the agent from being ready. `state`: of the part that is worst."""

    ready: bool
    state: str
    because: list[str]
    components: list[Component]


def _facts() -> list[tuple[str, Any, Any]]:
    """What may be known of a container: the fields of what is said about one, but for those about the saying."""
    about = {field.name for field in structs.fields(m.Record)} - {"host", "host_id"}
    known = {
        field.name: (field.name, field.type | UnsetType, UNSET)
        for record in (m.ContainerLifecycle, m.ContainerState)
        for field in structs.fields(record)
        if field.name not in about | {"event", "changed"}
    }
    more = [("deleted", bool), ("deleted_at", str), ("oom_kills", int), ("last_oom_at", str)]
    return [*known.values(), *((name, kind | UnsetType, UNSET) for name, kind in more if name not in known)]


if TYPE_CHECKING:

    class Facts(Struct):
        """What is known of a container."""
else:
    Facts = defstruct("Facts", _facts(), module=__name__)
    Facts.__doc__ = "What is known of a container, in the fields of the messages; what is not known is left out."


class Listed(Facts):
    """A container, and its newest sample."""

    last_sample: m.ContainerStats | UnsetType = UNSET  # type: ignore[valid-type]  # made of a table at run time


class Containers(Struct):
    """`total`: how many pass the filters. `next`: more follow; give it as `after`."""

    total: int
    containers: list[Listed]
    next: str | UnsetType = UNSET


class One(Facts, kw_only=True):
    """A container, and its recent samples, the oldest first."""

    recent_samples: list[RecentSample]


class Hosts(Struct):
    hosts: list[m.HostInfo]


class Oom(Struct):
    """`total`: how many are remembered."""

    total: int
    oom: list[m.ContainerOom]


class Lane(Struct):
    """What waits for a sink, and what became of the rest, in one of its two queues."""

    backlog_messages: int
    backlog_bytes: int
    delivered: int
    dropped: int


class Sink(Struct):
    sink: str
    lanes: dict[str, Lane]
    state: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    remedy: str | UnsetType = UNSET


class StreamOfHost(Struct):
    """`high_water`: the last `seq` of each topic in this epoch."""

    host: str
    host_id: str
    epoch: int
    high_water: dict[str, int]
    heartbeat_ms: int | UnsetType = UNSET


class Stream(Struct):
    streams: list[StreamOfHost]
    sinks: list[Sink]
    gaps: list[m.Control]
