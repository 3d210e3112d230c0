"""The state file by itself: what is committed is there after any end, what is damaged is put aside, one agent at a time."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.config import Outbox as OutboxSettings
from streamer.errors import ConfigError
from streamer.model.inventory import Checkpoint, Kept, Past, Totals
from streamer.model.messages import TOPICS
from streamer.model.observations import Lost
from streamer.model.wire import Entry
from streamer.outbox.lane import Mark, Stretch
from streamer.outbox.leftovers import Cursor
from streamer.outbox.lock import DirectoryLock, StoreFailed
from streamer.outbox.state import State, directory, lost_samples, open_state
from streamer.outbox.store import FILE, Limits, Store, Work
from streamer.testing.messages import Speaker, encoded

ALL = frozenset(topic.short for topic in TOPICS)
ROOMY = Limits(100_000_000, 100_000_000, 10**12, 10**12)
NOW_MS = 2_000
KEPT = Kept(
    incarnation="b.memory.7", path="/docker/x", hierarchy="memory", inode=7, found="live", seen_ns=5, details={"name": "n", "pid": 12},
    samples=3, oom_start=0, last=Totals(9, {"cpu_usage_ns": 2**63}),
)  # fmt: skip


def _store(where: Path, limits: Limits = ROOMY) -> Store:
    store = Store(where, limits)
    store.open()
    return store


def _point(**more: object) -> Checkpoint:
    return Checkpoint(
        **{"epoch": 1000, "boot_id": "boot", "alive_ns": 77, "kmsg_seq": 4, "kmsg_said": (6, 9), "docker_ns": 5, **more}
    )  # type: ignore[arg-type]


def _samples(count: int, first_position: int = 1, speaker: Speaker | None = None) -> list[Entry]:
    speaker = speaker or Speaker(epoch=1000)
    return encoded([speaker.stats("a", cpu_usage_ns=n) for n in range(count)], first_position=first_position)


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    """Messages byte for byte, the inventory, the cursors of sources and sinks, the highest position."""
    speaker = Speaker(epoch=1000)
    durable = encoded([speaker.lifecycle("a"), speaker.tombstone("a"), speaker.oom("b"), speaker.control()])
    samples = _samples(2500, 5, speaker)
    store = _store(tmp_path)
    cursors = [Cursor("kafka://h", "kafka", 1, Mark(6, 1000, 2)), Cursor("stdout:", "stdout", 0, Mark(4))]
    store.commit([Work(durable, samples, _point(kept={KEPT.incarnation: KEPT}), cursors)], NOW_MS)
    store.close()

    store = _store(tmp_path)
    assert store.leftovers.past() == Past(
        epoch=1000, boot_id="boot", alive_ns=77, kmsg_seq=4, kmsg_said=(6, 9), docker_ns=5, inventory=(KEPT,)
    )
    assert store.last == (2504, max(entry.order_ms for entry in [*durable, *samples]))
    assert store.leftovers.cursors() == {cursor.sink: cursor for cursor in cursors}
    assert store.read("durable", 0, 9999, ALL, 10**9) == (durable, 9999)
    read: list[Entry] = []
    through = 0
    while through < 9999:
        some, through = store.read("stats", through, 9999, ALL, 100_000)
        assert sum(entry.size for entry in some) < 2_000_000
        read += some
    assert read == samples
    assert store.leftovers.spilled(1000)[0][0] == 1 and store.leftovers.spilled(1000)[-1][1] == 2500
    store.close()


def test_what_every_sink_has_is_deleted_and_what_one_still_needs_is_not(tmp_path: Path) -> None:
    """The slowest sink decides; each is told what waits for it, by topic and epoch, of the topics it wants."""
    speaker = Speaker(epoch=1000)
    durable = encoded([speaker.oom("a"), speaker.lifecycle("a"), speaker.oom("b"), speaker.lifecycle("b")])
    samples = _samples(10, 5, speaker)
    store = _store(tmp_path)
    store.commit([Work(durable, samples)], NOW_MS)
    fast, slow = Cursor("fast", "redis", 4, Mark(14)), Cursor("slow", "kafka", 1, Mark(9, 1000, 5))
    committed = store.commit([Work(cursors=[fast, slow])], NOW_MS)
    assert [entry.position for entry in store.read("durable", 0, 99, ALL, 10**9)[0]] == [2, 3, 4]
    assert committed.bytes["durable"] == sum(entry.size for entry in durable[1:])
    left = store.leftovers.left(slow, ALL)
    oom, lifecycle = durable[0].topic, durable[1].topic
    assert sorted(left["durable"].stretches, key=lambda s: s.topic.short) == [
        Stretch(lifecycle, 1000, 1, 2, 2),
        Stretch(oom, 1000, 2, 2, 1),
    ]
    assert left["stats"].stretches == [Stretch(samples[0].topic, 1000, 6, 10, 5)]
    assert (left["stats"].after, left["stats"].through) == (9, 14)
    assert [s.count for s in store.leftovers.left(slow, frozenset({"oom"}))["durable"].stretches] == [1]
    assert store.leftovers.left(fast, ALL)["stats"].stretches == []
    assert store.commit([Work(cursors=[fast])], NOW_MS).bytes == {"durable": 0, "stats": 0}
    assert store.leftovers.cursors() == {"fast": fast}
    store.close()


def test_the_log_is_copied_now_and_then_but_by_no_commit(tmp_path: Path) -> None:
    """`tidy` does, which syncs the disk, once there were some commits; what stands in the file then needs no log."""

    def in_the_file_alone() -> int:
        with sqlite3.connect(f"file:{tmp_path / FILE}?immutable=1", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM durable").fetchone()[0])

    speaker, store = Speaker(epoch=1000), _store(tmp_path)
    store.file.live.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the tables
    entries = encoded([speaker.oom("a") for _ in range(64)])
    for entry in entries:
        assert in_the_file_alone() == 0
        store.commit([Work([entry], checkpoint=_point())], NOW_MS)
        if entry is not entries[-1]:
            store.tidy()
    assert in_the_file_alone() == 0
    store.tidy()
    assert in_the_file_alone() == 64
    head = (tmp_path / f"{FILE}-wal").read_bytes()[:32]
    store.commit([Work(encoded([speaker.oom("a")]), checkpoint=_point())], NOW_MS)
    assert (tmp_path / f"{FILE}-wal").read_bytes()[:32] == head  # the log was begun anew, which syncs, by `tidy`, not by a commit
    store.close()


def test_a_lane_that_is_too_large_or_too_old_loses_its_oldest_and_says_which(tmp_path: Path) -> None:
    """By bytes and by age, each lane for itself, with position and number of everything that went."""
    speaker = Speaker(epoch=1000)
    facts = encoded([speaker.oom("a") for _ in range(20)])
    size = facts[0].size
    store = _store(tmp_path, Limits(10 * size + size // 2, 10**9, 10**12, 10**12))
    dropped = store.commit([Work(facts)], NOW_MS).dropped
    assert [(head.position, head.seq, head.topic.short) for head in dropped["durable"]] == [(n, n, "oom") for n in range(1, 11)]
    assert dropped["stats"] == []
    store.close()

    store = _store(tmp_path / ".", Limits(10**9, 10**9, 10**12, 3_600_000))
    samples = _samples(30, 21, speaker)
    store.commit([Work(stats=samples)], samples[0].order_ms)
    assert not store.commit([Work()], samples[0].order_ms + 3_000_000).dropped["stats"]
    old = store.commit([Work()], samples[0].order_ms + 4_000_000).dropped["stats"]
    assert [head.position for head in old] == [entry.position for entry in samples]
    assert store.read("stats", 0, 999, ALL, 10**9) == ([], 999)
    store.close()


def test_blocks_that_overlap_are_read_once(tmp_path: Path) -> None:
    """After a failure of the disk, what is in memory is written again: nothing comes twice."""
    samples = _samples(100)
    store = _store(tmp_path)
    store.commit([Work(stats=samples[:60])], NOW_MS)
    store.commit([Work(stats=samples[40:])], NOW_MS)
    assert store.read("stats", 10, 100, ALL, 10**9) == (samples[10:], 100)
    assert store.leftovers.left(Cursor("k", "k"), ALL)["stats"].stretches[0].count == 100
    store.close()


def test_samples_that_come_in_small_numbers_share_a_block(tmp_path: Path) -> None:
    """Until it is large enough; not over a hole in the numbers, not with a block that has been sent meanwhile."""
    samples = _samples(400)
    store = _store(tmp_path)
    for start in range(0, 100, 5):
        store.commit([Work(stats=samples[start : start + 5])], NOW_MS)
    assert store.leftovers.spilled(1000) == [(1, 100)]
    store.commit([Work(stats=samples[110:120])], NOW_MS)
    assert store.leftovers.spilled(1000) == [(1, 100), (111, 120)]
    store.commit([Work(cursors=[Cursor("k", "k", 0, Mark(120))])], NOW_MS)
    store.commit([Work(stats=samples[120:130])], NOW_MS)
    assert store.leftovers.spilled(1000) == [(121, 130)]
    assert store.read("stats", 0, 999, ALL, 10**9) == (samples[120:130], 999)
    assert store.commit([Work(cursors=[Cursor("k", "k", 0, Mark(130))])], NOW_MS).bytes["stats"] == 0
    store.close()


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All of a transaction or none of it, also in what is counted."""
    speaker = Speaker(epoch=1000)
    store = _store(tmp_path)
    store.commit([Work(encoded([speaker.oom("a")]))], NOW_MS)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TRIGGER no BEFORE INSERT ON durable BEGIN SELECT RAISE(ABORT, 'no room'); END")
    db.commit()
    with pytest.raises(StoreFailed, match="no room"):
        store.commit([Work(encoded([speaker.oom("b")], first_position=2), (), _point())], NOW_MS)
    db.execute("DROP TRIGGER no")
    db.commit()
    db.close()
    assert store.leftovers.past().epoch == 0
    assert len(store.read("durable", 0, 99, ALL, 10**9)[0]) == 1
    assert store.commit([Work()], NOW_MS).bytes["durable"] == encoded([speaker.oom("a")])[0].size
    store.close()


def test_after_a_checkpoint_that_was_not_written_only_a_whole_one_says_how_far_all_is_known(tmp_path: Path) -> None:
    """Else a later one would claim the time of which the lost one told."""
    store = _store(tmp_path)
    store.commit([Work(checkpoint=_point(alive_ns=10))], NOW_MS)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TRIGGER no BEFORE INSERT ON inventory BEGIN SELECT RAISE(ABORT, 'no room'); END")
    db.commit()
    with pytest.raises(StoreFailed, match="no room"):
        store.commit([Work(checkpoint=_point(alive_ns=20, kept={KEPT.incarnation: KEPT}))], NOW_MS)
    db.execute("DROP TRIGGER no")
    db.commit()
    db.close()
    store.commit([Work(checkpoint=_point(alive_ns=30))], NOW_MS)
    assert store.leftovers.past().alive_ns == 10
    store.commit([Work(checkpoint=_point(alive_ns=40, whole=True))], NOW_MS)
    store.commit([Work(checkpoint=_point(alive_ns=50))], NOW_MS)
    assert store.leftovers.past().alive_ns == 50
    store.close()


@pytest.mark.parametrize("harm", ["header", "pages", "text", "format"])
def test_a_damaged_file_is_put_aside_and_said(tmp_path: Path, harm: str) -> None:
    """The next start works, keeps the old file for people to look at, and knows which epoch it was."""
    first = open_state(tmp_path, OutboxSettings(), NOW_MS)
    assert first.lock is not None and first.store is not None
    first.lock.sign(1000)
    first.store.commit([Work(encoded([Speaker().oom(str(n)) for n in range(500)]), (), _point())], NOW_MS)
    first.store.close()
    first.lock.close()
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    if harm == "header":
        data[:64] = os.urandom(64)
    elif harm == "pages":
        data[4096:] = os.urandom(len(data) - 4096)
    elif harm == "text":
        data = bytearray(b"hello\n")
    path.write_bytes(data)
    if harm == "format":
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    second = open_state(tmp_path, OutboxSettings(), NOW_MS)
    assert second.lock is not None and second.store is not None
    assert second.past.damaged.startswith(str(path)) and Path(second.past.damaged).exists()
    assert (second.past.epoch, second.epoch_before, second.past.inventory) == (1000, 1000, ())
    second.store.commit([Work(encoded([Speaker().oom("a")]))], NOW_MS)
    second.store.close()
    second.lock.close()


def test_a_file_that_was_removed_is_said_too(tmp_path: Path) -> None:
    """The lock file remembers that there was one."""
    first = open_state(tmp_path, OutboxSettings(), NOW_MS)
    assert first.lock is not None and first.store is not None and first.past == Past()
    first.lock.sign(1000)
    first.store.close()
    first.lock.close()
    (tmp_path / FILE).unlink()
    second = open_state(tmp_path, OutboxSettings(), NOW_MS)
    assert second.past.damaged and second.past.epoch == 1000
    assert second.lock is not None and second.store is not None
    second.store.close()
    second.lock.close()


def test_a_second_agent_is_refused_in_words(tmp_path: Path) -> None:
    """It names the key, the directory, the process that has it and what to do; when that one is gone the way is free."""
    code = (
        "import sys, time; from pathlib import Path; from streamer.outbox.lock import DirectoryLock\n"
        "lock = DirectoryLock(Path(sys.argv[1])); lock.sign(5); print('ready', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        with pytest.raises(ConfigError) as refused:
            open_state(tmp_path, OutboxSettings(), NOW_MS)
        text = str(refused.value)
        assert all(word in text for word in ("state_dir", str(tmp_path), f"process {other.pid}", "--state-dir")), text
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()
    lock = DirectoryLock(tmp_path)
    assert lock.epoch_before == 5
    lock.close()


def test_a_directory_that_cannot_be_used_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Then nothing is kept, and why is told."""
    (tmp_path / "file").write_text("")
    state = open_state(tmp_path / "file" / "below", OutboxSettings(), NOW_MS)
    assert state.store is None and str(tmp_path / "file") in state.trouble
    assert open_state(None, OutboxSettings(), NOW_MS) == State()


def test_where_state_is_kept() -> None:
    """As configured, as systemd says, root's place, the user's own, nowhere."""
    assert directory("off", {}, root=True) is None
    assert directory("/x", {"STATE_DIRECTORY": "/y"}, root=True) == Path("/x")
    assert directory("", {"STATE_DIRECTORY": "/y:/z"}, root=False) == Path("/y")
    assert directory("", {}, root=True) == Path("/var/lib/streamer")
    assert directory("", {"HOME": "/home/u"}, root=False) == Path("/home/u/.local/state/streamer")
    assert directory("", {"HOME": "/home/u", "XDG_STATE_HOME": "/s"}, root=False) == Path("/s/streamer")


def test_the_samples_that_went_with_a_killed_run_are_named() -> None:
    """From what the sink had acknowledged on, but for what is on disk; open to the end; nothing after a clean end."""
    past = Past(epoch=1000, alive_ns=1)
    cursors = [Cursor("k", "kafka", 0, Mark(9, 1000, 40)), Cursor("r", "redis", 0, Mark(9, 900, 7))]

    def ranges(lost: list[Lost]) -> list[tuple[str, str, str]]:
        assert all((one.topic, one.epoch, one.count) == ("container.stats", 1000, None) for one in lost)
        return [(one.component, one.first, one.last) for one in lost]

    assert ranges(lost_samples(past, cursors, [], 5)) == [("sink.kafka", "41", ""), ("sink.redis", "1", "")]
    assert ranges(lost_samples(past, cursors[:1], [(30, 50), (61, 70)], 5)) == [
        ("sink.kafka", "51", "60"),
        ("sink.kafka", "71", ""),
    ]
    assert ranges(lost_samples(past, cursors[:1], [(10, 20)], 5)) == [("sink.kafka", "41", "")]
    assert lost_samples(Past(epoch=1000, clean=True), cursors, [], 5) == []
    assert lost_samples(Past(), cursors, [], 5) == []
