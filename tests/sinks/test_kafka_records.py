"""Record batches and hashes made here, read by aiokafka and compared with its own."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v6, ProduceResponse_v7
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streamer.model.messages import Message
from streamer.model.wire import Entry, attributes
from streamer.sinks.kafka.murmur import hashes
from streamer.sinks.kafka.produce import Answer, Produce
from streamer.sinks.kafka.records import CODECS, Packer, varint
from streamer.testing.messages import Speaker, encoded


def _read(data: bytes) -> list[tuple[object, ...]]:
    batch = MemoryRecords(data).next_batch()
    assert batch is not None
    assert batch.validate_crc()
    return [(record.offset, record.key, record.value, list(record.headers), record.timestamp) for record in batch]


def _written(entries: list[Entry], *, timestamps: bool = True) -> list[tuple[object, ...]]:
    return [
        (offset, entry.key.encode(), entry.value, attributes(entry), entry.time_ms if timestamps else -1)
        for offset, entry in enumerate(entries)
    ]


def _unlike() -> list[Message]:
    """Messages of every kind, of two hosts, long and short, the later ones of an earlier time."""
    ours, theirs = Speaker("ours"), Speaker("théirs", epoch=1_600_000_000_000)
    long = "x" * 9000
    return [
        *ours.some(300),
        theirs.stats("c"),
        ours.stats("c"),
        ours.tombstone("c"),
        ours.lifecycle(long),
        ours.lifecycle("ключ", name=long),
        theirs.control(),
    ]


@pytest.mark.parametrize("compression", sorted(CODECS))
def test_a_batch_says_what_the_entries_say(compression: str) -> None:
    """Key, value, headers, timestamp and offset of every record, through every codec, checksum included."""
    entries = encoded(_unlike())
    packer = Packer(compression)
    raw = packer.append(entries, 10**9, timestamps=True)
    assert raw.records == len(entries)
    assert _read(packer.finish(raw, 1000, 3, 77)) == _written(entries)
    batch = MemoryRecords(packer.finish(raw, 1000, 3, 77)).next_batch()
    assert batch is not None
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (1000, 3, 77)


def test_a_structured_value_has_only_its_content_type_beside_it() -> None:
    """With the structured envelope the attributes are in the value."""
    entries = encoded([Speaker("h").stats("c"), Speaker("h").stats("d")], envelope="structured")
    packer = Packer("none")
    raw = packer.append(entries, 10**9, timestamps=True)
    assert _read(packer.finish(raw, 1, 0, 0)) == _written(entries)


def test_times_can_be_left_out() -> None:
    """Without timestamps every record has Kafka's own value for none."""
    entries = encoded([Speaker("h").stats("c") for _ in range(3)])
    packer = Packer("none")
    raw = packer.append(entries, 10**9, timestamps=False)
    assert _read(packer.finish(raw, 1, 0, 0)) == _written(entries, timestamps=False)


def test_a_batch_is_bounded_but_never_empty() -> None:
    """As many as fit; one that is too big goes alone, so that the broker can say so."""
    waiting = encoded([Speaker("h").stats("c") for _ in range(50)])
    packer = Packer("none")
    one = packer.append(waiting, 1, timestamps=True)
    assert one.records == 1
    some = packer.append(waiting, 10 * len(one.data), timestamps=True)
    assert 9 <= some.records <= 10


@given(st.integers(-(1 << 62), (1 << 62)))
def test_numbers_are_packed_as_zigzag(number: int) -> None:
    """A packed number, unpacked by the rule, is the number."""
    value = 0
    for place, byte in enumerate(varint(number)):
        value |= (byte & 0x7F) << (7 * place)
    assert (value >> 1) ^ -(value & 1) == number


@given(st.lists(st.text(max_size=80), max_size=60))
def test_keys_are_hashed_as_the_client_library_does(keys: list[str]) -> None:
    """Any keys, many at once, of any lengths."""
    assert hashes(keys) == {key: murmur2(key.encode()) & 0x7FFFFFFF for key in keys}


_BATCHES: Final = st.dictionaries(
    st.text(max_size=20),
    st.dictionaries(st.integers(0, 9), st.binary(max_size=40), max_size=4).map(lambda kept: list(kept.items())),
).map(lambda topics: list(topics.items()))


@given(_BATCHES)
def test_a_request_is_the_one_the_client_library_makes(topics: list[tuple[str, list[tuple[int, bytes]]]]) -> None:
    """Byte for byte, header and body."""
    ours = Produce(-1, 10_000, topics).prepare({0: (3, 12)})
    theirs = ProduceRequest(None, -1, 10_000, topics).prepare({0: (3, 12)})
    assert ours.encode() == theirs.encode()
    assert ours.build_request_header(5, "x").encode() == theirs.build_request_header(5, "x").encode()
    answer = Answer([(name, [(number, 6, 7, -1, 8) for number, _ in batches]) for name, batches in topics], 9)
    packed = ProduceResponse_v7(answer.topics, 9).encode()
    assert ours.RESPONSE_TYPE.decode(BytesIO(packed)) == answer
    assert answer.topics == ProduceResponse_v7.decode(packed).topics


def test_an_old_broker_gets_the_client_librarys_request() -> None:
    """One that does not speak the version packed here is asked by the library's own, of the highest version that it speaks."""
    assert type(Produce(-1, 10_000, []).prepare({0: (0, 6)})) is ProduceRequest_v6


def test_an_answer_cut_short_is_an_error() -> None:
    """A torn answer is not taken for one that says less."""
    packed = ProduceResponse_v7([("t", [(0, 0, 7, -1, 0), (1, 0, 7, -1, 0)])], 0).encode()
    for length in range(len(packed)):
        with pytest.raises((ValueError, struct.error)):
            Answer.decode(packed[:length])
