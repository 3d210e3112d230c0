"""A container as it is kept over a restart, and back. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from streamer.manager.container import TOTALS, Container, Details
from streamer.model.inventory import Kept, Totals
from streamer.model.runtimes import Owner
from streamer.model.stats import COLUMNS, Sample

_COLUMNS: Final = (*TOTALS.values(), "memory_oom_kills")


def keep(container: Container) -> Kept:
    """What a later run needs to go on with this incarnation, or to say how it ended."""
    known = container.details._asdict()
    return Kept(
        incarnation=container.incarnation,
        path=container.path,
        hierarchy=container.hierarchy,
        inode=container.inode,
        found=container.found,
        seen_ns=container.seen_ns,
        spec=container.spec,
        state=container.state,
        said_created=container.said_created or container.restored,
        details={name: value for name, value in known.items() if value != Details._field_defaults[name]},
        exit_code=container.exit_code,
        vanished_ns=container.vanished_ns,
        not_before_ns=container.not_before_ns,
        samples=container.samples,
        oom_said=container.oom_said,
        oom_repeated=container.oom_repeated,
        oom_counted=container.oom_counted,
        oom_start=container.oom_start,
        oom_unlogged=container.oom_unlogged,
        oom_unlogged_ns=container.oom_unlogged_ns,
        last=_totals(container.read),
        emptied=_totals(container.emptied),
    )


def revive(kept: Kept, owner: Owner, alive_ns: int) -> Container:
    """The container as it was at `alive_ns`, when the earlier run last wrote down what it knew."""
    container = Container(
        path=kept.path, hierarchy=kept.hierarchy, inode=kept.inode, incarnation=kept.incarnation, owner=owner,
        found=kept.found, seen_ns=kept.seen_ns, spec=kept.spec,
    )  # fmt: skip
    container.restored = True
    container.alive_ns = max(alive_ns, kept.seen_ns)
    container.said_created = kept.said_created
    container.details = Details(**{name: value for name, value in kept.details.items() if name in Details._fields})
    container.state, container.exit_code = kept.state, kept.exit_code
    container.vanished_ns, container.not_before_ns = kept.vanished_ns, kept.not_before_ns
    container.samples = kept.samples
    container.oom_said, container.oom_repeated, container.oom_counted = kept.oom_said, kept.oom_repeated, kept.oom_counted
    container.oom_start = kept.oom_start
    container.oom_unlogged, container.oom_unlogged_ns = kept.oom_unlogged, kept.oom_unlogged_ns
    container.last = container.read = _sample(kept.last)
    container.emptied = _sample(kept.emptied)
    if container.read is not None:  # what was said of it stands
        container.steady(container.read)
        container.network(container.read)
    return container


def _totals(sample: Sample | None) -> Totals | None:
    if sample is None:
        return None
    values = {column: value for column in _COLUMNS if (value := sample.get(column)) is not UNSET}
    return Totals(sample.time_ns, values, sample.interfaces)


def _sample(totals: Totals | None) -> Sample | None:
    if totals is None:
        return None
    return Sample(totals.time_ns, tuple(totals.values.get(column, UNSET) for column in COLUMNS), totals.interfaces)
