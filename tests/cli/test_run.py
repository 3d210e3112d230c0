"""What `streamer run` and `streamer once` hand to the application, and what comes back to the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from streamer.cli import main
from streamer.config import Settings, SinkSettings
from streamer.errors import NotConnected, Unsupported


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands in for `streamer.app` and `streamer.glance`: here only the way there and back is looked at."""
    module = ModuleType("streamer.app")
    monkeypatch.setitem(sys.modules, "streamer.app", module)
    monkeypatch.setitem(sys.modules, "streamer.glance", module)
    return module


@pytest.mark.parametrize("code", [0, 1, 69])
def test_run_hands_over_the_settings_and_hands_back_the_code(app: Any, code: int) -> None:
    """Every flag arrives at its key; the exit code of the agent is the exit code of the process."""
    calls: list[tuple[Settings, float | None]] = []
    reloads: list[Callable[[], Settings]] = []

    def run(settings: Settings, duration_seconds: float | None, reload: Callable[[], Settings]) -> int:
        calls.append((settings, duration_seconds))
        reloads.append(reload)
        return code

    app.run = run
    arguments = (
        "run --sink stdout: --sink redis://h/1 --listen off --interval 2s --state-dir /s --scope all --require-sinks "
        "--host-root /h --log-level debug --log-format json --insecure --duration 1.5s"
    )
    assert main(arguments.split()) == code
    settings, duration = calls[0]
    assert duration == 1.5
    assert settings.sinks == [SinkSettings(url="stdout:"), SinkSettings(url="redis://h/1")]
    assert (settings.http.listen, settings.http.insecure, settings.sampling.interval) == ("off", True, "2s")
    assert (settings.state_dir, settings.scope, settings.require_sinks, settings.host_root) == ("/s", "all", True, "/h")
    assert (settings.log_level, settings.log_format) == ("debug", "json")
    main(["run"])
    assert calls[1] == (Settings(), None)
    assert [reload() for reload in reloads] == [settings, Settings()]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unsupported("no cgroups", remedy="mount them"), "streamer: no cgroups (remedy: mount them)\n"),
        (NotConnected("h:1 refused", remedy="start it"), "streamer: h:1 refused\n  remedy: start it\n"),
    ],
)
def test_what_the_host_lacks_is_told_in_words(app: Any, error: Exception, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 with the remedy, once."""

    def run(*_: object, **__: object) -> int:
        raise error

    app.run = app.once = run
    assert main(["run"]) == main(["once"]) == 1
    assert capsys.readouterr().err == told * 2


def test_an_interrupt_is_no_traceback(app: Any) -> None:
    """As shells count it: 130."""

    def once(_: object) -> None:
        raise KeyboardInterrupt

    app.once = once
    assert main(["once"]) == 130


def test_a_bug_is_a_traceback(app: Any) -> None:
    """What the operator did not cause must not look like it."""

    def run(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    app.run = run
    with pytest.raises(ZeroDivisionError):
        main(["run"])
