"""The limits and the processes of one cgroup: read seldom, opened by name."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from msgspec import UNSET

from streamer.errors import Gone
from streamer.kernel.files import parse_flat, parse_single
from streamer.kernel.hierarchy import UNIFIED, Hierarchies
from streamer.kernel.opened import ENDED
from streamer.kernel.proc import read
from streamer.model.spec import SPEC_FILES, ContainerSpec, SpecFile

_NO_LIMIT: Final = 1 << 62
"""v1 writes no limit as the highest multiple of the page size below 2^63."""


def read_spec(hierarchies: Hierarchies, path: str) -> ContainerSpec:
    """The limits of a cgroup; absent is what has no file here, all of it when the cgroup is gone."""
    texts: dict[str, str | None] = {}

    def text_of(controller: str, filename: str) -> str | None:
        file = hierarchies.file(controller, path, filename)
        if file is None:
            return None
        if file not in texts:
            try:
                texts[file] = read(file).decode("ascii", "replace").strip()
            except OSError:  # not on this kernel, not in this hierarchy, or gone
                texts[file] = None
        return texts[file]

    v2, root = hierarchies.mode == "v2", path == "/"
    limits: dict[str, Any] = {}
    for row in SPEC_FILES:
        text = text_of(row.controller, row.v2 if v2 else row.v1)
        unlimited = root and row.form in ("limit", "quota")  # nothing limits the whole; on v2 it has no files for that either
        limits[row.field] = 0 if unlimited else UNSET if text is None else _limit(row, text, v2)
    swap, memory = limits["memory_swap_limit_bytes"], limits["memory_limit_bytes"]
    if v2 and not root and swap is not UNSET:  # v2 limits swap alone, we say memory plus swap; without either limit there is none
        zero = text_of("memory", "memory.swap.max") == "0"
        limits["memory_swap_limit_bytes"] = UNSET if memory is UNSET else memory + swap if memory and (swap or zero) else 0
    return ContainerSpec(**limits)


def _limit(row: SpecFile, text: str, v2: bool) -> Any:
    words = text.split()
    if not words:
        return UNSET
    if row.form == "text":
        return text
    word = words[1] if v2 and row.v2 == "cpu.max" and row.form == "number" and len(words) > 1 else words[0]
    if row.form in ("limit", "quota") and word in ("max", "-1"):
        return 0
    number = parse_single(word.encode())
    if number is UNSET:
        return UNSET
    if row.form == "weight" and v2:
        return 2 + (number - 1) * 262142 // 9999 if 1 <= number <= 10000 else UNSET
    return 0 if number >= _NO_LIMIT else number


def read_procs(hierarchies: Hierarchies, hierarchy: str, path: str) -> list[int]:
    """The processes in a cgroup itself, as our pid namespace numbers them (0: one that it does not show).

    None in a threaded cgroup of v2: its threads belong to processes of the cgroup above.

    Raises:
        Gone: the cgroup was removed.
        OSError: not for us, or no descriptor left.
    """
    try:
        raw = _of(hierarchies, hierarchy, path, "cgroup.procs")
    except OSError as problem:
        if problem.errno == errno.EOPNOTSUPP:
            return []
        raise
    return [int(word) for word in raw.split() if word.isdigit() and len(word) < 10]


def read_populated(hierarchies: Hierarchies, path: str) -> bool | None:
    """v2: whether a process lives in a cgroup or below it; None where the kernel does not say so (v1, the root).

    Raises:
        Gone: the cgroup was removed.
        OSError: not for us, or no descriptor left.
    """
    if hierarchies.mode != "v2" or path == "/":
        return None
    populated = parse_flat(_of(hierarchies, UNIFIED, path, "cgroup.events")).get("populated")
    return None if populated is None else populated == 1


def _of(hierarchies: Hierarchies, hierarchy: str, path: str, filename: str) -> bytes:
    try:
        return read(os.path.join(hierarchies.directory(hierarchy, path), filename))
    except OSError as problem:
        if problem.errno in ENDED:
            raise Gone(f"cgroup {path} is gone") from problem
        raise
