"""`container_*`: which series there are, with which labels, numbers and times."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from streamer.config import Metrics
from streamer.memory import Memory
from streamer.model import messages as m
from streamer.model.machine import Disk
from streamer.model.spec import ContainerSpec
from streamer.model.stats import DiskCounters, FilesystemUsage, IoDevice, NetworkInterface
from streamer.sidecar import families as f
from streamer.sidecar.container_metrics import ContainerMetrics, Facts, label_name
from streamer.sidecar.textformat import OPENMETRICS, TEXT, Format
from streamer.testing.clock import FakeClock
from tests.support.said import Teller

WEB = "4f6b" + "1" * 60
Series = dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float | None]]


class Host:
    """A memory, and its containers as they are scraped."""

    def __init__(self, **settings: Any) -> None:
        self.memory = Memory(samples=10)
        self.tell = Teller(self.memory)
        self.clock = FakeClock()
        self.metrics = ContainerMetrics(Metrics(**settings), self.clock)

    def run(self, container_id: str = WEB, **about: Any) -> None:
        """A container with one sample."""
        self.tell.created(container_id, **{k: v for k, v in about.items() if k in m.ContainerLifecycle.__struct_fields__})
        self.tell.sampled(container_id, **{k: v for k, v in about.items() if k in m.ContainerStats.__struct_fields__})

    def text(self, form: Format = TEXT) -> str:
        pieces = self.metrics.pieces(self.memory.containers(), self.memory.host_infos.values(), form)
        return "".join(pieces) + form.end

    def scrape(self) -> Series:
        """By name and all labels; the time in seconds. Both formats are read, and have to agree."""
        plain, strict = read(prometheus, self.text()), read(openmetrics, self.text(OPENMETRICS))
        assert plain == strict
        return plain

    def values(self, name: str, *labels: str) -> dict[Any, float]:
        """The numbers of one family, by these labels; without labels by `id`."""
        get = operator.itemgetter(*(labels or ("id",)))
        return {get(dict(pairs)): value for (found, pairs), (value, _) in self.scrape().items() if found == name}


def read(parse: Any, text: str) -> Series:
    found: Series = {}
    for family in parse(text):
        for sample in family.samples:
            # the parser of the older format gives every counter the ending that OpenMetrics asks for; Prometheus does not
            name = sample.name.replace("_failcnt_total", "_failcnt")
            key = (name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a series stands there twice"
            found[key] = (sample.value, None if sample.timestamp is None else round(float(sample.timestamp), 3))
    return found


@pytest.fixture
def host() -> Host:
    return Host()


def labels_of(series: Series, name: str) -> list[dict[str, str]]:
    return [dict(pairs) for found, pairs in series if found == name]


def test_every_family_shows_the_value_of_the_sample(host: Host) -> None:
    """The example record has a number in every column: all families are there."""
    host.tell.say(m.HOST)
    host.run()
    series = host.scrape()
    names = {name for name, _ in series}
    assert names >= {x.name for x in (*f.CONTAINER, *f.MACHINE)}
    latest: Any = host.memory.containers()[0].latest
    shown = {name: value for (name, _), (value, _) in series.items()}
    for family in f.CONTAINER:
        if isinstance(family.source, f.Measured) and len(family.source.columns) == 1:
            ((_, column),) = family.source.columns
            assert shown[family.name] == getattr(latest, column) / family.source.divisor, family.name


def test_what_the_kernel_did_not_give_has_no_series(host: Host) -> None:
    """Nor has what it gave for others an effect on that."""
    host.run(cgroup_path="/a", memory_kernel_bytes=UNSET, psi_io_full_ns=UNSET)
    host.run("5" * 64, cgroup_path="/b", memory_kernel_bytes=7, psi_io_full_ns=UNSET)
    assert host.values("container_memory_kernel_usage") == {"/b": 7}
    assert "container_pressure_io_stalled_seconds_total" not in host.text()


def test_cpu_and_pressure_are_seconds(host: Host) -> None:
    """From nanoseconds; the whole of a container's CPU time is `total`, also when it is nothing."""
    host.run(cgroup_path="/a", cpu_usage_ns=0, cpu_user_ns=1_500_000_000, psi_cpu_some_ns=250_000_000)
    assert host.values("container_cpu_usage_seconds_total", "cpu") == {"total": 0}
    assert host.values("container_cpu_user_seconds_total") == {"/a": 1.5}
    assert host.values("container_pressure_cpu_waiting_seconds_total") == {"/a": 0.25}


def test_limits(host: Host) -> None:
    """No limit is 0, and the series is there; quota and throttling only where the CPU is limited; what is not known is absent."""
    host.run(cgroup_path="/free", spec=ContainerSpec(memory_limit_bytes=0, cpu_quota_us=0, cpu_period_us=100_000, pids_limit=0))
    host.run("5" * 64, cgroup_path="/tied", spec=ContainerSpec(memory_limit_bytes=4096, cpu_quota_us=5000))
    host.run("6" * 64, cgroup_path="/unknown", spec=UNSET)
    assert host.values("container_spec_memory_limit_bytes") == {"/free": 0, "/tied": 4096}
    host.run("7" * 64, cgroup_path="/", spec=ContainerSpec(memory_limit_bytes=0))
    host.tell.say(m.HOST)
    assert host.values("container_spec_memory_limit_bytes")["/"] == 67_344_449_536  # what rules divide by
    assert host.values("container_spec_cpu_quota") == {"/tied": 5000}
    assert host.values("container_spec_cpu_period") == {"/free": 100_000}
    assert host.values("container_threads_max") == {"/free": 0}
    assert set(host.values("container_cpu_cfs_periods_total")) == {"/tied"}
    assert set(host.values("container_cpu_cfs_throttled_seconds_total")) == {"/tied"}


def test_page_faults(host: Host) -> None:
    """Two kinds in two scopes."""
    host.run(memory_page_faults=5, memory_major_page_faults=2)
    assert host.values("container_memory_failures_total", "failure_type", "scope") == {
        ("pgfault", "container"): 5,
        ("pgfault", "hierarchy"): 5,
        ("pgmajfault", "container"): 2,
        ("pgmajfault", "hierarchy"): 2,
    }


def interface(name: str, received: int) -> NetworkInterface:
    return NetworkInterface(name, received, 1, 2, 3, 4, 5, 6, 7)


def test_network_is_told_by_interface(host: Host) -> None:
    """Errors and dropped packets too; no interface, no series."""
    host.run(network_interfaces=[interface("eth0", 10), interface('e"1', 20)])
    host.run("/raw", runtime="raw", cgroup_path="/raw", network_interfaces=UNSET)
    assert host.values("container_network_receive_bytes_total", "interface") == {"eth0": 10, 'e"1': 20}
    assert host.values("container_network_receive_packets_dropped_total", "interface") == {"eth0": 3, 'e"1': 3}
    assert host.values("container_network_transmit_errors_total", "interface") == {"eth0": 6, 'e"1': 6}


def io(major: int, minor: int) -> IoDevice:
    return IoDevice(major, minor, read_bytes=1, write_bytes=2, read_operations=3, write_operations=4)


def disk(**counted: int) -> DiskCounters:
    return DiskCounters(**{name: counted.get(name, 9) for name in DiskCounters.__struct_fields__})


def test_devices_have_their_names(host: Host) -> None:
    """As paths, from the host's facts; one that these do not list by its numbers."""
    host.tell.say(m.HOST, disks=[Disk(name="sda", major=8, minor=0, size_bytes=1)])
    host.run(io_devices=[io(8, 0), io(7, 1)], filesystems=UNSET)
    assert host.values("container_fs_reads_bytes_total", "device") == {"/dev/sda": 1, "7:1": 1}
    assert host.values("container_fs_writes_total", "device") == {"/dev/sda": 4, "7:1": 4}
    assert host.values("container_blkio_device_usage_total", "device", "major", "minor", "operation") == {
        ("/dev/sda", "8", "0", "Read"): 1,
        ("/dev/sda", "8", "0", "Write"): 2,
        ("7:1", "7", "1", "Read"): 1,
        ("7:1", "7", "1", "Write"): 2,
    }


def test_file_systems_and_the_disks_below_them(host: Host) -> None:
    """Seconds are seconds; a disk that the container's own I/O is told of is not counted twice."""
    host.tell.say(m.HOST, disks=[Disk(name="sda", major=8, minor=0, size_bytes=1)])
    host.run(
        "/",
        runtime="raw",
        cgroup_path="/",
        io_devices=[io(8, 0)],
        filesystems=[
            FilesystemUsage(
                device="/dev/sda", capacity_bytes=100, usage_bytes=40, inodes=10, inodes_free=6, disk=disk(read_time_ms=1500)
            ),
            FilesystemUsage(device="/dev/sdb", capacity_bytes=7, usage_bytes=0, disk=disk(io_time_ms=250, reads_completed=11)),
            FilesystemUsage(device="/dev/sdb", capacity_bytes=8, usage_bytes=0),
        ],
    )
    assert host.values("container_fs_limit_bytes", "device") == {"/dev/sda": 100, "/dev/sdb": 7}
    assert host.values("container_fs_usage_bytes", "device") == {"/dev/sda": 40, "/dev/sdb": 0}
    assert host.values("container_fs_inodes_free", "device") == {"/dev/sda": 6}
    assert host.values("container_fs_read_seconds_total", "device") == {"/dev/sda": 1.5, "/dev/sdb": 0.009}
    assert host.values("container_fs_io_time_seconds_total", "device")["/dev/sdb"] == 0.25
    assert host.values("container_fs_reads_total", "device") == {"/dev/sda": 3, "/dev/sdb": 11}
    host.tell.sampled("/", runtime="raw", cgroup_path="/", io_devices=UNSET, filesystems=UNSET)
    assert host.values("container_fs_usage_bytes", "device")["/dev/sda"] == 40, "stays until it is measured again"


def test_file_systems_have_the_time_at_which_they_were_measured() -> None:
    """Which is seldom that of the newest sample: a counter would seem to stand still and then to leap."""
    host = Host(timestamps=True)
    host.run(filesystems=[FilesystemUsage(device="/dev/sda", capacity_bytes=9, usage_bytes=1, disk=disk())])
    then = host.tell.now_ms
    host.tell.sampled(WEB, filesystems=UNSET)
    lines = {line.split("{")[0]: line.rsplit(" ", 1)[1] for line in host.text().splitlines() if not line.startswith("#")}
    for family in ("container_fs_usage_bytes", "container_fs_io_time_seconds_total"):
        assert lines[family] == str(then)
    assert lines["container_memory_rss"] == str(host.tell.now_ms) == str(then + 1000)


def test_names_and_images_are_of_containers_of_runtimes_alone(host: Host) -> None:
    """A slice with a name would be counted beside the containers in it."""
    host.run(WEB, cgroup_path="/docker/web", name="web", image="nginx:1", labels={"a.b/c": "d"})
    host.run("/x.slice", runtime="raw", cgroup_path="/x.slice", name="/x.slice", image=UNSET, labels=UNSET)
    raw, web = labels_of(host.scrape(), "container_memory_rss")
    assert web == {"id": "/docker/web", "name": "web", "image": "nginx:1", "container_label_a_b_c": "d"}
    assert raw == {"id": "/x.slice", "name": "", "image": ""}


def test_labels_follow_their_container(host: Host) -> None:
    """The text of labels is kept between scrapes, and made anew after a rename and when labels come."""
    host.run(cgroup_path="/a", name="old", labels=UNSET)
    assert labels_of(host.scrape(), "container_last_seen")[0]["name"] == "old"
    host.tell.created(WEB, cgroup_path="/a", name="new", labels={"team": "x"})
    (after,) = labels_of(host.scrape(), "container_last_seen")
    assert after["name"] == "new" and after["container_label_team"] == "x"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, {"a", "ab", "b"}),
        ({"container_labels": False}, set()),
        ({"container_labels": False, "allow_labels": ["b", "none"]}, {"b"}),
        ({"container_labels": False, "allow_labels": ["a*"]}, {"a", "ab"}),
        ({"allow_labels": ["b"]}, {"a", "ab", "b"}),
    ],
)
def test_which_labels_are_shown(settings: dict[str, Any], shown: set[str]) -> None:
    """All that messages carry, or those that are listed."""
    host = Host(**settings)
    host.run(labels={"a": "1", "ab": "2", "b": "3"})
    (found,) = labels_of(host.scrape(), "container_last_seen")
    assert {name.removeprefix("container_label_") for name in found if name.startswith("container_label_")} == shown


def test_labels_that_become_the_same(host: Host) -> None:
    """The first in the order of their own names is shown, whatever the order they came in."""
    for number, labels in enumerate(itertools.permutations({"a.b": "dot", "a-b": "dash", "a_b": "line"}.items())):
        host.run(f"{number:064x}", cgroup_path=f"/{number}", labels=dict(labels))
    assert {found["container_label_a_b"] for found in labels_of(host.scrape(), "container_last_seen")} == {"dash"}


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"\n\\', "\\n", "\r\n", "x" * 10_000, "\x00", "\u2028"]
)


@given(name=ANY_TEXT, image=ANY_TEXT, path=ANY_TEXT, labels=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4))
def test_any_text_can_stand_in_a_label(name: str, image: str, path: str, labels: dict[str, str]) -> None:
    """Values come back as they were, names are made valid; both parsers can read it."""
    host = Host()
    host.tell.created(WEB, name=name, image=image, cgroup_path=path, labels=labels)
    (found,) = labels_of(host.scrape(), "container_last_seen")
    assert (found["name"], found["image"], found["id"]) == (name, image, path)
    assert {k: v for k, v in found.items() if k.startswith("container_label_")} == {
        label_name(label): labels[label] for label in sorted(labels, reverse=True)
    }


def test_paths_that_are_not_utf8(host: Host) -> None:
    """Each has a name of its own."""
    host.run("/a\udc80", runtime="raw", cgroup_path="/a\udc80")
    host.run("/a\udc81", runtime="raw", cgroup_path="/a\udc81")
    assert set(host.values("container_last_seen")) == {"/a\\udc80", "/a\\udc81"}


def test_times(host: Host) -> None:
    """Measured values have the time of their sample, `container_last_seen` that of the scrape, facts and limits none."""
    host.run()
    host.clock.advance(5)
    sampled, now = host.tell.now_ms / 1000, host.clock.wall_ns() // 1_000_000 / 1000
    for (name, _), (_, time) in host.scrape().items():
        source = next(x.source for x in f.CONTAINER if x.name == name)
        expected = now if isinstance(source, f.Seen) else None if isinstance(source, f.Known | f.Specified) else sampled
        assert time == expected, name
    assert host.values("container_last_seen") == {host.memory.containers()[0].facts["cgroup_path"]: int(now)}


def test_times_can_be_left_out() -> None:
    """Then a series ends with its container."""
    host = Host(timestamps=False)
    host.run()
    assert {time for _, time in host.scrape().values()} == {None}


def test_start_and_creation(host: Host) -> None:
    """Whole seconds; where no runtime tells, since when the agent knows it."""
    host.run(WEB, cgroup_path="/a", created_at="2025-11-24T09:15:03.902114873Z", started_at="2025-11-24T09:15:04.241190027Z")
    host.run("5" * 64, cgroup_path="/b", created_at="2025-11-24T09:15:03.902114873Z", started_at=UNSET)
    raw = {"runtime": "raw", "cgroup_path": "/c"}
    host.run("/c", **raw, created_at=UNSET, started_at=UNSET)
    assert host.values("container_creation_time_seconds") == {"/a": 1763975703, "/b": 1763975703}
    assert host.values("container_start_time_seconds") == {"/a": 1763975704, "/b": 1763975703}
    host.tell.say(m.STATE, container_id="/c", incarnation=host.memory.containers()[0].key[2], **raw, since="2025-11-24T09:15:05.5Z")
    assert host.values("container_creation_time_seconds")["/c"] == 1763975705
    assert host.values("container_start_time_seconds")["/c"] == 1763975705


def test_oom_kills(host: Host) -> None:
    """0 before the first, so that a rate sees it."""
    host.run(cgroup_path="/a")
    assert host.values("container_oom_events_total") == {"/a": 0}
    (container,) = host.memory.containers()
    host.tell.say(m.OOM, container_id=WEB, incarnation=container.key[2])
    assert host.values("container_oom_events_total") == {"/a": 1}


def test_a_container_that_was_not_sampled_yet(host: Host) -> None:
    """Is there, with its limits."""
    host.tell.created(WEB, cgroup_path="/a", spec=ContainerSpec(memory_limit_bytes=5))
    assert host.values("container_last_seen") == {"/a": int(host.clock.wall_ns() // 1_000_000_000)}
    assert host.values("container_spec_memory_limit_bytes") == {"/a": 5}
    assert "container_memory_rss" not in host.text()


def test_what_has_ended_is_not_shown(host: Host) -> None:
    """At once, whatever is still remembered of it."""
    host.run(cgroup_path="/a")
    host.tell.deleted(WEB, cgroup_path="/a")
    assert host.text() == ""


@pytest.mark.parametrize("first", [1, 2])
def test_of_two_runs_in_one_cgroup_path_the_newer_is_shown(host: Host, first: int) -> None:
    """The end of the run before may wait for its exit code while the next one runs: a path has one series all the same."""
    for run in (first, 3 - first):
        host.tell.created(WEB, run=run, cgroup_path="/a")
        host.tell.sampled(WEB, run=run, cgroup_path="/a", memory_rss_bytes=run)
    assert host.values("container_memory_rss") == {"/a": 3 - first}


def test_several_hosts_are_told_apart(host: Host) -> None:
    """The same path on two hosts is two containers; each has its own devices."""
    host.run(cgroup_path="/a", host="one", memory_rss_bytes=1)
    assert "host" not in labels_of(host.scrape(), "container_memory_rss")[0]
    other = Teller(host.memory, host_id="host-2")
    other.created(WEB, cgroup_path="/a", host="two")
    other.sampled(WEB, cgroup_path="/a", host="two", memory_rss_bytes=2)
    assert host.values("container_memory_rss", "host") == {"one": 1, "two": 2}


def sources() -> Iterator[tuple[str, str, type]]:
    for family in f.CONTAINER:
        match family.source:
            case f.Measured(columns):
                yield from ((family.name, column, m.ContainerStats) for _, column in columns)
            case f.Known(fact):
                yield family.name, fact, Facts
            case f.Specified(field):
                yield family.name, field, ContainerSpec
            case f.PerInterface(field):
                yield family.name, field, NetworkInterface
            case f.PerFilesystem(field):
                yield family.name, field, FilesystemUsage
            case f.PerDevice(operations, disk):
                yield from ((family.name, field, IoDevice) for _, field in operations)
                if disk:
                    yield family.name, disk, DiskCounters


@pytest.mark.parametrize(("name", "field", "record"), list(sources()))
def test_the_table_names_fields_that_there_are(name: str, field: str, record: type) -> None:
    """A field that is renamed shows here, also where no test looks at the family."""
    assert hasattr(record, field), name
