"""The shape of a recent sample in our own API: what `container.stats` says of a moment, without whose it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from streamer.clock import rfc3339
from streamer.memory import COLUMNS, StatsSample
from streamer.model.stats import IoDevice, NetworkInterface
from streamer.sidecar.query import encode

RecentSample: Final[Any] = msgspec.defstruct(
    "RecentSample",
    [
        ("time", str),
        ("time_ms", int),
        *((column, int | float | UnsetType, UNSET) for column in COLUMNS),
        ("network_interfaces", tuple[NetworkInterface, ...] | UnsetType, UNSET),
        ("io_devices", tuple[IoDevice, ...] | UnsetType, UNSET),
    ],
    module=__name__,
    namespace={"__doc__": "One sample: the fields of `container.stats` that are measured, and when."},
    omit_defaults=True,
    gc=False,
)


def encoded(samples: Iterable[StatsSample]) -> bytes:
    """As a JSON list."""
    return encode(
        [
            RecentSample(rfc3339(s.time_ns), s.time_ns // 1_000_000, *s.values, s.interfaces or UNSET, s.devices or UNSET)
            for s in samples
        ]
    )
