"""`/metrics`: which format the client wants, and the whole body in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from streamer.sidecar.textformat import OPENMETRICS, TEXT, Format

if TYPE_CHECKING:
    from streamer.memory import Container
    from streamer.model.messages import HostInfo
    from streamer.sidecar.context import Context

_CHUNK: Final = 65_536
"""Characters; made in some tenths of a millisecond."""
_SLICE: Final = 256
"""Containers looked at without a pause: about half a millisecond."""
_MOST_RANGES: Final = 100
"""Of an `Accept` header; the rest is not looked at: a head may hold thirty thousand, a tenth of a second of work."""
_OPENMETRICS_VERSIONS: Final = ("1.0.0", "0.0.1")
_WORKING: Final = ("ok", "degraded")
_PARTS: Final = (("containers",), ("samples",), ("statistics",))
"""Labels of `streamer_memory_bytes`, in the order of `Container.sizes`."""
_DELETED: Final = ("deleted",)


def metrics_body(context: Context, accept: str) -> tuple[str, Iterator[bytes]]:
    """Content type and body of an answer to a request with this `Accept` header.

    The body is made as it is taken, a millisecond or less at a time, of what was known when the first chunk was: nothing
    else need wait for it. A chunk may be empty: then there was something to do before there is more to say.
    """
    form = negotiate(accept)
    return form.type, _chunks(context, form)


def negotiate(accept: str) -> Format:
    """The format for an `Accept` header (RFC 9110, 12.5.1): OpenMetrics where it is named and not less welcome than text.

    Whoever accepts neither is given text as well: a body that can be looked at helps more than a 406.
    """
    wanted = [_media_range(part) for part in accept.lower().split(",", _MOST_RANGES)[:_MOST_RANGES]]
    strict = max((q for media, version, q in wanted if media == "application/openmetrics-text" and _known(version)), default=0.0)
    text = next(
        (
            max(q for media, _, q in wanted if media == name)
            for name in ("text/plain", "text/*", "*/*")
            if any(w[0] == name for w in wanted)
        ),
        0.0,
    )
    return OPENMETRICS if strict > 0 and strict >= text else TEXT


def _known(version: str) -> bool:
    return version == "" or version in _OPENMETRICS_VERSIONS


def _media_range(part: str) -> tuple[str, str, float]:
    """`text/plain; version=0.0.4; q=0.5` -> (`text/plain`, `0.0.4`, 0.5). A q that is no number counts as 0."""
    media, *parameters = (piece.strip() for piece in part.split(";"))
    given = {name.strip(): value.strip().strip('"') for name, _, value in (p.partition("=") for p in parameters)}
    try:
        q = float(given.get("q", "1"))
    except ValueError:
        q = 0.0
    return media, given.get("version", ""), q if 0 <= q <= 1 else 0.0


def _chunks(context: Context, form: Format) -> Iterator[bytes]:
    containers, hosts = list(context.memory.containers()), list(context.memory.host_infos.values())
    yield from _look_up(context, containers)
    yield context.exposition.render(form)
    waiting, size = [_errors(context, hosts, form)], 0
    for piece in context.exposition.containers.pieces(containers, hosts, form):
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK or not piece:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield ("".join(waiting) + form.end).encode()


def _look_up(context: Context, containers: Sequence[Container]) -> Iterator[bytes]:
    """Numbers that are not counted where they arise, with a pause after some hundred containers."""
    telemetry, memory = context.telemetry, context.memory
    runtimes: Counter[tuple[str, ...]] = Counter()
    samples = 0
    sizes: dict[tuple[str, ...], int] = dict.fromkeys((*_PARTS, _DELETED), 0)
    for start in range(0, len(containers), _SLICE):
        some = containers[start : start + _SLICE]
        runtimes.update((str(c.facts.get("runtime", "")),) for c in some if not c.deleted_ms)
        samples += sum(container.sample_count for container in some)
        for container in some:
            for part, size in zip(_PARTS, container.sizes, strict=True):
                sizes[_DELETED if container.deleted_ms else part] += size
        yield b""
    telemetry.replace("streamer_runtime_containers", runtimes)
    telemetry.set("streamer_memory_deleted_containers", len(containers) - runtimes.total())
    telemetry.set("streamer_memory_samples", samples)
    # together what `Memory.bytes` sums up in one go
    telemetry.replace("streamer_memory_bytes", {**sizes, ("events",): memory.event_bytes})
    telemetry.count("streamer_memory_ignored_total", by=memory.ignored - telemetry.value("streamer_memory_ignored_total"))


def _errors(context: Context, hosts: Sequence[HostInfo], form: Format) -> str:
    """cAdvisor's two words on whether what follows is all there is."""
    states = {status.component: status.state for status in context.statuses()}
    blind = any(states.get(component) not in _WORKING for component in context.essential)
    return "".join(
        form.head(name, "gauge", text) + f"{name} {int(failed)}\n"
        for name, text, failed in (
            ("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", blind),
            ("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.", not hosts),
        )
    )
