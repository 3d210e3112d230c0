"""What a run before this one left in the state file: read at the start, and where a sink goes on. One thread."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from streamer.model.inventory import Kept, Past
from streamer.model.messages import STATS, TOPICS, Lane
from streamer.outbox.block import inflate
from streamer.outbox.database import Database
from streamer.outbox.lane import Head, Mark, Stretch
from streamer.outbox.lock import StoreFailed

_BLOCKS_AFTER: Final = (
    "SELECT block_id, first, last, epoch, first_seq, last_seq, messages, raw_bytes FROM stats WHERE last > ? ORDER BY first"
)
_BEYOND: Final = 1 << 62
_kept_decoder: Final = msgspec.json.Decoder(Kept)
TOPIC: Final = {topic.short: topic for topic in TOPICS}


class Cursor(NamedTuple):
    """How far a sink has come. `sink`: what it is known by; `name`: what it is called in messages."""

    sink: str
    name: str
    durable: int = 0
    stats: Mark = Mark()


class Left(NamedTuple):
    """What a lane holds for a sink at the start."""

    stretches: list[Stretch]
    bytes: int
    after: int
    through: int


class Leftovers:
    """Reads them. Every method may raise `StoreFailed`."""

    def __init__(self, file: Database) -> None:
        self.file = file

    def past(self) -> Past:
        """What the run before left."""
        with self.file.errors():
            facts = dict(self.file.live.execute("SELECT name, value FROM facts"))
            kept = self.file.live.execute("SELECT kept FROM inventory ORDER BY rowid").fetchall()
        try:
            inventory = tuple(_kept_from(text) for (text,) in kept)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreFailed(f"{self.file.path}: the inventory cannot be read: {error}", damaged=True) from error
        return Past(
            epoch=facts.get("epoch", 0),
            boot_id=facts.get("boot_id", ""),
            alive_ns=facts.get("alive_ns", 0),
            clean=bool(facts.get("clean", 0)),
            kmsg_seq=facts.get("kmsg_seq"),
            kmsg_said=tuple(map(int, facts.get("kmsg_said", "").split())),
            docker_ns=facts.get("docker_ns"),
            inventory=inventory,
        )

    def cursors(self) -> dict[str, Cursor]:
        """Every sink that was configured in the run before, by what it is known by."""
        with self.file.errors():
            rows = self.file.live.execute("SELECT sink, name, durable, stats, stats_epoch, stats_seq FROM cursors").fetchall()
        return {sink: Cursor(sink, name, durable, Mark(*stats)) for sink, name, durable, *stats in rows}

    def left(self, cursor: Cursor, types: frozenset[str]) -> dict[Lane, Left]:
        """What waits on disk for a sink that has come so far and wants these topics (short names)."""
        with self.file.errors():
            durable = self.file.live.execute(
                "SELECT topic, epoch, min(seq), max(seq), count(*), sum(size), max(position) FROM durable"  # noqa: S608  names of ours
                f" WHERE position > ? AND topic IN ({wanted(types)}) GROUP BY topic, epoch",
                (cursor.durable,),
            ).fetchall()
        found: dict[Lane, Left] = {
            "durable": Left(
                [Stretch(TOPIC[short], *rest) for short, *rest, _, _ in durable],
                sum(row[5] for row in durable), cursor.durable, max((row[6] for row in durable), default=cursor.durable),
            )
        }  # fmt: skip
        found["stats"] = self._left_of_stats(cursor.stats.position if "stats" in types else _BEYOND)
        return found

    def _left_of_stats(self, after: int) -> Left:
        stretches: dict[int, Stretch] = {}
        reached = after
        size = 0
        with self.file.errors():
            for key, first, last, epoch, *numbers, raw_bytes in self.file.live.execute(_BLOCKS_AFTER, (after,)).fetchall():
                if first > reached:
                    parts = [(epoch, *numbers, raw_bytes)]
                else:  # partly sent, or written again after a failure
                    parts = [(h.epoch, h.seq, h.seq, 1, h.size) for h in heads_of(self.file, key) if h.position > reached]
                for part_epoch, first_seq, last_seq, count, part_bytes in parts:
                    known = stretches.setdefault(part_epoch, Stretch(STATS, part_epoch, first_seq, last_seq, 0))
                    known.last_seq, known.count = max(known.last_seq, last_seq), known.count + count
                    size += part_bytes
                reached = max(reached, last)
        return Left(list(stretches.values()), size, after, reached)

    def dropped(self, cursor: Cursor, types: frozenset[str]) -> list[tuple[str, Stretch]]:
        """What there was no room for, and a sink had not come past yet: (its name, topic, epoch and numbers)."""
        with self.file.errors():
            rows = self.file.live.execute(
                "SELECT topic, epoch, first_seq, last_seq, messages, last_position FROM dropped"
            ).fetchall()
        reached = {"durable": cursor.durable, "stats": cursor.stats.position}
        return [
            (cursor.name, Stretch(TOPIC[short], *numbers))
            for short, *numbers, position in rows
            if short in types and position > reached[TOPIC[short].lane]
        ]

    def spilled(self, epoch: int) -> list[tuple[int, int]]:
        """The ranges of stats numbers of an epoch that are on disk, in order."""
        with self.file.errors():
            return self.file.live.execute(
                "SELECT first_seq, last_seq FROM stats WHERE epoch = ? ORDER BY first", (epoch,)
            ).fetchall()


def heads_of(file: Database, block_id: int) -> list[Head]:
    """What is known of the entries of a block of samples without their values."""
    (blob,) = file.live.execute("SELECT block FROM stats WHERE block_id = ?", (block_id,)).fetchone()
    return [Head(e.position, e.topic, e.epoch, e.seq, e.size) for e in inflate(blob)]


def wanted(types: Iterable[str]) -> str:
    """Topics as a list of SQL's. Only our own names: whatever else is asked for is left out."""
    return ", ".join(f"'{short}'" for short in sorted(types) if short in TOPIC)


def _kept_from(text: str) -> Kept:
    try:
        return _kept_decoder.decode(text)
    except msgspec.DecodeError:  # a lone surrogate, as above
        return msgspec.convert(json.loads(text), Kept)
