"""What an audit found, as values: rows of numbers, findings, and the whole as a report. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal, NamedTuple

from streamer.consume.runs import Run

Severity = Literal["error", "note"]


class Kind(NamedTuple):
    """A kind of finding. `means`: one sentence for people about what it is and what to make of it."""

    name: str
    severity: Severity
    title: str
    means: str


_KINDS: Final = (
    Kind("missing", "error", "missing, undeclared", "these numbers were given out, are not in the stream, and no gap record says why."),
    Kind("order", "error", "out of order", "within a topic, messages of one container must come with growing epoch and seq."),
    Kind("id", "error", "two messages under one number", "a replay must carry the same id as the first time."),
    Kind("life", "error", "told after the end", "nothing may follow a container's deleted, and nothing may be deleted that was not created."),
    Kind("schema", "error", "not as the schema says", "consumers that trust the schema will stumble over these."),
    Kind("pending", "note", "not arrived yet", "given out, too young to be called missing; ask again later."),
    Kind("expired", "note", "before the beginning", "older than what is kept or was asked for; nothing can be said of them."),
    Kind("late", "note", "samples behind their container's end", "the sink lagged, and facts do not queue behind old samples."),
    Kind("declared", "note", "missing, declared", "the agent knows of them and says so in gap records."),
    Kind("unended", "note", "ended without a word", "a run that was killed: what it gave out after its last record here cannot be known from here."),
    Kind("blind", "note", "declared blind spots", "facts the agent could not observe; they never had a number."),
    Kind("orphan", "note", "deleted without created", "their created is older than what was read, or among what is missing."),
    Kind("version", "note", "newer than this program", "a newer agent wrote these; their numbers count, the rest was not checked."),
    Kind("clock", "note", "clocks", "the host's wall clock; seq, not time, is what order and completeness rest on."),
    Kind("reading", "note", "about the stream", "what the reader came across."),
    Kind("bound", "note", "limits of this audit", "memory is bounded; what was forgotten could not be compared any more."),
)  # fmt: skip
KINDS: Final = {kind.name: kind for kind in _KINDS}
"""Every kind of finding, in the order in which they are shown."""


class Finding(NamedTuple):
    """One thing that was found. Fields that say nothing are empty: `epoch` 0, `topic` "", `runs` ().

    number how many messages or numbers it is about; fewer than are in `runs` when nobody knows which of them
    where   where in the stream it was seen; of missing numbers, where the one before them stands
    """

    kind: str
    text: str
    host_id: str = ""
    epoch: int = 0
    topic: str = ""
    runs: tuple[Run, ...] = ()
    number: int = 1
    where: str = ""

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity


class Row(NamedTuple):
    """The numbers of one host, epoch and topic.

    seen         different numbers that are there
    repeats      messages whose number had been there: replays, to be dropped by id
    repeated_ids  messages under a number of their own with an id that had been there: the same fact told again by a later run
    highest      highest number that is there; mark: highest that a control record says was given out
    """

    host: str
    host_id: str
    epoch: int
    topic: str
    seen: int
    repeats: int
    repeated_ids: int
    highest: int
    mark: int
    declared: int
    undeclared: int
    expired: int
    pending: int


class Report(NamedTuple):
    """All of it. `counts`: findings by kind, also of those that were not kept one by one."""

    records: int
    rows: list[Row]
    findings: list[Finding]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether there was something to look at and nothing is wrong with it."""
        return self.records > 0 and not any(KINDS[kind].severity == "error" for kind in self.counts)


class Findings:
    """Collects them: of each kind the first `most`, and how many there were."""

    def __init__(self, most: int) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self._most = most

    def add(self, finding: Finding, *, always: bool = False) -> None:
        """`always`: kept however many there are, for kinds of which there are few by their nature."""
        self.counts[finding.kind] += 1
        if always or self.counts[finding.kind] <= self._most:
            self.kept.append(finding)
