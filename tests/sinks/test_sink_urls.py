"""URLs of sinks: what they name, what is wrong with them, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer import brokers
from streamer.config import Publishing, SinkSettings
from streamer.errors import ConfigError
from streamer.sinks import SINKS, make, wanted_types

SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    ("url", "name", "shown"),
    [
        ("stdout:", "stdout", "stdout:"),
        ("file:///var/log/a%20b.jsonl", "file", "file:///var/log/a b.jsonl"),
        (f"redis://:{SECRET}@h:6380/2", "redis", "redis://h:6380/2"),
        (f"rediss://u:{SECRET}@h", "redis", "rediss://u@h"),
        (f"unix://u:{SECRET}@/run/redis.sock?db=3", "redis", "unix://u@/run/redis.sock"),
        (f"kafka://u:{SECRET}@a,b:9093,[::1]:9094?sasl=SCRAM-SHA-256", "kafka", "kafka://u@a,b:9093,[::1]:9094"),
        ("kafkas://a", "kafka", "kafkas://a"),
    ],
)
def test_a_url_makes_a_sink_and_is_shown_without_its_password(url: str, name: str, shown: str) -> None:
    """Every scheme of the table can be made, and describes itself."""
    sink = make(SinkSettings(url=url), Publishing(), "host")
    assert (sink.name, sink.describe()) == (name, shown)
    assert SECRET not in repr(vars(sink).get("_url"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nats://h", "no sink for 'nats'"),
        ("file://relative/path", "not the absolute path"),
        ("file:///directory/", "not the absolute path"),
        (f"redis://u:{SECRET}@/0", "no host"),
        (f"redis://u:{SECRET}@a,b", "more than one host"),
        (f"redis://u:{SECRET}@a/zero", "database is not a number"),
        (f"redis://u:{SECRET}@a:99999", "a port that is none"),
        (f"redis://u:{SECRET}@a?pool=3", "unknown option pool"),
        ("unix://", "no path of a socket"),
        (f"kafka://u:{SECRET}@a/topic", "a path says nothing"),
        (f"kafka://u:{SECRET}@a?sasl=GSSAPI", "no mechanism 'GSSAPI'"),
        (f"kafka://u:{SECRET}@a?tls=maybe", "cannot be used"),
        ("kafka://u@a", "needs a user and a password"),
        (f"kafkas://u:{SECRET}@a?ca=/no/such/file.pem", "cannot be read"),
        (f"redis://u:{SECRET}@[::1", "no host"),
    ],
)
def test_an_impossible_url_is_refused_with_key_and_remedy(url: str, problem: str) -> None:
    """The error names the key, what is wrong, and what to write instead; never the password."""
    with pytest.raises(ConfigError) as refused:
        make(SinkSettings(url=url), Publishing(), "host")
    assert problem in refused.value.problem
    assert refused.value.key == "sinks.url"
    assert refused.value.remedy
    assert SECRET not in str(refused.value)


def test_user_and_password_are_percent_encoded(tmp_path: Path) -> None:
    """Any character can stand in them; the file's password is taken when the URL has none."""
    url = brokers.parse("kafka://us%40er:p%3Aa%2Fs%25s@h")
    assert (url.username, url.password) == ("us@er", "p:a/s%s")
    assert brokers.parse("kafka://user@h", password="from file").password == "from file"
    options = brokers.kafka_options(brokers.parse("kafka://u:p@h?sasl=SCRAM-SHA-512"))
    assert options == {
        "bootstrap_servers": ["h:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }


def test_which_topics_a_sink_gets() -> None:
    """Those listed; else all, but JSON Lines no state: a line cannot be taken back."""
    assert wanted_types("redis://h", ["oom", "control"]) == {"oom", "control"}
    assert wanted_types("redis://h", []) - wanted_types("stdout:", []) == {"state"}
    with pytest.raises(ConfigError, match="no such message type"):
        wanted_types("redis://h", ["stat"])


def test_every_line_of_the_table_can_be_imported() -> None:
    """A new sink is one line: it must name a class that is there."""
    examples = {"stdout": "stdout:", "file": "file:///x", "unix": "unix:///x"}
    for scheme in SINKS:
        assert make(SinkSettings(url=examples.get(scheme, f"{scheme}://h")), Publishing(), "host").describe()
