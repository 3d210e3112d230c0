"""inotify(7) by ctypes: just what watching cgroup directories needs, without a dependency."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from streamer.errors import Unsupported
from streamer.kernel.proc import read

IN_MODIFY: Final = 0x00000002
IN_MOVED_FROM: Final = 0x00000040
IN_MOVED_TO: Final = 0x00000080
IN_CREATE: Final = 0x00000100
IN_DELETE: Final = 0x00000200
IN_DELETE_SELF: Final = 0x00000400
IN_Q_OVERFLOW: Final = 0x00004000
IN_IGNORED: Final = 0x00008000
IN_ONLYDIR: Final = 0x01000000
IN_ISDIR: Final = 0x40000000

_HEADER: Final = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len
_READ_BYTES: Final = 65536
_EVENT_BYTES: Final = _HEADER.size + 256  # the longest: a name has 255 bytes, and a zero

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """`wd` is -1 for a queue overflow; `name` is empty when the watched directory itself is meant."""

    wd: int
    mask: int
    name: str


class Inotify:
    """An inotify instance, non-blocking; `fd` becomes readable when there are events.

    emptied  the last read took all that was in the queue

    Raises:
        Unsupported: the user has no instances left.
    """

    def __init__(self) -> None:
        self.emptied = True
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            number = ctypes.get_errno()
            raise Unsupported(
                f"inotify cannot be had: {os.strerror(number)}",
                remedy=_more("max_user_instances", 1024) if number == errno.EMFILE else "use a kernel with CONFIG_INOTIFY_USER",
            )

    def add(self, path: str | bytes, mask: int) -> int:
        """Watch a path; the descriptor of the watch (the same one again for a path watched already).

        Raises:
            FileNotFoundError: nothing is there (any more).
            Unsupported: the user has no watches left, or may not read it.
        """
        wd: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        if wd >= 0:
            return wd
        number, shown = ctypes.get_errno(), os.fsdecode(path)
        if number == errno.ENOSPC:
            raise Unsupported("no inotify watches are left", remedy=_more("max_user_watches", 524_288))
        if number in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            raise FileNotFoundError(number, os.strerror(number), shown)
        raise Unsupported(f"{shown} cannot be watched: {os.strerror(number)}", remedy="run as root, or give read access to it")

    def remove(self, wd: int) -> None:
        """Drop a watch; one that the kernel has dropped already is fine."""
        _libc.inotify_rm_watch(self.fd, wd)

    def read(self) -> list[Event]:
        """What has happened since the last call; empty when nothing."""
        try:
            raw = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            raw = b""
        self.emptied = len(raw) + _EVENT_BYTES <= _READ_BYTES
        return parse(raw)

    def close(self) -> None:
        """Let go of the instance and all of its watches; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def parse(raw: bytes) -> list[Event]:
    """The events in what one read gave; a record that is cut off ends the list."""
    events = []
    at = 0
    while at + _HEADER.size <= len(raw):
        wd, mask, _, length = _HEADER.unpack_from(raw, at)
        at += _HEADER.size
        if at + length > len(raw):
            break
        events.append(Event(wd, mask, os.fsdecode(raw[at : at + length].rstrip(b"\0"))))
        at += length
    return events


def _more(name: str, usual: int) -> str:
    """The remedy: twice the present limit, or a usual value when that cannot be read."""
    try:
        limit = 2 * int(read(f"/proc/sys/fs/inotify/{name}"))
    except (OSError, ValueError):
        limit = usual
    return f"sysctl fs.inotify.{name}={limit}"
