"""The rule over incarnations: created, perhaps updated, deleted, and nothing after that. Pure; forgets who ended long ago."""

from __future__ import annotations

from typing import Final, NamedTuple

from streamer.consume.runs import Recent
from streamer.model.messages import ContainerLifecycle

_MOST_ALIVE: Final = 500_000
_MOST_ENDED: Final = 65_536
_MOST_ORPHANS: Final = 10_000


class Orphan(NamedTuple):
    """A `deleted` that was seen live, of an incarnation of which no `created` was read."""

    host_id: str
    epoch: int
    seq: int
    incarnation: str
    where: str


class Lives:
    """Feed lifecycle records of one host after another, each container's in order, without repeats."""

    def __init__(self) -> None:
        self.orphans: list[Orphan] = []
        self.orphans_left_out = 0
        self._alive: dict[tuple[str, str], str] = {}  # -> id of its `created`
        self._ended: Recent[tuple[str, str], str] = Recent(_MOST_ENDED)  # -> id of its `created`, or empty
        self._ended_ms: Recent[tuple[str, str], int] = Recent(_MOST_ENDED)
        self.overflowed = False  # more lives than are kept: nobody is called an orphan any more

    @property
    def forgot(self) -> bool:
        """Whether ended ones were forgotten: what is said of them later is not noticed."""
        return self._ended.forgot or self.overflowed

    def ended_ms(self, host_id: str, incarnation: str) -> int | None:
        """When it ended, as its `deleted` says; None: that was not read."""
        return self._ended_ms.get((host_id, incarnation))

    def told(self, record: ContainerLifecycle, where: str) -> str:
        """What is wrong with this record after what came before it; empty when nothing is."""
        key = record.host_id, record.incarnation
        ended = self._ended.get(key)
        if record.event == "created":
            if ended is not None:
                return "" if ended in {"", record.id} else "created again, with another id, after it was deleted"
            if len(self._alive) < _MOST_ALIVE:
                self._alive.setdefault(key, record.id)
            else:
                self.overflowed = True
        elif record.event == "updated":
            return "updated after it was deleted" if ended is not None else ""
        elif record.event == "deleted":
            created = self._alive.pop(key, None)
            if created is None and ended is None and record.found == "live":
                self._orphan(Orphan(record.host_id, record.epoch, record.seq, record.incarnation, where))
            self._ended.put(key, created or ended or "")
            self._ended_ms.put(key, record.time_ms)
        return ""

    def _orphan(self, orphan: Orphan) -> None:
        if len(self.orphans) < _MOST_ORPHANS:
            self.orphans.append(orphan)
        else:
            self.orphans_left_out += 1
