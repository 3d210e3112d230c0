"""Who is compared by `peers`: how each is started so that it looks once a second and tells Kafka, and what its records say.

Their settings are their own defaults but for the interval, where to publish, and that a record counts as delivered once the
broker has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.agent import free_port
from streamer.model.messages import STATS, TOPICS


class Host(NamedTuple):
    """What a contender is told. `docker` is the engine's address, empty where there are raw cgroups; `directory` is for its files."""

    bootstrap: str
    docker: str
    docker_root: str
    directory: Path


class Contender(NamedTuple):
    """One of those compared.

    topics   where its records arrive
    command  how it is started, from its program and the host
    sampled  the containers that a record holds a sample of, by the names that `wanted` knows; others are passed over
    """

    name: str
    topics: tuple[str, ...]
    command: Callable[[str, Host], list[str]]
    sampled: Callable[[str, bytes | None, bytes], Sequence[str]]
    docker_only: bool = False


def _cadvisor(program: str, host: Host) -> list[str]:
    nobody = f"{host.directory}/nobody.sock"
    docker = [f"--docker={host.docker}", f"--docker_root={host.docker_root}"] if host.docker else [f"--docker=unix://{nobody}"]
    return [
        program, "--listen_ip=127.0.0.1", f"--port={free_port()}", "--housekeeping_interval=1s", "--allow_dynamic_housekeeping=false",
        *docker, f"--containerd={nobody}", f"--podman=unix://{nobody}", "--storage_driver=kafka",
        f"--storage_driver_kafka_broker_list={host.bootstrap}", "--storage_driver_kafka_topic=cadvisor",
    ]  # fmt: skip


def _telegraf(program: str, host: Host) -> list[str]:
    file = host.directory / "telegraf.conf"
    file.write_text(
        f"""
[agent]
interval = "1s"
flush_interval = "1s"
round_interval = false
metric_batch_size = 10000
metric_buffer_limit = 100000
[[inputs.docker]]
endpoint = "{host.docker}"
[[outputs.kafka]]
brokers = ["{host.bootstrap}"]
topic = "telegraf"
required_acks = -1
data_format = "influx"
"""
    )
    return [program, "--config", str(file)]


def _otelcol(program: str, host: Host) -> list[str]:
    file = host.directory / "otelcol.yaml"
    tree = {
        "receivers": {
            "docker_stats": {"endpoint": host.docker, "collection_interval": "1s", "api_version": "1.41", "stream_stats": True}
        },
        "exporters": {
            "kafka": {
                "brokers": [host.bootstrap],
                "metrics": {"topic": "otelcol", "encoding": "otlp_proto"},
                "producer": {"required_acks": -1},
            }
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"metrics": {"receivers": ["docker_stats"], "exporters": ["kafka"]}},
        },
    }
    file.write_text(json.dumps(tree))  # YAML reads JSON
    return [program, "--config", f"file:{file}"]


class _Detail(msgspec.Struct):
    name: str = msgspec.field(default="", name="container_Name")
    id: str = msgspec.field(default="", name="container_Id")


_STATS_TOPIC: Final = f"streamer.{STATS.suffix}"
_TELEGRAF_NAME: Final = re.compile(rb"^docker_container_mem,(?:[^ ]*,)?container_name=([^, ]+)", re.MULTILINE)
_OTEL_ID: Final = re.compile(rb"([0-9a-f]{64})\x0a\x0ccontainer\.id|\x0a\x0ccontainer\.id\x12\x42\x0a\x40([0-9a-f]{64})")
"""An attribute of a resource (OTLP `KeyValue`); protocol buffers may put its value before its key."""
_DETAIL: Final = msgspec.json.Decoder(_Detail)


def _of_streamer(topic: str, key: bytes | None, _: bytes) -> Sequence[str]:
    return (key.decode(),) if topic == _STATS_TOPIC and key else ()


def _of_cadvisor(_topic: str, _: bytes | None, value: bytes) -> Sequence[str]:
    detail = _DETAIL.decode(value)
    return (detail.id or detail.name,)


def _of_telegraf(_topic: str, _: bytes | None, value: bytes) -> Sequence[str]:
    return [name.decode() for name in _TELEGRAF_NAME.findall(value)]  # one line of several that a sample is made of


def _of_otelcol(_topic: str, _: bytes | None, value: bytes) -> Sequence[str]:
    return [(found[1] or found[2]).decode() for found in _OTEL_ID.finditer(value)]


STREAMER: Final = "streamer"
CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender(STREAMER, tuple(f"streamer.{topic.suffix}" for topic in TOPICS), lambda *_: [], _of_streamer),
        Contender("cadvisor", ("cadvisor",), _cadvisor, _of_cadvisor),
        Contender("telegraf", ("telegraf",), _telegraf, _of_telegraf, docker_only=True),
        Contender("otelcol", ("otelcol",), _otelcol, _of_otelcol, docker_only=True),
    )
}
