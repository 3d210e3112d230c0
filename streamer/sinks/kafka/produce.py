"""The Produce request and its answer, version 7, packed and read here: https://kafka.apache.org/protocol.html#The_Messages_Produce

aiokafka packs and reads them field by field, for the time that compressing fifty samples takes. Its connection sends
these as its own. A broker that does not speak version 7 (Kafka before 2.1) is spoken to by aiokafka alone.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final, Self

from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceRequestStruct, ProduceResponse_v7

_COUNT: Final = struct.Struct(">i")
_LENGTH: Final = struct.Struct(">h")  # of a text; -1: there is none
_BEGIN: Final = struct.Struct(">hhii")  # no transactional id, acks, ms to wait for replicas, topics
_PARTITION: Final = struct.Struct(">ii")  # number, bytes of its batch
_ANSWERED: Final = struct.Struct(">ihqqq")  # number, code, offset, time, where the log begins
_NOBODY: Final = -1


class Answer(ProduceResponse_v7):  # type: ignore[misc]  # aiokafka gives it no types
    """What became of each batch: `topics` as aiokafka has it, (name, [(partition, code, offset, time, where the log begins)])."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """Read it behind its header."""
        raw = data if isinstance(data, bytes) else data.read()
        (count,) = _COUNT.unpack_from(raw)
        at = _COUNT.size
        topics = []
        for _ in range(count):
            name_at = at + _LENGTH.size
            at = name_at + _LENGTH.unpack_from(raw, at)[0]
            name = raw[name_at:at].decode()
            partitions_at = at + _COUNT.size
            at = partitions_at + _COUNT.unpack_from(raw, at)[0] * _ANSWERED.size
            if at > len(raw):
                raise ValueError("the answer to a Produce request ends too early")
            topics.append((name, list(_ANSWERED.iter_unpack(raw[partitions_at:at]))))
        return cls(topics, _COUNT.unpack_from(raw, at)[0])


class _Request(ProduceRequest_v7):  # type: ignore[misc]  # aiokafka gives it no types
    RESPONSE_TYPE = Answer

    def encode(self) -> bytes:
        topics: list[tuple[str, list[tuple[int, bytes]]]] = self.__dict__["topics"]
        parts = [_BEGIN.pack(_NOBODY, self.__dict__["required_acks"], self.__dict__["timeout"], len(topics))]
        for name, partitions in topics:
            encoded = name.encode()
            parts += (_LENGTH.pack(len(encoded)), encoded, _COUNT.pack(len(partitions)))
            for partition, batch in partitions:
                parts += (_PARTITION.pack(partition, len(batch)), batch)
        return b"".join(parts)


class Produce(ProduceRequest):  # type: ignore[misc]  # aiokafka gives it no types
    """Batches for one broker: (topic, [(partition, batch)]). Without a transaction."""

    def __init__(self, acks: int, timeout_ms: int, topics: list[tuple[str, list[tuple[int, bytes]]]]) -> None:
        super().__init__(transactional_id=None, required_acks=acks, timeout=timeout_ms, topics=topics)

    def prepare(self, versions: dict[int, tuple[int, int]]) -> ProduceRequestStruct:
        """What is sent to a broker that speaks these versions of each request."""
        lowest, highest = versions.get(self.API_KEY, (0, 0))
        if lowest <= _Request.API_VERSION <= highest:
            return self.build(_Request)
        return super().prepare(versions)
