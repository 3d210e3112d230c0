"""What a cgroup's path says, remembered: on v1 each is asked about once for every hierarchy, as it comes and as it goes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from streamer.model.runtimes import enclosing, owner, shown

_REMEMBERED: Final = 4096


@lru_cache(_REMEMBERED)
def is_shown(path: str, scope: str) -> bool:
    """Whether a cgroup is a container of its own under this scope."""
    return shown(path, scope) is not None


@lru_cache(_REMEMBERED)
def is_raw(path: str) -> bool:
    """Whether no runtime made it, nor a cgroup above it."""
    whose = owner(path)
    return whose is not None and whose.runtime == "raw" and not enclosing(path)
