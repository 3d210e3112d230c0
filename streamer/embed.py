"""The agent as a part of another program: start it, ask it, watch for events, stop it. `README.md` has an example."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from streamer.app import Run
from streamer.cadvisor import NotFound, Operations
from streamer.cadvisor.freshness import Freshener
from streamer.cadvisor.processes import ProcessLister
from streamer.cadvisor.shapes_v2 import ProcessInfo
from streamer.clock import SystemClock
from streamer.config import Http, Settings
from streamer.errors import StreamerError
from streamer.memory import Memory

EMBEDDED: Final = Settings(state_dir="off", http=Http(listen="off"))
"""Nothing is published, nothing written, nothing listened on."""

_FIRST_FACTS_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01


class ContainerManager(Operations):
    """Watches this host's containers for the program that it is part of, and answers what cAdvisor's manager answers.

    Needs a running event loop, and root to see every container. Signals, logging and stdout stay the program's own; the limit
    of open files is raised to the hard one. All operations may be called from the loop it was started on, also after its end.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """`settings`: as of the agent, but without sinks nothing is published. None: `EMBEDDED`."""
        self.settings = settings if settings is not None else EMBEDDED
        clock, memory = SystemClock(), Memory(self.settings.http.samples)
        super().__init__(memory, clock, freshen=Freshener(memory, clock, self._hasten), processes=self._list_processes)
        self._agent: Run | None = None
        self._running: asyncio.Task[int] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Returns when what is there was found, and the machine has told of itself. Again while it runs: nothing happens.

        Raises:
            ConfigError: a setting cannot be used.
            Unsupported: this host has no cgroups at all.
            StreamerError: it was stopped before, or could not go on; the log says why.
        """
        async with self._starting:  # a second caller waits until it is ready, too
            if self._running is not None:
                if self._running.done():
                    raise StreamerError("this manager has ended: make another one")
                return
            self._agent = Run(self.settings, embedded=self.memory)
            self._running = asyncio.create_task(self._agent.run(None), name="streamer")
            self._running.add_done_callback(lambda _: self.close_event_channels())
            try:
                await self._until_ready(self._agent, self._running)
            except BaseException:
                await self.stop()
                raise

    async def _until_ready(self, agent: Run, running: asyncio.Task[int]) -> None:
        ready = asyncio.create_task(self._ready(agent), name="ready")
        try:
            await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
        if running.done():
            running.result()  # what it raised
            raise StreamerError("the agent ended at its start: its log says why")

    async def _ready(self, agent: Run) -> None:
        await agent.cgroups.wait_ready()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_FACTS_SECONDS):
                while not self.memory.host_infos:  # noqa: ASYNC110  comes within milliseconds, once; memory wakes nobody for it
                    await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Deliver what is left, then end. Watches end. Again, or before a start: nothing happens."""
        if self._agent is None or self._running is None:
            return
        self._agent.stopping.set()
        await asyncio.wait({self._running})

    async def __aenter__(self) -> ContainerManager:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _list_processes(self, path: str) -> list[ProcessInfo]:
        if self._agent is None:
            raise NotFound("nothing is known before the start")
        return await ProcessLister(self._agent.hierarchies, self.settings.host_root, self.clock)(path)

    def _hasten(self, paths: Sequence[str]) -> None:
        if self._agent is not None:
            self._agent.manager.hasten(paths)
