"""`streamer schema`, and that the committed schemas are current and compatible with the release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import streamer
from streamer.cli import main, schema
from streamer.model.messages import TOPICS

COMMITTED = Path(__file__).parent.parent.parent / "schemas"


def test_committed_schemas_are_current_and_compatible(capsys: pytest.CaptureFixture[str]) -> None:
    """The gate of CI: `streamer schema write` changes nothing, and readers of the release survive."""
    assert main(["schema", "check"]) == 0, capsys.readouterr().out
    assert "compatible" in capsys.readouterr().out


def test_list_names_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Record, version, topic, key, lane and id."""
    assert main(["schema", "list"]) == 0
    shown = capsys.readouterr().out
    for topic in TOPICS:
        assert (
            topic.record.__name__ in shown
            and f"streamer.{topic.suffix} " in shown
            and f"urn:streamer:schema:{topic.type}:1" in shown
        )


@pytest.mark.parametrize("name", ["container.stats", "container.stats/1", "stats", "ContainerStats"])
def test_show_takes_every_name_of_a_record(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Type, schema, short name, class."""
    assert main(["schema", "show", name]) == 0
    assert json.loads(capsys.readouterr().out)["$id"] == "urn:streamer:schema:container.stats:1"
    assert main(["schema", "show", name, "--example"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "container.stats"


def test_show_the_configuration_and_what_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """`config` is a schema, too; a wrong name lists the right ones."""
    assert main(["schema", "show", "config"]) == 0
    assert json.loads(capsys.readouterr().out)["$id"] == "urn:streamer:schema:config:1"
    assert main(["schema", "show", "container.stat"]) == 1
    assert "container.lifecycle, container.oom" in capsys.readouterr().err


def test_write_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written passes; a changed, missing or surplus file does not; words around the table stay."""
    assert main(["schema", "write", "--dir", str(tmp_path), "--release"]) == 0
    assert main(["schema", "check", "--dir", str(tmp_path)]) == 0
    readme = tmp_path / "README.md"
    readme.write_text("# Words\n" + readme.read_text() + "more\n")
    (tmp_path / "control.v1.schema.json").write_text("{}")
    (tmp_path / "examples" / "control.json").unlink()
    (tmp_path / "examples" / "gone.json").write_text("{}")
    capsys.readouterr()
    assert main(["schema", "check", "--dir", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "control.v1.schema.json: is not what the types say" in told and "examples/control.json: is missing" in told
    assert "examples/gone.json: is not generated" in told and "README" not in told and told.count("remedy: ") == 3
    readme.write_text(readme.read_text().replace("urn:", "urn-"))
    assert [name for name, _ in schema.stale_files(tmp_path)][-1] == "README.md"
    assert main(["schema", "write", "--dir", str(tmp_path)]) == 0
    assert readme.read_text().startswith("# Words\n") and readme.read_text().endswith("more\n")
    readme.write_text("no markers")
    assert main(["schema", "write", "--dir", str(tmp_path)]) == 1 and "lost its markers" in capsys.readouterr().err


def test_a_release_is_never_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frozen means frozen."""
    assert main(["schema", "write", "--dir", str(tmp_path), "--release"]) == 0
    assert main(["schema", "write", "--dir", str(tmp_path), "--release"]) == 1
    assert "is released already" in capsys.readouterr().err


def test_the_newest_release_is_the_one_of_the_highest_number(tmp_path: Path) -> None:
    """0.10.0 came after 0.9.0."""
    for name in ("0.9.0", "0.10.0", "0.2.1"):
        (tmp_path / name).mkdir()
    assert schema.newest_release(tmp_path) == tmp_path / "0.10.0"
    assert schema.newest_release(tmp_path / "none") is None
    assert (COMMITTED / "released" / streamer.__version__).is_dir()


def test_check_against_a_release_names_record_field_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release that had a field which is gone now."""
    assert main(["schema", "write", "--dir", str(tmp_path)]) == 0
    path = tmp_path / "container.lifecycle.v1.schema.json"
    document = json.loads(path.read_text())
    document["$defs"]["ContainerSpec"]["properties"]["gpu_count"] = {"type": "integer"}
    path.write_text(json.dumps(document))
    capsys.readouterr()
    assert main(["schema", "check", "--against", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("failed  container.lifecycle: spec.gpu_count: was removed; remedy: put it back")


@pytest.mark.parametrize("content", [None, "not json", '{"$id": "other"}', "[]"])
def test_check_against_something_else_is_an_error_in_words(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder, damaged or foreign files: never compatible by accident."""
    if content is not None:
        (tmp_path / "x.schema.json").write_text(content)
    assert main(["schema", "check", "--against", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert str(tmp_path) in said.err and "ok" not in said.out
