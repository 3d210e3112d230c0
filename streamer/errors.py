"""The errors that cross a boundary. Each one says who must act; a function raises or logs, never both."""

from __future__ import annotations


class StreamerError(Exception):
    """Base of everything raised on purpose."""


class ConfigError(StreamerError):
    """The operator must act: `key` holds `value`, which cannot be used; `remedy` says what would."""

    def __init__(self, problem: str, *, key: str = "", value: str = "", line: int = 0, file: str = "", remedy: str = "") -> None:
        self.problem, self.key, self.value = problem, key, value
        self.line, self.file, self.remedy = line, file, remedy
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        what = f"{key} = {value}: " if key and value else f"{key}: " if key else ""
        super().__init__(f"{where}{what}{problem}" + (f"\n  remedy: {remedy}" if remedy else ""))


class Unsupported(StreamerError):
    """Nobody must act at once: this host does not offer the part; the rest goes on without it."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}" + (f" (remedy: {remedy})" if remedy else ""))


class Gone(StreamerError):
    """The cgroup or process ended while it was being read: an answer, not a fault."""


class NotConnected(StreamerError):
    """The peer cannot be reached or was lost: the outbox backs off, connects again and replays."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)


class PermanentlyRefused(StreamerError):
    """The peer answered, and will answer the same next time (no permission, no such topic): the operator must act there.

    `final`: nothing that anybody does can change it while the agent runs (the reader of a pipe is gone).
    """

    def __init__(self, problem: str, *, remedy: str = "", final: bool = False) -> None:
        self.problem, self.remedy, self.final = problem, remedy, final
        super().__init__(problem)
