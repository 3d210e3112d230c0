"""The judge of JSON trees: what it lets pass, and that it lets nothing else pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.compare.tree import Walk, align, seconds_of


def sample(second: int, **changes: Any) -> dict[str, Any]:
    """A sample of a container that uses 100 ms of CPU a second."""
    return {
        "timestamp": f"2026-01-02T03:04:{second:02d}.5Z",
        "cpu": {
            "usage": {"total": 1_000_000_000 + second * 100_000_000, "user": 900_000_000 + second * 90_000_000, "system": 0},
            "psi": {"full": {"total": 7, "avg10": 0.25}},
        },
        "memory": {"usage": 100 << 20, "failcnt": 3, "container_data": {"pgfault": 10_000 + second}},
        "network": {"name": "eth0", "interfaces": [{"name": "eth0", "rx_bytes": 500 * second, "tx_errors": 0}]},
        "filesystem": [{"device": "/dev/a", "type": "vfs", "capacity": 1 << 40, "usage": 1 << 30, "has_inodes": True}],
        "health": {"status": "healthy"},
        **changes,
    }


def container(*seconds: int) -> dict[str, Any]:
    """A container with samples at these seconds."""
    return {
        "name": "/docker/a",
        "aliases": ["web", "a"],
        "subcontainers": [{"name": "/docker/a/x"}, {"name": "/docker/a/y"}],
        "spec": {
            "creation_time": "2026-01-02T03:00:00.123456789Z",
            "start_time": "0001-01-01T00:00:00Z",
            "labels": {"team": "shop"},
            "has_cpu": True,
            "cpu": {"limit": 1024},
            "memory": {"limit": 18446744073709551615},
        },
        "stats": [sample(second) for second in seconds],
    }


def differences(ours: Any, theirs: Any, path: str = "Container") -> list[tuple[str, str]]:
    return [(found.path, found.kind) for found in Walk().compare(path, ours, theirs)]


def test_the_same_container_sampled_at_other_times_is_the_same() -> None:
    """Counters that lie between theirs, names in another order, a creation time a little off."""
    ours = container(*range(1, 30))
    for second in ours["stats"]:
        second["timestamp"] = second["timestamp"].replace(".5Z", ".91234Z")
    ours["subcontainers"].reverse()
    ours["spec"]["creation_time"] = "2026-01-02T03:00:01Z"
    assert differences(ours, container(*range(2, 32, 2))) == []


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values of a tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from leaves(below, (*place, key))
    if not isinstance(value, dict | list):
        yield place


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


EVERY_LEAF = [place for place in leaves(container(*range(9))) if place[0] != "stats" or place[1] == 4]


def wrong(value: Any) -> Any:
    """Another value of the same type, far off."""
    match value:
        case bool():
            return not value
        case str() if value.endswith("Z"):
            return "2025-01-01T00:00:00Z"
        case str():
            return f"{value}?"
        case _:
            return value * 3 + 10_000_000_000


@pytest.mark.parametrize("place", EVERY_LEAF, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("how", ["missing", "more", "of another type", "wrong"])
def test_nothing_that_is_wrong_passes(place: tuple[Any, ...], how: str) -> None:
    """Each single value, taken away, doubled, retyped or changed, is a difference."""
    ours = container(*range(5))  # the last one lies between two of theirs
    target, key = at(ours, place[:-1]), place[-1]
    if how == "missing":
        del target[key]
    elif how == "more" and isinstance(target, dict):
        target[f"{key}_more"] = target[key]
    elif how == "more":
        target.append(target[key])
    elif how == "of another type":
        target[key] = {"value": target[key]}
    else:
        target[key] = wrong(target[key])
    assert differences(ours, container(*range(9))) != []


@pytest.mark.parametrize(
    ("total", "passes"),
    [(1_400_000_000, True), (1_499_000_000, True), (1_300_000_000, True), (1_299_999_999, False), (1_600_000_001, False)],
)
def test_a_counter_lies_between_their_samples_with_one_interval_to_spare(total: int, passes: bool) -> None:
    """Ours is of second 4; theirs are of 3, 4, 5 and 6."""
    ours = container(4)
    ours["stats"][0]["cpu"]["usage"]["total"] = total
    found = differences(ours, container(*range(9)))
    assert found == ([] if passes else [("Container.stats[].cpu.usage.total", "value")])


def test_types_are_those_that_go_can_read() -> None:
    """A whole number with a point is none; a fraction may be whole; null, absent, {} and [] are four things."""
    assert differences({"a": 1.0}, {"a": 1}) == [("Container.a", "type")]
    assert differences(True, 1) == [("Container", "type")]
    assert differences({"psi": {"some": {"avg10": 0}}}, {"psi": {"some": {"avg10": 0.5}}}, "X.cpu") == []
    assert differences({"a": None, "b": {}, "c": None}, {"a": {}, "b": [], "d": None}) == [
        ("Container.a", "type"), ("Container.b", "type"), ("Container.d", "only theirs"), ("Container.c", "only ours"),
    ]  # fmt: skip


def test_large_numbers_are_not_rounded() -> None:
    """2^64-1 is not 2^64-2."""
    assert differences({"limit": (1 << 64) - 1}, {"limit": (1 << 64) - 2}) == [("Container.limit", "value")]


def test_lists_with_an_order_and_without() -> None:
    """Aliases have one, subcontainers do not; both must be whole."""
    ours, theirs = container(1, 2), container(1, 2)
    ours["aliases"].reverse()
    ours["subcontainers"] = [{"name": "/docker/a/z"}, {"name": "/docker/a/x"}]
    assert differences(ours, theirs) == [
        ("Container.aliases[]", "value"), ("Container.aliases[]", "value"),
        ("Container.subcontainers[]", "only theirs"), ("Container.subcontainers[]", "only ours"),
    ]  # fmt: skip
    ours, theirs = container(1, 2), container(1, 2)
    ours["subcontainers"].append(ours["subcontainers"][0])
    assert differences(ours, theirs) == [("Container.subcontainers", "length")]


def test_a_map_of_containers_tells_which_one() -> None:
    """The path is that of any container; the example says whose."""
    ours, theirs = {"/a": container(1, 2, 3)}, {"/a": container(1, 2, 3), "/b": container(1)}
    ours["/a"]["spec"]["cpu"]["limit"] = 2
    found = list(Walk().compare("ContainerByName", ours, theirs))
    assert [(one.path, one.kind, one.where) for one in found] == [
        ("Container.spec.cpu.limit", "value", "/a"),
        ("ContainerByName.*", "only theirs", "/b"),
    ]


def test_times_are_utc_and_known_or_not() -> None:
    """Another zone, ten digits of a second, a zero time instead of a known one."""
    for text in (
        "2026-01-02T04:00:00.123+01:00",
        "2026-01-02T03:00:00.1234567890Z",
        "0001-01-01T00:00:00Z",
        "2026-01-02 03:00:00Z",
    ):
        ours = container(1, 2)
        ours["spec"]["creation_time"] = text
        assert differences(ours, container(1, 2)) == [("Container.spec.creation_time", "value")]
    ours = container(1, 2)
    ours["spec"]["start_time"] = "2026-01-02T03:00:00Z"
    assert differences(ours, container(1, 2)) == [("Container.spec.start_time", "value")]
    theirs = container(1, 2)
    theirs["spec"]["creation_time"] = "2026-01-02T04:00:00.123456789+01:00"
    assert differences(container(1, 2), theirs) == []


def test_old_samples_and_none() -> None:
    """Samples of ten seconds ago are late, whatever they say; none are not as many as some."""
    ours = container(*range(1, 20))
    assert ("Container.stats", "late") in differences(ours, container(*range(1, 30)))
    ours["stats"] = []
    assert differences(ours, container(1, 2)) == [("Container.stats", "length")]


def test_a_sample_is_put_between_its_neighbours() -> None:
    """The newest that lies between two of theirs, with two on either side where there are."""
    ours = [{"timestamp": f"2026-01-02T03:04:{second:02d}Z"} for second in (5, 8, 12)]
    theirs = [{"timestamp": f"2026-01-02T03:04:{second:02d}Z", "n": second} for second in (1, 4, 7, 9, 11)]
    chosen, seen = align(ours, theirs)
    assert chosen is ours[1]
    assert ([other["n"] for other in seen.around], seen.split, seen.near["n"]) == ([4, 7, 9, 11], 2, 7)
    chosen, seen = align(ours[2:], theirs)
    assert (chosen, seen.around, seen.near["n"]) == (ours[2], [], 11)


def test_what_came_in_between_is_not_judged_by_what_was_before() -> None:
    """An interface that was not there in each of their samples has no bounds; its type counts all the same."""
    theirs = container(*range(9))
    theirs["stats"][5]["network"]["interfaces"] = []
    ours = container(4)
    ours["stats"][0]["network"]["interfaces"][0]["rx_bytes"] = 10**9
    assert differences(ours, theirs) == []
    ours["stats"][0]["network"]["interfaces"][0]["rx_bytes"] = "many"
    assert differences(ours, theirs) == [("Container.stats[].network.interfaces[].rx_bytes", "type")]


def test_nothing_compared_is_changed() -> None:
    """Both trees stay as they are."""
    ours, theirs = container(*range(9)), container(*range(9))
    before = copy.deepcopy((ours, theirs))
    assert differences(ours, theirs) == []
    assert (ours, theirs) == before


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.500000001Z", 1.5),
        ("1970-01-01T01:00:00.25+01:00", 0.25),
    ],
)
def test_seconds(text: str, seconds: float) -> None:
    """Zones and any number of digits."""
    assert seconds_of(text) == seconds


def test_a_difference_says_whose_it_is() -> None:
    """By the container's own name, or the key that it has in a map."""
    ours, theirs = [container(1, 2)], [container(1, 2)]
    ours[0]["spec"]["cpu"]["limit"] = 2
    assert [one.whose for one in Walk().compare("Containers", ours, theirs)] == ["/docker/a"]
    mine, other = {"/b": {"has_cpu": True}}, {"/b": {"has_cpu": False}}
    assert [one.whose for one in Walk().compare("SpecV2ByName", mine, other)] == ["/b"]


def test_the_first_interface_may_be_another_one() -> None:
    """Its counters, which stand for the whole network, are held against those of the same name."""
    theirs = container(*range(9))
    for second in theirs["stats"]:
        mirror = {"name": "ifb0", "rx_bytes": 0, "tx_errors": 0}
        second["network"] = {**mirror, "interfaces": [mirror, {**second["network"]["interfaces"][0]}]}
    ours = container(*range(5))
    ours["stats"][-1]["network"].update(rx_bytes=500 * 4, tx_errors=0)
    expected = [("Container.stats[].network.name", "value"), ("Container.stats[].network.interfaces[]", "only theirs")]
    assert sorted(differences(ours, theirs)) == sorted(expected)
    ours["stats"][-1]["network"]["rx_bytes"] = 0
    assert ("Container.stats[].network.rx_bytes", "value") in differences(ours, theirs)


def test_file_systems_are_compared_between_the_newest_samples() -> None:
    """However the samples are aligned; ours has them in the newest only."""
    ours, theirs = container(*range(5)), container(*range(9))
    for second in ours["stats"][:-1]:
        del second["filesystem"]
    assert differences(ours, theirs) == []
    ours["stats"][-1]["filesystem"][0]["capacity"] += 1
    assert differences(ours, theirs) == [("Container.stats[].filesystem[].capacity", "value")]
    del ours["stats"][-1]["filesystem"]
    assert differences(ours, theirs) == [("Container.stats[].filesystem", "only theirs")]
