"""Log set-up: text or JSON lines on stderr. Normal operation is silent at INFO after start-up."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Final

from streamer.clock import rfc3339

_JOURNAL: Final = {"ERROR": "<3>", "CRITICAL": "<2>", "WARNING": "<4>", "INFO": "<6>", "DEBUG": "<7>"}


class _Text(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        # journald has its own clock; its priority prefix is `<n>` (sd-daemon(3))
        super().__init__("%(levelname)s %(name)s: %(message)s" if journal else "%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return _JOURNAL.get(record.levelname, "") + text if self._journal else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, form: str) -> None:
    """Log to stderr from now on. `level`: debug, info, warning or error; `form`: text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text(journal="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("docker", "urllib3", "asyncio", "uvicorn"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
