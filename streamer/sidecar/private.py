"""Files that hold secrets: read, and refused when others may read them. And how seldom they are looked at."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from streamer.contracts import Clock
from streamer.errors import ConfigError

_MOST_BYTES: Final = 1_000_000
_LOOK_NS: Final = 1_000_000_000

_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


class Seldom:
    """Says yes once a second at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns = clock.monotonic_ns()

    def is_due(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._last_ns < _LOOK_NS:
            return False
        self._last_ns = now_ns
        return True


def read(path: str, key: str, *, secret: bool = True) -> bytes:
    """What a file holds. `key`: the configuration key that names it; `secret`: others must not be able to read it; no file may be for all to change.

    Raises:
        ConfigError: it cannot be read, is no file, is too large, or is open to others.
    """
    try:
        # a FIFO would hold up everything
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError("is not a file", key=key, value=path, remedy="give the path of a file")
            if about.st_mode & (_OTHERS if secret else stat.S_IWOTH):  # who can write an authority's certificate lets himself in
                raise ConfigError(
                    f"others may read or change it (mode {stat.S_IMODE(about.st_mode):04o})",
                    key=key,
                    value=path,
                    remedy=f"chmod 640 {path}, and replace what is in it if others could read it until now",
                )
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        known = {errno.ENOENT: "give the path of a file that exists", errno.EACCES: f"let user id {os.geteuid()} read it"}
        raise ConfigError(
            f"cannot be read: {error.strerror}",
            key=key,
            value=path,
            remedy=known.get(error.errno or 0, "give the path of a file that can be read"),
        ) from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"is larger than {_MOST_BYTES} bytes", key=key, value=path, remedy="give the right file")
    return content
