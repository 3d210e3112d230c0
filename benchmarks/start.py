"""How long things take to begin: help, version, and an agent until it is ready, with and without containers."""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.agent import AgentProcess, free_port
from benchmarks.cgroups import Cgroups, tenant_command
from benchmarks.command import add_save, plain, positive, progress
from streamer.kernel.hierarchy import detect

_READY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.002
_MS: Final = 1e3
_COMMANDS: Final = (
    ("python -c pass", ["-c", "pass"]),
    ("streamer --version", ["-m", "streamer", "--version"]),
    ("streamer --help", ["-m", "streamer", "--help"]),
    ("streamer run --help", ["-m", "streamer", "run", "--help"]),
)
_CREATED: Final = b'"event":"created"'
_SIGNS: Final = ("notified", "readyz", "created")
_SHOWN: Final = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks start`."""
    parser.add_argument("--containers", type=positive, nargs="+", default=[500], metavar="N", help="with so many, besides none")
    parser.add_argument("--commands", type=positive, default=20, metavar="R", help="repetitions of each command")
    parser.add_argument(
        "--agents", type=positive, default=10, metavar="R", help="starts of an agent, for each number of containers"
    )
    parser.add_argument("--imports", action="store_true", help="also what takes longest to import for `streamer run`")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    machine = report.machine()
    commands: dict[str, list[float]] = {name: [] for name, _ in _COMMANDS}
    progress("commands")
    for _ in range(args.commands):
        for name, words in _COMMANDS:
            commands[name].append(_took(words))
    agents: dict[int, list[dict[str, float]]] = {}
    hierarchies = detect(Path("/"))
    for count in (0, *args.containers):
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
            progress(f"{count} cgroups")
            cgroups = stack.enter_context(Cgroups(hierarchies, count, tenant_command(directory, "idle"), hidden=True))
            agents[count] = [_agent(cgroups, directory, number) for number in range(args.agents)]
    parts = [
        "\n".join(f"{name}: {value}" for name, value in machine.items()),
        f"ms as min / median / max; {args.commands} runs of each command by turns, {args.agents} starts of each agent.",
        report.table(("command", "ms"), [(name, report.spread(took)) for name, took in commands.items()]),
        report.table(
            ("containers", "READY=1", "/readyz says 200", "all `created` in the file"),
            [
                (str(count), *(report.spread([took[what] for took in mine], 0) if what in mine[0] else "" for what in _SIGNS))
                for count, mine in agents.items()
            ],
        ),
    ]
    if args.imports:
        parts += ["What `streamer run` imports, the dearest by themselves, ms:", _imports()]
    text = "\n\n".join(parts)
    print(text)
    if args.save:
        figures: dict[str, Any] = {"machine": machine, "options": plain(args), "commands_ms": commands, "agents_ms": agents}
        for path in report.save("start", text, figures):
            print(f"saved to {path}")
    return 0


def _took(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * _MS


def _agent(cgroups: Cgroups, directory: Path, number: int) -> dict[str, float]:
    """Milliseconds from before its start to each sign of readiness."""
    told = directory / f"messages-{number}.jsonl"
    port = free_port()
    signs: dict[str, Callable[[], bool]] = {}
    with ExitStack() as stack:
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(directory / f"notify-{number}"))
        notify.setblocking(False)
        os.environ["NOTIFY_SOCKET"] = str(directory / f"notify-{number}")
        signs["notified"] = lambda: _notified(notify)
        signs["readyz"] = lambda: _readyz(port)
        seen = _Tail(told)
        if cgroups.paths:
            signs["created"] = lambda: seen.created() >= len(cgroups.paths)
        began = time.perf_counter()
        options = ["--sink", told.as_uri(), "--listen", f"127.0.0.1:{port}"]
        agent = stack.enter_context(AgentProcess(options, directory / f"log-{number}", cgroups.alone()))
        del os.environ["NOTIFY_SOCKET"]
        took: dict[str, float] = {}
        while len(took) < len(signs):
            for name, sign in signs.items():
                if name not in took and sign():
                    took[name] = (time.perf_counter() - began) * _MS
            agent.check()
            if time.perf_counter() - began > _READY_SECONDS:
                raise RuntimeError(f"after {_READY_SECONDS:g} s only {', '.join(took) or 'nothing'} was seen")
            time.sleep(_LOOK_SECONDS)
    return took


def _notified(notify: socket.socket) -> bool:
    try:
        return b"READY=1" in notify.recv(4096)
    except BlockingIOError:
        return False


def _readyz(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Tail:
    """Counts what is added to a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._count = path, 0, 0

    def created(self) -> int:
        """How many containers were said to be created so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._at += len(whole)
            self._count += whole.count(_CREATED)
        return self._count


def _imports() -> str:
    """By `python -X importtime`, of an agent that ends at once."""
    command = [sys.executable, "-X", "importtime", "-m", "streamer", "run", "--sink", "file:///dev/null", "--duration", "100ms"]
    environment = {
        **os.environ,
        "STREAMER_STATE_DIR": "off",
        "STREAMER_DOCKER__ENABLED": "false",
        "STREAMER_HTTP__LISTEN": "127.0.0.1:0",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = re.findall(r"^import time: +(\d+) \| +(\d+) \| +(\S+)$", done.stderr, re.MULTILINE)
    rows = sorted(((int(own) / _MS, int(all_) / _MS, name) for own, all_, name in lines), reverse=True)
    table = report.table(
        ("module", "itself", "with what it imports"), [(name, f"{own:.1f}", f"{all_:.1f}") for own, all_, name in rows[:_SHOWN]]
    )
    return f"{table}\n\n{len(rows)} modules, {sum(own for own, _, _ in rows):.0f} ms (importtime itself slows this down)"
