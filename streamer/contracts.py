"""Every seam of the program on one page. A plug-in author reads this file and one example.

`def` cannot wait, `async def` may. What is emitted or published is taken at once; nobody down the line can hold up
whoever observed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from streamer.model.inventory import Checkpoint
from streamer.model.messages import Message, Topic
from streamer.model.observations import Observation, Sampled
from streamer.model.wire import Entry


class Clock(Protocol):
    """Time as a value. `FakeClock` of `streamer.testing` moves by hand."""

    def wall_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


Emit = Callable[[Observation], None]
"""How a source says what it saw: synchronous, never blocks, called on the event loop."""

Publish = Callable[[Sequence[Message], Checkpoint | None], None]
"""How messages leave the manager: remembered and offered to every sink's lanes; synchronous, never blocks.

What stands in the checkpoint is written in the same transaction, where anything is written.
"""


class Source(Protocol):
    """Watches one part of the host.

    `run` goes on until cancelled. What the host lacks is said as `Degraded` and retried; a source raises only bugs.
    """

    name: str  # `source.cgroup`, `source.docker`, …

    async def run(self, emit: Emit) -> None: ...

    def status(self) -> Status: ...


class CgroupWatch(Source, Protocol):
    """The source that tells of cgroups."""

    async def wait_ready(self) -> None: ...

    def reread(self, path: str) -> None: ...

    @property
    def known_until_ns(self) -> int:
        """Wall clock until which everything that happened was emitted, or declared to be missing; 0: not known yet."""
        ...


class Runtime(Source, Protocol):
    """A container runtime's daemon."""

    def request(self, container_id: str) -> None:
        """Ask for a full description soon; coalesced, answered by `Described`."""
        ...

    @property
    def last_event_ns(self) -> int | None:
        """Wall clock of the newest event that was emitted; None: none was."""
        ...


class KernelLog(Source, Protocol):
    """The kernel log."""

    def drain(self) -> None:
        """Emit what can be read right now, without waiting."""
        ...

    @property
    def settled_seq(self) -> int | None:
        """A later run that resumes after this record misses no kill that was not emitted yet; None: nothing was read."""
        ...


class Look(NamedTuple):
    """A wish for a sample: which cgroup (its identity), and a process whose network counters are the container's (0: none)."""

    path: str
    hierarchy: str
    inode: int
    pid: int


class Sampler(Protocol):
    """Takes samples, away from the event loop."""

    async def read(self, looks: Sequence[Look]) -> list[Sampled]: ...

    def forget(self, path: str) -> None: ...


class Status(NamedTuple):
    """How a long-lived part is, in one value: for `/readyz`, `streamer check` and metrics."""

    component: str
    state: str  # `ok`, `starting`, `degraded`, `down`, `off`
    reason: str = ""
    remedy: str = ""
    since_ms: int = 0


class Receipt(NamedTuple):
    """What became of a batch.

    `rejected`: (index in the batch, reason) of entries that this peer will never take; they must not block the lane.
    Everything else was acknowledged. A batch of which it is not known whether it arrived raises `NotConnected`:
    it is sent again, ids are the same.
    `lapses`: what this peer had acknowledged and has lost since, to be declared as gaps of this sink.
    """

    rejected: Sequence[tuple[int, str]] = ()
    lapses: Sequence[Lapse] = ()


class Lapse(NamedTuple):
    """Of a topic, some of the numbers up to `last_seq` of this epoch are gone again, nobody knows which; and why that is said.

    `last_seq` 0: some of an earlier run's.
    """

    topic: Topic
    epoch: int
    last_seq: int
    reason: str


class Sink(Protocol):
    """A place to publish to. Three methods; back-off, batching, order, accounting stand behind it in `outbox/`.

    connect  make ready to send; called again, with back-off, until it returns. May be called on a live connection.
             Raises `NotConnected` (will be retried) or `PermanentlyRefused` (said as degraded, retried seldom)
    send     write a batch in order and return when all of it is acknowledged.
             Raises `NotConnected` when that is not known: the sink is closed, connected again, and the batch replayed
             Raises `PermanentlyRefused` when the peer will not take this topic or user: the batch waits until it does
    close    let go of everything within a few seconds, also when the peer hangs; never raises
    """

    name: str  # `kafka`, `redis`, `file`, `stdout`; made unique by the application when several are alike

    async def connect(self) -> None: ...

    async def send(self, batch: Sequence[Entry]) -> Receipt: ...

    async def close(self) -> None: ...

    def describe(self) -> str:
        """Where it goes, for people: a URL without secrets."""
        ...
