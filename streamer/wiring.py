"""Settings as the parts want them: sinks with names of their own, label filter, pace, limits of the process."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from streamer.config import Settings, SinkSettings, seconds
from streamer.contracts import Clock, Sink, Status
from streamer.errors import ConfigError
from streamer.manager.container import LabelFilter
from streamer.manager.housekeeping import Pace
from streamer.outbox.disk import COMPONENT
from streamer.outbox.state import REMEDY, State
from streamer.sinks import make, wanted_types
from streamer.sources.disk_usage import DiskUsage
from streamer.sources.docker import DockerSource

_NS: Final = 1_000_000_000
_LIVE: Final = ("log_level", "log_format", "labels", "drain")
_LIVE_WITHIN: Final = {"sampling": ("interval", "max_interval", "dynamic", "jitter"), "publishing": ("heartbeat",)}


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """The keys that differ and are only read at the start."""
    fixed = []
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before == after or name in _LIVE:
            continue
        if name in _LIVE_WITHIN:
            inner = [key for key in before.__struct_fields__ if getattr(before, key) != getattr(after, key)]
            fixed += [f"{name}.{key}" for key in inner if key not in _LIVE_WITHIN[name]]
        else:
            fixed.append(name)
    return fixed


STDOUT: Final = (SinkSettings(url="stdout:"),)


def sinks(settings: Settings, host_id: str, default: Sequence[SinkSettings] = STDOUT) -> Iterator[tuple[Sink, frozenset[str]]]:
    """The configured sinks, or the default ones, each with a name of its own, and what each is sent.

    Raises:
        ConfigError: a URL that cannot be used, or the same place twice: their messages could not be told apart there.
    """
    names: Counter[str] = Counter()
    places: set[str] = set()
    for configured in settings.sinks or default:
        sink = make(configured, settings.publishing, host_id)
        if (place := sink.describe()) in places:
            raise ConfigError(
                "the same place twice", key="sinks.url", value=place, remedy="name it once, with all the types it is to get"
            )
        places.add(place)
        names[sink.name] += 1
        if names[sink.name] > 1:
            sink.name = f"{sink.name}-{names[sink.name]}"
        yield sink, wanted_types(configured.url, configured.types)


def switched_off(sources: Mapping[str, object | None], since_ms: int) -> list[Status]:
    """The sources that there are not, because the configuration says so. `sources`: by the name of their section; None: not there."""
    return [
        Status(f"source.{name}", "off", f"{name}.enabled is false", since_ms=since_ms)
        for name, made in sources.items()
        if made is None
    ]


def state_status(state: State, since_ms: int) -> Status:
    """How keeping on disk is while nothing is kept: not wanted, or not possible."""
    return (
        Status(COMPONENT, "degraded", state.trouble, REMEDY, since_ms)
        if state.trouble
        else Status(COMPONENT, "off", since_ms=since_ms)
    )


def disk_usage(settings: Settings, clock: Clock, docker: DockerSource | None) -> DiskUsage | None:
    """Who measures what containers take on disk, if it is wanted and somebody knows where they lie."""
    if docker is None or not settings.docker.disk_usage:
        return None
    return DiskUsage(settings.host_root, clock, seconds(settings.docker.disk_usage_interval), docker.place)


def label_filter(settings: Settings) -> LabelFilter:
    """The label settings as the fleet wants them."""
    return LabelFilter(tuple(settings.labels.allow), tuple(settings.labels.deny))


def pace(settings: Settings) -> Pace:
    """The sampling settings in nanoseconds."""
    sampling = settings.sampling
    return Pace(
        interval_ns=int(seconds(sampling.interval) * _NS),
        max_interval_ns=int(seconds(sampling.max_interval) * _NS),
        dynamic=sampling.dynamic,
        jitter=sampling.jitter,
    )


_DESCRIPTORS: Final = 65_536
"""Enough for some 5000 containers; what the service's unit and the image's documentation ask for."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, and that to what is enough where we may (CAP_SYS_RESOURCE); returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return max(soft, 1024)
    for limit in (max(hard, _DESCRIPTORS), hard):
        if soft < limit:
            with contextlib.suppress(ValueError, OSError):  # more than we may have
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
                break
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1_000_000)
