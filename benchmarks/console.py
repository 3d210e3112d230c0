"""The kernel's console: whether it is written an OOM kill, and how not to be for a while.

A message goes there if its level is below the first number of /proc/sys/kernel/printk (Documentation/admin-guide/sysctl/kernel.rst);
`Killed process` is an error, level 3. Whoever logs writes it to the consoles himself, before those who wait for the log are woken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PRINTK: Final = Path("/proc/sys/kernel/printk")
_CONSOLES: Final = Path("/proc/consoles")
_ERROR: Final = 3
_QUIET: Final = 1


def level() -> int:
    """Messages of lower levels are shown."""
    return int(_PRINTK.read_text().split()[0])


def names() -> list[str]:
    """The consoles that messages go to."""
    return [line.split()[0] for line in _CONSOLES.read_text().splitlines()]


def shows_kills() -> bool:
    """Whether an OOM kill is written to a console."""
    return level() > _ERROR and bool(names())


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, only emergencies are shown; for the whole machine."""
    before = level()
    try:
        _PRINTK.write_text(str(_QUIET))
        yield
    finally:
        _PRINTK.write_text(str(before))
