"""One agent for each state directory, and the error of everything that is done in one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

from streamer.errors import ConfigError, StreamerError

_LOCK: Final = "lock"
MODE: Final = 0o640  # names and labels of containers are nobody else's business


class StoreFailed(StreamerError):
    """The file cannot be written or read right now. `damaged`: and will not be: it is none of SQLite's any more."""

    def __init__(self, problem: str, *, damaged: bool = False) -> None:
        self.problem, self.damaged = problem, damaged
        super().__init__(problem)


class DirectoryLock:
    """One agent per state directory, for as long as it lives. The file holds its pid and its epoch."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if need be, and lock it.

        Raises:
            ConfigError: another agent uses it.
            StoreFailed: it cannot be made or written.
        """
        path = directory / _LOCK
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
            except OSError:  # a read-only file system: it can be locked all the same
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreFailed(f"{directory} cannot be used: {error.strerror or error}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._text().get("pid", "unknown")
            os.close(self._fd)
            raise ConfigError(
                f"another agent uses this directory (process {holder})", key="state_dir", value=str(directory),
                remedy="stop it, or give this one a directory of its own: --state-dir DIR; --state-dir off keeps nothing on disk",
            ) from error  # fmt: skip
        said = self._text().get("epoch", 0)
        self.epoch_before: Final = said if isinstance(said, int) else 0

    def _text(self) -> dict[str, Any]:
        try:
            text = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except (OSError, ValueError):
            return {}
        return text if isinstance(text, dict) else {}

    def sign(self, epoch: int) -> None:
        """Write down who holds it. A file that cannot be written is no reason to stop: it is there for a damaged state file."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "epoch": epoch}).ljust(80).encode() + b"\n", 0)

    def close(self) -> None:
        """Let another one have it; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
