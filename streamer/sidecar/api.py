"""The health routes, and of our own API hosts, events and the stream: pure functions from memory to bodies.

Bodies are joined from JSON: last samples, events and host facts are the records as published.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

from streamer.clock import rfc3339
from streamer.contracts import Status
from streamer.memory import ID_PREFIX_MIN, Event, Memory
from streamer.model import messages as m
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import Pieces
from streamer.sidecar.metrics import metrics_body
from streamer.sidecar.query import Answer, Refused, encode

MOST_EVENTS: Final = 5000

CANDIDATES_SHOWN: Final = 20
_GAPS_SHOWN: Final = 100
_WORKING: Final = ("ok", "degraded")
_SEVERITY: Final = {"ok": 0, "off": 0, "starting": 1, "degraded": 2, "down": 3}

# health


def healthz(_context: Context, _query: Query) -> Answer:
    """Liveness: `ok` as text, as long as the event loop turns."""
    return Answer(b"ok", content_type="text/plain; charset=utf-8")


def readyz(context: Context, query: Query) -> Answer:
    """Readiness: every source and sink with its state and reason; 503 while the agent cannot watch containers.

    A broker that is down is shown with its reason, but does not make the agent unready: it goes on observing and keeps
    what it owes, and whoever restarts or withdraws it because of that loses exactly what is waiting.
    `?require_sinks=true` asks the other question.
    """
    statuses = context.statuses()
    by_name = {status.component: status for status in statuses}
    because = [_lacking(name, by_name.get(name)) for name in context.essential]
    if query["require_sinks"]:
        because += [_lacking(s.component, s) for s in statuses if s.component.startswith("sink.")]
    because = [reason for reason in because if reason]
    body = {
        "ready": not because,
        "state": max((s.state for s in statuses), key=_severity, default="starting"),
        "because": because,
        "components": [_component(status) for status in statuses],
    }
    return Answer(encode(body), 503 if because else 200)


def _lacking(name: str, status: Status | None) -> str:
    if status is None:
        return f"{name} has not reported yet"
    if status.state in _WORKING:
        return ""
    return f"{name} is {status.state}" + (f": {status.reason}" if status.reason else "")


def _severity(state: str) -> int:
    return _SEVERITY.get(state, max(_SEVERITY.values()))


def _component(status: Status) -> dict[str, str]:
    said = {
        "component": status.component,
        "state": status.state,
        "reason": status.reason,
        "remedy": status.remedy,
        "since": rfc3339(status.since_ms * 1_000_000) if status.since_ms else "",
    }
    return {name: text for name, text in said.items() if text}


def metrics(context: Context, query: Query) -> Pieces:
    """Containers and the machine by cAdvisor's names, and the agent's own numbers, as Prometheus text or OpenMetrics."""
    content_type, chunks = metrics_body(context, query["accept"])
    return Pieces(chunks, content_type)


# hosts, events, the stream


def hosts(context: Context, _query: Query) -> Answer:
    """Machine and version facts of every known host: the last `host.info` records."""
    return Answer(b'{"hosts":[%b]}' % b",".join(context.memory.hosts.values()))


def host(context: Context, _query: Query) -> Answer:
    """Machine and version facts of the one host that this agent watches: its last `host.info` record."""
    known = context.memory.hosts
    if not known:
        raise Refused(404, "no host.info message has been made yet", "ask again in a moment")
    if len(known) > 1:
        raise Refused(
            409, f"{len(known)} hosts are known here", "ask /api/streamer/v1/hosts", candidates=sorted(known)[:CANDIDATES_SHOWN]
        )
    return Answer(next(iter(known.values())))


def oom(context: Context, query: Query) -> Pieces:
    """The last OOM kills, as `container.oom` records, the oldest first; `total` counts those in memory."""
    return _latest(context.memory, m.OOM, query)


def lifecycle(context: Context, query: Query) -> Pieces:
    """What was last created, changed and deleted, as `container.lifecycle` records, the oldest first; `total` counts those in memory."""
    return _latest(context.memory, m.LIFECYCLE, query)


def _latest(memory: Memory, topic: m.Topic, query: Query) -> Pieces:
    text = query["container"]
    events = list(memory.events(topic)) if text is None else about(memory, text, topic)
    values = [event.value for event in events[-query["limit"] :]]
    return Pieces(itertools.chain((b'{"total":%d,"%b":[' % (len(events), topic.short.encode()),), separated(values), (b"]}",)))


def about(memory: Memory, text: str, *topics: m.Topic) -> list[Event]:
    """What was said of a container, by its id, the beginning of it, or any name of one that is known still; in order."""
    known = {(c.host_id, c.container_id) for c in memory.find(text)}
    begin = text if len(text) >= ID_PREFIX_MIN else None
    found = (
        [e for e in memory.events(topic) if (e.host_id, e.subject) in known or (begin and e.subject.startswith(begin))]
        for topic in topics
    )
    return list(heapq.merge(*found, key=attrgetter("position")))


def separated(values: Iterable[bytes]) -> Iterator[bytes]:
    """The same with commas in between."""
    before = b""
    for value in values:
        yield before + value
        before = b","


def stream(context: Context, _query: Query) -> Answer:
    """How the stream is: epoch and last `seq` of each topic by host, sources, the outbox's state file, each sink's lanes with
    what waits in them and for how long, the gaps declared of late."""
    memory, statuses = context.memory, context.statuses()
    gaps = [e.value for e in memory.events(m.CONTROL) if e.kind == "gap"][-_GAPS_SHOWN:]
    series = {metric.name: of_it for metric, of_it in context.telemetry.snapshot()}
    said = encode(
        {
            "time_ms": context.now_ms,
            "streams": list(memory.streams.values()),
            "sources": [_component(status) for status in statuses if status.component.startswith("source.")],
            "outbox": [
                {**_component(status), "bytes": {lane: value for (lane,), value in series["streamer_state_bytes"].items()}}
                for status in statuses
                if status.component == "state"
            ],
            "sinks": _sinks(series, statuses, context.now_ms),
        }
    )
    return Answer(b'%b,"gaps":[%b]}' % (said[:-1], b",".join(gaps)))


_LANE_METRICS: Final = {
    "backlog_messages": "streamer_sink_backlog_messages",
    "backlog_bytes": "streamer_sink_backlog_bytes",
    "delivered": "streamer_sink_delivered_total",
    "dropped": "streamer_sink_dropped_total",
}
_DELIVERED_AT: Final = "streamer_sink_delivered_timestamp_seconds"


def _sinks(series: Mapping[str, Mapping[tuple[str, ...], float]], statuses: Iterable[Status], now_ms: int) -> list[dict[str, Any]]:
    lanes: dict[str, dict[str, dict[str, float]]] = {}
    for field, metric in _LANE_METRICS.items():
        for (sink, lane, *_reason), value in series[metric].items():
            of_lane = lanes.setdefault(sink, {}).setdefault(lane, dict.fromkeys(_LANE_METRICS, 0))
            of_lane[field] += value
    for (sink, lane), seconds in series[_DELIVERED_AT].items():
        of_lane = lanes.setdefault(sink, {}).setdefault(lane, dict.fromkeys(_LANE_METRICS, 0))
        of_lane["delivered_until_ms"] = int(seconds * 1000)
    for of_sink in lanes.values():
        for of_lane in of_sink.values():
            if not of_lane["backlog_messages"]:
                of_lane["lag_ms"] = 0
            elif until_ms := of_lane.get("delivered_until_ms"):
                of_lane["lag_ms"] = max(0, now_ms - until_ms)
    sinks = {status.component.removeprefix("sink."): status for status in statuses if status.component.startswith("sink.")}
    return [
        {"sink": name, **(_component(sinks[name]) if name in sinks else {}), "lanes": lanes.get(name, {})}
        for name in sorted({*lanes, *sinks})
    ]
