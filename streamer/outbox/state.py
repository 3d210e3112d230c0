"""The state directory at the start: which one, whether it is ours, what the run before left in it.

A directory that cannot be used is no reason to stop: the agent runs without, and says so. Only one that another agent
uses is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import structs

from streamer.config import Outbox as OutboxSettings
from streamer.config import seconds
from streamer.model.inventory import Past
from streamer.model.messages import STATS
from streamer.model.observations import Lost
from streamer.outbox.leftovers import Cursor
from streamer.outbox.lock import DirectoryLock, StoreFailed
from streamer.outbox.store import Limits, Store

log = logging.getLogger(__name__)

OFF: Final = "off"
_MS: Final = 1_000_000
REMEDY: Final = "make it writable and restart; or --state-dir DIR for another one, --state-dir off to keep nothing on disk"


class State(NamedTuple):
    """What was found. `store` None: nothing is kept. `trouble`: why the file cannot be written now, or why there is none."""

    lock: DirectoryLock | None = None
    store: Store | None = None
    past: Past = Past()
    trouble: str = ""

    def close(self) -> None:
        """Let go of the file and the directory: another agent may have them. Not while anybody still writes."""
        if self.store is not None:
            self.store.close()
        if self.lock is not None:
            self.lock.close()

    @contextlib.contextmanager
    def held(self, has_let_go: Callable[[], bool]) -> Iterator[None]:
        """Ours until the end of the block, and after it only while somebody still writes, as on a disk that hangs."""
        try:
            yield
        finally:
            if has_let_go():
                self.close()

    @property
    def epoch_before(self) -> int:
        """The newest epoch known to have been used, 0 for none."""
        return max(self.past.epoch, self.lock.epoch_before if self.lock is not None else 0)


def directory(state_dir: str, environ: Mapping[str, str], *, root: bool) -> Path | None:
    """Where state is kept: as configured; else systemd's StateDirectory; else root's, or the user's own. None: nowhere."""
    if state_dir == OFF:
        return None
    if state_dir:
        return Path(state_dir)
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    if root:
        return Path("/var/lib/streamer")
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/state")
    return Path(base, "streamer")


def open_state(where: Path | None, settings: OutboxSettings, now_ms: int) -> State:
    """Lock the directory, open the file in it, read what was left; a damaged file is put aside and a new one begun.

    Raises:
        ConfigError: another agent uses the directory.
    """
    if where is None:
        return State()
    try:
        lock = DirectoryLock(where)
    except StoreFailed as failed:
        return State(trouble=failed.problem)
    store = Store(where, limits(settings), synchronous=settings.sync)
    try:
        return State(lock, store, _past(store, lock, now_ms), _trouble(store))
    except StoreFailed as failed:
        store.close()
        past = Past(epoch=lock.epoch_before, unread=failed.problem) if lock.epoch_before else Past()
        return State(lock, store, past, failed.problem)


def _past(store: Store, lock: DirectoryLock, now_ms: int) -> Past:
    there = store.file.exists
    try:
        store.open()
        past = store.leftovers.past()
        for cursor in store.leftovers.cursors().values():  # what cannot be read shows here, not when a sink is given it
            store.leftovers.left(cursor, frozenset({STATS.short}))
    except StoreFailed as failed:
        if not failed.damaged:
            raise
        return _damaged(store, lock, failed.problem, now_ms)
    if lock.epoch_before and not past.epoch:
        if there:
            return _damaged(store, lock, "it holds nothing that was written", now_ms)
        return Past(epoch=lock.epoch_before, damaged="(nothing)", damage="it has been removed")
    if past.epoch and lock.epoch_before > past.epoch:
        return structs.replace(past, unwritten=lock.epoch_before)
    return past


def _trouble(store: Store) -> str:
    return "" if store.file.writable else f"{store.file.path} can be read, but not be written"


def _damaged(store: Store, lock: DirectoryLock, problem: str, now_ms: int) -> Past:
    kept = store.set_aside(now_ms)
    log.error("the state file is damaged and kept as %s, a new one is begun: %s", kept, problem)
    return Past(epoch=lock.epoch_before, damaged=kept, damage=problem)


def limits(settings: OutboxSettings) -> Limits:
    """The caps as the store wants them."""
    return Limits(
        settings.durable_bytes,
        settings.stats_bytes,
        int(seconds(settings.durable_age) * 1000),
        int(seconds(settings.stats_age) * 1000),
    )


def lost_samples(past: Past, cursors: Iterable[Cursor], spilled: Sequence[tuple[int, int]], now_ns: int) -> list[Lost]:
    """The samples of a run that was killed which it held in memory alone, by sink. Pure.

    How far a sink had come is known as of the last commit, so the ranges begin a little early: some of it did arrive.
    spilled  ranges of `seq` of that run that are on disk, in order; they will be sent
    """
    if past.clean or not past.epoch:
        return []
    reason = "the agent was killed: samples that it held in memory and this sink had not acknowledged"
    lost: list[Lost] = []
    for cursor in cursors:
        component = f"sink.{cursor.name}"
        first = cursor.stats.seq + 1 if cursor.stats.epoch == past.epoch else 1
        for begin, end in spilled:
            if begin > first:
                lost.append(Lost(component, now_ns, reason, None, str(first), str(begin - 1), STATS.suffix, past.epoch))
            first = max(first, end + 1)
        lost.append(Lost(component, now_ns, reason, None, str(first), "", STATS.suffix, past.epoch))
    return lost
