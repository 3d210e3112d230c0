"""Sinks that record, and that fail at an exact point."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from streamer.contracts import Receipt
from streamer.model.wire import Entry


class RecordingSink:
    """Takes everything and keeps it. `wait_for` waits until so much has arrived."""

    def __init__(self, name: str = "recording") -> None:
        self.name = name
        self.batches: list[list[Entry]] = []
        self.calls: list[str] = []
        self._changed = asyncio.Condition()

    @property
    def entries(self) -> list[Entry]:
        """What arrived, in order, over all batches."""
        return [entry for batch in self.batches for entry in batch]

    @property
    def positions(self) -> list[int]:
        """The positions of what arrived, in order."""
        return [entry.position for entry in self.entries]

    async def wait_for(self, count: int, deadline_seconds: float = 10) -> list[Entry]:
        """The entries, once there are `count` of them.

        Raises:
            TimeoutError: there were fewer until the deadline.
        """
        async with asyncio.timeout(deadline_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.entries) >= count)
        return self.entries

    async def connect(self) -> None:
        self.calls.append("connect")

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        self.calls.append("send")
        await self._keep(batch)
        return Receipt()

    async def close(self) -> None:
        self.calls.append("close")

    def describe(self) -> str:
        return f"{self.name}:"

    async def _keep(self, batch: Sequence[Entry]) -> None:
        async with self._changed:
            self.batches.append(list(batch))
            self._changed.notify_all()


class Hang:
    """A step of a script: the call never returns."""


class Stored:
    """A step of a script: the batch arrives, its acknowledgement does not."""

    def __init__(self, error: Exception) -> None:
        self.error = error


Step = Exception | Hang | Stored | Receipt | None


class FlakySink(RecordingSink):
    """A `RecordingSink` that follows a script: one step per `send`, one of `connects` per `connect`; then all goes well.

    None      it goes well
    Receipt   the batch arrives and this is the answer
    Exception is raised, nothing arrives
    Stored    the batch arrives, and its exception is raised
    Hang      never returns
    """

    def __init__(self, script: Iterable[Step] = (), *, connects: Iterable[Step] = (), name: str = "flaky") -> None:
        super().__init__(name)
        self._script, self._connects = list(script), list(connects)

    async def connect(self) -> None:
        await super().connect()
        step = self._connects.pop(0) if self._connects else None
        if isinstance(step, Hang):
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        self.calls.append("send")
        step = self._script.pop(0) if self._script else None
        if isinstance(step, Hang):
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        await self._keep(batch)
        if isinstance(step, Stored):
            raise step.error
        return step if isinstance(step, Receipt) else Receipt()
