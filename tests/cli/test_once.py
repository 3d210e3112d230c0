"""`streamer once`: the table people read, and the messages machines read."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest

from streamer.cli import once, text
from streamer.cli.text import Column, Screen, age, clean, size, table
from streamer.config import Settings
from streamer.model import messages as m
from streamer.model.examples import EXAMPLES
from streamer.model.messages import Message
from streamer.model.spec import ContainerSpec

CREATED = EXAMPLES["container.lifecycle"]["container.lifecycle"]
UPDATED = EXAMPLES["container.lifecycle"]["container.lifecycle.updated"]
STATS = EXAMPLES["container.stats"]["container.stats"]
WIDE = Screen(200, colours=False, unicode=True)


def message(record: m.Record, **changed: Any) -> Message:
    topic = next(topic for topic in m.TOPICS if topic.type == record.type)
    return Message(topic, "key", msgspec.structs.replace(record, **changed), record.time_ms)


def seen() -> list[Message]:
    """Two containers: the web server of the examples, and a raw cgroup without limit, name, network or start time."""
    raw: dict[str, Any] = {
        "incarnation": "b",
        "container_id": "/job",
        "name": "/job",
        "cgroup_path": "/job",
        "runtime": "raw",
        "image": msgspec.UNSET,
    }
    return [
        message(CREATED),
        message(CREATED, **raw, spec=ContainerSpec(memory_limit_bytes=0), started_at=msgspec.UNSET, created_at=msgspec.UNSET),
        message(STATS),
        message(
            STATS, **raw, memory_working_set_bytes=msgspec.UNSET, memory_usage_bytes=524_288_000, network_rx_bytes=msgspec.UNSET,
            network_tx_bytes=msgspec.UNSET, processes=1,
        ),
    ]  # fmt: skip


RATES = {CREATED.incarnation: (0.125, 2048.0, 1536.0), "b": (2.0, 0.0, 0.0)}  # type: ignore[attr-defined]


def test_the_table_says_what_is_known() -> None:
    """One row per container, the largest first; what is not known is a dash."""
    lines = once.page(once.rows(seen(), RATES), "memory", Settings(), WIDE).splitlines()
    assert " ".join(lines[0].split()) == "NAME RUNTIME IMAGE CPU % MEMORY LIMIT USED PROCS NET RX/s NET TX/s AGE ID"
    assert " ".join(lines[1].split()) == "/job raw - 200.0 500M - - 1 - - - -"
    assert " ".join(lines[2].split()) == "shop-web-1 docker nginx:1.29 12.5 137M 256M ███░░░ 53% 5 2.0K 1.5K 0s 4f6b1d0c9a2e"
    assert lines[3] == "2 containers, 212.5 % of one CPU, 637M of memory"


def test_the_sum_counts_nothing_twice() -> None:
    """A cgroup's numbers include those of the cgroups below it; the root includes all."""
    inner = {"name": "/job/a", "container_id": "/job/a", "cgroup_path": "/job/a", "incarnation": "c"}
    nested = [*seen(), message(CREATED, **inner), message(STATS, **inner)]
    assert (
        once.page(once.rows(nested, RATES), "memory", Settings(), WIDE).splitlines()[-1]
        == "3 containers, 212.5 % of one CPU, 637M of memory"
    )
    root = {"name": "/", "container_id": "/", "cgroup_path": "/", "incarnation": "d"}
    nested += [message(CREATED, **root), message(STATS, **root)]
    assert (
        once.page(once.rows(nested, RATES), "memory", Settings(), WIDE).splitlines()[-1]
        == "4 containers, 0.0 % of one CPU, 137M of memory"
    )


def test_a_column_of_which_nothing_is_known_is_left_out() -> None:
    """On a host of raw cgroups there are no images to show."""
    raw = [each for each in seen() if each.record is not None and each.record.incarnation == "b"]  # type: ignore[attr-defined]
    heading = once.page(once.rows(raw, RATES), "memory", Settings(), WIDE).splitlines()[0]
    assert heading.split() == ["NAME", "RUNTIME", "CPU", "%", "MEMORY", "PROCS"]


def test_the_last_word_on_a_container_counts() -> None:
    """Details that arrive after `created` are shown; who is deleted is not."""
    later = [*seen(), message(UPDATED, name="renamed"), message(CREATED, incarnation="b", event="deleted")]
    assert [row.name for row in once.rows(later, RATES)] == ["renamed"]


@pytest.mark.parametrize(("order", "first"), [("memory", "/job"), ("cpu", "/job"), ("name", "/job")])
def test_orders(order: str, first: str) -> None:
    """By memory, CPU or name."""
    assert once.page(once.rows(seen(), RATES), order, Settings(), WIDE).splitlines()[1].startswith(first)
    swapped = {key: (-cpu, *rest) for key, (cpu, *rest) in RATES.items()}
    if order == "cpu":
        assert once.page(once.rows(seen(), swapped), order, Settings(), WIDE).splitlines()[1].startswith("shop")  # type: ignore[arg-type]


@pytest.mark.parametrize("width", range(36, 130))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Columns go in order of their rank, long names are cut off with an ellipsis; name, CPU and memory stay."""
    long = [*seen(), message(CREATED, incarnation="c", name="a-very-long-name" * 9, image="registry/with/a/long/path:tag" * 3)]
    shown = once.page(once.rows(long, RATES), "memory", Settings(), Screen(width, colours=False, unicode=True)).splitlines()[:-1]
    assert max(map(len, shown)) <= width
    assert {"NAME", "CPU", "MEMORY"} <= set(shown[0].split())
    assert any("…" in line for line in shown)


def test_no_containers_is_an_honest_answer() -> None:
    """What was looked at and what to try."""
    told = once.page([], "memory", Settings(host_root="/host"), WIDE)
    assert "No containers" in told and "/host/sys/fs/cgroup" in told and "--scope all" in told and "streamer check" in told
    assert "--scope all" not in once.page([], "memory", Settings(scope="all"), WIDE)


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters and undecodable bytes of names are shown as question marks."""
    rows = once.rows([message(CREATED, name="a\x1b[31m\nb\udcff")], {})
    assert rows[0].name == "a?[31m?b?"
    assert clean("grün 中") == "grün 中"


def test_lines_of_json_are_the_records() -> None:
    """Created and stats in order, one value a line, tombstones left out."""
    tombstone = Message(m.STATE, "key", None, 0)
    lines = once.json_lines([message(CREATED), tombstone, message(STATS)]).splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["container.lifecycle", "container.stats"]
    assert msgspec.json.decode(lines[1], type=m.ContainerStats) == STATS
    assert once.json_lines([]) == b""


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal without NO_COLOR; a pipe gets neither colours nor a width."""

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen.of(Terminal()) == Screen(77, colours=True, unicode=True)
    assert "\x1b[1m" in once.page(once.rows(seen(), RATES), "memory", Settings(), Screen.of(Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of(Terminal()).colours
    assert Screen.of(io.StringIO()) == Screen(10_000, colours=False, unicode=False)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1023, "1.0K"),
        (1024, "1.0K"),
        (104_857_600, "100M"),
        (12_897_485, "12.3M"),
        (1.5 * 2**30, "1.5G"),
        (2**70, "1048576P"),
    ],
)
def test_sizes(number: float, told: str) -> None:
    """Binary units, about three digits."""
    assert size(number) == told


@pytest.mark.parametrize(("seconds", "told"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3660, "1h1m"), (90_000, "1d1h")])
def test_ages(seconds: float, told: str) -> None:
    """The two leading units."""
    assert age(seconds) == told


def test_a_table_of_nothing_is_its_heading() -> None:
    """And bars never leave their width."""
    assert table([Column("A"), Column("B")], [], WIDE) == "A  B\n"
    assert text.Screen(80, colours=False, unicode=False).bar(7.0) == "######" and WIDE.bar(-1) == "░░░░░░"
    assert Screen(80, colours=False, unicode=False).cut("abcdefgh", 6) == "abc..."
    assert WIDE.cut("/a/long/path", 6) == "…/path" and WIDE.cut("/abc", 1) == "…"
