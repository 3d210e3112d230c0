"""The tokens that let in: a file of them, looked at again when somebody asks, at most once a second, and now and then by itself.

A new token is added beside the old one, clients change over (`streamer_http_token_uses_total` tells which are still in
use), the old line goes: no restart. A file that cannot be used any more lets nobody in, until it can.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from typing import Final, NamedTuple

from streamer.contracts import Clock
from streamer.errors import ConfigError
from streamer.sidecar import private

KEY: Final = "http.token_file"
LEAST_CHARACTERS: Final = 16
UNNAMED: Final = "unnamed"

_LINE: Final = re.compile(r"(?:([A-Za-z0-9_.-]{1,64}):\s*)?([A-Za-z0-9._~+/-]+=*)")
"""RFC 6750's characters of a token; a colon is none of them."""

log = logging.getLogger(__name__)


class Token(NamedTuple):
    name: str
    secret: str


def read(path: str) -> list[Token]:
    """The tokens of a file, in its order.

    Raises:
        ConfigError: it cannot be read, others may read it, or a line is no token; never shows a line.
    """
    return _parse(private.read(path, KEY), path)


def _parse(content: bytes, path: str) -> list[Token]:
    found: list[Token] = []
    for number, raw in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise _error("is not TOKEN or NAME: TOKEN", path, number, "a token has letters, digits and . _ ~ + / - =")
        if len(match[2]) < LEAST_CHARACTERS:
            raise _error(
                f"has a token of less than {LEAST_CHARACTERS} characters", path, number, "make one with: openssl rand -hex 32"
            )
        found.append(Token(match[1] or UNNAMED, match[2]))
    if not found:
        raise ConfigError("holds no token", key=KEY, value=path, remedy="write one into it: openssl rand -hex 32")
    return found


def _error(problem: str, path: str, line: int, remedy: str) -> ConfigError:
    return ConfigError(f"line {line} {problem}", key=KEY, value=path, remedy=remedy)


class Tokens:
    """The tokens that are good now."""

    def __init__(self, path: str, clock: Clock) -> None:
        """Raises:
        ConfigError: the file cannot be used.
        """
        self.trouble = ""
        self._path = path
        self._seldom = private.Seldom(clock)
        self._content = private.read(path, KEY)
        self._digests = _digests(_parse(self._content, path))

    def name_of(self, secret: bytes) -> str | None:
        """The name of a token, None for what is not one. Takes the same time wherever a wrong one differs."""
        self.look()
        given, name = _digest(secret), None
        for known, digest in self._digests:
            if hmac.compare_digest(given, digest):
                name = known
        return name

    def look(self) -> None:
        """Read the file again, if that was not done just now."""
        if not self._seldom.is_due():
            return
        try:
            content = private.read(self._path, KEY)
            if content == self._content and not self.trouble:
                return
            digests = _digests(_parse(content, self._path))
        except ConfigError as error:
            if str(error) != self.trouble:
                log.error("nobody is let in by a token: %s", error)  # noqa: TRY400  the operator's mistake needs no traceback
            self._content, self._digests, self.trouble = b"", [], str(error)
            return
        log.info("%s was read again: %d tokens", KEY, len(digests))
        self._content, self._digests, self.trouble = content, digests, ""


def _digests(tokens: list[Token]) -> list[tuple[str, bytes]]:
    return [(token.name, _digest(token.secret.encode())) for token in tokens]


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
