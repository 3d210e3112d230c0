"""The state file: what waits for the sinks, and what survives a restart, in one SQLite database. Synchronous; one thread.

    durable     a row per message, until every sink has acknowledged it
    stats       a row per block of samples, zstd; only while a sink lags
    cursors     how far each sink has come
    dropped     what there was no room for, until every sink is past it: a later run declares it to those that are not
    inventory   a row per container that is alive
    facts       the rest of the last checkpoint, by name

`sqlite3 -readonly state.db 'SELECT topic, id FROM durable'` shows what waits. The log mode is WAL: a crash of the
process loses nothing that was committed. With `synchronous = NORMAL` a power failure can take the commits since the last
checkpoint of the log (at most some MB of it); FULL syncs each commit. https://www.sqlite.org/wal.html

What the disk was too small or too old for is handed back by `commit`, so that it can be declared.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from streamer.model.inventory import Checkpoint, Kept
from streamer.model.messages import Lane
from streamer.model.wire import Entry, pack
from streamer.outbox.block import blocks, deflate, entries_of, follows, inflate
from streamer.outbox.database import Database
from streamer.outbox.lane import Head
from streamer.outbox.leftovers import TOPIC, Cursor, Leftovers, heads_of, wanted
from streamer.outbox.lock import StoreFailed

FILE: Final = "state.db"
_AGE_EVERY_MS: Final = 60_000
_COPY_AFTER: Final = 64  # commits of a few pages each: SQLite itself copies within the commit that makes them 1000
_SMALL_BLOCK_BYTES: Final = 32_768  # a last block below this is written again with what follows it

_OLDEST: Final[dict[Lane, str]] = {
    "durable": "SELECT position, size, order_ms FROM durable ORDER BY position",
    "stats": "SELECT block_id, bytes, order_ms FROM stats ORDER BY first",
}
_DELETE: Final[dict[Lane, str]] = {
    "durable": "DELETE FROM durable WHERE position = ?",
    "stats": "DELETE FROM stats WHERE block_id = ?",
}

_DROPPED: Final = (
    "INSERT INTO dropped VALUES (?1, ?2, ?3, ?3, 1, ?4) ON CONFLICT DO UPDATE SET first_seq = min(first_seq, ?3),"
    " last_seq = max(last_seq, ?3), messages = messages + 1, last_position = max(last_position, ?4)"
)

_kept_encoder: Final = msgspec.json.Encoder()


class Limits(NamedTuple):
    """What each lane may take on disk: bytes as stored, and age of the oldest."""

    durable_bytes: int
    stats_bytes: int
    durable_age_ms: int
    stats_age_ms: int


class Work(NamedTuple):
    """One thing to commit. `cursors` are all sinks there are; None: they have not moved."""

    durable: Sequence[Entry] = ()
    stats: Sequence[Entry] = ()
    checkpoint: Checkpoint | None = None
    cursors: Sequence[Cursor] | None = None
    clean: bool = False


class Committed(NamedTuple):
    """What a commit had to drop, by lane, and what is on disk now."""

    dropped: dict[Lane, list[Head]]
    bytes: dict[Lane, int]


class _Block(NamedTuple):
    block_id: int
    entries: list[Entry]
    bytes: int


def _kept_text(kept: Kept) -> str:
    try:
        return _kept_encoder.encode(kept).decode()
    except UnicodeEncodeError:  # the name of a cgroup can be any bytes; Python holds those as lone surrogates, JSON as \\udcNN
        return json.dumps(msgspec.to_builtins(kept))


def _raw(entries: Sequence[Entry]) -> int:
    return sum(entry.size for entry in entries)


class Store:
    """See above. Every method may raise `StoreFailed`."""

    def __init__(self, directory: Path, limits: Limits, *, synchronous: Literal["normal", "full"] = "normal") -> None:
        self.directory, self._limits = directory, limits
        self.file = Database(directory / FILE, synchronous)
        self.leftovers = Leftovers(self.file)
        self._bytes: dict[Lane, int] = {"durable": 0, "stats": 0}
        self._age_checked_ms = 0
        self._open_block: _Block | None = None  # the last one written
        self._behind = False  # a checkpoint could not be written, and no whole one was since
        self._known = False  # what was in the file when this run began is known
        self._open_anew = False  # before the next commit: the last one failed, or the file could not be opened as usual
        self._last = (0, 0)  # the highest position and order time written
        self._sinks: frozenset[str] | None = None  # whose cursors there are; None: not known
        self._any_dropped = True  # there may be rows of it
        self._commits = 0  # since the log was copied into the file

    def open(self, *, check: bool = True) -> None:
        """Open the file, or make it."""
        self._open_anew = True
        self.file.open(check=check)
        self._count()
        self._known = True
        self._open_anew = not self.file.writable

    def set_aside(self, now_ms: int) -> str:
        """Rename a damaged file and begin a new one; returns the name under which the old one is kept."""
        kept = self.file.set_aside(now_ms)
        self._known, self._open_anew = True, not self.file.writable
        if self.file.readable:
            self._count()
        return kept

    def close(self) -> None:
        """Let go of the file; never raises."""
        self.file.close()

    def _count(self) -> None:
        self._open_block = self._sinks = None
        self._any_dropped = True
        db = self.file.live
        with self.file.errors():
            self._bytes["durable"] = db.execute("SELECT coalesce(sum(size), 0) FROM durable").fetchone()[0]
            self._bytes["stats"] = db.execute("SELECT coalesce(sum(bytes), 0) FROM stats").fetchone()[0]
            facts = dict(db.execute("SELECT name, value FROM facts WHERE name IN ('position', 'order_ms')"))
        self._last = facts.get("position", 0), facts.get("order_ms", 0)

    def _open_again(self) -> None:
        known = self._known
        self.open(check=False)
        if not known and self._last[0]:  # others' messages under numbers of their own: they cannot be taken over any more
            raise StoreFailed(f"{self.file.path} could not be read when this run began", damaged=True)

    @property
    def last(self) -> tuple[int, int]:
        """The highest position, and the order time, that were ever written down."""
        return self._last

    # writing

    def commit(self, works: Sequence[Work], now_ms: int) -> Committed:
        """Write all of it in one transaction, or nothing."""
        behind = self._behind and not any(work.checkpoint is not None and work.checkpoint.whole for work in works)
        self._behind = True  # unless it goes well
        if self._open_anew:
            self._open_again()
        self._open_anew = True  # unless it goes well
        db = self.file.live
        sizes = dict(self._bytes)
        dropped: dict[Lane, list[Head]] = {"durable": [], "stats": []}
        with self.file.errors():
            db.execute("BEGIN IMMEDIATE")
            try:
                facts = self._write(works)
                facts |= self._check_in([work.checkpoint for work in works if work.checkpoint is not None], behind)
                self._say(clean=int(works[-1].clean), **facts)
                cursors = next((work.cursors for work in reversed(works) if work.cursors is not None), None)
                if cursors is not None:
                    self._move(cursors)
                for lane in dropped:
                    dropped[lane] = self._trim(lane, now_ms)
                if abs(now_ms - self._age_checked_ms) >= _AGE_EVERY_MS:
                    self._age_checked_ms = now_ms
                    db.execute("PRAGMA incremental_vacuum(1000)").fetchall()
                db.execute("COMMIT")
            except BaseException:
                self._bytes.update(sizes)
                self._open_block = self._sinks = None
                self._any_dropped = True
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        self._open_anew, self._behind = not self.file.writable, behind
        self._commits += 1
        return Committed(dropped, dict(self._bytes))

    def tidy(self) -> None:
        """Now and then, when nobody waits: copy the log into the file, which syncs both. Left to a commit, it would be late by that.

        What cannot be copied stays in the log, where it is as safe; a disk that takes nothing shows in the next commit.
        """
        if self._commits >= _COPY_AFTER and self.file.writable:
            self._commits = 0
            with contextlib.suppress(sqlite3.Error):
                self.file.live.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                # the first to write to a log that begins anew syncs its head: let that be us, with what stands there already
                self.file.live.execute("INSERT OR REPLACE INTO facts SELECT name, value FROM facts WHERE name = 'clean'")

    def _write(self, works: Sequence[Work]) -> dict[str, Any]:
        """Put the entries there; what is to be noted of them."""
        db = self.file.live
        durable = [entry for work in works for entry in work.durable]
        if durable:
            rows = [(e.position, e.topic.short, e.id or e.key, e.epoch, e.seq, e.order_ms, e.size, pack([e])) for e in durable]
            before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO durable VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._bytes["durable"] += sum(row[6] for row in rows) if db.total_changes - before == len(rows) else 0
            if db.total_changes - before != len(rows):  # some were there already: after a failure all that is open is written again
                self._bytes["durable"] = db.execute("SELECT coalesce(sum(size), 0) FROM durable").fetchone()[0]
        for work in works:
            for block in blocks(work.stats):
                self._write_block(block)
        newest = [entries[-1] for work in works for entries in (work.durable, work.stats) if entries]
        if not newest:
            return {}
        self._last = max(self._last[0], *(e.position for e in newest)), max(self._last[1], *(e.order_ms for e in newest))
        return {"position": self._last[0], "order_ms": self._last[1]}

    def _write_block(self, block: Sequence[Entry]) -> None:
        """A block of its own, or one with the last, while that is small: samples compress well in company."""
        db, last = self.file.live, self._open_block
        if last is not None and last.bytes < _SMALL_BLOCK_BYTES and follows(last.entries, block):
            entries = [*last.entries, *block]
            packed = deflate(entries)
            done = db.execute(
                "UPDATE stats SET last = ?, last_seq = ?, messages = ?, raw_bytes = ?, bytes = ?, block = ? WHERE block_id = ?",
                (block[-1].position, block[-1].seq, len(entries), _raw(entries), len(packed), packed, last.block_id),
            )
            if done.rowcount:
                self._bytes["stats"] += len(packed) - last.bytes
                self._open_block = _Block(last.block_id, entries, len(packed))
                return
        packed = deflate(block)
        first, end = block[0], block[-1]
        done = db.execute(
            "INSERT INTO stats VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                first.position, end.position, first.epoch, first.seq, end.seq, len(block), first.order_ms, _raw(block), len(packed), packed,
            ),
        )  # fmt: skip
        self._bytes["stats"] += len(packed)
        self._open_block = _Block(done.lastrowid or 0, list(block), len(packed))

    def _check_in(self, points: Sequence[Checkpoint], behind: bool) -> dict[str, Any]:
        """Take over who is alive; what is to be noted besides.

        `behind`: a checkpoint before these was not written. Until a whole one is, how far everything is known stays as it was.
        """
        if not points:
            return {}
        db = self.file.live
        kept: dict[str, Kept | None] = {}
        for point in points:  # what becomes of an incarnation within one transaction is written once
            if point.whole:
                db.execute("DELETE FROM inventory")
                kept.clear()
            kept |= point.kept
        gone = [(incarnation,) for incarnation, one in kept.items() if one is None]
        there = [(one.incarnation, _kept_text(one)) for one in kept.values() if one is not None]
        db.executemany("DELETE FROM inventory WHERE incarnation = ?", gone)
        db.executemany("INSERT OR REPLACE INTO inventory VALUES (?, ?)", there)
        if behind:
            return {}
        last = points[-1]
        return {
            "epoch": last.epoch,
            "boot_id": last.boot_id,
            "alive_ns": last.alive_ns,
            "kmsg_seq": last.kmsg_seq,
            "kmsg_said": " ".join(map(str, last.kmsg_said)),
            "docker_ns": last.docker_ns,
        }

    def _say(self, **facts: Any) -> None:
        """In one statement: around each, Python's lock is given away, and has to be had again."""
        rows = ", ".join(["(?, ?)"] * len(facts))
        self.file.live.execute(f"INSERT OR REPLACE INTO facts VALUES {rows}", list(chain(*facts.items())))  # noqa: S608  marks alone

    def _move(self, cursors: Sequence[Cursor]) -> None:
        """Write the cursors down and delete what every sink has."""
        db = self.file.live
        sinks = frozenset(cursor.sink for cursor in cursors)
        if sinks != self._sinks:
            db.execute("DELETE FROM cursors")
        self._sinks = sinks
        rows = [(c.sink, c.name, c.durable, *c.stats) for c in cursors]
        db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?)", rows)
        if not cursors:
            return
        durable, stats = min(c.durable for c in cursors), min(c.stats.position for c in cursors)
        gone = db.execute("DELETE FROM durable WHERE position <= ? RETURNING size", (durable,)).fetchall()
        self._bytes["durable"] -= sum(size for (size,) in gone)
        if self._any_dropped:
            db.execute("DELETE FROM dropped WHERE last_position <= ?", (min(durable, stats),))
            self._any_dropped = db.execute("SELECT 1 FROM dropped LIMIT 1").fetchone() is not None
        if self._bytes["stats"]:
            blocks = db.execute("DELETE FROM stats WHERE first <= ?1 AND last <= ?1 RETURNING bytes", (stats,)).fetchall()
            self._bytes["stats"] -= sum(size for (size,) in blocks)

    def _trim(self, lane: Lane, now_ms: int) -> list[Head]:
        """Drop the oldest of a lane that is too large or too old."""
        limits = self._limits
        most, age = (
            (limits.durable_bytes, limits.durable_age_ms) if lane == "durable" else (limits.stats_bytes, limits.stats_age_ms)
        )
        check_age = abs(now_ms - self._age_checked_ms) >= _AGE_EVERY_MS
        if self._bytes[lane] <= most and not check_age:
            return []
        rows = self.file.live.execute(_OLDEST[lane])
        gone: list[tuple[int]] = []
        heads: list[Head] = []
        for key, stored, order_ms in rows:
            if self._bytes[lane] <= most and order_ms >= now_ms - age:
                break
            heads += heads_of(self.file, key) if lane == "stats" else self._durable_head(key)
            self._bytes[lane] -= stored
            gone.append((key,))
        rows.close()
        self.file.live.executemany(_DELETE[lane], gone)
        heads = list({head.position: head for head in heads}.values())
        self._any_dropped = self._any_dropped or bool(heads)
        self.file.live.executemany(_DROPPED, [(h.topic.short, h.epoch, h.seq, h.position) for h in heads])
        return heads

    # reading

    def read(self, lane: Lane, after: int, through: int, types: frozenset[str], most_bytes: int) -> tuple[list[Entry], int]:
        """The oldest entries with positions in (after, through], about `most_bytes` of them, and how far that goes."""
        if lane == "stats":
            return self._read_blocks(after, through, most_bytes)
        entries: list[Entry] = []
        size = 0
        with self.file.errors():
            rows = self.file.live.execute(
                "SELECT entry FROM durable WHERE position > ? AND position <= ?"  # noqa: S608  names of ours
                f" AND topic IN ({wanted(types)}) ORDER BY position",
                (after, through),
            )
            for (blob,) in rows:
                entries += entries_of(blob)
                size += entries[-1].size
                if size >= most_bytes:
                    return entries, entries[-1].position
        return entries, through

    def _read_blocks(self, after: int, through: int, most_bytes: int) -> tuple[list[Entry], int]:
        entries: list[Entry] = []
        size = 0
        with self.file.errors():
            blocks = self.file.live.execute(
                "SELECT block FROM stats WHERE last > ? AND first <= ? ORDER BY first", (after, through)
            )
            for (blob,) in blocks:
                some = [e for e in inflate(blob) if after < e.position <= through]
                if some:
                    after = some[-1].position
                    entries += some
                    size += sum(e.size for e in some)
                if size >= most_bytes:
                    return entries, after
        return entries, through

    def _durable_head(self, position: int) -> list[Head]:
        row = self.file.live.execute(
            "SELECT position, topic, epoch, seq, size FROM durable WHERE position = ?", (position,)
        ).fetchone()
        return [Head(row[0], TOPIC[row[1]], *row[2:])]
