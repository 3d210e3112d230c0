"""The body of `/metrics`: its format, its pieces, and what it says when nothing is known."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from streamer.contracts import Status
from streamer.model import messages as m
from streamer.sidecar import families as f
from streamer.sidecar import loop_delay
from streamer.sidecar.metrics import metrics_body, negotiate
from streamer.sidecar.textformat import OPENMETRICS, TEXT
from streamer.telemetry import METRICS, Telemetry

if TYPE_CHECKING:
    from tests.sidecar.conftest import House

SCRAPER = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
OPEN = "application/openmetrics-text"


def body(house: House, accept: str = "") -> str:
    return b"".join(metrics_body(house.context, accept)[1]).decode()


@pytest.mark.parametrize(
    ("accept", "strict"),
    [
        ("", False),
        ("*/*", False),
        ("application/*", False),
        ("text/html", False),
        (OPEN, True),
        (SCRAPER, True),
        (f"{OPEN.upper()}; Version=1.0.0", True),
        (f"{OPEN}; version=2.0.0", False),
        (f"{OPEN}; version=2.0.0, {OPEN};version=0.0.1;q=0.1", True),
        (f"{OPEN};q=0", False),
        (f"{OPEN};q=0.2, text/plain;q=0.3", False),
        (f"{OPEN};q=0.3, text/plain;q=0.3", True),
        (f"{OPEN};q=0.3, text/plain;q=0.2, */*", True),
        (f"{OPEN};q=0.3, text/*", False),
        (f"{OPEN};q=0.3, */*;q=0.4", False),
        (f"{OPEN};q=lots", False),
        (f"{OPEN};q=nan", False),
        (",;q=,=;", False),
        ("a/b," * 99 + OPEN, True),
        ("a/b," * 100 + OPEN, False),
    ],
)
def test_the_format_that_the_client_likes_best(accept: str, strict: bool) -> None:
    """OpenMetrics for who names it and likes it no less than text; text for all others."""
    assert negotiate(accept) is (OPENMETRICS if strict else TEXT)


def test_the_agents_own_numbers_are_the_same_in_both_formats(house: House) -> None:
    """Those of containers are compared where they are tested."""
    house.telemetry.count("streamer_gaps_total", "source.docker")
    house.telemetry.observe("streamer_event_loop_delay_seconds", 0.002)
    said = [
        {
            (sample.name, tuple(sample.labels.items())): sample.value
            for family in parse(body(house, accept))
            for sample in family.samples
            if sample.name.startswith(("streamer_", "machine_"))
        }
        for parse, accept in ((prometheus, ""), (openmetrics, OPEN))
    ]
    assert said[0] == said[1]
    assert said[0]["streamer_gaps_total", (("component", "source.docker"),)] == 1
    assert body(house, OPEN).endswith("\n# EOF\n")
    assert "# EOF" not in body(house)


def test_content_types(house: House) -> None:
    """As the two specifications write them."""
    assert metrics_body(house.context, OPEN)[0] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert metrics_body(house.context, "")[0] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("accept", ["", OPEN])
def test_every_family_has_one_head_and_all_of_its_lines_below_it(house: House, accept: str) -> None:
    """With several blocks of containers, too."""
    for number in range(300):
        house.tell.created(f"{number:064x}", cgroup_path=f"/docker/{number:064x}", name=f"c{number}")
        house.tell.sampled(f"{number:064x}", cgroup_path=f"/docker/{number:064x}", name=f"c{number}")
    text = body(house, accept)
    heads = Counter(line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(heads.values()) == {1}
    current = ""
    for line in text.removesuffix("# EOF\n").splitlines():
        if line.startswith("# "):
            current = line.split(" ")[2]
        else:
            name = re.split(r"[{ ]", line)[0]
            assert name == current or name.removeprefix(current) in ("_total", "_bucket", "_sum", "_count"), line
    assert len(re.findall("^container_memory_rss{", text, re.MULTILINE)) == 301


def test_the_body_comes_in_pieces_of_one_moment(house: House) -> None:
    """What ends or comes while the body is made does not change it."""
    for number in range(300):
        house.tell.created(f"{number:064x}", cgroup_path=f"/docker/{number:064x}")
        house.tell.sampled(f"{number:064x}", cgroup_path=f"/docker/{number:064x}")
    chunks = metrics_body(house.context, "")[1]
    taken = [next(chunks) for _ in range(14)]  # past the look at the containers, before the end
    house.tell.deleted(f"{299:064x}", cgroup_path=f"/docker/{299:064x}")
    house.tell.created("5" * 64, cgroup_path="/docker/late")
    rest = list(chunks)
    assert max(map(len, rest)) < 500_000
    assert len(rest) > 10
    text = b"".join([*taken, *rest]).decode()
    assert len(re.findall("^container_network_transmit_errors_total{", text, re.MULTILINE)) == 301
    assert "/docker/late" not in text


@pytest.mark.parametrize("parse", [prometheus, openmetrics])
def test_an_empty_host(empty_house: House, parse: object) -> None:
    """No container, no host facts: the agent's own numbers, and that the machine is not known."""
    text = body(empty_house, OPEN if parse is openmetrics else "")
    names = {fam.name for fam in parse(text)}  # type: ignore[operator]
    assert {name for name in names if name.startswith(("container_", "machine_"))} == {
        "container_scrape_error",
        "machine_scrape_error",
    }
    assert "\nmachine_scrape_error 1\n" in text
    assert "\ncontainer_scrape_error 0\n" in text


def test_scrape_errors(house: House) -> None:
    """Host facts are known; a source of containers that is down is an error, one that works in part is none."""
    assert "\nmachine_scrape_error 0\n" in body(house)
    for state, error in (("ok", 0), ("degraded", 0), ("down", 1), ("starting", 1)):
        house.components = [Status("source.cgroup", state)]
        assert f"\ncontainer_scrape_error {error}\n" in body(house)


def test_names_are_used_once() -> None:
    """Over all tables, also with what OpenMetrics takes from the names of counters."""
    names = [x.name for x in (*f.CONTAINER, *f.MACHINE, *METRICS)]
    assert len({name.removesuffix("_total") for name in names}) == len(names)


async def test_the_loop_tells_how_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice on time, then something held it up for two seconds."""
    telemetry, delays = Telemetry(), iter([0.0, 0.0, 2.0])

    class Clock:
        now_ns = 0

        def wall_ns(self) -> int:
            return self.now_ns

        def monotonic_ns(self) -> int:
            return self.now_ns

    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now_ns += int((seconds + next(delays)) * 1e9)

    monkeypatch.setattr(loop_delay.asyncio, "sleep", sleep)
    with pytest.raises(RuntimeError):  # what a coroutine makes of StopIteration
        await loop_delay.watch(telemetry, clock)
    ((metric, series),) = [h for h in telemetry.histograms() if h[0].name == "streamer_event_loop_delay_seconds"]
    assert series[()].counts[0] == 2
    assert series[()].counts[metric.bounds.index(2.5)] == 1
    assert series[()].sum == 2.0


README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def test_the_readme_tells_how_many_series_there_are() -> None:
    """The table of cardinality is the tables of families, counted."""

    def of(source: type, **about: object) -> list[f.Family]:
        return [x for x in f.CONTAINER if isinstance(x.source, source) and all(getattr(x.source, k) == v for k, v in about.items())]

    measured = of(f.Measured, limited=False)
    limited = of(f.Measured, limited=True) + of(f.Specified, limited=True)
    devices = [x for x in of(f.PerDevice) if x.source.operations]  # type: ignore[union-attr]
    disks = [x for x in of(f.PerDevice) if x.source.disk]  # type: ignore[union-attr]
    always = [*of(f.Seen), *of(f.Known), *of(f.Specified, limited=False)]
    rows = {
        "facts and limits": (len(always), len(always)),
        "measured": (len(measured), sum(len(x.source.columns) for x in measured)),  # type: ignore[union-attr]
        "with a CPU limit": (len(limited), len(limited)),
        "network": (len(of(f.PerInterface)), len(of(f.PerInterface))),
        "block I/O": (len(devices), sum(len(x.source.operations) for x in devices)),  # type: ignore[union-attr]
        "disks of the machine": (len(disks), len(disks)),
        "file systems": (len(of(f.PerFilesystem)), len(of(f.PerFilesystem))),
        "the machine": (len([x for x in f.MACHINE if not x.labels]),) * 2,
    }
    for what, (families, series) in rows.items():
        assert re.search(rf"^\| {re.escape(what)} \|[^|]*\| {families} \| {series} ", README, re.MULTILINE), (
            what,
            families,
            series,
        )


@pytest.mark.parametrize("name", ["container_labels", "allow_labels", "timestamps"])
def test_the_readme_names_every_option(name: str) -> None:
    """As keys of the configuration."""
    assert f"`metrics.{name}`" in README


def test_the_readme_names_metrics_that_there_are() -> None:
    """Whoever copies an alert gets one that can fire."""
    known = {x.name for x in (*f.CONTAINER, *f.MACHINE, *METRICS)}
    named = set(
        re.findall(
            r"`(?:time\(\) - )?((?:container|machine|streamer)_[a-z0-9_]+)`", README.split("## Metrics")[1].split("\n## ")[0]
        )
    )
    assert len(named) > 8
    assert named <= known


def test_a_machine_is_told_by_its_host_facts(house: House) -> None:
    """Numbers of the example host, without a time: they are so now."""
    text = body(house)
    host = house.memory.host_infos["host-1"]
    base = f'machine_id="{host.machine_id}",system_uuid="{host.system_uuid}",boot_id="{host.boot_id}"'
    for line in (
        f"machine_cpu_cores{{{base}}} 16",
        f"machine_cpu_physical_cores{{{base}}} 8",
        f"machine_memory_bytes{{{base}}} 67344449536",
        f"machine_swap_bytes{{{base}}} 0",
        f'machine_dimm_count{{{base},type="Registered-DDR5"}} 2',
        f'machine_dimm_capacity_bytes{{{base},type="Registered-DDR5"}} 68719476736',
        f'machine_cpu_cache_capacity_bytes{{{base},node_id="0",core_id="0",type="Unified",level="2"}} 1048576',
        f'machine_cpu_cache_capacity_bytes{{{base},node_id="0",core_id="",type="Unified",level="3"}} 33554432',
        f'machine_node_distance{{{base},node_id="0",target_node_id="0"}} 10',
    ):
        assert f"\n{line}\n" in text, line
    house.tell.say(m.HOST, num_sockets=m.UNSET)
    assert "machine_cpu_sockets" not in body(house)
