"""The SQLite file under the store: its tables, the ways to open it, what goes wrong as one error. One thread.

A file that cannot be written is opened for reading if that can be done: what waits in it goes out, and a later write opens
it anew first. A damaged one is renamed, so that people can look at it, and another is begun.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from streamer.outbox.lock import MODE, StoreFailed

FORMAT: Final = 1
_KEPT_ASIDE: Final = 5  # damaged files, each with its log
_CHECK_BYTES: Final = 64 << 20  # a larger file is not read through at the start; what is damaged shows when it is read

_TABLES: Final = """
CREATE TABLE durable (
  position INTEGER PRIMARY KEY, topic TEXT NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
  order_ms INTEGER NOT NULL, size INTEGER NOT NULL, entry BLOB NOT NULL
);
CREATE TABLE stats (
  block_id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL, messages INTEGER NOT NULL, order_ms INTEGER NOT NULL, raw_bytes INTEGER NOT NULL,
  bytes INTEGER NOT NULL, block BLOB NOT NULL
);
CREATE INDEX blocks ON stats (first, last, epoch, first_seq, last_seq, messages, order_ms, raw_bytes, bytes);
CREATE TABLE cursors (
  sink TEXT PRIMARY KEY, name TEXT NOT NULL, durable INTEGER NOT NULL, stats INTEGER NOT NULL, stats_epoch INTEGER NOT NULL,
  stats_seq INTEGER NOT NULL
);
CREATE TABLE dropped (
  topic TEXT NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, messages INTEGER NOT NULL,
  last_position INTEGER NOT NULL, PRIMARY KEY (topic, epoch)
);
CREATE TABLE inventory (incarnation TEXT PRIMARY KEY, kept TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value);
"""


class _Way(NamedTuple):
    """How to open the file: `query` of its URI, `pragmas` before anything is read."""

    query: str = ""
    pragmas: Sequence[str] = ()


_WAYS: Final = (
    _Way(pragmas=("PRAGMA auto_vacuum = INCREMENTAL",)),
    _Way(pragmas=("PRAGMA locking_mode = EXCLUSIVE",)),  # needs no room for a -shm file: a full disk
    _Way(query="?mode=ro"),  # a read-only file system, with the log that a killed run left
    _Way(query="?immutable=1"),  # the same after an end in order: no -shm file can be made for a log that is not there
)


class Database:
    """See above. Every method may raise `StoreFailed`."""

    def __init__(self, path: Path, synchronous: Literal["normal", "full"]) -> None:
        self.path, self._synchronous = path, synchronous
        self._connection: sqlite3.Connection | None = None
        self._as_usual = True

    @property
    def live(self) -> sqlite3.Connection:
        """The open connection."""
        if self._connection is None:
            raise StoreFailed(f"{self.path} is not open")
        return self._connection

    @property
    def exists(self) -> bool:
        """Whether there is a file with something in it."""
        return self.path.exists() and self.path.stat().st_size > 0

    @property
    def readable(self) -> bool:
        """Whether it is open, at least for reading."""
        return self._connection is not None

    @property
    def writable(self) -> bool:
        """Whether it was opened as it should be."""
        return self._connection is not None and self._as_usual

    def open(self, *, check: bool) -> None:
        """Open the file, or make it. `check`: read a small one through."""
        self.close()
        first: StoreFailed | None = None
        log = self.path.with_name(f"{self.path.name}-wal")
        for way in _WAYS:
            if "immutable" in way.query and log.exists() and log.stat().st_size:
                continue  # it would be read without what stands in its log
            try:
                self._open(way, check)
            except StoreFailed as failed:
                self.close()
                if failed.damaged and way is _WAYS[0]:
                    raise
                first = first or failed
            else:
                self._as_usual = way is _WAYS[0]
                return
        raise first or StoreFailed(f"{self.path}: no way to open it")

    def close(self) -> None:
        """Let go of the file; never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def set_aside(self, now_ms: int) -> str:
        """Rename a damaged file and begin a new one; returns the name under which the old one is kept.

        When the new one cannot be made yet (a full disk), it is not open, and a later `open` makes it.
        """
        self.close()
        kept = self.path.with_name(f"{self.path.name}.damaged-{now_ms}")
        older = sorted(self.path.parent.glob(f"{self.path.name}.damaged-*"))
        with self.errors():
            for path in older[: -_KEPT_ASIDE * 3]:
                path.unlink()
            self.path.rename(kept)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(kept.with_name(kept.name + suffix))
        with contextlib.suppress(StoreFailed):
            self.open(check=False)
        return str(kept)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What SQLite, the file system and decoding raise, as one of ours."""
        try:
            yield
        except sqlite3.OperationalError as error:  # disk full, read-only, I/O error, locked: it may pass
            raise StoreFailed(f"{self.path}: {error}") from error
        except sqlite3.Error as error:
            # "malformed", "not a database" are of this very class; the others (a constraint, a type) are bugs of ours
            raise StoreFailed(f"{self.path}: {error}", damaged=type(error) is sqlite3.DatabaseError) from error
        except OSError as error:
            raise StoreFailed(f"{self.path}: {error.strerror or error}") from error

    def _open(self, way: _Way, check: bool) -> None:
        with self.errors():
            uri = f"{self.path.absolute().as_uri()}{way.query}"
            db = self._connection = sqlite3.connect(uri, timeout=5, isolation_level=None, check_same_thread=False, uri=True)
            for pragma in way.pragmas:
                db.execute(pragma)
            if not way.query and db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise StoreFailed(f"{self.path}: this file system does not offer what SQLite's write-ahead log needs")
            db.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
            db.execute("PRAGMA journal_size_limit = 16777216")
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found != FORMAT:
                raise StoreFailed(f"{self.path} has format {found}, this version reads {FORMAT}", damaged=True)
            if check and self.path.stat().st_size <= _CHECK_BYTES:
                (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise StoreFailed(f"{self.path}: {verdict}", damaged=True)
        with contextlib.suppress(OSError):
            self.path.chmod(MODE)
