"""`streamer once`: one look at this host, as a table for people or as the messages themselves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from streamer.cli import exits, options
from streamer.cli.text import Column, Screen, age, clean, size, table
from streamer.config import Settings
from streamer.model import messages
from streamer.model.messages import Message

Rates = Mapping[str, tuple[float, float, float]]
"""incarnation -> CPU in cores, bytes received and sent per second."""

_COLUMNS: Final = (
    Column("NAME", least=20),
    Column("RUNTIME", rank=4),
    Column("IMAGE", rank=3, least=12),
    Column("CPU %", right=True),
    Column("MEMORY", right=True),
    Column("LIMIT", right=True, rank=1),
    Column("USED", rank=2),
    Column("PROCS", right=True, rank=5),
    Column("NET RX/s", right=True, rank=6),
    Column("NET TX/s", right=True, rank=6),
    Column("AGE", right=True, rank=7),
    Column("ID", rank=8),
)
_SHORT_ID: Final = 12  # characters, as runtimes show it
_UNKNOWN: Final = "-"


class Row(NamedTuple):
    """What the table shows of one container; None where it is not known."""

    name: str
    runtime: str
    image: str
    container_id: str
    cgroup_path: str
    cpu_cores: float | None
    memory_bytes: int | None
    limit_bytes: int | None
    processes: int | None
    rx_bytes_per_s: float | None
    tx_bytes_per_s: float | None
    age_seconds: float | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """All settings, the form, the order."""
    options.add_settings(parser)
    parser.add_argument("--json", action="store_true", help="JSON Lines, also on a terminal")
    parser.add_argument(
        "--sort", choices=("memory", "cpu", "name"), default="memory", help="order of the table (default: %(default)s)"
    )
    parser.set_defaults(execute=_once)


def _once(args: argparse.Namespace) -> int:
    settings = options.settings(args)
    from streamer.glance import once

    seen = once(settings)
    if args.json or not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(json_lines(seen.messages))
        sys.stdout.buffer.flush()
    else:
        print(page(rows(seen.messages, seen.rates), args.sort, settings, Screen.of(sys.stdout)), end="")
    return exits.OK


def json_lines(said: Iterable[Message]) -> bytes:
    """The records, one JSON value a line."""
    encoder = msgspec.json.Encoder()
    return encoder.encode_lines(message.whole for message in said if message.record is not None)


def rows(said: Sequence[Message], rates: Rates) -> list[Row]:
    """One row per container that is there: from the last word on its life and its last sample."""
    lives: dict[str, messages.ContainerLifecycle] = {}
    samples: dict[str, messages.Record] = {}
    for record in (message.whole for message in said):
        if isinstance(record, messages.ContainerLifecycle):
            lives[record.incarnation] = record
        elif isinstance(record, messages.ContainerStats):
            samples[record.incarnation] = record
    return [
        _row(life, samples.get(key), rates.get(key, (None, None, None))) for key, life in lives.items() if life.event != "deleted"
    ]


def _row(found: messages.ContainerLifecycle, sample: Any, rates: tuple[float | None, float | None, float | None]) -> Row:
    limit = _known(found.spec, "memory_limit_bytes")
    since = _known(found, "started_at") or _known(found, "created_at")
    used = _known(sample, "memory_working_set_bytes")
    return Row(
        name=clean(_known(found, "name") or found.container_id),
        runtime=found.runtime,
        image=clean(_known(found, "image") or ""),
        container_id=clean(found.container_id),
        cgroup_path=found.cgroup_path,
        cpu_cores=rates[0],
        memory_bytes=_known(sample, "memory_usage_bytes") if used is None else used,
        limit_bytes=limit or None,  # 0: none of its own
        processes=_known(sample, "processes"),
        rx_bytes_per_s=rates[1] if _known(sample, "network_rx_bytes") is not None else None,
        tx_bytes_per_s=rates[2] if _known(sample, "network_tx_bytes") is not None else None,
        age_seconds=found.observed_time_ms / 1000 - datetime.fromisoformat(since).timestamp() if since else None,
    )


def _known(record: Any, name: str) -> Any:
    """A field's value; None where it is absent."""
    value = getattr(record, name, UNSET)
    return None if value is UNSET else value


def page(found: Sequence[Row], order: str, settings: Settings, screen: Screen) -> str:
    """The whole answer for people."""
    if not found:
        return _nothing(settings)
    keys = {
        "memory": lambda row: (-(row.memory_bytes or 0), row.name),
        "cpu": lambda row: (-(row.cpu_cores or 0), row.name),
        "name": lambda row: (row.name,),
    }
    cells = [_cells(row, screen) for row in sorted(found, key=keys[order])]
    told = [at for at in range(len(_COLUMNS)) if any(row[at] != _UNKNOWN for row in cells)]  # a column of dashes says nothing
    shown = table([_COLUMNS[at] for at in told], [[row[at] for at in told] for row in cells], screen)
    outer = _outermost(found)
    total = size(sum(row.memory_bytes or 0 for row in outer))
    cores = sum(row.cpu_cores or 0 for row in outer)
    count = "1 container" if len(found) == 1 else f"{len(found)} containers"
    return shown + screen.paint(f"{count}, {cores * 100:.1f} % of one CPU, {total} of memory", "dim") + "\n"


def _outermost(found: Sequence[Row]) -> list[Row]:
    """Those that lie in no other one: a cgroup's numbers include the cgroups below it."""
    paths = {row.cgroup_path.rstrip("/") for row in found}

    def inside(path: str) -> bool:
        parts = path.rstrip("/").split("/")
        return any("/".join(parts[:depth]) in paths for depth in range(1, len(parts)))

    return [row for row in found if not inside(row.cgroup_path)]


def _cells(row: Row, screen: Screen) -> list[str]:
    def told(value: float | None, form: Any) -> str:
        return _UNKNOWN if value is None else form(value)

    share = row.memory_bytes / row.limit_bytes if row.memory_bytes is not None and row.limit_bytes else None
    identity = row.container_id
    return [
        row.name,
        row.runtime,
        row.image or _UNKNOWN,
        told(row.cpu_cores, lambda cores: f"{cores * 100:.1f}"),
        told(row.memory_bytes, size),
        told(row.limit_bytes, size),
        told(share, lambda part: f"{screen.bar(part)} {part * 100:3.0f}%"),
        told(row.processes, str),
        told(row.rx_bytes_per_s, size),
        told(row.tx_bytes_per_s, size),
        told(row.age_seconds, age),
        _UNKNOWN if identity == row.name else identity if identity.startswith("/") else identity[:_SHORT_ID],
    ]


def _nothing(settings: Settings) -> str:
    root = settings.host_root.rstrip("/")
    lines = [f"No containers. Looked at the cgroups under {root}/sys/fs/cgroup, scope {settings.scope}."]
    if settings.scope == "containers":
        lines.append("`streamer once --scope all` shows systemd's services and slices as well.")
    lines.append("`streamer check` says whether anything keeps the agent from seeing them.")
    return "\n".join(lines) + "\n"
