"""Our own API, in the vocabulary of the messages, and the health routes: pure functions from memory to bodies.

Bodies are joined from JSON: last samples, events and host facts are the records as published.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from streamer.cadvisor.operations import Operations
from streamer.clock import rfc3339
from streamer.contracts import Status
from streamer.memory import ID_PREFIX_MIN, Container, Memory
from streamer.model import messages as m
from streamer.sidecar import recent
from streamer.sidecar.exchange import Pieces
from streamer.sidecar.metrics import metrics_body
from streamer.sidecar.prometheus import Exposition
from streamer.sidecar.query import Answer, Refused, encode
from streamer.telemetry import Telemetry

MOST_CONTAINERS: Final = 1000
"""In one answer, of 2.5 MB then."""
MOST_SAMPLES: Final = 3600
MOST_EVENTS: Final = 5000

_CANDIDATES_SHOWN: Final = 20
_GAPS_SHOWN: Final = 100
_WORKING: Final = ("ok", "degraded")
_SEVERITY: Final = {"ok": 0, "off": 0, "starting": 1, "degraded": 2, "down": 3}

Query = dict[str, Any]


class Context(NamedTuple):
    """What a query may look at.

    essential   components without which the agent cannot do its main job
    operations  cAdvisor's, for its API
    """

    memory: Memory
    telemetry: Telemetry
    statuses: Callable[[], list[Status]]
    exposition: Exposition
    essential: Sequence[str]
    operations: Operations


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


# containers


def containers(context: Context, query: Query) -> Pieces:
    """Containers with identity, state, limits and last sample, in a stable order, page by page.

    `total` counts all that pass the filters; `next` is there when more follow: give it as `after`.
    """
    after = _cursor_key(query["after"])
    wanted = [c for c in context.memory.containers() if _passes(c, query)]
    rest = wanted if after is None else [c for c in wanted if c.key > after]
    page = rest[: query["limit"]]
    following = b',"next":' + encode(_cursor(page[-1])) if len(rest) > len(page) else b""
    head = b'{"total":%d,"containers":[' % len(wanted)
    return Pieces(itertools.chain((head,), _separated(map(_listed, page)), (b"]", following, b"}")))


def _listed(c: Container) -> bytes:
    return b'%b,"last_sample":%b}' % (c.encoded[:-1], c.latest_json) if c.latest else c.encoded


def _separated(values: Iterable[bytes]) -> Iterator[bytes]:
    before = b""
    for value in values:
        yield before + value
        before = b","


def container(context: Context, query: Query) -> Answer:
    """One container by id, beginning of its id, name, alias or cgroup path, with its recent samples, the oldest first."""
    found = context.memory.find(query["id"])
    if not found:
        raise Refused(
            404,
            f"no container {query['id'][:300]!r} is known",
            f"give its id, at least {ID_PREFIX_MIN} characters of it, its name or its cgroup path; /api/streamer/v1/containers lists them",
        )
    if len(found) > 1:
        raise Refused(
            409,
            f"{query['id'][:300]!r} fits {len(found)} containers",
            "give more of the id, or the incarnation",
            candidates=[_candidate(c) for c in found[:_CANDIDATES_SHOWN]],
        )
    samples = recent.encoded(found[0].samples.newest(query["samples"]))
    return Answer(b'%b,"recent_samples":%b}' % (found[0].encoded[:-1], samples))


def _passes(c: Container, query: Query) -> bool:
    if c.deleted_ms and not query["all"]:
        return False
    runtime, name = query["runtime"], query["name"]
    return (runtime is None or c.facts["runtime"] == runtime) and (name is None or _named(c, name))


def _named(c: Container, name: str) -> bool:
    if name.endswith("*"):
        return any(known.startswith(name[:-1]) for known in c.names if known)
    return name in c.names or name.removeprefix("/") in c.names


def _candidate(c: Container) -> dict[str, str]:
    host_id, container_id, incarnation = c.key
    return {"container_id": container_id, "name": c.facts.get("name", ""), "incarnation": incarnation, "host_id": host_id}


def _cursor(c: Container) -> str:
    """Where a page ends, by value: it stays good when that container goes."""
    host_id, container_id, incarnation = c.key
    return "/".join((quote(host_id, safe=""), quote(incarnation, safe=""), container_id))


def _cursor_key(cursor: str | None) -> tuple[str, str, str] | None:
    if cursor is None:
        return None
    parts = cursor.split("/", 2)
    if len(parts) != len(("host id", "incarnation", "container id")):
        raise Refused(400, "after is not the `next` of an earlier answer", "leave it out for the first page")
    return unquote(parts[0]), parts[2], unquote(parts[1])


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
            409, f"{len(known)} hosts are known here", "ask /api/streamer/v1/hosts", candidates=sorted(known)[:_CANDIDATES_SHOWN]
        )
    return Answer(next(iter(known.values())))


def oom(context: Context, query: Query) -> Pieces:
    """The last OOM kills, as `container.oom` records, the oldest first; `total` counts those in memory."""
    events = context.memory.events(m.OOM)
    head = b'{"total":%d,"oom":[' % len(events)
    return Pieces(itertools.chain((head,), _separated(e.value for e in events.latest(query["limit"])), (b"]}",)))


def stream(context: Context, _query: Query) -> Answer:
    """How the stream is: epoch and last `seq` of each topic by host, each sink's lanes, the gaps declared of late."""
    memory = context.memory
    gaps = [e.value for e in memory.events(m.CONTROL) if e.kind == "gap"][-_GAPS_SHOWN:]
    said = encode({"streams": list(memory.streams.values()), "sinks": _sinks(context.telemetry, context.statuses())})
    return Answer(b'%b,"gaps":[%b]}' % (said[:-1], b",".join(gaps)))


_LANE_METRICS: Final = {
    "backlog_messages": "streamer_sink_backlog_messages",
    "backlog_bytes": "streamer_sink_backlog_bytes",
    "delivered": "streamer_sink_delivered_total",
    "dropped": "streamer_sink_dropped_total",
}


def _sinks(telemetry: Telemetry, statuses: Iterable[Status]) -> list[dict[str, Any]]:
    lanes: dict[str, dict[str, dict[str, float]]] = {}
    names = {metric: field for field, metric in _LANE_METRICS.items()}
    for metric, series in telemetry.snapshot():
        if metric.name not in names:
            continue
        for (sink, lane, *_reason), value in series.items():
            of_lane = lanes.setdefault(sink, {}).setdefault(lane, dict.fromkeys(_LANE_METRICS, 0))
            of_lane[names[metric.name]] += value
    sinks = {status.component.removeprefix("sink."): status for status in statuses if status.component.startswith("sink.")}
    return [
        {"sink": name, **(_component(sinks[name]) if name in sinks else {}), "lanes": lanes.get(name, {})}
        for name in sorted({*lanes, *sinks})
    ]
