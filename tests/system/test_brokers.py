"""One agent, three places: Kafka, Redis and a file get the same messages, and none of them disturbs the others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support import read_back
from tests.support.agent import Agent
from tests.support.brokers import KafkaServer, RedisServer, free_port
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live]

NO_DOCKER = {"STREAMER_DOCKER__ENABLED": "false"}
CONTAINERS = 60  # come and go while a broker is away


def streamer(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program."""
    return subprocess.run([sys.executable, "-m", "streamer", *arguments], capture_output=True, text=True, timeout=60, check=False)


def facts(lines: list[dict[str, Any]], folder: CgroupFolder) -> dict[str, list[str]]:
    """What was said of the life of each of this test's cgroups, in order."""
    told: dict[str, list[str]] = {}
    for line in lines:
        if (
            line["type"] == "container.lifecycle"
            and line["event"] != "updated"
            and line["container_id"].startswith(f"{folder.path}/")
        ):
            told.setdefault(line["container_id"], []).append(line["event"])
    return told


def from_redis(redis: RedisServer, prefix: str, kind: str) -> list[dict[str, Any]]:
    """All entries of a stream, as redis-cli shows them."""
    (key,) = redis.cli("KEYS", f"{prefix}:*:{kind}").split()
    answer = json.loads(redis.cli("--json", "XRANGE", key, "-", "+"))
    return [json.loads(dict(zip(fields[::2], fields[1::2], strict=True))["data"]) for _, fields in answer]


def get(port: int, path: str) -> Any:
    """A JSON answer of the sidecar."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stopped", ["kafka", "redis"])
def test_a_stopped_broker_disturbs_nobody_and_loses_nothing(stopped: str, cgroups: CgroupFolder, tmp_path: Path) -> None:
    """A broker is away while sixty containers come and go: the others go on, and afterwards nothing is missing."""
    file, port, prefix = tmp_path / "out.jsonl", free_port(), f"t{uuid4().hex[:6]}"
    with KafkaServer() as kafka, RedisServer(durable=True) as redis:
        made = streamer("topics", "create", kafka.url, "--config", str(_config(tmp_path, prefix)))
        assert made.returncode == 0, made.stderr
        sinks = [word for url in (kafka.url, redis.url, f"file://{file}") for word in ("--sink", url)]
        with Agent(*sinks, "--listen", f"127.0.0.1:{port}", "--config", str(tmp_path / "s.toml"), environment=NO_DOCKER) as agent:
            agent.ready()
            cgroups.make("before")
            broker = kafka if stopped == "kafka" else redis
            # What a stopping broker stores without saying so is there twice when it is back; none of what is counted below is on its way.
            agent.until(lambda: not _waiting(port), "a sink does not acknowledge")
            broker.stop()
            agent.until(lambda: _down(port, stopped), "/readyz does not show the stopped broker", 60)
            expected = {f"{cgroups.path}/before": ["created"]}
            for number in range(CONTAINERS):
                name = f"c{number}"
                path = cgroups.make(name)
                agent.until(lambda path=path: facts(_lines(file), cgroups).get(path) == ["created"], "the file was disturbed")
                cgroups.remove(name)
                agent.until(lambda path=path: len(facts(_lines(file), cgroups)[path]) == 2, "the file was disturbed")
                expected[path] = ["created", "deleted"]
            samples = [
                line
                for line in _lines(file)
                if line["type"] == "container.stats" and line["container_id"] == f"{cgroups.path}/before"
            ]
            gaps = [after["time_ms"] - before["time_ms"] for before, after in pairwise(samples)]
            assert max(gaps, default=0) < 5000, "sampling was disturbed"
            broker.start()
            agent.until(lambda: not _down(port, stopped), "the broker is back, but not for the agent", 60)
            assert agent.stop() == 0
        told = _lines(file)
        assert facts(told, cgroups) == expected
        wanted = [line for line in told if line["type"] in ("container.lifecycle", "control", "host.info")]
        ids = {line["id"] for line in wanted}
        in_kafka = [
            json.loads(value)
            for topic in ("container.lifecycle", "control", "host.info")
            for value in kafka.consume(f"{prefix}.{topic}", sum(line["type"] == topic for line in wanted))
        ]
        in_redis = [line for kind in ("lifecycle", "control", "host") for line in from_redis(redis, prefix, kind)]
        for name, kept in (("kafka", in_kafka), ("redis", in_redis)):
            assert ids <= {line["id"] for line in kept}, name
            assert facts(kept, cgroups) == expected, name


def _waiting(port: int) -> float:
    """Durable messages that some sink has not acknowledged."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [
        float(line.split()[1]) for line in lines if line.startswith("streamer_sink_backlog_messages{") and 'lane="durable"' in line
    ]
    assert len(found) == 3
    return sum(found)


def _config(tmp_path: Path, prefix: str) -> Path:
    file = tmp_path / "s.toml"
    file.write_text(f'[publishing]\nprefix = "{prefix}"\n')
    return file


def _down(port: int, name: str) -> bool:
    parts = {part["component"]: part for part in get(port, "/readyz")["components"]}
    return bool(parts[f"sink.{name}"]["state"] == "down" and parts[f"sink.{name}"]["reason"])


def _lines(file: Path) -> list[dict[str, Any]]:
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_the_topics_look_as_promised_to_kafkas_own_tools(kafka: KafkaServer, cgroups: CgroupFolder, tmp_path: Path) -> None:
    """Key, ce_ headers and timestamp, as Kafka's console consumer shows them."""
    prefix = f"t{uuid4().hex[:6]}"
    config = _config(tmp_path, prefix)
    assert streamer("topics", "create", kafka.url, "--config", str(config)).returncode == 0
    with Agent(
        "--sink", kafka.url, "--sink", "stdout:", "--listen", "off", "--config", str(config), environment=NO_DOCKER
    ) as agent:
        agent.ready()
        path = cgroups.make("seen")
        (created,) = agent.wait_said(event="created", container_id=path)
        agent.wait_said(type="container.stats", container_id=path)
        assert agent.stop() == 0
    count = len(agent.said(type="container.lifecycle"))
    records = kafka.consume(f"{prefix}.container.lifecycle", count, "timestamp", "headers", "key")
    (mine,) = [record for record in records if f'"{created["id"]}"' in record]
    timestamp, headers, key, value = mine.split("\t", 3)
    assert json.loads(value) == created
    assert (timestamp, key) == (f"CreateTime:{created['time_ms']}", path)
    told = dict(header.split(":", 1) for header in headers.split(","))
    assert told["ce_id"] == created["id"] and told["ce_type"] == "streamer.container.lifecycle"
    assert (told["ce_specversion"], told["ce_subject"], told["content-type"]) == ("1.0", path, "application/json")
    state = {record.key.decode() for record in asyncio.run(read_back.records(kafka, f"{prefix}.container.state"))}
    assert f"{created['host_id']}/{path}" in state
