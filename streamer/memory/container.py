"""What is known of one incarnation of a container, merged from its messages."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, cast

from msgspec import UNSET, structs

from streamer.memory.layout import COLUMNS
from streamer.memory.samples import Samples
from streamer.memory.summary import Summary
from streamer.model import messages as m
from streamer.model.messages import ABOUT_FIELDS
from streamer.model.stats import FilesystemUsage
from streamer.model.wire import as_json

RATED: Final = (
    "cpu_usage_ns",
    "cpu_periods",
    "cpu_throttled_periods",
    "memory_working_set_bytes",
    "io_read_bytes",
    "io_write_bytes",
    "network_rx_bytes",
    "network_tx_bytes",
    "psi_cpu_some_ns",
    "psi_memory_some_ns",
    "psi_io_some_ns",
)
"""What rates are made of: of the two newest samples at hand, as to unpack these for each question takes ten times as long."""

Look = tuple[int, tuple[Any, ...]]
"""Of a sample its time, wall clock in ns, and a value for each of `RATED`, `UNSET` where the kernel gave none."""

_FLAT_BYTES: Final = 2000  # the object, its facts, and where it is found by them
_RECORD_BYTES: Final = 1500  # `latest`, less what it shares with the newest sample and the container
_TIME_BYTES: Final = 40  # a number, and its place in a list
_LOOK_BYTES: Final = 600  # the older one; values of the newer one are those of `latest`

_TOGETHER: Final = 32  # half a minute: more make nothing cheaper, and whoever asks for all containers waits for it

_astuple: Final = structs.astuple
_ABOUT: Final = frozenset(ABOUT_FIELDS)
_FIELDS: Final = m.ContainerStats.__struct_fields__
_ROW: Final = slice(_FIELDS.index(COLUMNS[0]), _FIELDS.index("io_devices") + 1)  # `layout.Row`
_FILESYSTEMS: Final = _FIELDS.index("filesystems")
_TIME_MS: Final = _FIELDS.index("time_ms")
_TIME: Final = _FIELDS.index("time")
_rated: Final = itemgetter(*map(_FIELDS.index, RATED))
_RATED_CPU: Final = RATED.index("cpu_usage_ns")
_RATED_MEMORY: Final = RATED.index("memory_working_set_bytes")
_CPU: Final = _FIELDS.index("cpu_usage_ns")
_MEMORY: Final = _FIELDS.index("memory_working_set_bytes")


class Container:
    """What is known of one incarnation of a container.

    key           host id, container id, incarnation
    facts         the field names and values of the messages, and `deleted`, `deleted_at`, `oom_kills`, `last_oom_at`
    latest        its newest `ContainerStats`, None before the first
    newest        epoch and `seq` of that
    looks         at most two, the newest last, since the clock was set back last
    samples       the values of the recent ones
    filesystems   as last measured, by the sample of `filesystems_ns`
    summary       statistics of the last minute, hour and day
    deleted_ms    when `deleted` was remembered; 0 while it lives
    ended_bytes   its `size` then
    """

    __slots__ = (
        "_again",
        "_encoded",
        "_latest",
        "_looks",
        "_room",
        "_samples",
        "_summary",
        "_times",
        "deleted_ms",
        "ended_bytes",
        "facts",
        "filesystems",
        "filesystems_ns",
        "key",
        "newest",
        "oom_told",
    )

    def __init__(self, record: m.AboutContainer, samples: int, turn: int = 0) -> None:
        """`samples`: how many are kept; `turn`: different ones let containers that begin together work at different times."""
        self.key = (record.host_id, record.container_id, record.incarnation)
        self.facts: dict[str, Any] = {"host": record.host, "host_id": record.host_id}
        self._latest: m.AboutContainer | None = None
        self._again: m.Again | None = None  # that says the same later; if one does, it is the newest
        self.newest = (0, 0)
        self._looks: tuple[Look, ...] = ()
        self._samples = Samples(samples, turn)
        self.filesystems: tuple[FilesystemUsage, ...] = ()
        self.filesystems_ns = 0
        self._summary = Summary(turn)
        self._times: list[int] = []  # of samples that said the same again and are not taken in yet
        self._room = 1 + turn % _TOGETHER  # so many may wait
        self.oom_told = 0
        self.deleted_ms = self.ended_bytes = 0
        self._encoded = b""

    def __repr__(self) -> str:
        return f"<Container {self.key} samples={len(self.samples)} deleted={bool(self.deleted_ms)}>"

    @property
    def host_id(self) -> str:
        return self.key[0]

    @property
    def container_id(self) -> str:
        return self.key[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and aliases."""
        return tuple(name for name in (self.facts.get("name"), *self.facts.get("aliases", ())) if name)

    @property
    def handles(self) -> tuple[str, ...]:
        """What means this container and, names aside, hardly another: id, incarnation and cgroup path."""
        return (*self.key[1:], self.facts["cgroup_path"]) if "cgroup_path" in self.facts else ()

    @property
    def looks(self) -> tuple[Look, ...]:
        if not (times := self._times):
            return self._looks
        time_ns, rated = self._looks[-1]
        return ((times[-2] if len(times) > 1 else time_ns), rated), (times[-1], rated)

    @property
    def sample_count(self) -> int:
        """How many there are of `samples`."""
        return min(self._samples.most, len(self._samples) + len(self._times))

    @property
    def samples(self) -> Samples:
        self._catch_up()
        return self._samples

    @property
    def summary(self) -> Summary:
        self._catch_up()
        return self._summary

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of what is known of it, with the newest sample; of its samples; of its statistics."""
        newest = (_RECORD_BYTES if self._latest is not None else 0) + _LOOK_BYTES * len(self._looks)
        return _FLAT_BYTES + newest, self._samples.size + _TIME_BYTES * len(self._times), self._summary.size

    @property
    def encoded(self) -> bytes:
        """`facts` as a JSON object; encoded again only after a change."""
        if not self._encoded:
            self._encoded = as_json(self.facts)
        return self._encoded

    @property
    def latest(self) -> m.AboutContainer | None:
        return self._again.whole() if self._again is not None else self._latest

    @property
    def latest_json(self) -> bytes:
        """`latest` as it was published, as JSON; empty before the first."""
        latest = self.latest
        return as_json(latest) if latest is not None else b""

    def learn(self, **facts: Any) -> None:
        """Set facts; UNSET leaves what is known."""
        self.facts.update((name, value) for name, value in facts.items() if value is not UNSET)
        self._encoded = b""

    def identify(self, record: m.AboutContainer) -> None:
        """Take over who it is; every record says all of it, so what it leaves out is no longer so."""
        kept = {name: value for name, value in self.facts.items() if name not in _ABOUT}
        told = {name: getattr(record, name) for name in ABOUT_FIELDS}
        self.facts = {"host": record.host, "host_id": record.host_id, **{k: v for k, v in told.items() if v is not UNSET}, **kept}
        self._encoded = b""

    def sampled(self, record: m.AboutContainer) -> None:
        """Take in a `ContainerStats` that was said after the ones before."""
        if self._times:
            self._catch_up()
        self._latest, self._again, self.newest = record, None, (record.epoch, record.seq)
        told = _astuple(record)
        time_ns = told[_TIME_MS] * 1_000_000 + int(told[_TIME][-7:-1])  # as `clock.rfc3339` writes it: nine digits and Z
        before = self._looks[-1:]
        self._looks = (*(before if before and before[0][0] < time_ns else ()), (time_ns, _rated(told)))
        self._samples.append(time_ns, told[_ROW])
        self._summary.add(time_ns, told[_CPU], told[_MEMORY])
        if told[_FILESYSTEMS]:
            self.filesystems_ns = time_ns
            self.filesystems = tuple(cast(list[FilesystemUsage], told[_FILESYSTEMS]))

    def sampled_again(self, again: m.Again) -> None:
        """The same, of one that repeats another; that may not have been told here, or something since."""
        same, times = again.of.record, self._times
        time_ns = again.time_ns
        if same is not self._latest or time_ns <= (times[-1] if times else self._looks[-1][0]):
            self.sampled(again.whole())
            self._latest = same
        else:
            times.append(time_ns)
        self._again, self.newest = again, (same.epoch, again.seq)
        if len(times) >= self._room:
            self._room = _TOGETHER
            self._catch_up()

    def _catch_up(self) -> None:
        """Take in those that said the same again: all that is kept of one until somebody asks, or some wait, is its time."""
        if not (times := self._times):
            return
        rated = self._looks[-1][1]
        self._looks = self.looks
        self._samples.again(times)
        self._summary.add_all([(at_ns, rated[_RATED_CPU], rated[_RATED_MEMORY]) for at_ns in times])
        times.clear()
