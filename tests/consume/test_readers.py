"""Readers without a broker: files of any kind, values, replies; and what URLs they take."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.config import Publishing, SinkSettings
from streamer.consume import READERS, Batch, Raw, Selection, jsonl, reader
from streamer.consume.resp import ErrorReply, Replies, Reply
from streamer.consume.values import topic_of, unwrap
from streamer.errors import ConfigError, NotConnected, PermanentlyRefused
from streamer.model.messages import CONTROL, STATS, TOPICS
from streamer.model.wire import Entry, encode
from streamer.sinks import make
from streamer.testing.messages import Speaker, encoded

HOST_ID = "0123456789abcdef"


async def read(path: Path, **selection: int) -> tuple[list[Batch], list[str]]:
    """All batches of a file, and what the reader notes."""
    source = reader(f"file://{path}", Selection(**selection))  # type: ignore[arg-type]  # since_ms alone is given
    await source.open()
    batches = [batch async for batch in source.batches()]
    assert source.progress().done == source.progress().total == path.stat().st_size
    await source.close()
    return batches, source.notes


def records(batches: list[Batch]) -> list[Raw]:
    """All records."""
    return [record for batch in batches for record in batch.records]


async def written(path: Path, entries: list[Entry]) -> None:
    """The project's own sink writes the file."""
    sink = make(SinkSettings(url=f"file://{path}"), Publishing(), HOST_ID)
    await sink.connect()
    await sink.send(entries)
    await sink.close()


@pytest.mark.parametrize("envelope", ["binary", "structured"])
async def test_a_file_gives_back_what_the_sink_wrote(tmp_path: Path, envelope: str) -> None:
    """Every record with its topic, its line, and the id of the CloudEvent around it."""
    messages = [message for message in Speaker().some(300) if not message.topic.compacted]
    entries = [encode(message, at, message.time_ms, envelope) for at, message in enumerate(messages, 1)]  # type: ignore[arg-type]  # two words of a Literal
    flat = encoded(messages)
    await written(tmp_path / "f", entries)
    batches, notes = await read(tmp_path / "f")
    assert not notes and batches[0].place.trimmed  # its first line is no `started`
    assert [(record.topic, record.value, record.at) for record in records(batches)] == [
        (entry.topic, entry.value, at) for at, entry in enumerate(flat, 1)
    ]
    assert [record.transport_id for record in records(batches)] == [
        entry.id if envelope == "structured" else None for entry in flat
    ]
    assert batches[0].place.where(12) == "line 12"


async def test_a_torn_last_line_is_no_record_and_no_error(tmp_path: Path) -> None:
    """An agent is writing it; a note says so. Garbage in the middle is a record without a topic."""
    speaker = Speaker()
    lines = [entry.value or b"" for entry in encoded([speaker.control("started"), speaker.stats("c")])]
    path = tmp_path / "f"
    path.write_bytes(lines[0] + b"\n\x00\xffgarbage\n\n" + lines[1] + b"\n" + lines[1][:40])
    batches, notes = await read(path)
    assert [record.topic for record in records(batches)] == [CONTROL, None, None, STATS]
    assert [record.at for record in records(batches)] == [1, 2, 3, 4]
    assert not batches[0].place.trimmed and len(notes) == 1 and "40 bytes" in notes[0]


async def test_only_what_was_there_at_the_start_is_read(tmp_path: Path) -> None:
    """The size at `open` is the end."""
    path = tmp_path / "f"
    path.write_bytes(b"1\n2\n")
    source = reader(f"file://{path}", Selection())
    await source.open()
    with path.open("ab") as file:
        file.write(b"3\n")
    assert [record.value for record in records([batch async for batch in source.batches()])] == [b"1", b"2"]
    await source.close()


async def test_since_leaves_out_what_comes_before_the_first_that_is_not_older(tmp_path: Path) -> None:
    """Lines keep their numbers; a fact that is older stays when it was told later."""
    speaker = Speaker()
    messages = [speaker.stats("c") for _ in range(5)]
    assert messages[4].record is not None
    messages[4].record.time_ms = 1
    path = tmp_path / "f"
    await written(path, encoded(messages))
    batches, _ = await read(path, since_ms=messages[2].time_ms)
    assert [record.at for record in records(batches)] == [3, 4, 5] and batches[0].place.trimmed == "--since"
    nothing, _ = await read(path, since_ms=messages[4].time_ms + 1000)
    assert not records(nothing) and nothing[0].place.from_ms == messages[4].time_ms + 1000


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 200)))
def test_lines_are_those_of_the_whole_whatever_the_chunks(parts: list[bytes], cuts: list[int]) -> None:
    """Cut anywhere, the same lines come out, and as many bytes are left over."""
    data = b"\n".join(parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = jsonl.Lines()
    found = [each for start, end in pairwise(edges) for each in lines.feed(data[start:end])]
    *whole, rest = data.split(b"\n")
    assert found == list(enumerate(whole, 1)) and lines.torn == len(rest)


def test_a_line_without_end_takes_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, cut off; the lines after it have their own numbers."""
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 10)
    lines = jsonl.Lines()
    found = [each for _ in range(50) for each in lines.feed(b"xxxx")] + lines.feed(b"xx\nnext\n")
    assert found == [(1, b"x" * 10), (2, b"next")] and lines.torn == 0


@given(st.binary(max_size=300))
def test_any_bytes_in_a_file(data: bytes) -> None:
    """Each line is a record, of no topic."""
    found = [unwrap(line) for _, line in jsonl.Lines().feed(data)]
    assert len(found) == data.count(b"\n") and all(topic_of(value) is None for value, _ in found)


@given(st.sampled_from(TOPICS), st.binary(max_size=30))
def test_a_type_is_found_wherever_it_stands(topic: object, tail: bytes) -> None:
    """Fast where our own records have it, and else by decoding; never an error."""
    name = topic.type  # type: ignore[attr-defined]  # a Topic
    assert topic_of(f'{{"type":"{name}","x":1}}'.encode()) is topic
    assert topic_of(f'{{ "x": 1, "type": "{name}" }}'.encode()) is topic
    assert unwrap(b'{"specversion":"1.0","data":' + tail + b"}")[1] is None


def test_values_that_are_no_cloud_events_stay_as_they_are() -> None:
    """Also those that look like one from afar, or nest too deeply."""
    for value in (b'{"specversion":1,"data":{}}', b'{"specversion":"1.0"}', b'{"specversion":"1.0","data":' + b"[" * 100_000):
        assert unwrap(value) == (value, None)
    assert unwrap(b'{"specversion":"1.0","id":"a","data":{"type":"control"}}') == (b'{"type":"control"}', "a")


REPLY = st.recursive(
    st.one_of(st.none(), st.binary(max_size=20), st.integers(-(2**40), 2**40)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def packed(reply: Reply) -> bytes:
    """A reply as Redis writes it."""
    match reply:
        case None:
            return b"$-1\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case ErrorReply(text):
            return b"-" + text.encode() + b"\r\n"
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(packed, reply))


def depth(reply: Reply) -> int:
    """How deeply lists are nested."""
    return 1 + max(map(depth, reply), default=0) if isinstance(reply, list) else 0


@given(st.lists(REPLY.filter(lambda reply: depth(reply) < 7), max_size=4), st.integers(1, 50))
def test_replies_in_any_pieces(replies: list[Reply], size: int) -> None:
    """The same replies come out, one after the other."""
    parser, data = Replies(), b"".join(map(packed, replies))
    found: list[Reply] = []
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
        while parser.ready():
            found.append(parser.take())
    assert found == replies


@given(st.one_of(st.binary(max_size=80), st.text("*$:+-0123456789\r\n", max_size=40).map(str.encode)))
def test_any_bytes_from_a_peer(data: bytes) -> None:
    """A reply, more to wait for, or a clear error; nothing else."""
    parser = Replies()
    parser.feed(data)
    taken = 0
    try:
        while parser.ready():
            parser.take()
            taken += 1
    except NotConnected:
        taken += 1
    assert taken <= len(data)


def test_what_a_peer_may_not_do() -> None:
    """Nest without end, announce more than anybody sends, or never end a line."""
    for data in (b"*1\r\n" * 20, b"*99999999\r\n", b"+" + b"x" * 70_000, b"$" + b"1" * 70_000, b"HTTP/1.1 400\r\n"):
        parser = Replies()
        parser.feed(data)
        with pytest.raises(NotConnected, match="protocol"):
            parser.ready()


def test_every_scheme_has_a_reader_that_can_be_made() -> None:
    """The table's classes exist; nothing is opened."""
    rests = {"file": "///f", "unix": "///run/redis.sock"}
    for scheme in READERS:
        source = reader(f"{scheme}:{rests.get(scheme, '//u:hunter2@h')}", Selection())
        assert source.describe().startswith(f"{scheme}:") and "hunter2" not in source.describe()
        assert source.kind in {"file", "redis", "kafka"}


@pytest.mark.parametrize(
    "url", ["stdout:", "nats://h", "file:relative", "file:///dir/", "file://host/f", "redis://h,h", "kafka://h/topic", "x"]
)
def test_urls_that_cannot_be_read(url: str) -> None:
    """Said before anything is opened."""
    with pytest.raises(ConfigError):
        reader(url, Selection())


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Missing, a directory, a device."""
    for path in (tmp_path / "none", tmp_path, Path("/dev/null")):
        source = reader(f"file://{path}", Selection())
        with pytest.raises(PermanentlyRefused):
            await source.open()
        await source.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*2\r\n:1\r\n", bytes(range(256))])
@pytest.mark.parametrize("scheme", ["redis", "kafka"])
async def test_a_peer_that_is_no_broker(scheme: str, answer: bytes) -> None:
    """It says anything and hangs up: one clear error."""

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await incoming.read(100)
        outgoing.write(answer)
        outgoing.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    source = reader(f"{scheme}://127.0.0.1:{port}", Selection())
    with pytest.raises((NotConnected, PermanentlyRefused)):
        await source.open()
    await source.close()
    server.close()
    await server.wait_closed()
