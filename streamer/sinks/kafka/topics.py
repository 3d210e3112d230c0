"""Creates the topics, and says how those that are there differ from what is wanted."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, NamedTuple

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streamer import brokers
from streamer.model.messages import TOPICS, Topic
from streamer.sinks.kafka.producer import REQUEST_TIMEOUT_MS
from streamer.sinks.kafka.refusals import refused

_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)
"""A broker answers before its controller counts it in, and while that takes it for lost: it then names no broker, not even itself."""


class TopicReport(NamedTuple):
    """What `create_topics` found or did. `differences`: `name is …, wanted …`, or why the topic was refused."""

    name: str
    outcome: Literal["created", "exists", "refused"]
    differences: tuple[str, ...] = ()


async def create_topics(
    url: str, prefix: str = "streamer", *, password: str | None = None, partitions: int = 6, replication: int | None = None
) -> list[TopicReport]:
    """Create the topics of `prefix` that are not there, and say how those that are differ; they are left as they are.

    `replication` None: 3, or as many as there are brokers.

    Raises:
        ConfigError: a URL that is none of Kafka's.
        NotConnected, PermanentlyRefused: the cluster cannot be reached, or does not let us.
    """
    parsed = brokers.parse(url, password=password)
    pauses = iter(_PAUSES_SECONDS)
    while True:
        admin = AIOKafkaAdminClient(**brokers.kafka_options(parsed), request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            await admin.start()
            return await _create(admin, prefix, partitions, replication)
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            pause = next(pauses, None) if isinstance(error, kafka_errors.NodeNotReadyError) else None
            if pause is None:
                raise refused(error) from error
        finally:
            await admin.close()
        await asyncio.sleep(pause)


async def _create(admin: AIOKafkaAdminClient, prefix: str, partitions: int, replication: int | None) -> list[TopicReport]:
    copies = replication or min(3, len((await admin.describe_cluster())["brokers"]))
    wanted = {f"{prefix}.{topic.suffix}": _topic_settings(topic) for topic in TOPICS}
    there = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    new = [NewTopic(name, partitions, copies, topic_configs=settings) for name, settings in wanted.items() if name not in there]
    refusals: dict[str, str] = {}
    if new:
        for name, code, text in (await admin.create_topics(new)).topic_errors:
            if code:
                refusals[name] = text or kafka_errors.for_code(code).description
    differences = await _differences(admin, {name: wanted[name] for name in there if name in wanted})
    for name in differences:
        if there[name] != partitions:
            differences[name].append(f"partitions is {there[name]}, wanted {partitions}")
    return [_report(name, refusals.get(name), differences.get(name)) for name in wanted]


def _topic_settings(topic: Topic) -> dict[str, str]:
    if topic.compacted:
        return {"cleanup.policy": "compact"}
    days = 1 if topic.lane == "stats" else 7
    return {"cleanup.policy": "delete", "retention.ms": str(days * 86_400_000)}


async def _differences(admin: AIOKafkaAdminClient, wanted: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in wanted}
    if not wanted:
        return found
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]):
        for code, text, _, name, entries in answer.resources:
            if code:
                found[name].append(text or kafka_errors.for_code(code).description)
                continue
            settings = {entry[0]: entry[1] for entry in entries}
            found[name] += [
                f"{key} is {settings.get(key)}, wanted {value}" for key, value in wanted[name].items() if settings.get(key) != value
            ]
    return found


def _report(name: str, refusal: str | None, differences: list[str] | None) -> TopicReport:
    if refusal is not None:
        return TopicReport(name, "refused", (refusal,))
    return TopicReport(name, "created") if differences is None else TopicReport(name, "exists", tuple(differences))
