"""Reads a stream back into records. A new kind of stream is a file with a class and one line in `READERS`.

A reader takes a snapshot of the stream's end when it is opened and yields what is there up to it, in batches of a few
hundred records, never more than that in memory. `verify`, and whatever else reads streams, sees `Batch`es only.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol, cast

from streamer.config import mask
from streamer.errors import ConfigError
from streamer.model.messages import TOPICS, Topic

READERS: Final[dict[str, str]] = {
    "file": "streamer.consume.jsonl:JsonLinesReader",
    "redis": "streamer.consume.redis:RedisReader",
    "rediss": "streamer.consume.redis:RedisReader",
    "unix": "streamer.consume.redis:RedisReader",
    "kafka": "streamer.consume.kafka:KafkaReader",
    "kafkas": "streamer.consume.kafka:KafkaReader",
}
"""URL scheme -> "module:class"; imported when a URL of that scheme is opened."""


class Raw(NamedTuple):
    """A record as it was read, not decoded yet.

    topic           None: a line of a file that does not say which record it is
    value           the flat record as JSON, out of the CloudEvent around it if there is one; empty: a tombstone
    at              where in its place: offset, entry id, number of the line
    transport_id    the id that travels beside the value (`ce_id`), or stands in the CloudEvent around it
    broker_time_ms  when the broker took it, by the broker's clock; None where the stream does not say
    """

    topic: Topic | None
    value: bytes
    at: int | str
    key: str | None = None
    transport_id: str | None = None
    broker_time_ms: int | None = None


class Place(NamedTuple):
    """A part of a stream that has an order: a Kafka partition, a Redis stream or hash, a file.

    name         `streamer.container.oom[3]`, `streamer:{host}:oom`, `/path.jsonl`
    before       what stands before `at` when a record is named: `streamer.container.oom[3]@`, `line `
    topic        None: records of all topics in one order
    host_id      whose records it holds; empty: those of many hosts
    trimmed      why its beginning is not read (`expired`, `trimmed`, `--since`); empty: it begins where the stream began
    from_ms      of a trimmed place in which nothing is: all from here on (ms since 1970) would be; None: not known
    """

    name: str
    before: str
    topic: Topic | None = None
    host_id: str = ""
    trimmed: str = ""
    from_ms: int | None = None

    def where(self, at: int | str) -> str:
        """A record's place in words: `streamer.container.oom[3]@1841`, `streamer:{host}:oom 1763-12`, `line 8812`."""
        return f"{self.before}{at}"


class Batch(NamedTuple):
    """Consecutive records of one place, in its order."""

    place: Place
    records: Sequence[Raw]


class Progress(NamedTuple):
    """How far a reader has come. `total` 0: not known beforehand."""

    done: int
    total: int
    unit: str  # `records`, `bytes`


class Selection(NamedTuple):
    """What of a stream to read.

    prefix      first word of topics and stream keys
    since_ms    leave out what is older than this (ms since 1970), as far as the stream's order allows; None: all
    host_id     only this host, where the stream keeps hosts apart (Redis); empty: all
    topics      only these, where the stream keeps topics apart
    """

    prefix: str = "streamer"
    since_ms: int | None = None
    host_id: str = ""
    topics: tuple[Topic, ...] = TOPICS


class Reader(Protocol):
    """A stream to be read once, from its beginning to where it ended at `open`.

    open      connect and find what there is, and where it ends now.
              Raises `NotConnected`, or `PermanentlyRefused` when it would be refused again
    batches   everything up to there. Each place is yielded at least once, first of all with the batch that tells whether
              its beginning is there; a place that is empty with no records. Raises as `open` does
    close     let go of everything; never raises
    """

    kind: str  # what the sinks that write such a stream are called: `kafka`, `redis`, `file`
    notes: list[str]  # what is worth knowing and is no record: a topic that is missing, a last line still being written

    async def open(self) -> None: ...

    def batches(self) -> AsyncIterator[Batch]: ...

    def progress(self) -> Progress: ...

    async def close(self) -> None: ...

    def describe(self) -> str:
        """What is read, for people: a URL without secrets."""
        ...


class _ReaderClass(Protocol):
    def from_url(self, url: str, selection: Selection, *, password: str | None) -> Reader: ...


def reader(url: str, selection: Selection, *, password: str | None = None) -> Reader:
    """The reader for a URL, not opened yet.

    Raises:
        ConfigError: no such scheme, or a URL that this reader cannot use.
    """
    scheme = url.partition(":")[0]
    if scheme not in READERS:
        remedy = "use one of " + ", ".join(READERS)
        raise ConfigError(f"nothing can be read back from {scheme!r}", key="URL", value=mask(url), remedy=remedy)
    module, _, name = READERS[scheme].partition(":")
    reader_class = cast(_ReaderClass, getattr(importlib.import_module(module), name))
    return reader_class.from_url(url, selection, password=password)
