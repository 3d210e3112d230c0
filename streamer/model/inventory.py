"""WHAT SURVIVES A RESTART: who is alive, how far each source was read, what the run before left. Kept on disk as JSON.

A field that a later version adds has a default: an older file is read, an older version ignores what it does not know.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from streamer.model.spec import ContainerSpec
from streamer.model.stats import NetworkInterface


class Totals(Struct, frozen=True, omit_defaults=True):
    """The columns of a sample that `deleted` carries; what is not known is left out."""

    time_ns: int
    values: dict[str, int]
    interfaces: tuple[NetworkInterface, ...] = ()


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One incarnation, so that a later run can go on with it, or say how it ended.

    said_created   its `created` is in the outbox
    details        what the runtime told: the fields of `manager.container.Details` that are not None
    vanished_ns    its cgroup was seen to be gone; `deleted` waits for the runtime's word
    oom_start      the kernel's counter of kills when it was first looked at; None: not looked at yet
    """

    incarnation: str
    path: str
    hierarchy: str
    inode: int
    found: str
    seen_ns: int
    spec: ContainerSpec = ContainerSpec()
    state: str = "running"
    said_created: bool = True
    details: dict[str, Any] = {}
    exit_code: int | None = None
    vanished_ns: int = 0
    not_before_ns: int = 0
    samples: int = 0
    oom_said: int = 0
    oom_repeated: int = 0
    oom_counted: int = 0
    oom_start: int | None = None
    oom_unlogged: int = 0
    oom_unlogged_ns: int = 0
    last: Totals | None = None
    emptied: Totals | None = None


class Checkpoint(Struct, frozen=True, kw_only=True):
    """What is written with a batch of messages, in the same transaction.

    alive_ns    until then everything that happened is said, or kept; 0: not known
    high_water  the last `seq` given out, by topic
    kept        incarnation -> what is to be kept of it; None: it has ended and that is said
    whole       `kept` is everything there is: whatever else is on disk has ended
    kmsg_seq    up to this record of the kernel log every kill is said; None: not read
    kmsg_said   records after it whose kills are said already: a report spans several, and they are read again
    docker_ns   the newest event of Docker that was taken in, wall clock; None: none
    """

    epoch: int
    boot_id: str
    alive_ns: int
    high_water: dict[str, int] = {}
    kept: dict[str, Kept | None] = {}
    whole: bool = False
    kmsg_seq: int | None = None
    kmsg_said: tuple[int, ...] = ()
    docker_ns: int | None = None


class Past(Struct, frozen=True, kw_only=True):
    """What the run before this one left. `epoch` 0: there was none, or nothing is known of it.

    alive_ns  until then everything that happened was said, or kept; 0: not known
    clean     it ended in order: nothing of its samples was left in memory
    damaged   the file that held all this is damaged and kept under this name, because of `damage`; then only `epoch` is known
    unread    why that file cannot be read now; then too
    unwritten the epoch of a run after it that could not write anything; 0: there was none
    """

    epoch: int = 0
    boot_id: str = ""
    alive_ns: int = 0
    clean: bool = False
    kmsg_seq: int | None = None
    kmsg_said: tuple[int, ...] = ()
    docker_ns: int | None = None
    inventory: tuple[Kept, ...] = ()
    damaged: str = ""
    damage: str = ""
    unread: str = ""
    unwritten: int = 0
