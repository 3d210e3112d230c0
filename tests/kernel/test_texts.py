"""Files that need not be read while another stands still: nobody may see a difference for longer than one look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.kernel.plan import kernel_files, plan_for
from streamer.kernel.texts import Texts
from streamer.model.stats import FILES

LEADER, FOLLOWER, OTHER, SECOND, FOLLOWS_SECOND = range(5)
FOLLOWS: Final = ((FOLLOWER, LEADER), (FOLLOWS_SECOND, SECOND))

WRITES: Final = ((FOLLOWER, LEADER), (LEADER, FOLLOWER), (OTHER,), (FOLLOWS_SECOND, SECOND), (SECOND,))
"""What the kernel writes, one file behind the other, without a whole look between two."""


class Kernel:
    """Files that change between two reads of them, and who counts how often each was read."""

    def __init__(self) -> None:
        self.now = [0] * 5
        self.reads = [0] * 5
        self.waiting: list[int] = []  # files to write, each before a read

    def pread(self, place: int, size: int, offset: int) -> bytes:
        assert offset == 0
        self.step()
        self.reads[place] += 1
        return str(self.now[place]).encode()[:size]

    def step(self) -> None:
        if self.waiting:
            self.now[self.waiting.pop(0)] += 1

    def texts(self) -> list[bytes]:
        return [str(number).encode() for number in self.now]


@given(st.lists(st.lists(st.sampled_from(WRITES), max_size=2), max_size=12), st.sampled_from([1, 2, 64]))
def test_all_is_told_at_the_look_after(looks: list[list[Sequence[int]]], size: int) -> None:
    """Whatever is written between two reads of one look: what was so before the look is told, or what is so after it."""
    kernel = Kernel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", kernel.pread)
        texts = Texts(range(5), [size] * 5, FOLLOWS)
        assert sorted(texts.changed()) == [0, 1, 2, 3, 4]
        told = [texts.text(place) for place in range(5)]
        for writes in looks:
            kernel.waiting = [place for one in writes for place in one]
            before = kernel.texts()
            changed = texts.changed()
            while kernel.waiting:  # the kernel ends what it began
                kernel.step()
            after = kernel.texts()
            for place in range(5):
                assert int(before[place]) <= int(texts.text(place)) <= int(after[place]) or place in (FOLLOWER, FOLLOWS_SECOND)
                assert (texts.text(place) != told[place]) == (place in changed)
            told = [texts.text(place) for place in range(5)]
        texts.changed()
        assert [texts.text(place) for place in range(5)] == kernel.texts()


def test_who_follows_is_left_alone_while_the_leader_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more after the leader's last move, then not until the next; each on its own."""
    kernel = Kernel()
    monkeypatch.setattr(os, "pread", kernel.pread)
    texts = Texts(range(5), [64] * 5, FOLLOWS)
    for _ in range(4):
        texts.changed()
    assert kernel.reads == [4, 2, 4, 4, 2]
    kernel.now[LEADER] += 1
    kernel.now[FOLLOWER] += 1
    assert sorted(texts.changed()) == [LEADER, FOLLOWER]
    assert kernel.reads == [5, 3, 5, 5, 2]
    texts.reopened(range(5))
    kernel.now[LEADER] += 1
    assert texts.changed() == [LEADER]
    assert kernel.reads == [6, 4, 6, 6, 2]


def test_a_file_that_outgrows_what_was_asked_for_is_read_whole_though_another_s_grew_first(tmp_path: Path) -> None:
    """The sizes are shared: what they are by now does not tell how much this one asked for."""
    files = [tmp_path / name for name in ("one", "another")]
    for file in files:
        file.write_text("x" * 40)
    sizes = [64]
    descriptors = [os.open(file, os.O_RDONLY) for file in files]
    one, another = (Texts([descriptor], sizes) for descriptor in descriptors)
    assert list(one.changed()) == list(another.changed()) == [0]
    files[1].write_text("y" * 100)
    assert list(another.changed()) == [0] and sizes == [128]
    for length in (64, 100, 128, 129, 1000):
        files[0].write_text("x" * length)
        assert list(one.changed()) == [0]
        assert one.text(0) == b"x" * length
    assert list(one.changed()) == []
    for descriptor in descriptors:
        os.close(descriptor)


def test_leaders_are_files_of_the_same_kind() -> None:
    """Of the same controller, or they might stand in different hierarchies; and read always."""
    followers = {name: file for name, file in FILES.items() if file.follows}
    assert followers
    for file in followers.values():
        assert FILES[file.follows].controller == file.controller
        assert not FILES[file.follows].follows


def test_plan_knows_who_follows() -> None:
    """On v1 where both files are there."""
    files = kernel_files(False, ("memory",))
    plan = plan_for(files)
    names = [file.name for file in plan.tables]
    assert {(names[place], names[leader]) for place, leader in plan.follows} == {
        (name, file.follows) for name, file in FILES.items() if file.follows
    }
    assert plan_for(tuple(file for file in files if file.name != "cpuacct.usage")).follows == tuple(
        (place - 1, leader - 1) for place, leader in plan.follows if names[place] != "cpuacct.stat"
    )
    assert plan_for(kernel_files(True, ())).follows == ()
