"""What a run before this one left unseen or unsaid, as gaps. Pure.

An agent that was not running saw nothing. What is there when it comes back, and what is not there any more, it tells
from its inventory; what came and went meanwhile left no trace, and that is said.
"""

from __future__ import annotations

from streamer.clock import rfc3339
from streamer.model import observations as o
from streamer.model.inventory import Past
from streamer.model.messages import TOPICS


def rebooted(past: Past, boot_id: str) -> bool:
    """Whether the host was started anew since: no cgroup of then is there any more."""
    return bool(past.boot_id) and past.boot_id != boot_id


def unsaid(past: Past, boot_id: str, boot_time_ns: int, now_ns: int) -> list[o.Lost]:
    """What is known to be missing when the run begins."""
    lost: list[o.Lost] = []
    if past.damaged:
        reason = f"the state file was damaged ({past.damage}) and is kept as {past.damaged}: what it held is not known any more"
        lost.append(o.Lost("state", now_ns, reason, last=rfc3339(now_ns)))
        if past.epoch:
            lost += _everything_of(past.epoch, "messages of the earlier run were in the damaged state file", now_ns)
    if past.unread:
        why = f"the state file cannot be read ({past.unread}): what the earlier run had not sent is not known"
        lost += _everything_of(past.epoch, why, now_ns)
    if past.unwritten:
        lost += _everything_of(
            past.unwritten, "the earlier run could not write its state: what it had not sent is not known", now_ns
        )
    if rebooted(past, boot_id):
        reason = "the host was started anew: the kernel log of before, and the kills in it that were not told yet, are gone"
        booted_ns = boot_time_ns or now_ns
        first = rfc3339(past.alive_ns) if past.alive_ns <= booted_ns else ""  # else the clock was set back meanwhile
        lost.append(o.Lost("source.kmsg", now_ns, reason, first=first, last=rfc3339(booted_ns)))
    return lost


def unseen(past: Past, surveyed_ns: int) -> list[o.Lost]:
    """The time from the last checkpoint to the end of the first look, when there was a run before."""
    if not past.epoch and not past.damaged:
        return []  # there was none
    reason = "the agent was not running: containers that came and went meanwhile were not seen"
    back = past.alive_ns > surveyed_ns
    if back:
        reason += f"; the wall clock was set back since, the agent was last known to run at {rfc3339(past.alive_ns)}"
    first = rfc3339(past.alive_ns) if past.alive_ns and not back else ""
    return [o.Lost("agent", surveyed_ns, reason, first=first, last=rfc3339(surveyed_ns))]


def _everything_of(epoch: int, reason: str, now_ns: int) -> list[o.Lost]:
    """Any message of a run may be missing."""
    topics = [topic.suffix for topic in TOPICS if not topic.compacted]
    return [o.Lost("state", now_ns, reason, first="1", topic=suffix, epoch=epoch) for suffix in topics]
