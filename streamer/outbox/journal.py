"""The thread that owns the state file. What is asked of it at once is committed at once; answers come on the event loop.

Everything goes through one queue, so that a read sees every write that was asked for before it, and callbacks come in
the order of the requests. Whoever asks never waits.

Writes are handed over in the event loop's next turn, behind all that waits for none: the thread and the loop would else take
Python's lock from each other at every step, and both take several times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from streamer.contracts import Clock
from streamer.model.messages import Lane
from streamer.model.wire import Entry
from streamer.outbox.lock import StoreFailed
from streamer.outbox.store import Committed, Store, Work

_MS: Final = 1_000_000
_MOST_WORKS: Final = 200
"""Handed over at once; and that many make a transaction, which is twice as many at most. The rest waits for the next."""
DEAD_LETTERS: Final = "dead-letters.jsonl"
_DEAD_LETTER_BYTES: Final = 64 << 20
_CLOSE_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """Why the file cannot be used. `aside`: it was damaged, and is kept under this name; a new one is in its place."""

    problem: str
    aside: str = ""
    damaged: bool = False


Done = Callable[["Committed | Trouble"], None]
Got = Callable[["tuple[list[Entry], int] | Trouble"], None]


class _Write(NamedTuple):
    work: Work
    done: Done


class _Read(NamedTuple):
    lane: Lane
    after: int
    through: int
    types: frozenset[str]
    most_bytes: int
    got: Got


class _Letters(NamedTuple):
    letters: Sequence[dict[str, Any]]
    done: Callable[[str], None]


class Journal:
    """See above. `start` on the event loop; `close` at the end."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._queue: queue.SimpleQueue[Sequence[_Write | _Read | _Letters] | None] = queue.SimpleQueue()
        self._asked: list[_Write] = []  # and not handed over yet
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bug: asyncio.Future[None]  # fails when an answer raised: whoever owns us raises it
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self.directory: Final[Path] = store.directory

    def start(self) -> None:
        """Begin; from now on answers come on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.bug = self._loop.create_future()
        self._thread.start()

    def write(self, work: Work, done: Done) -> None:
        """Commit this; `done` hears how it went."""
        assert self._loop is not None  # noqa: S101  `start` comes first
        self._asked.append(_Write(work, done))
        if len(self._asked) == 1:
            self._loop.call_soon(self._hand_over)

    def read(self, lane: Lane, after: int, through: int, types: frozenset[str], most_bytes: int, got: Got) -> None:
        """Read what lies between two positions, about so many bytes of it: entries, and how far they go."""
        self._hand_over()
        self._queue.put([_Read(lane, after, through, types, most_bytes, got)])

    def dead_letters(self, letters: Sequence[dict[str, Any]], done: Callable[[str], None]) -> None:
        """Keep what a peer will never take, one JSON line each; `done` hears why not, or ""."""
        self._hand_over()
        self._queue.put([_Letters(letters, done)])

    @property
    def has_ended(self) -> bool:
        """Whether its thread has, and with it the last write."""
        return not self._thread.is_alive()

    async def close(self, *, patient: bool = True) -> None:
        """Finish what was asked for, and let go of the file. `patient` False: it hangs, and is left behind."""
        self._hand_over()
        self._queue.put(None)
        if patient:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, _CLOSE_SECONDS)

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        for begin in range(0, len(asked), _MOST_WORKS):
            self._queue.put(asked[begin : begin + _MOST_WORKS])

    # in the thread

    def _work(self) -> None:
        while (asked := self._queue.get()) is not None:
            requests = [*asked]
            with contextlib.suppress(queue.Empty):
                while len(requests) < _MOST_WORKS and (asked := self._queue.get_nowait()) is not None:
                    requests += asked
            answers: list[Callable[[], None]] = []
            writes: list[_Write] = []
            for request in requests:
                if isinstance(request, _Write):
                    writes.append(request)
                    continue
                self._commit(writes, answers)
                writes = []
                answers.append(self._read(request) if isinstance(request, _Read) else self._keep(request))
            self._commit(writes, answers)
            self._answer(answers)
            self._store.tidy()
            if asked is None:
                break
        self._store.close()

    def _answer(self, answers: list[Callable[[], None]]) -> None:
        def deliver() -> None:
            for answer in answers:
                try:
                    answer()
                except Exception as bug:  # noqa: BLE001  the others are heard all the same, and this one is raised by who waits for `bug`
                    if not self.bug.done():
                        self.bug.set_exception(bug)

        assert self._loop is not None  # noqa: S101  `start` set it before the thread
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(deliver)

    def _commit(self, writes: list[_Write], answers: list[Callable[[], None]]) -> None:
        if not writes:
            return
        answer: Committed | Trouble
        try:
            answer = self._store.commit([write.work for write in writes], self._clock.wall_ns() // _MS)
        except StoreFailed as failed:
            answer = self._trouble(failed)
        except Exception as bug:  # noqa: BLE001  a thread that ends here would leave everybody waiting
            answer = _unexpected(bug)
        for index, write in enumerate(writes):
            # what was dropped, or that a file was put aside, is told once
            one = (
                answer
                if index == 0
                else Committed({}, answer.bytes)
                if isinstance(answer, Committed)
                else answer._replace(aside="")
            )
            answers.append(partial(write.done, one))

    def _read(self, request: _Read) -> Callable[[], None]:
        answer: tuple[list[Entry], int] | Trouble
        try:
            answer = self._store.read(request.lane, request.after, request.through, request.types, request.most_bytes)
        except StoreFailed as failed:
            answer = self._trouble(failed)
        except Exception as bug:  # noqa: BLE001  as in `_commit`
            answer = _unexpected(bug)
        return lambda: request.got(answer)

    def _trouble(self, failed: StoreFailed) -> Trouble:
        """A damaged file is put aside at once, so that the next request finds one that works."""
        aside = ""
        problem = failed.problem
        if failed.damaged:
            try:
                aside = self._store.set_aside(self._clock.wall_ns() // _MS)
            except StoreFailed as again:
                problem = f"{problem}; and it could not be replaced: {again.problem}"
        return Trouble(problem, aside, failed.damaged)

    def _keep(self, request: _Letters) -> Callable[[], None]:
        problem = ""
        path = self.directory / DEAD_LETTERS
        try:
            if path.exists() and path.stat().st_size > _DEAD_LETTER_BYTES:
                path.replace(path.with_suffix(".old.jsonl"))
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            with open(fd, "ab") as file:
                file.write(b"".join(json.dumps(letter).encode() + b"\n" for letter in request.letters))
        except OSError as error:
            problem = f"{path}: {error.strerror or error}"
        return lambda: request.done(problem)


def _unexpected(bug: Exception) -> Trouble:
    log.error("the state file: unexpected error", exc_info=bug)
    return Trouble(f"unexpected {type(bug).__name__}: {bug}")
