"""One HTTP GET over TCP or a unix socket, with the standard library alone: for `healthcheck` and for asking a Docker Engine."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_MOST_BYTES: Final = 1_000_000  # whoever answers more is not who we asked for


class Answer(NamedTuple):
    """What came back: the status, and the body up to a megabyte."""

    status: int
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(base: str, path: str, timeout_seconds: float, *, token: str = "", tls: ssl.SSLContext | None = None) -> Answer:
    """GET `path` from `http://host:port`, `tcp://host:port`, `https://host:port`, `unix:/path` or `unix:///path`.

    `token`: sent as a bearer token; `tls`: for https, in place of the machine's authorities.

    Raises:
        OSError: nobody answers there, in time; also who does not speak HTTP.
        ValueError: `base` is none of these.
    """
    connection = _connection(base, timeout_seconds, tls)
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(_MOST_BYTES))
    except http.client.HTTPException as error:
        raise OSError(f"does not speak HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


def _connection(base: str, timeout: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if base.startswith("unix:"):
        path = base.removeprefix("unix:")
        return _UnixConnection("/" + path.lstrip("/") if path.startswith("/") else path, timeout)
    parts = urlsplit(base)
    if parts.scheme not in ("http", "tcp", "https") or not parts.hostname:
        raise ValueError(f"{base!r} is not http://HOST:PORT or unix:PATH")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=tls)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
