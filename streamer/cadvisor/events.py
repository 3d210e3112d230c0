"""Lifecycle and OOM messages as cAdvisor's events, and which of them a request is about. Pure.

An OOM kill is two events: `oom` of the cgroup of the process that was killed, `oomKill` of the one whose limit was hit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from streamer import memory
from streamer.cadvisor import go
from streamer.cadvisor.requests import EventRequest
from streamer.cadvisor.shapes import DeletionEventData, Event, EventData, OomEventData
from streamer.model.messages import ContainerLifecycle, ContainerOom

CREATED: Final = "containerCreation"
DELETED: Final = "containerDeletion"
OOM: Final = "oom"
OOM_KILL: Final = "oomKill"

_TYPES_OF_KIND: Final = {"created": {CREATED}, "deleted": {DELETED}, "oom": {OOM, OOM_KILL}}
"""What is said, by `memory.Event.kind`, and the event types that come of it."""

_CONSTRAINTS: Final = {
    # enum oom_constraint of the kernel (include/linux/oom.h)
    "global": "CONSTRAINT_NONE",
    "cpuset": "CONSTRAINT_CPUSET",
    "mempolicy": "CONSTRAINT_MEMORY_POLICY",
    "memcg": "CONSTRAINT_MEMCG",
}

UNKNOWN_EXIT_CODE: Final = -1
_NO_DATA: Final = EventData()


class _Told(Struct):
    """What is needed of either record."""

    time: str
    cgroup_path: str
    event: str | UnsetType = UNSET
    started_at: str | UnsetType = UNSET
    exit_code: int | UnsetType = UNSET
    killed_cgroup: str | UnsetType = UNSET
    limit_cgroup: str | UnsetType = UNSET
    constraint: str | UnsetType = UNSET
    pid: int | UnsetType = UNSET
    process: str | UnsetType = UNSET


_decode: Final = msgspec.json.Decoder(_Told).decode


def of_record(record: Any) -> list[Event]:
    """The events of a message's record; none for those that cAdvisor has no word for."""
    if isinstance(record, ContainerLifecycle):
        return _of_lifecycle(record)
    return _of_oom(record) if isinstance(record, ContainerOom) else []


def past(told: Iterable[memory.Event], request: EventRequest) -> list[Event]:
    """The events of what memory holds, the oldest first: filtered, then the newest `max_events`."""
    found = []
    for each in told:
        if request.event_types.isdisjoint(_TYPES_OF_KIND.get(each.kind, ())):
            continue
        record = _decode(each.value)
        events = _of_oom(record) if each.kind == "oom" else _of_lifecycle(record)
        found += [(at_ns, event) for event in events if matches(event, request) and _within(at_ns := _time_ns(event), request)]
    found.sort(key=lambda timed: timed[0])
    newest = found if request.max_events < 0 else found[max(0, len(found) - request.max_events) :]
    return [event for _, event in newest]


def matches(event: Event, request: EventRequest) -> bool:
    """Whether an event is of a type and a container that the request is about."""
    if event.event_type not in request.event_types:
        return False
    wanted = request.container_name
    if not wanted or event.container_name == wanted:
        return True
    return request.include_subcontainers and event.container_name.startswith(wanted if wanted == "/" else wanted + "/")


def _within(at_ns: int, request: EventRequest) -> bool:
    return at_ns >= request.start_ns and (not request.end_ns or at_ns <= request.end_ns)


def _time_ns(event: Event) -> int:
    return go.parse_time(event.timestamp)


def _of_lifecycle(record: Any) -> list[Event]:
    name = record.cgroup_path
    if record.event == "created":
        return [Event(name, go.nano(record.started_at or record.time), CREATED, _NO_DATA)]
    if record.event == "deleted":
        code = UNKNOWN_EXIT_CODE if record.exit_code is UNSET else record.exit_code
        return [Event(name, go.nano(record.time), DELETED, EventData(container_deletion=DeletionEventData(code)))]
    return []


def _of_oom(record: Any) -> list[Event]:
    at = go.nano(record.time)
    killed = record.killed_cgroup or record.cgroup_path
    limit = record.limit_cgroup or ("/" if record.constraint == "global" else killed)
    data = OomEventData(record.pid or 0, record.process or "", _CONSTRAINTS.get(record.constraint or "", ""))
    return [Event(killed, at, OOM, _NO_DATA), Event(limit, at, OOM_KILL, EventData(oom=data))]
