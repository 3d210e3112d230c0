"""Places to publish to. A new one is a file with a class and one line in `SINKS`.

A sink's class has `from_settings(settings, publishing, host_id) -> Sink` and the three methods of `contracts.Sink`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final, Protocol, cast

from streamer.config import Publishing, SinkSettings, mask
from streamer.contracts import Sink
from streamer.errors import ConfigError
from streamer.model.messages import TOPICS

SINKS: Final[dict[str, str]] = {
    "stdout": "streamer.sinks.jsonl:JsonLinesSink",
    "file": "streamer.sinks.jsonl:JsonLinesSink",
    "redis": "streamer.sinks.redis:RedisSink",
    "rediss": "streamer.sinks.redis:RedisSink",
    "unix": "streamer.sinks.redis:RedisSink",
    "kafka": "streamer.sinks.kafka:KafkaSink",
    "kafkas": "streamer.sinks.kafka:KafkaSink",
}
"""URL scheme -> "module:class"; imported when a URL of that scheme is configured."""

_NO_TOMBSTONES: Final = frozenset({"stdout", "file"})  # a line cannot say that an earlier line no longer holds


class _SinkClass(Protocol):
    def from_settings(self, settings: SinkSettings, publishing: Publishing, host_id: str) -> Sink: ...


def make(settings: SinkSettings, publishing: Publishing, host_id: str) -> Sink:
    """The sink for a URL, not connected yet; nothing is opened but a password file.

    Raises:
        ConfigError: no such scheme, or a URL that this sink cannot use.
    """
    scheme = settings.url.partition(":")[0]
    if scheme not in SINKS:
        remedy = "use one of " + ", ".join(SINKS)
        raise ConfigError(f"no sink for {scheme!r}", key="sinks.url", value=mask(settings.url), remedy=remedy)
    module, _, name = SINKS[scheme].partition(":")
    sink_class = cast(_SinkClass, getattr(importlib.import_module(module), name))
    return sink_class.from_settings(settings, publishing, host_id)


def wanted_types(url: str, types: Sequence[str]) -> frozenset[str]:
    """The short topic names that go to this sink: those listed; when none is, all (JSON Lines: all but state).

    Raises:
        ConfigError: a name that is no topic.
    """
    known = {topic.short for topic in TOPICS}
    if unknown := set(types) - known:
        value = ", ".join(sorted(unknown))
        raise ConfigError("no such message type", key="sinks.types", value=value, remedy="use some of " + ", ".join(sorted(known)))
    if types:
        return frozenset(types)
    if url.partition(":")[0] in _NO_TOMBSTONES:
        return frozenset(topic.short for topic in TOPICS if not topic.compacted)
    return frozenset(known)
