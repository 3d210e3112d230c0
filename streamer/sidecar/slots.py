"""Who may make a large answer now: a few at a time, the others in the order they came, and not too many of those.

Two bounds, as they keep two things small. `AT_ONCE` answers are worked at: however many clients ask, everything else on
the event loop waits for two of them. `BEGUN` answers may be under way: what an answer holds on to while its client
does not read is held so many times at most. Scrapes have places of their own: clients that do not read must not be
the reason that nobody is told how the agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from typing import Final

AT_ONCE: Final = 2
"""One alone would let a client with a large answer hold up the scraper for its whole length."""
BEGUN: Final = 16
SCRAPES_BEGUN: Final = 8
MOST_WAITING: Final = 64


class Busy(Exception):
    """Too many wait already."""


class Left(Exception):
    """The client went away."""


class Line:
    """Some places, and those who wait for one, in their order."""

    def __init__(self, places: int) -> None:
        self.free = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def acquire(self, gone: asyncio.Future[None]) -> None:
        """Wait for a place. `gone`: done when the client is; then `Left` is raised."""
        if self.free and not self._waiting:
            self.free -= 1
            return
        called = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        try:
            await asyncio.wait({called, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise Left
        except BaseException:  # also when we are cancelled: a place that was handed over goes on to the next
            if called.done():
                self.release()
            else:
                self._waiting.remove(called)
            raise

    def release(self) -> None:
        """Hand the place to the next who waits."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.free += 1


class Turn:
    """One client's turn to be worked for, which others have while it lets us wait."""

    def __init__(self, line: Line, gone: asyncio.Future[None], scrapes: Line | None = None) -> None:
        """`scrapes`: it is that of a scrape, among these."""
        self._line, self._gone, self._scrapes = line, gone, scrapes
        self._held = False

    @property
    def is_wanted(self) -> bool:
        """Whether a scrape has this place and others wait for one: scrapers read what they ask for."""
        return self._scrapes is not None and len(self._scrapes) > 0

    async def take(self) -> None:
        """Wait for it. Raises `Left` when the client goes."""
        await self._line.acquire(self._gone)
        self._held = True

    def give_back(self) -> None:
        """Let the next one have it; twice is fine."""
        if self._held:
            self._held = False
            self._line.release()

    async def lend(self, waited_for: Awaitable[None]) -> None:
        """Wait for something that is not our work; somebody else has the turn meanwhile."""
        self.give_back()
        await waited_for
        await self.take()


class Slots:
    """Hands out turns. Not for threads."""

    def __init__(self, at_once: int = AT_ONCE, begun: int = BEGUN, most_waiting: int = MOST_WAITING) -> None:
        self.begun, self.scrapes, self.working = Line(begun), Line(SCRAPES_BEGUN), Line(at_once)
        self._most_waiting = most_waiting

    @contextlib.asynccontextmanager
    async def turn(self, gone: asyncio.Future[None], *, scrape: bool = False) -> AsyncGenerator[Turn, None]:
        """A turn until the end of the block. `gone`: done when the client is. `scrape`: one of the places for these.

        Raises:
            Busy: too many wait.
            Left: the client did not wait.
        """
        places = self.scrapes if scrape else self.begun
        if not places.free and len(places) >= self._most_waiting:
            raise Busy
        await places.acquire(gone)
        turn = Turn(self.working, gone, places if scrape else None)
        try:
            await turn.take()
            yield turn
        finally:
            turn.give_back()
            places.release()
