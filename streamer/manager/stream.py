"""What is said about the stream itself: its beginning and end, proof of life, what does not work, what is missing. Pure."""

from __future__ import annotations

from msgspec import UNSET

from streamer.manager.narrator import Narrator, Now
from streamer.model import observations as o
from streamer.model.messages import Message


class StreamTeller:
    """Says it through the narrator; knows what was said to be degraded."""

    def __init__(self, say: Narrator) -> None:
        self._say = say
        self._degraded: dict[str, str] = {}  # component -> reason said

    def started(self, now: Now) -> list[Message]:
        """The first message of an epoch."""
        return [self._say.control("started", now, version=self._say.host.version)]

    def heartbeat(self, now: Now, containers: int) -> list[Message]:
        """Proof of life, with the numbers from which completeness can be proven."""
        return [self._say.control("heartbeat", now, containers=containers, high_water=self._say.high_water())]

    def stopped(self, now: Now, reason: str) -> list[Message]:
        """The last message of an epoch."""
        return [self._say.control("stopped", now, reason=reason, high_water=self._say.high_water())]

    def degraded(self, seen: o.Degraded, now: Now) -> list[Message]:
        """Said once for each reason."""
        if self._degraded.get(seen.component) == seen.reason:
            return []
        self._degraded[seen.component] = seen.reason
        return [self._say.control("degraded", now, component=seen.component, reason=seen.reason, remedy=seen.remedy or UNSET)]

    def recovered(self, seen: o.Recovered, now: Now) -> list[Message]:
        """Nothing when it came up for the first time: nothing was ever said to be wrong."""
        if self._degraded.pop(seen.component, None) is None:
            return []
        return [self._say.control("recovered", now, component=seen.component)]

    def lost(self, seen: o.Lost, now: Now) -> list[Message]:
        """A gap. The epoch is only named when it is an earlier run's."""
        earlier = seen.epoch if seen.epoch != self._say.host.epoch else 0
        return [
            self._say.control(
                "gap", now, time_ns=seen.time_ns, component=seen.component, reason=seen.reason, gap_topic=seen.topic or UNSET,
                gap_epoch=earlier or UNSET, gap_first=seen.first or UNSET, gap_last=seen.last or UNSET,
                gap_count=UNSET if seen.count is None else seen.count,
            )
        ]  # fmt: skip
