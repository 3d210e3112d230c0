"""What an agent might have said, as batches that a reader might have read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamer.consume import Batch, Place, Raw
from streamer.consume.audit import Audit
from streamer.consume.findings import Finding, Report
from streamer.consume.runs import Run
from streamer.model.messages import Message, Topic
from streamer.model.wire import Entry
from streamer.testing.messages import encoded

LATER_MS = 10 * 365 * 86_400_000  # long after everything that was said


def raw(entry: Entry, at: int) -> Raw:
    """An entry as a reader yields it."""
    return Raw(entry.topic, entry.value or b"", at, entry.key, entry.id or None)


def in_a_file(messages: Iterable[Message], *, trimmed: str = "") -> list[Batch]:
    """One order over all topics."""
    entries = encoded(list(messages))
    return [Batch(Place("/f", "line ", trimmed=trimmed), [raw(entry, at) for at, entry in enumerate(entries, 1)])]


def in_partitions(messages: Iterable[Message], partitions: int = 3, size: int = 5) -> list[Batch]:
    """By topic and key, as in Kafka, each partition in its order, a few records of each in turn."""
    places: dict[tuple[Topic, int], list[Entry]] = {}
    for entry in encoded(list(messages)):
        places.setdefault((entry.topic, sum(entry.key.encode()) % partitions), []).append(entry)
    batches: list[Batch] = []
    start = 0
    while any(start < len(entries) for entries in places.values()):
        for (topic, number), entries in places.items():
            name = f"streamer.{topic.suffix}[{number}]"
            some = [raw(entry, at) for at, entry in enumerate(entries)][start : start + size]
            batches.append(Batch(Place(name, f"{name}@", topic), some))
        start += size
    return batches


def audited(
    batches: Sequence[Batch], *, now_ms: int = 1_700_000_000_000 + LATER_MS, kind: str = "kafka", host_id: str = ""
) -> Report:
    """The report over batches."""
    audit = Audit(kind, now_ms=now_ms, host_id=host_id)
    for batch in batches:
        audit.read(batch)
    return audit.report()


def found(report: Report, kind: str) -> list[Finding]:
    """The findings of a kind."""
    return [finding for finding in report.findings if finding.kind == kind]


def runs(report: Report, kind: str) -> dict[tuple[int, str], tuple[Run, ...]]:
    """(epoch, topic) -> the numbers of the findings of a kind."""
    return {(finding.epoch, finding.topic): finding.runs for finding in found(report, kind)}
