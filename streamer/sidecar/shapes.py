"""The JSON of our own API as types, for the OpenAPI document: answers are joined from records, not made of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct, structs

from streamer.memory import Derived, Span, Usage
from streamer.model import messages as m
from streamer.sidecar.rates import Rates, Series
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
    """A container, what it uses while it lives, and its newest sample."""

    rates: Rates | UnsetType = UNSET
    last_sample: m.ContainerStats | UnsetType = UNSET  # type: ignore[valid-type]  # made of a table at run time


class Containers(Struct):
    """`total`: how many pass the filters. `next`: more follow; give it as `after`."""

    total: int
    containers: list[Listed]
    next: str | UnsetType = UNSET


class StatisticsOf(Struct):
    """Over a minute, an hour or a day. `percent_complete`: how much of it was looked at.

    `minute` is of the samples; `hour` of the minutes in it, `day` of the hours: their means and maxima, percentiles of their
    90th percentiles.
    """

    percent_complete: int
    cpu_millicores: Usage
    memory_bytes: Usage

    @classmethod
    def of(cls, span: Span) -> StatisticsOf:
        return cls(span.percent_complete, span.cpu, span.memory)


class Statistics(Struct):
    minute: StatisticsOf
    hour: StatisticsOf
    day: StatisticsOf

    @classmethod
    def of(cls, derived: Derived) -> Statistics:
        return cls(*map(StatisticsOf.of, (derived.minute, derived.hour, derived.day)))


_Event = Annotated[  # msgspec tells no union of two untagged structs
    Any,
    Meta(
        extra_json_schema={"anyOf": [{"$ref": f"#/components/schemas/{each}"} for each in ("ContainerLifecycle", "ContainerOom")]}
    ),
]


class One(Facts, kw_only=True):
    """A container, what it uses, its recent samples and what happened to it, the oldest first."""

    rates: Rates
    derived: Statistics
    recent_samples: list[RecentSample]
    events: list[_Event]


class Using(Rates, kw_only=True):
    """`id`: incarnation."""

    id: str


class AllRates(Struct):
    """`time_ms`: of the answer."""

    time_ms: int
    containers: list[Using]


class AllSeries(Struct):
    """`time_ms`: of the answer."""

    time_ms: int
    containers: list[Series]


class Hosts(Struct):
    hosts: list[m.HostInfo]


class Oom(Struct):
    """`total`: how many are remembered."""

    total: int
    oom: list[m.ContainerOom]


class Lifecycle(Struct):
    """`total`: how many are remembered."""

    total: int
    lifecycle: list[m.ContainerLifecycle]


class Lane(Struct):
    """What waits for a sink, and what became of the rest, in one of its two queues.

    `delivered_until_ms`: when the newest message that was acknowledged was made. `lag_ms`: how long ago that is, while
    something waits; absent while nothing was acknowledged yet.
    """

    backlog_messages: int
    backlog_bytes: int
    delivered: int
    dropped: int
    delivered_until_ms: int | UnsetType = UNSET
    lag_ms: int | UnsetType = UNSET


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


class StateFile(Component, kw_only=True):
    """Where messages wait over a restart. `bytes`: by lane."""

    bytes: dict[str, int]


class Stream(Struct):
    time_ms: int
    streams: list[StreamOfHost]
    sources: list[Component]
    outbox: list[StateFile]
    sinks: list[Sink]
    gaps: list[m.Control]
