"""The file of tokens: what may stand in it, who may read it, and how it changes while the agent runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.sidecar import tokens
from streamer.sidecar.tokens import Tokens
from streamer.testing.clock import FakeClock

ONE, TWO, THREE = "1" * 32, "abcDEF012345._~+/-==", "3" * 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


def test_lines_names_and_comments(file: Path) -> None:
    """A token a line, a name before it if there is one; blank lines and what follows a # do not count."""
    file.write_text(f"# ours\n\n  {ONE}  # the first\r\nprometheus: {TWO}\nold.one-2:{THREE}")
    assert [tuple(token) for token in tokens.read(str(file))] == [("unnamed", ONE), ("prometheus", TWO), ("old.one-2", THREE)]
    known = Tokens(str(file), FakeClock())
    assert [known.name_of(text.encode()) for text in (ONE, TWO, THREE)] == ["unnamed", "prometheus", "old.one-2"]
    for wrong in (b"", ONE[1:].encode(), ONE.encode() + b"1", f"prometheus: {TWO}".encode(), b"\xff" * 32, TWO.lower().encode()):
        assert known.name_of(wrong) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no token"),
        (b"# nothing\n\n", "holds no token"),
        (b"hunter2\n", "line 1 has a token of less than 16 characters"),
        (b"\nname: hunter2hunter2 hunter2\n", "line 2 is not TOKEN or NAME: TOKEN"),
        (b"a name: hunter2hunter2hunter2\n", "line 1 is not"),
        (b"name: hunter2=hunter2hunter2\n", "line 1 is not"),
        (b"hunter2\xffhunter2hunter2\n", "line 1 is not"),
        (b"x" * 1_000_001, "is larger than"),
    ],
)
def test_what_cannot_be_used_is_said_without_showing_it(file: Path, content: bytes, problem: str) -> None:
    """Key, file, line and remedy; never what stands in the file."""
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Tokens(str(file), FakeClock())
    assert problem in str(refused.value) and "hunter2" not in str(refused.value)
    assert (refused.value.key, refused.value.value, bool(refused.value.remedy)) == ("http.token_file", str(file), True)


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o640, True), (0o400, True), (0o644, False), (0o606, False), (0o660, False)]
)
def test_who_else_may_read_it_or_change_it(file: Path, mode: int, good: bool) -> None:
    """A secret that others can read is none, and who can write to it lets himself in."""
    file.write_text(ONE)
    file.chmod(mode)
    if good:
        assert tokens.read(str(file))
        return
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as refused:
        tokens.read(str(file))
    assert f"chmod 640 {file}" in refused.value.remedy


def test_what_is_no_file_holds_up_nothing(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a directory, nothing."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, problem in ((tmp_path / "pipe", "is not a file"), (tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ConfigError, match=problem):
            tokens.read(str(path))


def test_a_link_that_is_moved_is_followed(tmp_path: Path) -> None:
    """As orchestrators replace a whole directory of secrets at once."""
    for name, token in (("a", ONE), ("b", THREE)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(token)
    link = tmp_path / "tokens"
    link.symlink_to("a")
    clock = FakeClock()
    known = Tokens(str(link), clock)
    link.unlink()
    link.symlink_to("b")
    clock.advance(1)
    assert known.name_of(ONE.encode()) is None and known.name_of(THREE.encode())


def test_tokens_change_while_the_agent_runs(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Looked at once a second; the same number of bytes in the same moment is a change, too."""
    clock = FakeClock()
    file.write_text(ONE)
    known = Tokens(str(file), clock)
    before = file.stat()
    file.write_text("2" * 32)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known.name_of(ONE.encode())
    clock.advance(0.99)
    assert known.name_of(ONE.encode())
    clock.advance(0.01)
    assert known.name_of(ONE.encode()) is None
    assert known.name_of(b"2" * 32)
    assert ONE not in caplog.text


def test_a_file_that_cannot_be_used_any_more_lets_nobody_in(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Gone, opened to others, or half written: closed until it is repaired, said once."""
    clock = FakeClock()
    file.write_text(ONE)
    known = Tokens(str(file), clock)
    file.chmod(0o644)
    for _ in range(3):
        clock.advance(1)
        assert known.name_of(ONE.encode()) is None
    assert "others may read" in known.trouble and caplog.text.count("nobody is let in by a token") == 1
    file.chmod(0o600)
    clock.advance(1)
    assert known.name_of(ONE.encode()) and not known.trouble
    file.unlink()
    clock.advance(1)
    assert known.name_of(ONE.encode()) is None and "No such file" in known.trouble
    assert ONE not in caplog.text
