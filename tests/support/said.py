"""Messages as an agent would make them, each with its encoded form: the example records with what a test is about put in."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from streamer.memory import Memory
from streamer.model import messages as m
from streamer.model.examples import EXAMPLES
from streamer.model.wire import Envelope, encode


class Teller:
    """Says things to a memory; `seq` and positions count up as an agent's would."""

    def __init__(self, memory: Memory, *, host_id: str = "host-1", envelope: Envelope = "binary") -> None:
        self.memory = memory
        self.host_id = host_id
        self.envelope = envelope
        self.now_ms = 1_763_976_000_000
        self.position = 0
        self._seq = dict.fromkeys((topic.suffix for topic in m.TOPICS), 0)

    def say(self, topic: m.Topic, example: str = "", **about: Any) -> m.Record:
        """Remember one message; returns its record."""
        seq = self._seq[topic.suffix] = self._seq[topic.suffix] + 1
        base = EXAMPLES[topic.type][example or topic.type]
        given = {"seq": seq, "host_id": self.host_id, "time_ms": self.now_ms, "id": f"{self.host_id}/{topic.short}/{seq}", **about}
        record = structs.replace(base, **given)
        self.again(topic, record)
        return record

    def again(self, topic: m.Topic, record: m.Record | None, key: str = "host-1/x") -> None:
        """Remember this very record (None: a tombstone), as a replay would."""
        self.position += 1
        message = m.Message(topic, key, record, self.now_ms)
        self.memory.remember(message, encode(message, self.position, self.now_ms, self.envelope))

    def created(self, container_id: str, *, run: int = 1, **about: Any) -> m.Record:
        return self.say(m.LIFECYCLE, container_id=container_id, incarnation=f"boot.{container_id[-12:]}.{run}", **about)

    def deleted(self, container_id: str, *, run: int = 1, **about: Any) -> m.Record:
        return self.say(
            m.LIFECYCLE,
            "container.lifecycle.deleted",
            container_id=container_id,
            incarnation=f"boot.{container_id[-12:]}.{run}",
            **about,
        )

    def sampled(self, container_id: str, *, run: int = 1, **about: Any) -> m.Record:
        self.now_ms += 1000
        return self.say(m.STATS, container_id=container_id, incarnation=f"boot.{container_id[-12:]}.{run}", **about)
