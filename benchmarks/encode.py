"""A message as bytes: what making them takes and how many there are, by type, for each sink, and compressed.

Beside it, as a yardstick, the standard library's `json.dumps` of the same fields, which are a dict already.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, structs

from benchmarks import report
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.messages import HOST_ID, Tenants
from streamer import brokers
from streamer.model import examples
from streamer.model.messages import TOPICS, Message
from streamer.model.stats import STATS
from streamer.model.wire import Entry, encode
from streamer.sinks.kafka.records import CODECS, Packer
from streamer.sinks.redis.sink import RedisSink

_ROUND_SECONDS: Final = 0.1
_US: Final = 1e6
_CONTAINERS: Final = 50
_ALL_BYTES: Final = 1 << 30
_ID, _EPOCH, _SEQUENCE = 1, 0, 0
_BY_TYPE: Final = {topic.type: topic for topic in TOPICS}


class Cost(NamedTuple):
    """CPU in µs per message, one figure per repetition, and bytes per message."""

    us: list[float]
    bytes: float

    def cells(self) -> list[str]:
        return [report.spread(self.us, 2), f"{self.bytes:.0f}"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks encode`."""
    parser.add_argument("--messages", type=positive, default=1000, metavar="N", help="of each type")
    parser.add_argument(
        "--batches",
        type=positive,
        nargs="+",
        default=[4, 500],
        metavar="N",
        help="messages in a batch that is compressed as a whole",
    )
    parser.add_argument("--repetitions", type=positive, default=5, metavar="R", help="of each measurement")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    encoding: dict[str, dict[str, Cost]] = {}
    packing: dict[str, dict[str, Cost]] = {}
    compressing: dict[str, dict[str, Cost]] = {}
    for kind, messages in _kinds(args.messages).items():
        progress(kind)
        entries = [encode(message, position, message.time_ms) for position, message in enumerate(messages, 1)]
        encoding[kind] = _encoding(messages, entries, args.repetitions)
        packing[kind] = _packing(entries, args.repetitions)
        for size in args.batches:
            compressing[f"{kind}, {size} together"] = {
                codec: _compressing(codec, entries, size, args.repetitions) for codec in CODECS if codec != "none"
            }
    return _report(args, encoding, packing, compressing)


def _kinds(count: int) -> dict[str, list[Message]]:
    """Messages by what is told apart in the tables."""
    tenants = Tenants(_CONTAINERS)
    stats = list(tenants.stats(count))
    kinds = {"stats, cgroup v2": stats, "stats, cgroup v1": [_as_v1(message) for message in stats]}
    lives = list(islice((message for message in tenants.events(16 * count) if message.record is not None), 8 * count))
    for short in ("lifecycle", "oom", "state"):
        kinds[short] = [message for message in lives if message.topic.short == short][:count]
    control: Any = examples.EXAMPLES["control"]["control"]
    kinds["control"] = [
        Message(_BY_TYPE["control"], HOST_ID, structs.replace(control, seq=number), control.time_ms)
        for number in range(1, count + 1)
    ]
    return kinds


def _as_v1(message: Message) -> Message:
    """The same sample without what only cgroup v2 tells."""
    assert message.whole is not None
    return message._replace(record=structs.replace(message.whole, **{row.name: UNSET for row in STATS if not row.v1}))


def _encoding(messages: Sequence[Message], entries: Sequence[Entry], repetitions: int) -> dict[str, Cost]:
    bytes_ = sum(len(entry.value or b"") for entry in entries) / len(entries)
    dicts = [msgspec.to_builtins(message.whole) for message in messages]
    dumped = sum(len(json.dumps(each)) for each in dicts) / len(dicts)
    return {
        "to an entry": Cost(_us(lambda: [encode(message, 1, 0) for message in messages], len(messages), repetitions), bytes_),
        "json.dumps": Cost(_us(lambda: [json.dumps(each) for each in dicts], len(dicts), repetitions), dumped),
    }


def _packing(entries: list[Entry], repetitions: int) -> dict[str, Cost]:
    """What each sink makes of an entry: key, headers and value, as they are sent or written, before compression."""
    kafka, redis = Packer("none"), RedisSink(brokers.parse("redis://127.0.0.1"), HOST_ID)

    def to_kafka() -> bytes:
        return kafka.append(entries, _ALL_BYTES, timestamps=True).data

    def to_redis() -> bytes:
        parts: list[bytes] = []
        redis._pack(parts, [], entries, entries[0], {})
        return b"".join(parts)

    def to_file() -> bytes:
        return b"".join([entry.value + b"\n" for entry in entries if entry.value is not None])

    return {
        name: Cost(_us(pack, len(entries), repetitions), len(pack()) / len(entries))
        for name, pack in (("kafka", to_kafka), ("redis", to_redis), ("file", to_file))
    }


def _compressing(codec: str, entries: list[Entry], size: int, repetitions: int) -> Cost:
    """Kafka's batches of so many records, without what packing them took."""
    packer = Packer(codec)
    raws = [packer.append(entries[start : start + size], _ALL_BYTES, timestamps=True) for start in range(0, len(entries), size)]

    def finish() -> list[bytes]:
        return [packer.finish(raw, _ID, _EPOCH, _SEQUENCE) for raw in raws]

    return Cost(_us(finish, len(entries), repetitions), sum(map(len, finish())) / len(entries))


def _us(work: Callable[[], object], messages: int, repetitions: int) -> list[float]:
    work()  # warm
    found = []
    for _ in range(repetitions):
        rounds, began, end = 0, time.process_time(), time.monotonic() + _ROUND_SECONDS
        while rounds == 0 or time.monotonic() < end:
            work()
            rounds += 1
        found.append((time.process_time() - began) * _US / (rounds * messages))
    return found


def _report(args: argparse.Namespace, *measured: dict[str, dict[str, Cost]]) -> int:
    machine = report.machine()
    heads = (
        "A message to JSON, with what travels beside it, and `json.dumps` of the same fields as a dict:",
        "What each sink makes of that, before compression:",
        "Kafka's batches compressed:",
    )
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"{args.messages} messages of each type, {args.repetitions} times; CPU in µs per message as min / median / max, bytes per message.",
            *(part for head, figures in zip(heads, measured, strict=True) for part in (head, _table(figures))),
        ]
    )
    print(text)
    if args.save:
        names = ("encoding", "packing", "compressing")
        figures: dict[str, Any] = {"machine": machine, "options": plain(args)}
        for name, table in zip(names, measured, strict=True):
            figures[name] = {kind: {column: cost._asdict() for column, cost in row.items()} for kind, row in table.items()}
        for path in report.save("encode", text, figures):
            print(f"saved to {path}")
    return 0


def _table(figures: dict[str, dict[str, Cost]]) -> str:
    columns = next(iter(figures.values()))
    head = ["", *(cell for column in columns for cell in (f"{column}: µs", "bytes"))]
    return report.table(head, [[kind, *(cell for cost in row.values() for cell in cost.cells())] for kind, row in figures.items()])
