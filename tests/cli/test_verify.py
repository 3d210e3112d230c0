"""`streamer verify` on files: the report, the JSON object, the exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamer.cli import main, verify
from streamer.model.messages import LIFECYCLE, OOM, STATS, Message
from streamer.testing.messages import Speaker, encoded

EPOCH = 1_700_000_000_000


def a_file(path: Path, messages: Sequence[Message]) -> str:
    """Its URL."""
    path.write_bytes(b"".join((entry.value or b"") + b"\n" for entry in encoded(messages)))
    return f"file://{path}"


def a_run() -> list[Message]:
    """One short run: a container with an OOM kill, samples, a gap and a note of what was not seen."""
    speaker = Speaker("h1", epoch=EPOCH)
    return [
        speaker.control("started"),
        speaker.lifecycle("c", found="live"),
        *(speaker.stats("c") for _ in range(9)),
        speaker.oom("c"),
        speaker.oom("c"),
        speaker.control("gap", component="sink.file", reason="backlog full", gap_topic="container.stats", gap_first="3", gap_last="4", gap_count=2),
        speaker.control("gap", component="source.kmsg", reason="the log was overrun", gap_count=12),
        speaker.lifecycle("c", "deleted", found="live"),
        speaker.control("stopped", high_water={"container.lifecycle": 2, "container.oom": 3, "container.stats": 9, "control": 4}),
    ]  # fmt: skip


def without(messages: Sequence[Message], topic: object, *numbers: int) -> list[Message]:
    """These messages less some numbers of a topic."""
    return [each for each in messages if not (each.topic is topic and each.record is not None and each.record.seq in numbers)]


def test_a_whole_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, a row for each topic, and one line that says it."""
    assert main(["verify", a_file(tmp_path / "f", Speaker("h1", epoch=EPOCH).some(100))]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"file://{tmp_path}/f" and lines[2].split()[:2] == ["HOST", "RUN"] and not said.err
    assert lines[3].split()[:4] == ["host", "2023-11-14T22:13:20.000Z", "container.lifecycle", "20"]
    assert lines[-1] == "complete: 100 records of 1 host, nothing is missing undeclared"


def test_the_report_names_what_is_missing_and_what_is_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, where, and what it means, below a table of sums."""
    damaged = without(without(a_run(), STATS, 3, 4, 6), LIFECYCLE, 1)
    assert main(["verify", a_file(tmp_path / "f", damaged)]) == 1
    text = capsys.readouterr().out
    rows = {line.split()[2]: line.split()[3:] for line in text.splitlines() if line.startswith("host ")}
    assert rows["container.stats"] == ["6", "-", "-", "2", "1", "-", "-"]
    assert "missing, undeclared: these numbers were given out" in text
    run = f"host h1, run {EPOCH}"
    assert f"  {run}, container.stats: seq 6: no gap declares them [after line 4]" in text
    assert f"  {run}, container.oom: seq 3: no gap declares them [after line 9]" in text
    assert f"  {run}, container.stats: seq 3-4 (2): sink.file: backlog full" in text
    assert "source.kmsg: the log was overrun (12)" in text and "deleted, but no created was read" in text
    assert text.endswith("failed: 13 records of 1 host; 3 missing undeclared\n")


def test_the_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the help describes."""
    url = a_file(tmp_path / "f", without(a_run(), STATS, 3, 4, 6))
    assert main(["verify", url, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["url"], told["prefix"], told["since_ms"], told["ok"], told["records"]) == (url, "streamer", None, False, 14)
    assert told["now_ms"] > EPOCH and told["counts"] == {"blind": 1, "missing": 2, "declared": 1}
    stats = next(row for row in told["rows"] if row["topic"] == "container.stats")
    assert stats == {
        "host": "host", "host_id": "h1", "epoch": EPOCH, "topic": "container.stats", "seen": 6, "repeats": 0, "repeated_ids": 0,
        "highest": 9, "mark": 9, "declared": 2, "undeclared": 1, "expired": 0, "pending": 0,
    }  # fmt: skip
    missing = [finding for finding in told["findings"] if finding["kind"] == "missing"]
    assert missing[1] == {
        "kind": "missing", "severity": "error", "text": "no gap declares them", "host_id": "h1", "epoch": EPOCH, "topic": "container.stats",
        "runs": [[6, 6]], "number": 1, "where": "line 5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: [*said[:3], said[4], said[3], *said[5:]], "1 out of order"),
        (lambda said: [*said, Speaker("h1", epoch=EPOCH).oom("c", id="x")], "1 under a number of another"),
        (
            lambda said: [*said[:-1], Speaker("h1", epoch=EPOCH + 1).lifecycle("c", "updated"), said[-1]],
            "1 against the order of life",
        ),
    ],
)
def test_what_else_is_wrong_fails_too(change: object, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of error is summed up in the last line."""
    said = without(a_run(), OOM)
    said[-1].record.high_water.pop("container.oom")  # type: ignore[union-attr]  # it is `stopped`
    said = change(said) if callable(change) else said
    assert main(["verify", a_file(tmp_path / "f", said)]) == 1
    assert words in capsys.readouterr().out.splitlines()[-1]


def test_schema_errors_fail_and_long_lists_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What steers a terminal does not reach it."""
    (tmp_path / "f").write_bytes(b"".join(b'{"type":"\\u001b[2J%d"}\n' % number for number in range(150)))
    assert main(["verify", f"file://{tmp_path}/f"]) == 1
    text = capsys.readouterr().out
    assert "[line 20]" in text and "[line 21]" not in text and "and 130 more" in text and "\x1b" not in text
    assert text.endswith("150 not as the schema says\n")


@pytest.mark.parametrize("content", [b"", b'{"type":"cont'])
def test_nothing_to_verify_is_a_failure(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It proves nothing."""
    (tmp_path / "f").write_bytes(content)
    assert main(["verify", f"file://{tmp_path}/f"]) == 1
    assert "nothing to verify" in capsys.readouterr().out
    assert main(["verify", f"file://{tmp_path}/f", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_one_host_one_type_one_while(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not asked for is not looked at."""
    other = without(Speaker("h2", epoch=EPOCH).some(60), LIFECYCLE, 5)
    url = a_file(tmp_path / "f", [*without(a_run(), OOM, 1, 2), *other])
    for arguments, code in (
        ([], 1), (["--host", "h1", "--type", "lifecycle"], 0), (["--host", "h2"], 1), (["--host", "h2", "--type", "stats"], 0),
        (["--host", "h1", "--type", "oom"], 1), (["--host", "h3"], 1), (["--since", "2023-11-14T22:13:20.005Z", "--type", "stats"], 0),
        (["--since", "1h"], 1), (["--since", "2023-11-14"], 1), (["--type", "stats", "--grace", "1h"], 0),
    ):  # fmt: skip
        assert main(["verify", url, *arguments]) == code, arguments
        assert ("nothing to verify" in capsys.readouterr().out) == (arguments in (["--host", "h3"], ["--since", "1h"]))


@pytest.mark.parametrize(
    "arguments", [[], ["file:///f", "--since", "soon"], ["file:///f", "--grace", "-1s"], ["file:///f", "--type", "all"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    assert ended.value.code == 2 and "usage: streamer verify" in capsys.readouterr().err


def test_urls_and_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear text with what to do, without a password."""
    for url, code, words in (
        ("stdout:", 78, "let it go into a file"), ("nats://u:hunter2@h", 78, "use one of file"), ("redis://:hunter2@h:1/x", 78, "not a number"),
        (f"file://{tmp_path}/none", 1, "name a file that can be read"), (f"file://{tmp_path}", 1, "no regular file"),
    ):  # fmt: skip
        assert main(["verify", url]) == code
        said = capsys.readouterr()
        assert words in said.err and "hunter2" not in said.err and "Traceback" not in said.err and not said.out


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, wiped away at the end; the report is on stdout as ever."""
    url = a_file(tmp_path / "f", Speaker("h1", epoch=EPOCH).some(100))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(verify, "_EVERY_NS", 0)
    assert main(["verify", url, "--json"]) == 0
    said = capsys.readouterr()
    assert "(100 %) bytes" in said.err and said.err.endswith("\r\x1b[K") and json.loads(said.out)["ok"]


def test_progress_in_words() -> None:
    """With a share where the whole is known."""
    from streamer.consume import Progress

    assert verify._words(Progress(50, 200, "bytes")) == "read 50 of 200 (25 %) bytes"
    assert verify._words(Progress(50, 0, "records")) == "read 50 records"
