"""The command against real HTTP servers, and what it makes of differences that do not stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.compare import __main__ as command
from tests.compare.questions import Question
from tests.compare.setting import Setting
from tests.compare.tree import Difference
from tests.support.brokers import free_port
from tests.support.http_answer import server

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.compare", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_differs_only_now_and_then_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unexpected ones must be there every time; expected ones are told as they were found, and asked for once."""
    monkeypatch.setattr(command, "_AGAIN_SECONDS", 0)
    stays, once = Difference("Container.name", "value", 1, 2), Difference("Container.id", "value", 1, 2)
    expected = Difference("Container.stats[].memory.kernel", "value", 0, 5)
    answers = iter([[stays, once], [stays], [stays, once]])
    looked: list[str] = []

    def look() -> list[Difference]:
        looked.append("look")
        return [expected]

    found = list(command.what_stays([(Question("/a"), lambda: next(answers)), (Question("/b"), look)], Setting()))
    assert found == [("GET /a", stays), ("GET /b", expected)]
    assert looked == ["look"]


def test_nobody_there_is_not_nothing_different() -> None:
    """Exit code 2, and who did not answer."""
    done = run(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, "ConnectionRefusedError" in done.stdout) == (2, True), done.stdout + done.stderr


def test_an_answer_that_is_none_is_not_nothing_different() -> None:
    """Who answers everything with the same object has no containers to compare."""
    with server(200, {"error": "no"}) as url:
        done = run(url, url)
    assert done.returncode == 2, done.stdout + done.stderr


def test_what_no_question_shows_is_written_down() -> None:
    """`--on-purpose` prints it."""
    done = run("x", "y", "--on-purpose")
    assert done.returncode == 0
    assert "max_events\n" in done.stdout


def test_a_closed_connection_and_a_refusal_are_answers() -> None:
    """Redirects are not followed, statuses not raised."""
    with server(500, b"failed\n") as url:
        answer = command.ask(url, Question("/api/v9"))
    assert (answer.status, answer.body) == (500, b"failed\n")
