"""The manager's operations: which containers are meant, which samples are told, and how each fails."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from streamer.cadvisor import EventRequest, InfoRequest, NotFound, Operations, RequestFailed, RequestOptions
from streamer.cadvisor.tree import Tree, canonical
from streamer.clock import SystemClock
from streamer.memory import Memory
from streamer.model import messages as m
from streamer.model.spec import ContainerSpec
from tests.cadvisor.conftest import POD, WEB, WEBBER, House, raw
from tests.support.said import Teller

ALL = InfoRequest(-1)


def paths(containers: Sequence[object]) -> list[str]:
    return [container.name for container in containers]  # type: ignore[attr-defined]


# which


async def test_a_container_by_its_path(house: House) -> None:
    """A raw cgroup has no id, no aliases, no namespace; names are cleaned as paths are."""
    info = await house.operations.container_info("lab//one/")
    assert (info.name, info.id, info.aliases, info.namespace) == ("/lab/one", "", [], "")
    assert paths(info.subcontainers) == ["/lab/one/inner"]
    web = await house.operations.container_info(f"/docker/x/../{WEB}")
    assert (web.id, web.aliases, web.namespace) == (WEB, ["web", WEB], "docker")
    pod = await house.operations.container_info(f"/kubepods/pod1/{POD}")
    assert (pod.aliases, pod.namespace) == (["web", POD], "containerd")


async def test_folders_answer_with_what_is_below_them(house: House) -> None:
    """Nobody watches them under scope `containers`: a spec of nothing, no samples."""
    root = await house.operations.container_info("/")
    assert paths(root.subcontainers) == ["/docker", "/kubepods", "/lab", "/lab-two"]
    assert (root.stats, root.spec.has_cpu, root.spec.has_memory) == ([], False, False)
    assert paths((await house.operations.container_info("/lab")).subcontainers) == ["/lab/one"]
    empty = Operations(Memory(samples=3), SystemClock())
    assert (await empty.container_info("/")).name == "/"
    assert await empty.all_docker_containers() == {}


async def test_subcontainers_are_matched_by_whole_components(house: House) -> None:
    """/lab is not the beginning of /lab-two; the container itself comes first."""
    assert paths(await house.operations.subcontainers_info("/lab")) == ["/lab", "/lab/one", "/lab/one/inner"]
    assert paths(await house.operations.subcontainers_info("/lab-two")) == ["/lab-two"]
    everything = paths(await house.operations.subcontainers_info("/"))
    assert everything[0] == "/" and len(everything) == len(set(everything)) == 11


async def test_docker_containers_by_name_id_or_beginning(house: House) -> None:
    """An exact name wins over being the beginning of another one's; other runtimes are not asked."""
    find = house.operations.docker_container
    assert [(await find(text)).id for text in ("web", "/web", WEB, WEB[:5])] == [WEB] * 4
    assert [(await find(text)).id for text in ("webb", WEBBER, WEBBER[:5])] == [WEBBER] * 3
    assert set(await house.operations.all_docker_containers()) == {f"/docker/{WEB}", f"/docker/{WEBBER}"}


async def test_a_new_run_counts_before_the_end_of_the_old_one_is_told(house: House) -> None:
    """The end waits for Docker's word; both have one path and one name."""
    house.tell.created(WEB, run=0, name="web", aliases=["web"], cgroup_path=f"/docker/{WEB}", image="new")
    assert (await house.operations.docker_container("web")).spec.image == "new"
    assert (await house.operations.container_info(f"/docker/{WEB}")).spec.image == "new"
    assert len(await house.operations.all_docker_containers()) == 2


async def test_what_ended_is_not_there(house: House) -> None:
    """Its folder goes with the last one in it."""
    house.tell.deleted("/lab-two", **raw("/lab-two"))
    with pytest.raises(NotFound, match=r'^unknown container "/lab-two"$'):
        await house.operations.container_info("/lab-two")
    house.tell.deleted(POD, name="web", runtime="containerd", cgroup_path=f"/kubepods/pod1/{POD}")
    assert paths((await house.operations.container_info("/")).subcontainers) == ["/docker", "/lab"]


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda o: o.container_info("/nope"), 'unknown container "/nope"'),
        (lambda o: o.container_info("/la"), 'unknown container "/la"'),
        (lambda o: o.container_info("/", InfoRequest(-2)), "invalid 'num_stats': only -1 and larger values allowed, not -2"),
        (lambda o: o.subcontainers_info("/nope"), "no containers found"),
        (lambda o: o.docker_container("nope"), 'unable to find container "nope" in "docker" namespace'),
        (lambda o: o.docker_container("we"), 'unable to find container in "docker" namespace. Container "we" is not unique'),
        (lambda o: o.docker_container(POD), f'unable to find container "{POD}" in "docker" namespace'),
        (lambda o: o.requested_containers("/nope"), 'unknown container "/nope"'),
        (lambda o: o.requested_containers("nope", RequestOptions(recursive=True)), 'unknown container: "/nope"'),
        (lambda o: o.requested_containers("x", RequestOptions("docker", recursive=True)), 'invalid request for docker container "/x" with subcontainers'),
        (lambda o: o.requested_containers("web", RequestOptions("podman")), 'unable to find container "web" in "podman" namespace'),
        (lambda o: o.requested_containers("/", RequestOptions("x")), 'invalid request type "x"'),
        (lambda o: o.requested_containers_v2("/", RequestOptions(count=-2)), "invalid 'count' option: only -1 and larger values allowed, not -2"),
        (lambda o: o.container_spec("/nope"), 'unknown container "/nope"'),
        (lambda o: o.derived_stats("/lab"), 'derived stats not enabled for container "/lab"'),
        (lambda o: o.fs_info(), "unable to find data in memory cache: no file system was measured yet; scope = all measures them"),
        (lambda o: o.process_list("/lab/one"), "processes are not listed here"),
        (lambda o: o.past_events(EventRequest(max_events=-2)), "invalid 'max_events' option: only -1 and larger values allowed, not -2"),
    ],
)  # fmt: skip
async def test_failures_by_cadvisors_words(house: House, ask: object, text: str) -> None:
    """To the letter where cAdvisor has one."""
    with pytest.raises(RequestFailed, match=f"^{re.escape(text)}$"):
        await ask(house.operations)  # type: ignore[operator]


async def test_requested_by_options(house: House) -> None:
    """By path, with what is below; by alias; all of a runtime."""
    ask = house.operations.requested_containers
    assert list(await ask("/lab", RequestOptions(recursive=True))) == ["/lab", "/lab/one", "/lab/one/inner"]
    assert list(await ask("web", RequestOptions("docker"))) == [f"/docker/{WEB}"]
    assert set(await ask("/", RequestOptions("docker", recursive=True))) == {f"/docker/{WEB}", f"/docker/{WEBBER}"}
    assert await ask("/", RequestOptions("podman", recursive=True)) == {}


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=6), max_size=20))
def test_the_tree_holds_every_path_and_every_folder_above(paths_: list[list[str]]) -> None:
    """Each once; `below` is those that begin with the path and a slash."""
    memory = Memory(samples=1)
    tell = Teller(memory)
    made = {"/" + "/".join(parts) for parts in paths_}
    for path in made:
        tell.say(m.LIFECYCLE, container_id=path, incarnation=path, **raw(path))
    tree = Tree(memory.containers())
    folders = {"/", *("/" + "/".join(parts[:end]) for parts in paths_ for end in range(1, len(parts) + 1))}
    assert sorted(tree.below("/")) == sorted(folders)
    for folder in folders:
        assert set(tree.below(folder)) == {p for p in folders if p == folder or p.startswith(folder.rstrip("/") + "/")}
        assert (tree.get(folder) is not None) == (folder in made)


@pytest.mark.parametrize(("name", "path"), [("", "/"), ("/", "/"), ("//a", "/a"), ("a/", "/a"), ("../a/./b//c/..", "/a/b")])
def test_names_are_cleaned(name: str, path: str) -> None:
    assert canonical(name) == path


# which samples


async def test_the_newest_samples_within_the_times_asked_for(house: House) -> None:
    """The oldest first; 0 is none, -1 all; both ends count."""
    for number in range(1, 6):
        house.sampled("/lab/one", cpu_usage_ns=number * 1000)

    async def told(**asked: object) -> list[int]:
        info = await house.operations.container_info("/lab/one", InfoRequest(**asked))  # type: ignore[arg-type]
        return [stat.cpu.usage.total // 1000 for stat in info.stats]

    assert await told(num_stats=-1) == await told() == [1, 2, 3, 4, 5]
    assert await told(num_stats=2) == [4, 5]
    assert await told(num_stats=0) == []
    all_times = [stat.timestamp for stat in (await house.operations.container_info("/lab/one")).stats]
    assert await told(start=all_times[1], end=all_times[3]) == [2, 3, 4]
    assert await told(num_stats=1, end=all_times[3]) == [4]
    assert await told(start=str(house.tell.now_ms // 1000 - 1)) == [4, 5]
    with pytest.raises(RequestFailed, match="invalid time"):
        await told(start="soon")


async def test_an_idle_container_is_told_of_with_few_samples(house: House) -> None:
    """As cAdvisor looks at it ever less often; the newest is always there."""
    for _ in range(50):
        house.sampled("/lab/one")
    info = await house.operations.container_info("/lab/one")
    assert 2 <= len(info.stats) < 10
    assert info.stats[-1].timestamp.startswith("2025-11-24T09:20:50")


# limits and who it is


async def test_no_memory_limit_is_told_as_the_machines_capacity(house: House) -> None:
    """What people compare usage with; the soft limit and swap are left out when there are none."""
    house.raw("/free", spec=ContainerSpec(memory_limit_bytes=0, memory_swap_limit_bytes=0, memory_reservation_bytes=0))
    capacity = (await house.operations.machine_info()).memory_capacity
    info = await house.operations.container_info("/free")
    assert (info.spec.memory.limit, info.spec.memory.swap_limit, info.spec.memory.reservation) == (capacity, 0, 0)
    assert (await house.operations.container_info("/lab/one")).spec.memory.limit == 268_435_456


async def test_a_spec_says_what_its_samples_have(house: House) -> None:
    """Before the first sample the limits tell; then the sample."""
    before = (await house.operations.container_info("/lab/one")).spec
    assert (before.has_cpu, before.has_memory, before.has_network, before.has_diskio) == (True, True, False, False)
    house.sampled("/lab/one", network_rx_bytes=UNSET, memory_usage_bytes=UNSET)
    after = (await house.operations.container_info("/lab/one")).spec
    assert (after.has_cpu, after.has_memory, after.has_network, after.has_diskio) == (True, False, False, True)
    assert (await house.operations.container_spec("/lab/one"))["/lab/one"].cpu.quota == 0
    assert after.cpu.quota == 50_000
    house.sampled("/lab/one", cpu_usage_ns=UNSET)  # in the hierarchy of the shares, and not in that of the usage
    assert (await house.operations.container_info("/lab/one")).spec.has_cpu


async def test_when_it_was_made_and_started(house: House) -> None:
    """By the runtime's word; a raw cgroup since when it was seen; the zero time where nobody knows."""
    web = (await house.operations.docker_container("web")).spec
    assert (web.creation_time, web.start_time) == ("2025-11-24T09:15:03.902114873Z", "2025-11-24T09:15:04.241190027Z")
    house.raw("/seen", created_at=UNSET, started_at=UNSET)
    unknown = (await house.operations.container_info("/seen")).spec
    assert unknown.creation_time == unknown.start_time == "0001-01-01T00:00:00Z"
    house.tell.say(
        m.STATE, container_id="/seen", incarnation="boot./seen.1", since="2025-11-24T09:00:00.500000000Z", **raw("/seen")
    )
    seen = (await house.operations.container_info("/seen")).spec
    assert (seen.creation_time, seen.start_time) == ("2025-11-24T09:00:00.5Z", "0001-01-01T00:00:00Z")


async def test_derived_statistics(house: House) -> None:
    """Millicores and bytes of the working set, as memory's summary has them."""
    for number in range(4):
        house.sampled("/lab/one", cpu_usage_ns=number * 250_000_000, memory_working_set_bytes=1000 + number)
    derived = (await house.operations.derived_stats("/lab/one"))["/lab/one"]
    assert (derived.latest_usage.cpu, derived.latest_usage.memory) == (250, 1003)
    assert (derived.minute_usage.cpu.mean, derived.minute_usage.memory.max, derived.minute_usage.memory.count) == (250, 1003, 4)
    assert derived.timestamp == (await house.operations.container_info("/lab/one")).stats[-1].timestamp


# fresh samples


async def test_a_greatest_age_has_older_ones_sampled_first(house: House) -> None:
    """Only containers, not folders; not at all without an age."""
    asked: list[tuple[list[str], float]] = []

    async def freshen(which: Sequence[str], age_seconds: float) -> None:
        asked.append((list(which), age_seconds))

    operations = Operations(house.memory, SystemClock(), freshen=freshen)
    await operations.requested_containers("/lab", RequestOptions(recursive=True))
    await operations.requested_containers_v2("/lab", RequestOptions(recursive=True, max_age=0.0))
    await operations.machine_stats(RequestOptions(max_age=1.0))  # nobody watches the root here
    assert asked == [(["/lab/one", "/lab/one/inner"], 0.0)]
