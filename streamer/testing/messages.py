"""Messages like those of an agent, with ids, epoch and contiguous `seq`, for tests of what carries them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from streamer.clock import rfc3339
from streamer.model.messages import (
    CONTROL,
    LIFECYCLE,
    OOM,
    STATE,
    STATS,
    ContainerLifecycle,
    ContainerOom,
    ContainerState,
    ContainerStats,
    Control,
    Message,
    Topic,
)
from streamer.model.wire import Entry, Envelope, encode
from streamer.testing.clock import START_NS

Kind = Literal["started", "stopped", "heartbeat", "gap", "degraded", "recovered"]


class Speaker:
    """One run of an agent, as far as its messages go."""

    def __init__(self, host_id: str = "0123456789abcdef", *, epoch: int = START_NS // 1_000_000) -> None:
        self.host_id, self.epoch = host_id, epoch
        self._time_ns = epoch * 1_000_000
        self._seqs: dict[str, int] = {}

    def lifecycle(self, container: str, event: str = "created", **more: Any) -> Message:
        return self._about(LIFECYCLE, container, ContainerLifecycle, event=event, **more)

    def oom(self, container: str, **more: Any) -> Message:
        return self._about(OOM, container, ContainerOom, evidence=["kmsg"], **more)

    def stats(self, container: str, **more: Any) -> Message:
        return self._about(STATS, container, ContainerStats, **more)

    def state(self, container: str, **more: Any) -> Message:
        message = self._about(STATE, container, ContainerState, state="running", **more)
        return message._replace(key=f"{self.host_id}/{container}")

    def tombstone(self, container: str) -> Message:
        return Message(STATE, f"{self.host_id}/{container}", None, self._now_ms())

    def control(self, kind: Kind = "heartbeat", **more: Any) -> Message:
        common = self._common(CONTROL)
        return Message(CONTROL, self.host_id, Control(**common, kind=kind, **more), common["time_ms"])

    def some(self, count: int, containers: int = 20) -> list[Message]:
        """`count` messages in the order of facts: containers made, sampled, seen short of memory and deleted, in turn."""
        messages: list[Message] = []
        turn = 0
        while len(messages) < count:
            names = [f"{turn:04x}{number:060x}" for number in range(containers)]
            messages += [self.lifecycle(name) for name in names] + [self.state(name) for name in names]
            messages += [self.stats(name) for _ in range(5) for name in names]
            messages += [self.oom(names[0]), self.control()]
            messages += [self.lifecycle(name, "deleted") for name in names] + [self.tombstone(name) for name in names]
            turn += 1
        return messages[:count]

    def _about(self, topic: Topic, container: str, record: Any, **more: Any) -> Message:
        common = self._common(topic)
        about = {
            "container_id": container,
            "incarnation": f"boot:memory:{container}",
            "runtime": "docker",
            "cgroup_path": f"/docker/{container}",
        }
        return Message(topic, container, record(**{**common, **about, **more}), common["time_ms"])

    def _common(self, topic: Topic) -> dict[str, Any]:
        self._seqs[topic.short] = seq = self._seqs.get(topic.short, 0) + 1
        now_ms = self._now_ms()
        return {
            "type": topic.type, "schema": topic.schema, "id": f"{self.epoch:x}-{topic.short}-{seq}", "epoch": self.epoch, "seq": seq,
            "host": "host", "host_id": self.host_id, "time": rfc3339(self._time_ns), "time_ms": now_ms, "observed_time_ms": now_ms,
        }  # fmt: skip

    def _now_ms(self) -> int:
        self._time_ns += 1_000_000
        return self._time_ns // 1_000_000


def encoded(messages: Sequence[Message], *, first_position: int = 1, envelope: Envelope = "binary") -> list[Entry]:
    """The entries an outbox makes of these messages."""
    return [encode(message, position, message.time_ms, envelope) for position, message in enumerate(messages, first_position)]
