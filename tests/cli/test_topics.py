"""`streamer topics create` against a real broker."""

from __future__ import annotations

import pytest

from streamer.cli import main
from streamer.model.messages import TOPICS
from tests.support.brokers import KafkaServer, free_port


@pytest.mark.live
def test_topics_are_made_once(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Created at first, there the second time, and what differs from what is wanted is said and left alone."""
    monkeypatch.setenv("STREAMER_PUBLISHING__PREFIX", "cli-topics")
    assert main(["topics", "create", kafka.url, "--partitions", "2"]) == 0
    made = capsys.readouterr()
    assert [line.split() for line in made.out.splitlines()] == [["created", f"cli-topics.{topic.suffix}"] for topic in TOPICS]
    assert main(["topics", "create", kafka.url, "--partitions", "3"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert all(line.startswith("exists ") and line.endswith("partitions is 2, wanted 3") for line in again)
    assert main(["topics", "create", kafka.url.replace("kafka://", "kafka://u:hunter2@") + "?sasl=NO"]) == 78
    said = capsys.readouterr()
    assert "hunter2" not in said.err and not made.err


@pytest.mark.live
def test_a_broker_can_be_checked(kafka: KafkaServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`streamer check` connects to it; libraries say nothing in between."""
    main(["check", "--listen", "off", "--sink", kafka.url])
    said = capsys.readouterr()
    assert any("sink kafka://" in line for line in said.out.splitlines()) and not said.err


def test_no_broker_is_one_clear_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a traceback, and nothing a library had to say."""
    assert main(["topics", "create", f"kafka://127.0.0.1:{free_port()}"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("streamer: ") and "Traceback" not in said.err and said.err.count("\n") <= 2 and not said.out


def test_topics_are_made_on_kafka_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A Redis URL is refused without its password."""
    assert main(["topics", "create", "redis://:hunter2@h"]) == 1
    said = capsys.readouterr().err
    assert "kafka://host:port" in said and "hunter2" not in said
