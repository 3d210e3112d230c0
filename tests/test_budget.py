"""What a sample may cost, in counts that are the same on every machine: calls, blocks of memory, bytes, reads.

Times are for `benchmarks`. A limit here is what it takes now and little more: who needs more says so by raising it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from benchmarks.messages import Tenants
from streamer.app import generations
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget
from streamer.kernel.hierarchy import Hierarchies
from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Host, Now
from streamer.manager.roster import REMEMBER_ENDED
from streamer.memory import Memory
from streamer.model.messages import Message
from streamer.model.observations import Appeared, Joined, Sampled, Vanished
from streamer.model.spec import ContainerSpec
from streamer.model.stats import INDEX, STATS, Sample
from streamer.model.wire import Entry, encode
from streamer.outbox.backlog import Backlog
from streamer.sinks.kafka.records import Packer

CONTAINERS: Final = 50
ROUNDS: Final = 40
SECOND_NS: Final = 1_000_000_000
FILES_OF_V2: Final = {stat.v2.partition(":")[0] for stat in STATS if stat.v2}
FILES_OF_V1: Final = {stat.v1.partition(":")[0] for stat in STATS if stat.v1}
OOM_KILLS: Final = INDEX["memory_oom_kills"]
VALUES: Final = tuple(1_000_000 + place for place in range(len(STATS)))


class Pipeline:
    """What happens to a sample on the event loop, without the event loop: said, encoded, remembered, queued and taken."""

    def __init__(self) -> None:
        self.fleet = Fleet(Host("web-3", "0" * 32, "boot", 1, "0"), docker=False)
        self.memory, self.backlog = Memory(120), Backlog(memory_bytes=32_000_000)
        self.position, self.now_ns = 0, 1_763_971_200 * SECOND_NS
        self.paths = [f"/docker/{number:064x}" for number in range(CONTAINERS)]
        for inode, path in enumerate(self.paths, 1):
            self._pass(self.fleet.observe(Appeared(path, "unified", inode, self.now_ns, "live", ContainerSpec()), self._now()))

    def look(self, moved: int) -> list[Sampled]:
        """A sample of each, a second later. `moved`: by how much every number grew, 0: the very same values."""
        self.now_ns += SECOND_NS
        values = VALUES if not moved else tuple(number + moved for number in VALUES)
        return [Sampled(path, inode, Sample(self.now_ns, values)) for inode, path in enumerate(self.paths, 1)]

    def take(self, looks: Iterable[Sampled]) -> None:
        now = self._now()
        self._pass(self.fleet.sampled(looks, now))

    def _now(self) -> Now:
        return Now(self.now_ns, self.now_ns)

    def _pass(self, messages: Sequence[Message]) -> None:
        entries = [encode(message, self.position + at, 0) for at, message in enumerate(messages, 1)]
        self.position += len(entries)
        self.backlog.offer_all(entries)
        for message, entry in zip(messages, entries, strict=True):
            self.memory.remember(message, entry)
        while self.backlog.take(5000, 8_000_000):
            self.backlog.settle()


def calls_in(work: Callable[[], None]) -> int:
    """Calls of Python and C functions, as the interpreter counts them (sys.setprofile)."""
    counted = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted - 1  # the one that ends the counting


@pytest.mark.parametrize(("moving", "limit"), [(0, 32), (1, 54)], ids=["idle", "busy"])
def test_calls_for_each_sample(moving: int, limit: float) -> None:
    """From an observation to what a sink takes, over as many rounds as make blocks of samples and statistics of a minute."""
    pipeline = Pipeline()
    for number in range(ROUNDS):
        pipeline.take(pipeline.look(moving * number))
    rounds = [pipeline.look(moving * (ROUNDS + number)) for number in range(ROUNDS)]

    def work() -> None:
        for looks in rounds:
            pipeline.take(looks)

    assert calls_in(work) / (ROUNDS * CONTAINERS) <= limit


def test_blocks_of_memory_that_a_sample_leaves_behind() -> None:
    """Once as many samples are held as shall be, an idle container needs nothing new."""
    pipeline = Pipeline()
    for _ in range(200):
        pipeline.take(pipeline.look(0))
    before = sys.getallocatedblocks()
    for _ in range(160):  # ten blocks of samples, some minutes
        pipeline.take(pipeline.look(0))
    assert (sys.getallocatedblocks() - before) / (160 * CONTAINERS) < 0.05


def test_blocks_of_memory_that_an_ended_container_leaves_behind() -> None:
    """A thousand of them are remembered for a late word of the kernel log: who they were, and nothing of what was measured.

    After those: a host on which jobs come and go for weeks holds no more than on its first day.
    """
    fleet = Fleet(Host("web-3", "0" * 32, "boot", 1, "0"), docker=False)

    def lives(first: int, count: int) -> None:
        for inode in range(first, first + count):
            path, values = f"/jobs/{inode:06}", tuple(inode * 1000 + place for place in range(len(STATS)))
            for seen in (
                Appeared(path, "unified", inode, SECOND_NS, "live", ContainerSpec()),
                Joined(path, inode, SECOND_NS, inode),
                Sampled(path, inode, Sample(SECOND_NS, (*values[:OOM_KILLS], 0, *values[OOM_KILLS + 1 :]))),
                Vanished(path, inode, 2 * SECOND_NS),
            ):
                said = fleet.observe(seen, Now(SECOND_NS, SECOND_NS))
                fleet.checkpoint(said)

    lives(1000, 100)
    before = sys.getallocatedblocks()
    lives(2000, 100)
    assert (sys.getallocatedblocks() - before) / 100 <= 20
    lives(3000, REMEMBER_ENDED)
    before = sys.getallocatedblocks()
    lives(5000, 2 * REMEMBER_ENDED)
    assert (sys.getallocatedblocks() - before) / REMEMBER_ENDED < 0.5


def test_bytes_on_the_wire() -> None:
    """Of a sample with every column of v2, a network interface, names and labels: as JSON, and in a Kafka batch of a fifth of a second."""
    entries: list[Entry] = [encode(message, at, 0) for at, message in enumerate(Tenants(100).stats(200), 1)][100:]
    assert sum(len(entry.value or b"") for entry in entries) / len(entries) <= 2800
    packer = Packer("zstd")
    raw = packer.append(entries, 1_000_000, timestamps=True)
    assert raw.records == len(entries)
    assert len(packer.finish(raw, 1, 0, 0)) / len(entries) <= 400


@pytest.mark.parametrize(("mode", "files", "resting", "opened"), [("v2", FILES_OF_V2, 0, 0), ("v1", FILES_OF_V1, 2, 6)])
def test_reads_for_each_sample(
    mode: Literal["v1", "v2"], files: set[str], resting: int, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pread(2) for each file that is held open, but for those that say nothing new while another stands still.

    An idle cgroup's processes are counted every 31st time only; on v1 their list is opened for that.
    """
    for name in sorted(files):
        (tmp_path / name).write_text("0\n")
    counted: Counter[str] = Counter()
    for name in ("open", "pread"):
        monkeypatch.setattr(os, name, noted(getattr(os, name), name, counted))
    where = dict.fromkeys(("memory", "cpu", "cpuacct", "blkio", "pids") if mode == "v1" else ("unified",), str(tmp_path))
    reader = CgroupReader(Hierarchies(mode, where, tuple(where)), "/", DescriptorBudget(1000))
    for number in range(2):
        reader.read(number)
    counted.clear()
    for number in range(186):
        reader.read(number)
    reader.close()
    assert counted == {"pread": 186 * (len(files) - 1 - resting) + 6, **({"open": opened} if opened else {})}


def noted(really: Callable[..., Any], name: str, counted: Counter[str]) -> Callable[..., Any]:
    def call(*given: Any, **by_name: Any) -> Any:
        counted[name] += 1
        return really(*given, **by_name)

    return call


def test_cycles_that_grew_old_are_looked_for_too() -> None:
    """Looking at the youngest sets back the count by which gc would get to the older ones by itself."""
    a_day = list(islice(generations(), 1440))
    assert a_day[19] == 1 and a_day[-1] == 2
    assert (a_day.count(1), a_day.count(2)) == (71, 1)
