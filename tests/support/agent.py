"""The real agent as a process of its own, and what it says, for tests that act on the host and read the stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest


class Agent:
    """`streamer run` with stdout as its sink and no state directory unless told otherwise; `lines` is everything it printed, parsed."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None, command: tuple[str, ...] = ()) -> None:
        self.lines: list[dict[str, Any]] = []
        self.bad_lines: list[bytes] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", "streamer", "run", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "STREAMER_STATE_DIR": "off", "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
        )  # fmt: skip
        self._threads = [threading.Thread(target=self._read_lines), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def ready(self) -> Agent:
        """Wait until it has told of everything that was there when it started."""
        self.until(lambda: any("watching" in line for line in self.errors), "it did not become ready")
        return self

    def until(self, condition: Callable[[], Any], otherwise: str, seconds: float = 40.0) -> Any:
        """Wait for a truthy answer and return it; fail with what the agent said otherwise."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                tail = "\n".join(json.dumps(line)[:400] for line in self.lines if line["type"] != "container.stats")[-6000:]
                pytest.fail(
                    f"{otherwise} within {seconds:g} s\n--- said:\n{tail}\n--- log:\n{''.join(self.errors)[-4000:]}", pytrace=False
                )
            time.sleep(0.02)  # the pace of looking; the deadline is above
        return answer

    def said(self, **fields: Any) -> list[dict[str, Any]]:
        """Every message in which all these fields have these values."""
        return [line for line in list(self.lines) if all(line.get(name) == value for name, value in fields.items())]

    def wait_said(self, count: int = 1, seconds: float = 40.0, **fields: Any) -> list[dict[str, Any]]:
        """Wait until at least `count` such messages were said; returns all of them."""
        self.until(lambda: len(self.said(**fields)) >= count, f"{count} of {fields} were not said", seconds)
        return self.said(**fields)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Signal it and wait for its end; returns its exit code."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end; returns its exit code."""
        code = self.process.wait(timeout=seconds)
        for thread in self._threads:
            thread.join()
        return code

    def _read_lines(self) -> None:
        for line in _lines(self.process.stdout):
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.bad_lines.append(line)

    def _read_errors(self) -> None:
        for line in _lines(self.process.stderr):
            self.errors.append(line.decode(errors="replace"))


def _lines(stream: Any) -> Iterator[bytes]:
    yield from stream


def lives(lines: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What was said of each incarnation, in order: `created`, `updated`, `deleted`, `stats`, `oom`."""
    told: dict[str, list[str]] = {}
    for line in lines:
        if "incarnation" in line:
            told.setdefault(line["incarnation"], []).append(line.get("event") or line["type"].rpartition(".")[2])
    return told
