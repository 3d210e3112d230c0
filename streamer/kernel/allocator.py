"""The C library's allocator: mallopt(3) and malloc_trim(3) of glibc. Another C library's is left as it is."""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # <malloc.h>
_libc: Final = ctypes.CDLL(None)


def share_one_heap() -> None:
    """Threads get no heaps of their own: each would keep what it has freed, and the interpreter's lock leaves them little to wait for.

    To be called before there are threads: heaps that are there stay.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Let the kernel have what is free."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
