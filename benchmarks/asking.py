"""Asking an HTTP server, one question at a time."""

from __future__ import annotations

import http.client
import time
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 30.0


class Got(NamedTuple):
    """One answer: seconds until its last byte, its size."""

    seconds: float
    bytes: int


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_SECONDS)


def get(client: http.client.HTTPConnection, path: str, body: bytes | None = None) -> Got:
    """GET, or POST with a body. Raises RuntimeError for another status than 200."""
    began = time.perf_counter()
    client.request("GET" if body is None else "POST", path, body)
    answer = client.getresponse()
    size = 0
    while chunk := answer.read(1 << 20):
        size += len(chunk)
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path}: {answer.status}")
    return Got(time.perf_counter() - began, size)


def is_there(url: str) -> bool:
    """Whether it is there yet."""
    try:
        return get(connection(url), "/healthz").bytes > 0
    except OSError:
        return False
