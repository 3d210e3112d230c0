"""What a client of `/events` is told: which records it wants, where it goes on, what it has missed. Pure.

An id is `<epoch>-<position>`. Positions rise over all records of a run, so one number says what was told, whatever the
filter; the epoch tells a run's positions from another's. What was told is in memory until it is forgotten there, kind by
kind: whether anything of what is wanted has gone since an id is known exactly, and said as a gap.

Nothing is told twice or left out between past and present, as these are one: whatever is wanted behind a client's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from streamer.cadvisor import go
from streamer.clock import rfc3339
from streamer.config import seconds
from streamer.memory import ID_PREFIX_MIN, Event, Events, Memory
from streamer.model import messages as m
from streamer.sidecar.query import Kind

EVENTS: Final = (m.LIFECYCLE, m.OOM, m.CONTROL)
"""What is kept, and followed where nothing else is asked for."""
TYPES: Final = {topic.short: topic for topic in (*EVENTS, m.STATS)}


class Place(NamedTuple):
    """Behind which record a client goes on."""

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.position}"


class Ago(NamedTuple):
    """From how long ago on."""

    ms: int


class Moment(NamedTuple):
    """From which time on, ms since 1970."""

    ms: int


Since = Place | Ago | Moment | None

_LAST_MS: Final = 253_402_300_799_999
"""Of the year 9999, the last that RFC 3339 can write; zones reach beyond."""
_PLACE: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,18})", re.ASCII)


def place(text: str) -> Place | None:
    """An id that was told as such; None if it is none."""
    found = _PLACE.fullmatch(text.strip())
    return Place(int(found[1]), int(found[2])) if found else None


def _since(text: str) -> Since:
    if at := place(text):
        return at
    try:
        return Ago(int(seconds(text) * 1000))
    except (ValueError, OverflowError):
        pass
    try:
        if text[10:11] in ("T", "t"):  # seconds since 1970 would be taken for a duration
            return Moment(min(max(0, -(-go.parse_time(text) // 1_000_000)), _LAST_MS))
    except ValueError:
        pass
    raise ValueError("is neither an id, nor RFC 3339, nor a duration like 10m")


since: Final = Kind(_since, {"type": "string", "minLength": 1})
"""An id, an RFC 3339 time or a duration."""


class Gap(Struct, omit_defaults=True):
    """What could not be told.

    reason       other_run: the id is of another run of the agent, or the time is before this one; forgotten: memory does
                 not go back so far; samples: those between are not kept as records; unknown_id: it was never told
    missed_from  the id or the time that was given: what was behind it may be missing
    missed_to    nothing of any type is missing behind this id
    types        which types something may be missing of
    """

    reason: str
    missed_from: str
    missed_to: str
    types: list[str]


class Dropped(Struct):
    """The client was too slow and is let go; it may come back behind `last`, the id told last."""

    reason: str
    last: str


class Wish(NamedTuple):
    """Which records: of these types, and if they are about a container, of one that all of this fits.

    container  id, beginning of it, incarnation, name, alias or path
    labels     each with its value, or None for any
    """

    types: frozenset[str]
    container: str | None = None
    labels: Sequence[tuple[str, str | None]] = ()
    runtime: str | None = None

    @property
    def of_any_container(self) -> bool:
        return self.container is None and self.runtime is None and not self.labels

    def fits(self, record: Any) -> bool:
        """Whether a record about a container, or what is known of one, is of one that is meant."""
        if self.runtime is not None and record.runtime != self.runtime:
            return False
        if self.container is not None and not is_meant(record, self.container):
            return False
        return labels_fit(record.labels, self.labels)

    def is_for(self, event: Event) -> bool:
        """The same of what was said, by its JSON. What is not about a container is for everybody."""
        return event.topic is m.CONTROL or self.of_any_container or self.fits(_about(event.value))


def labels_fit(labels: Any, wanted: Sequence[tuple[str, str | None]]) -> bool:
    """Whether all that are wanted are among the labels, with any value where that is None. No labels: UNSET or None."""
    known = labels or {}
    return all(name in known if value is None else known.get(name) == value for name, value in wanted)


def is_meant(record: Any, text: str) -> bool:
    """Whether this is its id or the beginning of it, incarnation, name, alias or path."""
    bare = text.removeprefix("/")
    return (
        text in (record.container_id, record.incarnation, record.name)
        or record.cgroup_path.removeprefix("/") == bare
        or record.name == bare
        or bare in (record.aliases or ())
        or (len(text) >= ID_PREFIX_MIN and not text.startswith("/") and record.container_id.startswith(text))
    )


class _About(Struct):
    """Of the JSON of a record: whose it is."""

    container_id: str
    incarnation: str
    cgroup_path: str
    runtime: str
    name: str | UnsetType = UNSET
    aliases: list[str] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


_about: Final = msgspec.json.Decoder(_About).decode


class Past(NamedTuple):
    """Where a client begins: behind which position, and what of that is not known any more."""

    behind: int
    gap: Gap | None = None


def past(memory: Memory, types: frozenset[str], since: Since, now_ms: int) -> Past:
    """What was told since then. `since` None: from now on."""
    if since is None:
        return Past(memory.position)
    if isinstance(since, Place):
        if since.epoch != memory.epoch:
            return _told(memory, types, str(since), reason="other_run")
        if since.position > memory.position:
            return _told(memory, types, str(since), reason="unknown_id")
        return _told(memory, types, str(since), behind=since.position)
    from_ms = max(0, now_ms - since.ms) if isinstance(since, Ago) else since.ms
    reason = "other_run" if from_ms < memory.epoch else ""
    found = _told(memory, types, rfc3339(from_ms * 1_000_000), from_ms=from_ms, reason=reason)
    # who is cut off before the first of them comes back for these, not for all that was told before that time
    first = [event.position for kept in _kept(memory, types) for event in kept.after(told_ms=from_ms, most=1)]
    return found._replace(behind=min(first) - 1 if first else memory.position)


def of_unknown(memory: Memory, types: frozenset[str], text: str) -> Past:
    """The same for an id that is none of ours: everything there is."""
    return _told(memory, types, text[:80], reason="unknown_id")


def _kept(memory: Memory, types: frozenset[str]) -> list[Events]:
    return [memory.events(topic) for topic in EVENTS if topic.short in types]


def _told(memory: Memory, types: frozenset[str], since: str, *, behind: int = 0, from_ms: int = 0, reason: str = "") -> Past:
    """What was told behind this position, at this time or later.

    `since` says the same in the client's words; with a `reason` something of all types is missing before this run's events.
    """
    missed_to: dict[str, int] = {}
    for topic in EVENTS:
        position, told_ms = memory.events(topic).forgotten
        if topic.short in types and position > behind and told_ms >= from_ms:
            missed_to[topic.short] = position + 1
    if not reason and missed_to:
        reason = "forgotten"
    if m.STATS.short in types and behind < memory.position:
        missed_to[m.STATS.short] = memory.position
        reason = reason or "samples"
    if not reason:
        return Past(behind)
    end = min(max(missed_to.values(), default=1), memory.position)  # never an id that was not told yet
    missing = sorted(missed_to if reason in ("forgotten", "samples") else types)
    return Past(behind, Gap(reason, since, str(Place(memory.epoch, end)), missing))


# on the wire


class Framing(NamedTuple):
    """How things are written: what happened, what is said about the connection, and that it lives (at the beginning, too)."""

    content_type: str
    begin: bytes
    told: Callable[[Place, str, bytes], bytes]
    said: Callable[[str, bytes], bytes]
    heartbeat: Callable[[Place], bytes]


RETRY_MS: Final = 1000

SSE: Final = Framing(
    # https://html.spec.whatwg.org/multipage/server-sent-events.html; an id without data moves the client's place
    "text/event-stream",
    b"retry: %d\n\n" % RETRY_MS,
    lambda at, kind, value: b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (*at, kind.encode(), value),
    lambda kind, data: b"event: %b\ndata: %b\n\n" % (kind.encode(), data),
    lambda at: b": heartbeat\nid: %d-%d\n\n" % at,
)
LINES: Final = Framing(
    # the records with one key more, told from ours by `type`
    "application/x-ndjson",
    b"",
    lambda at, _kind, value: b'{"event_id":"%d-%d",%b\n' % (*at, value[1:]),
    lambda kind, data: b'{"type":"%b",%b\n' % (kind.encode(), data[1:]),
    lambda at: b'{"event_id":"%d-%d","type":"heartbeat"}\n' % at,
)


def frames(framing: Framing, epoch: int, events: Iterable[Event]) -> bytes:
    """What happened, as it is sent. The JSON is the one that was made for all."""
    return b"".join([framing.told(Place(epoch, event.position), event.topic.type, event.value) for event in events])
