"""`streamer verify URL`: is a stream complete, in order, and as the schema says?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streamer.cli import exits, options
from streamer.cli.text import Column, Screen, clean, table
from streamer.clock import SystemClock
from streamer.config import SinkSettings, password, seconds
from streamer.errors import ConfigError
from streamer.model.messages import TOPICS

if TYPE_CHECKING:
    from streamer.consume import Progress, Reader, Selection
    from streamer.consume.audit import Audit
    from streamer.consume.findings import Finding, Report

_COLUMNS: Final = (
    Column("HOST", least=12),
    Column("RUN OF THE AGENT", rank=3),
    Column("TOPIC"),
    Column("SEEN", right=True),
    Column("REPEATS", right=True, rank=4),
    Column("SAME ID", right=True, rank=5),
    Column("DECLARED", right=True, rank=2),
    Column("MISSING", right=True),
    Column("PENDING", right=True, rank=6),
    Column("GONE", right=True, rank=7),
)
_MOST_SHOWN: Final = 20  # findings of a kind in the report for people
_EVERY_NS: Final = 200_000_000  # between two words of progress
_EPILOG: Final = """\
Exit code 0 when nothing is missing undeclared, nothing is out of order, and everything is as the schema says; 1 otherwise,
also when there is nothing to verify.

columns: SEEN numbers that are there; REPEATS replays under the same number; SAME ID the same fact told again by a later run;
DECLARED missing, and a gap says so; MISSING undeclared; PENDING too young to be missing; GONE before what is kept or asked for.

--json prints one object:
  url, prefix, since_ms, now_ms, ok (true when the exit code is 0), records
  rows      [{host, host_id, epoch, topic, seen, repeats, repeated_ids, highest, mark, declared, undeclared, expired, pending}]
  findings  [{kind, severity (error or note), text, host_id, epoch, topic, runs ([[first, last], …] of seq), number, where}]
  counts    findings by kind, also of those beyond the first 100 of a kind
Fields of a finding that say nothing are empty or 0. Times are ms since 1970."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to read, how far back, and the form of the answer."""
    parser.add_argument("url", metavar="URL", help="kafka://host:port,…, redis://host:port/db, file:///path.jsonl; as for --sink")
    parser.add_argument(
        "--since", metavar="DUR|TIME", type=_since, help="only what is not older: 15m, 24h, or a time (2025-11-24T08:00:00Z)"
    )
    parser.add_argument(
        "--grace",
        metavar="DUR",
        type=options.duration,
        default=30.0,
        help="how long what was given out may take to arrive (default: 30s)",
    )
    parser.add_argument("--host", metavar="ID", default="", help="this host only, by its id (host_id)")
    parser.add_argument(
        "--type",
        metavar="T",
        action="append",
        choices=[topic.short for topic in TOPICS],
        help="only this type (lifecycle, oom, stats, state, host, control), for a sink that gets some of them; may be repeated",
    )
    parser.add_argument("--prefix", metavar="WORD", help="first word of topics and stream keys (default: publishing.prefix)")
    parser.add_argument("--password-file", metavar="FILE", type=Path, help="file that holds the password, instead of the URL")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a report")
    options.add_config(parser)
    parser.epilog = _EPILOG
    parser.set_defaults(execute=_verify)


def _since(text: str) -> Callable[[int], int]:
    """An argparse type: a duration or a time -> from now (ms since 1970) to the time that is meant (ms since 1970)."""
    try:
        ago = seconds(text)
        return lambda now_ms: now_ms - int(ago * 1000)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a duration like 15m nor a time like 2025-11-24T08:00:00Z") from None
    at_ms = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    return lambda now_ms: at_ms


def _verify(args: argparse.Namespace) -> int:
    if args.url == "stdout:":
        raise ConfigError("what went to stdout cannot be read back", key="URL", value=args.url, remedy="let it go into a file")
    prefix = args.prefix or options.settings(args).publishing.prefix
    secret = password(SinkSettings(url=args.url, password_file=str(args.password_file or "")))
    options.silence_libraries()
    from streamer.consume import Selection, reader
    from streamer.consume.audit import Audit

    now_ms = SystemClock().wall_ns() // 1_000_000
    since_ms = args.since(now_ms) if args.since else None
    wanted = tuple(topic for topic in TOPICS if not args.type or topic.short in {*args.type, "control"})
    checked = [topic for topic in TOPICS if not args.type or topic.short in args.type]
    selection = Selection(prefix, since_ms, args.host, wanted)
    source = reader(args.url, selection, password=secret)
    audit = Audit(source.kind, now_ms=now_ms, grace_ms=int(args.grace * 1000), host_id=args.host, topics=checked)
    asyncio.run(_read(source, audit))
    report = audit.report()
    if args.json:
        sys.stdout.flush()
        sys.stdout.buffer.write(as_json(report, source.describe(), selection, now_ms) + b"\n")
    else:
        print(page(report, source.describe(), Screen.of(sys.stdout)), end="")
    return exits.OK if report.ok else exits.FAILED


async def _read(source: Reader, audit: Audit) -> None:
    clock, told_ns = SystemClock(), 0
    terminal = sys.stderr.isatty()
    try:
        await source.open()
        async for batch in source.batches():
            audit.read(batch)
            if terminal and clock.monotonic_ns() - told_ns > _EVERY_NS:
                told_ns = clock.monotonic_ns()
                print(f"\r\x1b[K{_words(source.progress())}", end="", file=sys.stderr, flush=True)
        for note in source.notes:
            audit.note(note)
    finally:
        if terminal and told_ns:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        await source.close()


def _words(progress: Progress) -> str:
    share = f" of {progress.total} ({100 * progress.done // progress.total} %)" if progress.total else ""
    return f"read {progress.done}{share} {progress.unit}"


def as_json(report: Report, url: str, selection: Selection, now_ms: int) -> bytes:
    """The object that the help describes."""
    import msgspec

    told: dict[str, Any] = {
        "url": url,
        "prefix": selection.prefix,
        "since_ms": selection.since_ms,
        "now_ms": now_ms,
        "ok": report.ok,
        "records": report.records,
        "rows": [row._asdict() for row in report.rows],
        "findings": [{**finding._asdict(), "severity": finding.severity} for finding in report.findings],
        "counts": report.counts,
    }
    return msgspec.json.encode(told)


def page(report: Report, url: str, screen: Screen) -> str:
    """The report for people: the numbers, what was found and what it means, the verdict."""
    from streamer.consume.findings import KINDS

    parts = [f"{clean(url)}\n"]
    if report.rows:
        rows = [
            [
                clean(row.host or row.host_id), _run(row.epoch), row.topic, str(row.seen), _number(row.repeats), _number(row.repeated_ids),
                _number(row.declared), _number(row.undeclared), _number(row.pending), _number(row.expired),
            ]
            for row in report.rows
        ]  # fmt: skip
        parts.append(table(_COLUMNS, rows, screen))
    for kind in KINDS.values():
        found = [finding for finding in report.findings if finding.kind == kind.name]
        if not found:
            continue
        title = screen.paint(kind.title, "bold", *(("red",) if kind.severity == "error" else ()))
        lines = [f"{title}: {kind.means}", *(f"  {clean(_line(finding))}" for finding in found[:_MOST_SHOWN])]
        if (more := report.counts[kind.name] - _MOST_SHOWN) > 0:
            lines.append(f"  and {more} more (--json tells more)")
        parts.append("\n".join(lines) + "\n")
    parts.append(_verdict(report, screen))
    return "\n".join(parts)


def _verdict(report: Report, screen: Screen) -> str:
    if not report.records:
        return screen.paint("nothing to verify: no record was found", "red") + "; is it the right place, prefix, host and time?\n"
    hosts = len({row.host_id for row in report.rows})
    about = f"{report.records} records of {hosts} host{'' if hosts == 1 else 's'}"
    if report.ok:
        return screen.paint(f"complete: {about}, nothing is missing undeclared", "green") + "\n"
    missing = sum(row.undeclared for row in report.rows)
    wrong = [f"{missing} missing undeclared"] if missing else []
    named = {
        "order": "out of order",
        "id": "under a number of another",
        "life": "against the order of life",
        "schema": "not as the schema says",
    }
    wrong += [f"{report.counts[kind]} {words}" for kind, words in named.items() if report.counts.get(kind)]
    return screen.paint(f"failed: {about}; {', '.join(wrong)}", "red") + "\n"


def _line(finding: Finding) -> str:
    from streamer.consume.runs import count, words

    about = [f"host {finding.host_id}"] if finding.host_id else []
    about += [f"run {finding.epoch}"] if finding.epoch else []
    about += [finding.topic] if finding.topic else []
    told = ", ".join(about)
    if finding.runs:
        told += f": seq {words(finding.runs)}" + (f" ({count(finding.runs)})" if count(finding.runs) > 1 else "")
    where = f" [{'after ' if finding.kind == 'missing' else ''}{finding.where}]" if finding.where else ""
    return f"{told}{': ' if told and finding.text else ''}{finding.text}{where}"


def _run(epoch: int) -> str:
    try:
        return datetime.fromtimestamp(epoch / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return str(epoch)


def _number(number: int) -> str:
    return str(number) if number else "-"
