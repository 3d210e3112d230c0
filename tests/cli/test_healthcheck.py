"""`streamer healthcheck` against real HTTP servers on TCP and unix sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streamer.cli import main
from tests.support.http_answer import server

READY = {
    "ready": True,
    "components": [{"component": "source.cgroup", "state": "ok", "reason": ""}, {"component": "source.kmsg", "state": "off"}],
}
LAME = {"ready": True, "components": [{"component": "sink.kafka", "state": "down", "reason": "connection refused"}]}
SINCE = {
    "components": [{"component": "sink.redis", "state": "down", "reason": "refused", "since": "2026-01-02T03:04:05.678901234Z"}]
}
NOT_READY = {"ready": False, "components": [{"component": "source.cgroup", "state": "starting"}]}


@pytest.mark.parametrize(
    ("status", "body", "code", "line"),
    [
        (200, READY, 0, "ok"),
        (200, LAME, 0, "ok: sink.kafka down (connection refused)"),
        (200, SINCE, 0, "ok: sink.redis down since 2026-01-02T03:04:05Z (refused)"),
        (503, NOT_READY, 1, "not ready (503): source.cgroup starting"),
        (404, b"nothing\nhere", 1, "not ready (404): nothing"),
        (200, b"ok", 0, "ok"),
        (500, [1], 1, "not ready (500)"),
        (200, {"components": [{"state": "down"}]}, 0, None),
        (401, {"error": "who asks has to say", "remedy": "send"}, 1, "not ready (401): who asks has to say; send"),
        (421, {"error": "x"}, 1, None),
    ],
)
def test_the_answer_is_one_line_and_an_exit_code(
    status: int, body: object, code: int, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 only for 200; the line tells what is not well."""
    with server(status, body) as url:
        assert main(["healthcheck", url]) == code
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and not said.err
    assert line is None or said.out == f"{line}\n" or (line == "not ready (500)" and said.out.startswith(line))


def test_a_unix_socket_and_the_configured_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By URL, and by http.listen of the configuration."""
    path = str(tmp_path / "s.sock")
    config = tmp_path / "s.toml"
    config.write_text(f'[http]\nlisten = "unix:{path}"\n')
    with server(200, READY, path):
        assert main(["healthcheck", f"unix:{path}"]) == 0
        assert main(["healthcheck", "--live", "--config", str(config)]) == 0
    with server(200, READY) as url:
        config.write_text(f'[http]\nlisten = "0.0.0.0:{url.rpartition(":")[2]}"\ninsecure = true\n')
        assert main(["healthcheck", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "ok\n" * 3


def test_nobody_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, missing, not HTTP, off: never a traceback."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert main(["healthcheck", f"http://127.0.0.1:{port}"]) == 1
    assert "Connection refused" in capsys.readouterr().out
    assert main(["healthcheck", f"unix:{tmp_path}/none"]) == 1
    assert "No such file" in capsys.readouterr().out
    assert main(["healthcheck", "ftp://h"]) == 1
    assert "is not http://HOST:PORT or unix:PATH" in capsys.readouterr().err
    (tmp_path / "s.toml").write_text('[http]\nlisten = "off"\n')
    assert main(["healthcheck", "--config", str(tmp_path / "s.toml")]) == 1
    assert "nobody to ask" in capsys.readouterr().err


def test_a_server_that_never_answers_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    """`--timeout` bounds the wait."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        assert main(["healthcheck", f"http://127.0.0.1:{bound.getsockname()[1]}", "--timeout", "50ms"]) == 1
    assert "timed out" in capsys.readouterr().out
