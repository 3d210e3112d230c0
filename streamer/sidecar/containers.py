"""Containers in our own API: filtered, sorted, page by page; one of them; what they use now and used of late.

Pure functions from memory to bodies. Long ones are made piece by piece; an empty piece means that there was something to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET

from streamer.memory import ID_PREFIX_MIN, Container, Memory
from streamer.model import messages as m
from streamer.sidecar import rates as use
from streamer.sidecar import recent
from streamer.sidecar.api import CANDIDATES_SHOWN, about, separated
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import Pieces
from streamer.sidecar.following import labels_fit
from streamer.sidecar.query import Answer, Kind, Refused, encode
from streamer.sidecar.rates import Rates
from streamer.sidecar.shapes import Statistics

MOST_CONTAINERS: Final = 1000
"""In one answer, of 2.5 MB then."""
MOST_SAMPLES: Final = 3600

Key = tuple[str, str, str]


# in which order


class Order(NamedTuple):
    """How a list is sorted: `value` of a container and its rates, None for what is not known, which comes last either way."""

    value: Callable[[Container, Rates], Any]
    kind: type | tuple[type, ...] = (int, float)
    by_rate: bool = True


def _sum(*values: Any) -> Any:
    known = [value for value in values if value is not UNSET]
    return sum(known) if known else None


_ORDERS: Final[dict[str, Order]] = {
    "cpu": Order(lambda _, r: _sum(r.cpu_cores)),
    "memory": Order(lambda _, r: _sum(r.memory_working_set_bytes)),
    "io": Order(lambda _, r: _sum(r.io_read_bytes_per_second, r.io_write_bytes_per_second)),
    "network": Order(lambda _, r: _sum(r.network_rx_bytes_per_second, r.network_tx_bytes_per_second)),
    "name": Order(lambda c, _: c.facts.get("name"), str, by_rate=False),
    "started": Order(lambda c, _: c.facts.get("started_at") or c.facts.get("created_at"), str, by_rate=False),
    "oom": Order(lambda c, _: c.facts.get("oom_kills", 0), by_rate=False),
}


def _order(text: str) -> str:
    if text.removeprefix("-") not in _ORDERS:
        raise ValueError(f"is none of {', '.join(_ORDERS)}, or one with a - before it")
    return text


order: Final = Kind(_order, {"type": "string", "enum": [*_ORDERS, *(f"-{name}" for name in _ORDERS)]})
"""What to sort by; with a `-` before it, the largest first."""


class Ranked(NamedTuple):
    """A container with what it is sorted by; its rates, where these were needed for that."""

    value: Any
    container: Container
    rates: Rates | None = None


def _sorted(found: list[Ranked], *, descending: bool) -> list[Ranked]:
    known = sorted((r for r in found if r.value is not None), key=lambda r: (r.value, r.container.key), reverse=descending)
    return [*known, *(r for r in found if r.value is None)]


def _is_behind(ranked: Ranked, value: Any, key: Key, *, descending: bool) -> bool:
    if ranked.value is None or value is None:
        return ranked.value is None and (value is not None or ranked.container.key > key)
    there, here = (ranked.value, ranked.container.key), (value, key)
    return there < here if descending else there > here


# page by page


def containers(context: Context, query: Query) -> Pieces:
    """Containers with identity, state, limits, rates and last sample, sorted, page by page.

    `total` counts all that pass the filters; `next` is there when more follow: give it as `after`. Without `sort` they stand
    in a fixed order, and pages hold each of them once. Those that move while pages are turned, because what they are sorted
    by has changed, may come twice or not at all.
    """
    sort = query["sort"]
    after = _cursor(query["after"], _ORDERS[sort.removeprefix("-")] if sort else None) if query["after"] else None
    wanted = [c for c in context.memory.containers() if _passes(c, query)]
    return Pieces(_listing(wanted, sort or "", after, query["limit"]))


def _listing(wanted: list[Container], sort: str, after: tuple[Any, Key] | None, limit: int) -> Iterator[bytes]:
    order, descending = _ORDERS.get(sort.removeprefix("-")), sort.startswith("-")
    ranked: list[Ranked] = []
    if order is None:
        ranked = [Ranked(None, c) for c in wanted]
    else:
        for container in wanted:
            rates = use.rates(container) if order.by_rate else None
            ranked.append(Ranked(order.value(container, rates or _NOTHING), container, rates))
            yield b""
        ranked = _sorted(ranked, descending=descending)
    if after is not None:
        ranked = [r for r in ranked if _is_behind(r, *after, descending=descending)]
    yield b'{"total":%d,"containers":[' % len(wanted)
    yield from separated(_listed(r.container, r.rates) for r in ranked[:limit])
    yield b"]"
    if len(ranked) > limit:
        yield b',"next":' + encode(_cursor_of(ranked[limit - 1], sort))
    yield b"}"


_NOTHING: Final = Rates()


def _listed(c: Container, rates: Rates | None) -> bytes:
    rates_json = b"" if c.deleted_ms else b',"rates":' + encode(rates or use.rates(c))
    return b"%b%b%b}" % (c.encoded[:-1], rates_json, b',"last_sample":' + c.latest_json if c.latest else b"")


def _passes(c: Container, query: Query) -> bool:
    if c.deleted_ms and not query["all"]:
        return False
    runtime, name, image = query["runtime"], query["name"], query["image"]
    return (
        (runtime is None or c.facts["runtime"] == runtime)
        and (name is None or _matches(name, c.names) or _matches(name.removeprefix("/"), c.names))
        and (image is None or _matches(image, (c.facts.get("image", ""),)))
        and labels_fit(c.facts.get("labels"), query["label"])
    )


def _matches(pattern: str, texts: Iterable[str]) -> bool:
    if pattern.endswith("*"):
        return any(text.startswith(pattern[:-1]) for text in texts)
    return pattern in texts


def _cursor_of(last: Ranked, sort: str) -> str:
    """Where a page ends, by value: it stays good when that container goes."""
    host_id, container_id, incarnation = last.container.key
    key = "/".join((quote(host_id, safe=""), quote(incarnation, safe=""), container_id))
    return f"{quote(encode(last.value), safe='')}/{key}" if sort else key


def _cursor(cursor: str, order: Order | None) -> tuple[Any, Key]:
    wrong = Refused(400, "after is not the `next` of an earlier answer to this question", "leave it out for the first page")
    value = None
    if order is not None:
        sorted_by, _, cursor = cursor.partition("/")
        try:
            value = msgspec.json.decode(unquote(sorted_by))
        except ValueError:
            raise wrong from None
        if value is not None and not isinstance(value, order.kind):
            raise wrong
    parts = cursor.split("/", 2)
    if len(parts) != len(("host id", "incarnation", "container id")):
        raise wrong
    return value, (unquote(parts[0]), parts[2], unquote(parts[1]))


# one


def container(context: Context, query: Query) -> Answer:
    """One container by id, beginning of its id, name, alias or cgroup path: what is known of it, what it uses, statistics
    of its last minute, hour and day, its recent samples and events, the oldest first.

    Events are those of all runs of this container id.
    """
    found = _one(context.memory, query["id"])
    memory, size = context.memory, query["events"]
    host_id, container_id, _ = found.key
    events = [e for e in about(memory, container_id, m.LIFECYCLE, m.OOM) if e.subject == container_id and e.host_id == host_id]
    return Answer(
        b'%b,"rates":%b,"derived":%b,"recent_samples":%b,"events":[%b]}'
        % (
            found.encoded[:-1],
            encode(use.rates(found)),
            encode(Statistics.of(found.summary.derived())),
            recent.encoded(found.samples.newest(query["samples"])),
            b",".join(event.value for event in events[max(0, len(events) - size) :]),
        )
    )


def _one(memory: Memory, text: str) -> Container:
    found = memory.find(text)
    if not found:
        raise Refused(
            404,
            f"no container {text[:300]!r} is known",
            f"give its id, at least {ID_PREFIX_MIN} characters of it, its name or its cgroup path; /api/streamer/v1/containers lists them",
        )
    if len(found) > 1:
        raise Refused(
            409,
            f"{text[:300]!r} fits {len(found)} containers",
            "give more of the id, or the incarnation",
            candidates=[_candidate(c) for c in found[:CANDIDATES_SHOWN]],
        )
    return found[0]


def _candidate(c: Container) -> dict[str, str]:
    host_id, container_id, incarnation = c.key
    return {"container_id": container_id, "name": c.facts.get("name", ""), "incarnation": incarnation, "host_id": host_id}


# numbers to draw


def rates(context: Context, _query: Query) -> Pieces:
    """What every container uses now, and nothing else, for who asks again and again."""
    live = [c for c in context.memory.containers() if not c.deleted_ms]
    head = b'{"time_ms":%d,"containers":[' % context.now_ms
    return Pieces(itertools.chain((head,), separated(map(_using, live)), (b"]}",)))


def _using(c: Container) -> bytes:
    said = encode(use.rates(c))
    return b'{"id":%b%b%b' % (encode(c.key[2]), b"," if len(said) > 2 else b"", said[1:])


def series(context: Context, query: Query) -> Pieces:
    """How what every container uses was of late, column by column, to be drawn.

    After `since_ms`, so that who asks again gets what is new. More than `points` are thinned evenly; each number is the mean
    of its span all the same, but for memory, which is that of its end.
    """
    wanted = [_one(context.memory, query["container"])] if query["container"] is not None else context.memory.containers()
    live = [c for c in wanted if not c.deleted_ms or query["container"] is not None]
    head = b'{"time_ms":%d,"containers":[' % context.now_ms
    drawn = (encode(use.series(c, query["since_ms"], query["points"])) for c in live)
    return Pieces(itertools.chain((head,), separated(drawn), (b"]}",)))
