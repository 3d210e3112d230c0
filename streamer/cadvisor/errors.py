"""How a request fails. The texts are cAdvisor's: its clients show them, and some compare them."""

from __future__ import annotations

from streamer.cadvisor.go import quoted
from streamer.errors import StreamerError


class RequestFailed(StreamerError):
    """The request cannot be answered. Over HTTP: the text alone, with the status that `sidecar/application.py` gives it."""


class InvalidRequest(RequestFailed):
    """What was asked makes no sense."""


class NotFound(RequestFailed):
    """What was asked for is not there."""


def unknown_container(name: str) -> NotFound:
    return NotFound(f"unknown container {quoted(name)}")
