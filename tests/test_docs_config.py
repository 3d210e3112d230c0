"""The committed documentation of the configuration is what the types say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from streamer import config

ROOT = Path(__file__).parent.parent
DEFAULTS = ROOT / "deploy" / "streamer.toml"


def test_the_documented_default_file_is_current() -> None:
    """`python -m streamer config defaults > deploy/streamer.toml` changes nothing."""
    assert DEFAULTS.read_text() == config.default_toml()


def test_loading_the_default_file_changes_nothing() -> None:
    """Every key in it has its default."""
    assert config.load(DEFAULTS, {}, {}) == config.Settings()


def test_the_default_file_names_and_explains_every_key() -> None:
    """Each key stands there once, under a comment with its help."""
    text = DEFAULTS.read_text()
    unwrapped = text.replace("\n# ", " ")
    for key in config.describe():
        assert key.help.endswith((".", "socket")) and key.help in unwrapped, key
        assert f"\n{key.key.rpartition('.')[2]} = {key.default}\n" in text or f"\n#{key.key.rpartition('.')[2]} = " in text, key


def test_the_example_sink_of_the_default_file_can_be_used(tmp_path: Path) -> None:
    """Taking the # away before the sink's section gives a configuration."""
    path = tmp_path / "s.toml"
    lines = DEFAULTS.read_text().splitlines()
    path.write_text(
        "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") and len(line) > 1 else line for line in lines)
    )
    assert [sink.url for sink in config.load(path, {}, {}).sinks] == ["kafka://127.0.0.1:9092"]


def test_the_json_schema_takes_the_default_file_and_refuses_what_the_program_refuses() -> None:
    """Editors and roll-out checks see the same types, bounds and unknown keys."""
    schema = config.json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(tomllib.loads(DEFAULTS.read_text()))
    mistakes: list[dict[str, object]] = [
        {"scop": "all"},
        {"scope": "some"},
        {"sampling": {"interval": "2"}},
        {"outbox": {"batch_messages": 0}},
        {"sinks": [{}]},
    ]
    for bad in mistakes:
        assert not validator.is_valid(bad), bad


def test_the_json_schema_has_every_default() -> None:
    """Also those that are made anew each time."""
    definitions = config.json_schema()["$defs"]
    assert definitions["Labels"]["properties"]["allow"]["default"] == ["*"]
    assert json.loads((ROOT / "schemas" / "config.schema.json").read_text())["$defs"] == json.loads(json.dumps(definitions))


def test_the_effective_configuration_masks_passwords_and_tells_origins(tmp_path: Path) -> None:
    """What is printed can be loaded again and shown to others."""
    path = tmp_path / "s.toml"
    path.write_text('scope = "all"\n')
    flags = {"sinks": ["redis://u:hunter2@h:1/0", "stdout:"], "host_root": 'a"b\\c\x7f'}
    text = config.effective_toml(*config.load_with_origins(path, {}, flags))
    assert "hunter2" not in text and 'url = "redis://u:***@h:1/0"' in text
    assert f'scope = "all"  # {path}:1' in text and "[[sinks]]  # --sink" in text
    (tmp_path / "again.toml").write_text(text)
    again = config.load(tmp_path / "again.toml", {}, {})
    assert again.host_root == 'a"b\\c\x7f' and again.scope == "all" and len(again.sinks) == 2


@pytest.mark.parametrize("key", sorted(set(config.FLAGS) - {"sinks"}))
def test_every_flag_stands_for_a_key(key: str) -> None:
    """The help of a flag is that of its key."""
    assert config.key_of(key).help
