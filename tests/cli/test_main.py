"""The command line as its users meet it: help, exit codes, errors in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import streamer
from streamer.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("aiokafka", "redis", "docker", "starlette", "uvicorn", "psutil", "httptools", "orjson", "cramjam")


def streamer_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m streamer …` in a process of its own, without this one's configuration."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    return subprocess.run(
        [sys.executable, "-m", "streamer", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["config", "defaults"], ["schema", "list"], ["once", "--help"]]
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    """Help is instant: no broker client, no Docker, no HTTP server, no asyncio."""
    code = (
        "import sys, streamer.cli\n"
        f"try: streamer.cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"heavy = [name for name in {(*HEAVY, 'asyncio')!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_and_the_exit_codes() -> None:
    """`streamer --help` is the map."""
    done = streamer_command("--help")
    assert done.returncode == 0 and not done.stderr
    for command in COMMANDS:
        assert f"    {command.name}" in done.stdout and command.help[:30] in done.stdout
    assert "78 bad configuration" in done.stdout and "69 sink unavailable" in done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Every argument of every command and sub-command says what it does."""
    name = command.name  # type: ignore[attr-defined]
    subs = {"config": ["defaults", "show"], "schema": ["list", "show", "check", "write"], "topics": ["create"]}
    for arguments in [[name, "--help"], *([name, sub, "--help"] for sub in subs.get(name, []))]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: streamer {' '.join(arguments[:-1])}")
        assert "==" not in text and "None" not in text


def test_run_has_the_flags_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """Names that scripts and units rely on."""
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for flag in (
        "--config FILE", "--sink URL", "--listen HOST:PORT|unix:PATH|off", "--interval DUR", "--state-dir DIR", "--scope containers|all",
        "--require-sinks", "--host-root DIR", "--log-level", "--log-format", "--duration DUR", "--insecure",
    ):  # fmt: skip
        assert flag in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, as everywhere."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"streamer {streamer.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["runn"],
        ["run", "--intervall", "1s"],
        ["run", "extra"],
        ["run", "--duration", "soon"],
        ["config"],
        ["topics", "create", "kafka://h", "--partitions", "0"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Usage and what was wrong, on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2 and "usage: streamer" in said.err and not said.out


BAD = {
    "an unknown key": (
        '[sampling]\nintervall = "2s"\n',
        [":2: sampling.intervall: there is no such key", 'did you mean "interval"?', "remedy: "],
    ),
    "a wrong type": (
        "[http]\nsamples = 'many'\n",
        [':2: http.samples = "many": must be a whole number from 1 to 3600', "remedy: "],
    ),
    "an impossible URL": ('[[sinks]]\nurl = "kafka://:9092"\n', [':2: sinks[0].url = "kafka://:9092": has no host', "remedy: "]),
    "a bad duration": ('[sampling]\ninterval = "fast"\n', [':2: sampling.interval = "fast": is not a duration', "remedy: "]),
    "invalid TOML": ("scope = 'all'\nx y\n", [":2: not valid TOML: "]),
}


@pytest.mark.parametrize("command", [["run"], ["once"], ["check"], ["config", "show"], ["healthcheck"]], ids=" ".join)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_configuration_ends_with_78_and_one_clear_text(
    kind: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key, value, line and remedy on stderr; nothing on stdout; no traceback."""
    text, words = BAD[kind]
    path = tmp_path / "s.toml"
    path.write_text(text)
    assert main([*command, "--config", str(path)]) == 78
    said = capsys.readouterr()
    assert said.err.startswith(f"streamer: bad configuration: {path}") and not said.out
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err and said.err.count("\n") <= 2


def test_files_that_cannot_be_read_end_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, a directory, without permission."""
    for path, word in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        assert main(["config", "show", "--config", str(path)]) == 78
        assert word in capsys.readouterr().err


def test_bad_flags_and_variables_end_with_78_in_a_real_process() -> None:
    """They are layers of the configuration, and are told as such."""
    for arguments, environ, words in (
        (["run", "--interval", "fast"], {}, "--interval: sampling.interval = fast: is not a duration"),
        (["run", "--sink", "redis://u:hunter2@h:x"], {}, "--sink: sinks[0].url = redis://u:***@h:x: has no host, or"),
        (["run", "--scope", "al"], {}, "--scope: scope = al: must be one of containers, all"),
        (
            ["run"],
            {"STREAMER_SAMPLING__INTERVALL": "2s"},
            "environment STREAMER_SAMPLING__INTERVALL: sampling.intervall: there is no such key",
        ),
    ):
        done = streamer_command(*arguments, **environ)
        assert done.returncode == 78 and words in done.stderr and not done.stdout
        assert "Traceback" not in done.stderr and "hunter2" not in done.stderr


def test_config_show_layers_files_environment_and_flags(tmp_path: Path) -> None:
    """What is in use and where it comes from, with passwords masked."""
    path = tmp_path / "s.toml"
    path.write_text('[[sinks]]\nurl = "redis://:hunter2@localhost/0"\n')
    done = streamer_command("config", "show", "--config", str(path), "--interval", "3s", STREAMER_SCOPE="all")
    assert done.returncode == 0
    assert 'interval = "3s"  # --interval' in done.stdout and 'scope = "all"  # environment STREAMER_SCOPE' in done.stdout
    assert 'url = "redis://:***@localhost/0"' in done.stdout and "hunter2" not in done.stdout


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`streamer config defaults | head -1`."""
    shell = f"set -o pipefail; {sys.executable} -m streamer config defaults | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_a_closed_stdout_is_no_traceback() -> None:
    """The whole output is refused by the kernel: exit code 1 in silence."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "config", "defaults"],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
