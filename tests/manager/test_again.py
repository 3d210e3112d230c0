"""A sample that says nothing new is told as the one before, again: nobody who is told may see a difference."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Host, Now
from streamer.memory import Memory
from streamer.model.messages import Again, Message
from streamer.model.observations import Appeared, Described, Sampled
from streamer.model.spec import ContainerSpec
from streamer.model.stats import INDEX, STATS, FilesystemUsage, IoDevice, NetworkInterface, Sample
from streamer.model.wire import encode

SECOND_NS: Final = 1_000_000_000
START_NS: Final = 1_763_971_200 * SECOND_NS
PATH: Final = f"/docker/{'ab' * 32}"

VALUES: Final = [
    tuple([0 if stat.name == "memory_oom_kills" else number + place for place, stat in enumerate(STATS)])
    for number in (1000, 2000, 2000, 500)
]
"""Those in the middle are equal and not the same; the last steps back."""
INTERFACES: Final = [(), (NetworkInterface("eth0", *range(8)),), (NetworkInterface("eth0", *range(1, 9)),)]
DEVICES: Final = [(), (IoDevice(8, 0, 1, 2, 3, 4),)]
FILESYSTEMS: Final = [(), (FilesystemUsage(device="/dev/sda", capacity_bytes=9, usage_bytes=5),)]

some_text = st.text(st.characters(exclude_characters="\0"), max_size=8)
"""With quotes, percent signs and lone surrogates."""

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("sample"),
            st.integers(-3, 90),  # seconds since the last: the clock may be set back
            st.sampled_from(VALUES),
            st.sampled_from(INTERFACES),
            st.sampled_from(DEVICES),
            st.sampled_from([FILESYSTEMS[0], FILESYSTEMS[0], FILESYSTEMS[1]]),
        ),
        st.tuples(st.just("same"), st.integers(1, 40)),
        st.tuples(st.just("named"), some_text),
        st.just(("asked",)),
    ),
    max_size=30,
)


def told(fleet: Fleet, path: list[Any], now_ns: int) -> list[Message]:
    """What follows from one of `steps` but those that ask."""
    now = Now(now_ns, now_ns)
    if path[0] == "named":
        names = Described(
            runtime="docker", container_id=PATH[8:], time_ns=now_ns, name=path[1], image="i", labels={path[1]: path[1]}
        )  # fmt: skip
        return fleet.observe(names, now) + fleet.tick(now._replace(monotonic_ns=now_ns + SECOND_NS))
    return fleet.sampled([Sampled(PATH, 7, Sample(now_ns, *path[2:]))], now)


def known(memory: Memory) -> list[Any]:
    """All that is told of the container."""
    return [
        (c.latest_json, c.looks, c.samples.newest(), c.samples.newest(thin=True), c.sample_count, c.summary.derived(), c.filesystems, c.newest)
        for c in memory.containers()
    ]  # fmt: skip


@given(steps, st.sampled_from(["binary", "structured"]), st.integers(0, 20))
def test_nobody_sees_a_difference(course: list[Any], envelope: Any, late: int) -> None:
    """The bytes are those of the whole record; a memory knows the same, also one that joins late or is asked in between."""
    fleet = Fleet(Host('h"%d\udcff', "0" * 32, "boot", 1, "0"), docker=False)
    shortened, whole = Memory(16), Memory(16)
    now_ns, last = START_NS, None
    said = fleet.observe(Appeared(PATH, "unified", 7, now_ns, "live", ContainerSpec()), Now(now_ns, now_ns))
    for step in course:
        if step[0] == "asked":
            assert known(shortened) == known(whole)
        elif step[0] == "same":
            for _ in range(step[1] if last else 0):
                now_ns += SECOND_NS
                said += told(fleet, last, now_ns)
        else:
            last = step if step[0] == "sample" else last
            now_ns += step[1] * SECOND_NS if step[0] == "sample" else 1
            said += told(fleet, step, now_ns)
        for position, message in enumerate(said, shortened.position + 1):
            made = message._replace(record=message.whole)
            entry = encode(message, position, 0, envelope)
            assert entry == encode(made, position, 0, envelope)
            if position > late:
                shortened.remember(message, entry)
                whole.remember(made, entry)
            else:
                shortened.position = position
        said = []
    assert known(shortened) == known(whole)
    assert shortened.streams == whole.streams
    assert shortened.ignored == whole.ignored


def test_what_changes_is_told_whole() -> None:
    """Another number, interface, device, name or measured file system; what stays is not made anew."""
    fleet = Fleet(Host("web-3", "0" * 32, "boot", 1, "0"), docker=False)
    fleet.observe(Appeared(PATH, "unified", 7, START_NS, "live", ContainerSpec()), Now(START_NS, START_NS))
    now_ns, kinds = START_NS, []
    usual = ["sample", 0, VALUES[0], INTERFACES[1], DEVICES[1], ()]
    changed = [
        [*usual[:place], other, *usual[place + 1 :]] for place, other in ((2, VALUES[1]), (3, INTERFACES[2]), (4, DEVICES[0]))
    ]
    measured = [*usual[:5], FILESYSTEMS[1]]
    for step in (usual, usual, *changed, usual, usual, measured, usual, usual, ["named", "web"], usual, usual):
        now_ns += SECOND_NS
        kinds += [type(message.record) is Again for message in told(fleet, step, now_ns) if message.topic.short == "stats"]
    assert kinds == [False, True, False, False, False, False, True, False, False, True, False, True]


def test_a_column_that_steps_back_is_held_in_what_is_told_again() -> None:
    """Counters never run backwards; the gauges beside them do."""
    fleet = Fleet(Host("web-3", "0" * 32, "boot", 1, "0"), docker=False)
    fleet.observe(Appeared(PATH, "unified", 7, START_NS, "live", ContainerSpec()), Now(START_NS, START_NS))
    records: list[Any] = []
    for number, values in enumerate((VALUES[1], VALUES[3], VALUES[3]), 1):
        step = ["sample", 0, values, (), (), ()]
        records += [message.whole for message in told(fleet, step, START_NS + number * SECOND_NS)]
    first, second, third = records
    assert second.cpu_usage_ns == third.cpu_usage_ns == first.cpu_usage_ns == VALUES[1][INDEX["cpu_usage_ns"]]
    assert third.memory_usage_bytes == VALUES[3][INDEX["memory_usage_bytes"]] < first.memory_usage_bytes
    assert (third.seq, third.time_ms) == (3, first.time_ms + 2000)
    assert (
        structs.replace(third, **{name: getattr(second, name) for name in ("id", "seq", "time", "time_ms", "observed_time_ms")})
        == second
    )
