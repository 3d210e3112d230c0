"""The benchmarks can be run: a small one, against the real agent and real cgroups."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from benchmarks import console, cpu, stages
from benchmarks.answers import QUESTIONS
from benchmarks.contenders import CONTENDERS
from benchmarks.drawing import Panel, picture
from benchmarks.guest import wire_of
from benchmarks.soak import trend
from streamer.model import messages as m
from streamer.model.examples import EXAMPLES

ID = b"c1" * 32
ROOT = Path(__file__).parents[1]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def cgroups() -> set[Path]:
    """What ended runs left behind."""
    found = [folder for mount in ("", "*/") for folder in Path("/sys/fs/cgroup").glob(f"{mount}streamer-bench-*")]
    return {folder for folder in found if not Path("/proc", folder.name.rpartition("-")[2]).exists()}


def cells_by_row(text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of Markdown tables: the first cell, and the others. A later row of the same name does not count."""
    seen = set()
    for line in text.splitlines():
        if line.startswith("| "):  # not the rule below the head
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if name and name not in seen:
                seen.add(name)
                yield name, cells


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table rows whose first cell begins like this, without that cell."""
    found = re.findall(rf"^\| {first}[^|]*\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


def test_without_a_name_the_benchmarks_are_listed() -> None:
    """`python -m benchmarks` names each benchmark with what it measures."""
    listed = benchmarks()
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^sampling +\w+", listed.stdout, re.MULTILINE)


@pytest.mark.live
@pytest.mark.v2
def test_sampling_prints_a_ratio_and_leaves_no_cgroup_behind() -> None:
    """A run over eighty cgroups finds what a sample costs beside the C loop, also where CPU is told in ticks, and takes its cgroups away."""
    before = cgroups()
    done = benchmarks(
        "sampling",
        "--containers",
        "80",
        "--seconds",
        "20",  # of less, one batch more or less is a larger share than the one that may be missing
        "--warm-up",
        "1",
        "--repetitions",
        "1",
        "--sink",
        "file",
        "--http",
        "off",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = re.search(r"^\| file, HTTP off +\|(.*)\|$", done.stdout, re.MULTILINE)
    assert row is not None, done.stdout
    loop, agent, _, ratio, *_ = [cell.split(" / ")[1] for cell in row[1].split("|")[:4]]
    assert float(loop) > 0
    assert float(agent) > 0
    assert float(ratio) > 0
    assert (cpu.IN_TICKS in done.stdout) == cpu.told_in_ticks()
    assert cgroups() <= before


@pytest.mark.v2
def test_what_is_not_idle_counts_work_that_sleeps_in_between() -> None:
    """A millisecond of work at a time, which ticks fall between: it is counted, and sleep is not."""
    spent, started, before = 0.0, time.monotonic(), cpu.not_idle_seconds()
    for _ in range(200):
        began = time.monotonic()
        while time.monotonic() < began + 0.001:
            pass
        spent += time.monotonic() - began
        time.sleep(0.01)
    not_idle, elapsed = cpu.not_idle_seconds() - before, time.monotonic() - started
    assert spent - 0.02 <= not_idle < elapsed * (os.cpu_count() or 1) - 0.02  # two ticks


@pytest.mark.live
def test_sidecar_asks_our_own_api_each_question_and_leaves_no_cgroup_behind() -> None:
    """A row for each, with as many answers as were asked for."""
    before = cgroups()
    done = benchmarks("sidecar", "--parts", "own", "--containers", "5", "--warm-up", "2", "--requests", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = re.findall(r"^\| ([^|]+?) +\| +(\d+) \| +[\d.]+ \|", done.stdout, re.MULTILINE)
    assert {about for about, _ in asked} == {question.about for question in QUESTIONS}
    assert {times for _, times in asked} == {"10"}
    assert cgroups() <= before


def test_a_trend_is_that_of_the_line_and_sees_no_growth_in_one_odd_look() -> None:
    """Values on a line give its slope with no margin; a level course with one outlier has none."""
    line = trend([(at / 100, 5 + 3 * at / 100) for at in range(120)])
    assert line.per_hour == pytest.approx(3)
    assert line.margin == pytest.approx(0, abs=1e-6)
    assert trend([(at / 100, 900.0 if at == 70 else 7.0) for at in range(120)]).per_hour == pytest.approx(0)


def test_a_picture_is_well_formed_and_shows_every_line_within_its_panel() -> None:
    """Each line of each panel is drawn, none of its points outside; names are escaped."""
    drawn = picture(
        "a < b", [0.0, 0.5, 1.0], "hours", [Panel("one", {"x": [0, 5, 3], "y": [1, 1, 1]}), Panel("two", {"": [7, 7, 7]})]
    )
    root = xml.etree.ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "a < b"
    width, height = (float(number) for number in root.get("viewBox", "").split()[2:])
    lines = root.findall("{*}polyline")
    assert len(lines) == 3
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        assert len(points) == 3
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_the_wire_to_a_guest_is_within_the_networks_of_benchmarks_and_another_for_each_process() -> None:
    """Two addresses of one network of four, whatever the process's number."""
    wires = [wire_of(pid) for pid in (1, 2, 32767, 32768, 4194304)]
    assert wires[0] == ("bench1", "198.18.0.5", "198.18.0.6")
    for wire in wires:
        here, there = (ip_interface(f"{address}/30") for address in (wire.host, wire.guest))
        assert here.network == there.network and here != there
        assert here.network.subnet_of(ip_network("198.18.0.0/15"))
        assert not {here.network.network_address, here.network.broadcast_address} & {here.ip, there.ip}
        assert len(wire.device) <= 15  # IFNAMSIZ
    assert len({wire.host for wire in wires[:4]}) == 4


@pytest.mark.parametrize("words", [("latency",), ("sampling", "--workload", "busy"), ("growth", "--sink", "redis")])
def test_what_the_guest_would_measure_wrongly_is_refused(words: tuple[str, ...]) -> None:
    """All that it does is counted there: a broker's work or a tenant's must not be."""
    done = benchmarks("--guest", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--guest: for sampling and growth, idle, to Kafka or a file" in done.stderr


def test_a_later_sample_that_says_the_same_again_is_the_same_but_for_its_time() -> None:
    """Told short or whole."""
    record = next(iter(EXAMPLES[m.STATS.type].values()))
    assert isinstance(record, m.ContainerStats)
    steady = m.Steady(record)
    time_ns = record.time_ms * 1_000_000
    again = m.Again(steady, record.id, record.seq, record.time, time_ns, record.observed_time_ms)
    short = stages._later(m.Message(m.STATS, "key", again, record.time_ms), ())
    whole = stages._later(m.Message(m.STATS, "key", record, record.time_ms), ())
    assert short._replace(record=short.whole) == whole._replace(record=whole.whole)
    assert short.time_ms == record.time_ms + 1000


def test_the_console_is_quiet_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However that ends; its level is then the one before. Without a console nothing is shown at any level."""
    printk, consoles = tmp_path / "printk", tmp_path / "consoles"
    printk.write_text("4\t4\t1\t7\n")
    consoles.write_text("ttyS0                -W- (EC  p a)    4:64\n")
    monkeypatch.setattr(console, "_PRINTK", printk)
    monkeypatch.setattr(console, "_CONSOLES", consoles)
    assert console.shows_kills()
    with contextlib.suppress(KeyboardInterrupt), console.quiet():
        assert (console.level(), console.shows_kills()) == (1, False)
        raise KeyboardInterrupt
    assert (console.level(), console.names()) == (4, ["ttyS0"])
    consoles.write_text("")
    assert not console.shows_kills()


@pytest.mark.live
def test_latency_waits_for_every_fact() -> None:
    """Made, removed and killed: all are acknowledged and arrive, at a file, and arrive at a client of /events. The console is left as it was."""
    before, level = cgroups(), console.level()
    quiet = [("oom, console quiet", "2")] if console.shows_kills() else []
    done = benchmarks("latency", "--to", "file", "events", "--containers", "3", "--lives", "5", "--alive", "500", "--kills", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for end in ("file, acknowledged", "file, in a reader's hands", "/events"):
        for what, count in (("created", "5"), ("deleted", "5"), ("oom", "2"), *quiet):
            ((arrived, least, *_, missing, _),) = rows(done.stdout, f"{what} → {end}")
            assert (arrived, missing) == (count, "0")
            assert float(least) > 0
    assert cgroups() <= before
    assert console.level() == level


@pytest.mark.live
def test_churn_is_told_whole_and_does_not_show_to_others() -> None:
    """Each of twenty lives is created and deleted once, or declared on a machine that is out of breath, and the judge is content."""
    before = cgroups()
    done = benchmarks("churn", "--rate", "10", "--seconds", "2", "--alive", "300", "--containers", "2", "--sinks", "file")
    assert done.returncode == 0, done.stdout + done.stderr
    ((lives, _, alive, created, deleted, _, gaps, complaints, *_),) = rows(done.stdout, "file")
    assert (lives, complaints) == ("20", "0")
    assert created == deleted == "20" or gaps != "0"
    assert float(alive.split(" / ")[0]) >= 300
    assert cgroups() <= before


@pytest.mark.live
def test_start_sees_every_sign_of_readiness() -> None:
    """An agent is ready by its own word, by /readyz and by what is in its file."""
    done = benchmarks("start", "--commands", "1", "--agents", "1", "--containers", "4", "--imports")
    assert done.returncode == 0, done.stdout + done.stderr
    ((notified, readyz, created),) = rows(done.stdout, "4 ")
    assert all(float(cell.split(" / ")[0]) > 0 for cell in (notified, readyz, created))
    assert rows(done.stdout, "streamer --help")
    (modules,) = re.findall(r"^(\d+) modules, ", done.stdout, re.MULTILINE)
    assert int(modules) > 200


@pytest.mark.live
def test_growth_samples_only_its_own_cgroups() -> None:
    """So many samples a second as there are containers, whatever else is on this host."""
    before = cgroups()
    done = benchmarks("growth", "--sizes", "4", "--warm-up", "1", "--seconds", "6", "--windows", "1")
    ((cost, _, one_more, floor, pace, _, _, descriptors, *_),) = rows(done.stdout, "4 ")
    assert float(cost.split(" / ")[0]) > 0
    assert re.fullmatch(r"-?\d+", one_more)
    assert float(floor) > 0
    assert float(pace) < 1.5
    assert int(descriptors) > 4
    assert cgroups() <= before


@pytest.mark.live
def test_soak_writes_its_report_and_picture(tmp_path: Path) -> None:
    """A short one, to a file that is emptied at each look: looks, report and picture lie in the folder, the file stays small."""
    before = cgroups()
    done = benchmarks(
        "soak", "--hours", "0.004", "--containers", "3", "--every", "2", "--sink", "file", "--out", str(tmp_path), "--workload", "idle"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    looks = [json.loads(line) for line in (tmp_path / "looks.jsonl").read_text().splitlines()]
    assert len(looks) >= 4
    assert looks[-1]["samples"] > looks[0]["samples"]
    assert all(look["rss"] > look["pss"] > 0 for look in looks)
    assert all(look["rss"] > look["anonymous"] > look["samples_bytes"] + look["events_bytes"] > 0 for look in looks)
    assert rows((tmp_path / "report-end.md").read_text(), "RSS MB")
    assert xml.etree.ElementTree.parse(tmp_path / "report-end.svg").getroot().findall("{*}polyline")
    again = benchmarks("soak", "--again", str(tmp_path / "looks.jsonl"), "--warm-up", "0")
    assert rows(again.stdout, "RSS MB"), again.stderr
    assert (tmp_path / "messages.jsonl").stat().st_size < 3 * 3000 * 6
    assert cgroups() <= before


@pytest.mark.live
def test_encode_tells_every_type_of_message_and_every_codec() -> None:
    """A run over a few messages has a row for each type, with its bytes, smaller when compressed together."""
    done = benchmarks("encode", "--messages", "30", "--batches", "30", "--repetitions", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    tables = [dict(cells_by_row(table)) for table in done.stdout.split("\n\n") if table.startswith("|")]
    kinds = {"stats, cgroup v2", "stats, cgroup v1", "lifecycle", "oom", "state", "control"}
    assert [set(table) for table in tables] == [kinds, kinds, {f"{kind}, 30 together" for kind in kinds}]
    values, packed, compressed = ({kind: float(cells[1]) for kind, cells in table.items()} for table in tables)
    for kind in kinds:
        assert values[kind] < packed[kind]  # key and headers beside it
        assert compressed[f"{kind}, 30 together"] < packed[kind]
    assert values["stats, cgroup v1"] < values["stats, cgroup v2"]


@pytest.mark.parametrize(
    ("contender", "topic", "key", "value", "named"),
    [
        ("streamer", "streamer.container.stats", b"c1", b"{}", ["c1"]),
        ("streamer", "streamer.container.lifecycle", b"c1", b"{}", []),
        ("cadvisor", "cadvisor", None, b'{"container_Name": "web", "container_Id": "c1", "container_stats": {}}', ["c1"]),
        ("cadvisor", "cadvisor", None, b'{"container_Name": "/made/c1", "container_stats": {}}', ["/made/c1"]),
        ("telegraf", "telegraf", b"h", b"docker_container_mem,container_image=i,container_name=web,host=h usage=1i 2\n", ["web"]),
        ("telegraf", "telegraf", b"h", b"docker_container_cpu,container_image=i,container_name=web,host=h usage=1i 2\n", []),
        ("otelcol", "otelcol", None, b"\x0a\x0ccontainer.id\x12\x42\x0a\x40" + ID + b"sha256:" + b"ab" * 32, [ID.decode()]),
        ("otelcol", "otelcol", None, b"\x12\x42\x0a\x40" + ID + b"\x0a\x0ccontainer.id" + b"ab" * 32, [ID.decode()]),
    ],
)
def test_a_contender_is_credited_with_each_sample_once(
    contender: str, topic: str, key: bytes | None, value: bytes, named: list[str]
) -> None:
    """What a record holds a sample of is told by whoever made it; of several records about one sample only one counts."""
    assert list(CONTENDERS[contender].sampled(topic, key, value)) == named


def test_who_asks_docker_only_does_not_take_part_without() -> None:
    """Telegraf's and the Collector's inputs are Docker's: with raw cgroups they are refused."""
    done = benchmarks("peers", "--telegraf", "/bin/true")
    assert done.returncode == 2
    assert "telegraf: only with --docker" in done.stderr


@pytest.mark.live
def test_peers_finds_the_agents_samples_in_kafka() -> None:
    """A run without a peer over a few cgroups credits the agent with each of them, and leaves none behind."""
    before = cgroups()
    done = benchmarks("peers", "--containers", "5", "--seconds", "3", "--warm-up", "1", "--repetitions", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    costs = dict(cells_by_row(done.stdout))["streamer"]
    assert float(costs[4].split(" / ")[1]) > 0
    assert costs[5] == "5"
    assert cgroups() <= before


@pytest.mark.live
def test_sampling_reads_docker_containers() -> None:
    """With `--docker` the C loop and the agent read the same containers' files, and their network's."""
    done = benchmarks(
        *("sampling", "--docker", "--containers", "3", "--seconds", "8", "--warm-up", "1", "--repetitions", "1"),
        *("--sink", "file", "--http", "off"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 idle Docker containers" in done.stdout
    assert re.search(r"files per container: .*net/dev\.", done.stdout)
    assert "it also reads what the C loop does not" not in done.stdout


@pytest.mark.live
def test_fleet_reads_back_what_many_hosts_sent() -> None:
    """A run over a few hosts finds every message again, at both brokers, and `verify` agrees (or the run fails)."""
    done = benchmarks("fleet", "--hosts", "3", "--containers", "4", "--seconds", "2", "--repetitions", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(cells_by_row(done.stdout))
    assert found["kafka"][0] == found["redis"][0] == str(3 * 4 * (1 + 2))  # each container's beginning and its samples
