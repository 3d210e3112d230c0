"""Where the cgroup hierarchies of the host are mounted, and what stands below them.

Documentation/admin-guide/cgroup-v2.rst, Documentation/admin-guide/cgroup-v1/cgroups.rst, proc(5) on mountinfo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from streamer.errors import Unsupported
from streamer.kernel.proc import Mount, parse_mountinfo, read

Mode = Literal["v1", "v2", "hybrid"]

UNIFIED: Final = "unified"
"""The name of the one hierarchy of cgroup v2."""

_WATCHED_V1: Final = ("memory", "cpu", "cpuacct", "blkio", "pids")
"""In order of preference for a cgroup's identity: every runtime uses memory where it is mounted."""

_NOT_CONTROLLERS: Final = frozenset(
    {"rw", "ro", "none", "all", "noprefix", "clone_children", "xattr", "cpuset_v2_mode", "favordynmods"}
)
"""Superblock options of a v1 mount that are no controllers, besides those with `=`."""


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The mounted hierarchies of a host. A cgroup is named by its path below them, `/` is the root.

    mounts   v1: controller -> directory; v2: `unified` -> directory; hybrid: both, the controllers being v1's
    watched  hierarchies in which new cgroups are looked for, the best for a cgroup's identity first; every mount once
    proc     the host's `/proc`
    """

    mode: Mode
    mounts: Mapping[str, str]
    watched: tuple[str, ...]
    proc: str = field(default="/proc")

    @property
    def anchor(self) -> str:
        """The hierarchy whose directory is a cgroup's identity."""
        return self.watched[0]

    def directory(self, hierarchy: str, path: str) -> str:
        """The directory of a cgroup; `KeyError` for a hierarchy that is not mounted."""
        mount = self.mounts[hierarchy]
        return mount if path == "/" else mount + path

    def mount_of(self, controller: str) -> str | None:
        """Where the files of a controller stand, None where it is not mounted."""
        return self.mounts.get(UNIFIED if self.mode == "v2" else controller)

    def file(self, controller: str, path: str, filename: str) -> str | None:
        """A kernel file of a cgroup, whether it exists or not; None where its controller is not mounted."""
        mount = self.mount_of(controller)
        if mount is None:
            return None
        return f"{mount}/{filename}" if path == "/" else f"{mount}{path}/{filename}"


def detect(host_root: Path, own_mounts: str = "/proc/self/mountinfo") -> Hierarchies:
    """Find the hierarchies of the host whose root is at `host_root`; nothing outside of it is taken for the host's.

    Raises:
        Unsupported: no cgroup hierarchy is mounted where it can be read.
    """
    found: dict[str, str] = {}
    for _, name, directory in sorted(_candidates(host_root, own_mounts)):
        if name not in found and _is_cgroup(directory):
            found[name] = directory
    proc = os.path.join(host_root, "proc")
    if _is_v2(found):
        return Hierarchies("v2", {UNIFIED: found[UNIFIED]}, (UNIFIED,), proc)
    watched: dict[str, str] = {}  # by mount: what is mounted together has one directory for each cgroup
    for name in (*_WATCHED_V1, *found):
        if name in found and name != UNIFIED:
            watched.setdefault(found[name], name)
    if not watched:
        raise Unsupported(
            f"no cgroup hierarchy of the host can be read below {host_root}",
            remedy=f"mount /sys/fs/cgroup of the host, readable, at {os.path.join(host_root, 'sys/fs/cgroup')}",
        )
    preferred = tuple(name for name in watched.values() if name in _WATCHED_V1)
    return Hierarchies("hybrid" if UNIFIED in found else "v1", found, preferred or tuple(watched.values())[:1], proc)


def _is_v2(found: Mapping[str, str]) -> bool:
    """The unified hierarchy counts where it has the controllers; on a hybrid host it is mounted beside v1's, without any."""
    if UNIFIED not in found or {"memory", "cpu"} & found.keys():
        return False
    return len(found) == 1 or bool(_controllers_of(found[UNIFIED]))


def _candidates(host_root: Path, own_mounts: str) -> Iterator[tuple[tuple[bool, int, bool, int], str, str]]:
    """(rank, controller or `unified`, directory), the least rank is the best.

    The host's first process sees its mounts at their own places, which for us are below `host_root`; our own list has
    them there already. A mount that shows a part of its hierarchy only, as inside a container, is worse than one that
    shows all of it. To a container with a cgroup namespace of its own, the whole looks like `/../..`.
    """
    root = str(host_root).rstrip("/")
    for source, path in enumerate((os.path.join(host_root, "proc/1/mountinfo"), own_mounts)):
        for mount in _cgroup_mounts(path):
            already = source and mount.mountpoint.startswith(f"{root}/")
            directory = mount.mountpoint if already else root + mount.mountpoint
            partly = re.fullmatch(r"/|(/\.\.)+", mount.root) is None
            elsewhere = not f"{directory}/".startswith(f"{root}/sys/fs/cgroup/")
            for name in _names(mount):
                yield (partly, -mount.root.count(".."), elsewhere, source), name, directory


def _cgroup_mounts(path: str) -> list[Mount]:
    try:
        return [mount for mount in parse_mountinfo(read(path)) if mount.fstype in ("cgroup", "cgroup2")]
    except OSError:  # another pid namespace, hidepid, or not mounted: the other list has to do
        return []


def _names(mount: Mount) -> list[str]:
    if mount.fstype == "cgroup2":
        return [UNIFIED]
    return [option for option in mount.options if "=" not in option and option not in _NOT_CONTROLLERS]


def _is_cgroup(directory: str) -> bool:
    return os.access(directory, os.R_OK | os.X_OK) and os.path.exists(os.path.join(directory, "cgroup.procs"))


def _controllers_of(directory: str) -> set[str]:
    try:
        return set(read(os.path.join(directory, "cgroup.controllers")).decode("ascii", "replace").split())
    except OSError:
        return set()


def tree(hierarchies: Hierarchies, hierarchy: str) -> Iterator[tuple[str, int]]:
    """Every cgroup of a hierarchy as (path, inode), parents before children, `/` first.

    What vanishes during the walk is left out. A name that is not UTF-8 is decoded as `os.fsdecode` does it.
    """
    try:
        yield "/", os.stat(hierarchies.mounts[hierarchy]).st_ino
    except OSError:
        return
    below = ["/"]
    while below:
        path = below.pop()
        prefix = "" if path == "/" else path
        try:
            with os.scandir(hierarchies.directory(hierarchy, path)) as entries:
                children = [(f"{prefix}/{entry.name}", entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # gone between its parent's listing and its own
            continue
        yield from children
        below += [child for child, _ in children]
