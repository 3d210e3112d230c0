"""The files of one cgroup, open: what is there, what is not, and whether it is still the same cgroup."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Final

from streamer.errors import Gone
from streamer.kernel.budget import DescriptorBudget
from streamer.kernel.hierarchy import Hierarchies
from streamer.kernel.plan import KernelFile, files_for

ENDED: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.ENOTDIR})
"""The cgroup, or this file of it, is not there (any more)."""

REFUSED: Final = frozenset({errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENXIO})
"""The kernel will say the same next time: pressure files of a kernel with `psi=0`, files that are not for us."""

_STARVED: Final = frozenset({errno.EMFILE, errno.ENFILE})
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class OpenFiles:
    """Opens the files of one cgroup and remembers which cgroup that was, in each hierarchy, by inode.

    `descriptors` maps each file that could be opened; one that is opened `by_name` maps to its directory.
    `wanted` are all files that it may have, `missing` those that are not there and may come yet.
    """

    def __init__(self, hierarchies: Hierarchies, path: str, budget: DescriptorBudget) -> None:
        self._hierarchies, self._path, self._budget = hierarchies, path, budget
        self.wanted = files_for(hierarchies)
        self._inodes: dict[str, int] = {}
        self._refused: set[KernelFile] = set()
        self.descriptors: dict[KernelFile, int] = {}
        self.missing: set[KernelFile] = set(self.wanted)

    @property
    def inode(self) -> int:
        """Of the cgroup's directory in the first of the watched hierarchies that has it; 0 while none was opened."""
        mounts = (self._hierarchies.mounts[name] for name in self._hierarchies.watched)
        return next((self._inodes[mount] for mount in mounts if mount in self._inodes), 0)

    @property
    def there(self) -> tuple[KernelFile, ...]:
        """The files that are open, in the order of the table."""
        return tuple(file for file in self.wanted if file in self.descriptors)

    def open(self, files: Collection[KernelFile]) -> None:
        """Open these files as far as they are there.

        Raises:
            Gone: the cgroup is in no hierarchy, or only another one of its name is.
        """
        directories: dict[str, int] = {}
        starved = self._budget.starved
        try:
            for file in self.wanted:
                if file in files and file not in self.descriptors and file not in self._refused:
                    self._open_one(file, directories)
        finally:
            for directory in directories.values():
                if directory >= 0:
                    os.close(directory)
        self.missing = set(self.wanted) - self.descriptors.keys() - self._refused
        if not self.descriptors and max(directories.values(), default=-1) < 0 and starved == self._budget.starved:
            raise Gone(f"cgroup {self._path} is gone")

    def _open_one(self, file: KernelFile, directories: dict[str, int]) -> None:
        for controller in file.controllers:
            mount = self._hierarchies.mount_of(controller)
            if mount is None:
                continue
            if mount not in directories:
                directories[mount] = self._enter(mount)
            directory = directories[mount]
            if directory < 0:
                continue
            try:
                opened = os.dup(directory) if file.by_name else os.open(file.name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            except OSError as problem:
                self.failed(file, problem)
            else:
                self.descriptors[file] = opened
                return

    def _enter(self, mount: str) -> int:
        """The directory of this very cgroup in a hierarchy, -1 when it is not there."""
        directory = -1
        try:
            directory = os.open(mount if self._path == "/" else mount + self._path, _DIRECTORY)
            inode = os.fstat(directory).st_ino
        except OSError as problem:
            self._count(problem)
            return directory
        if self._inodes.setdefault(mount, inode) != inode:
            os.close(directory)
            return -1
        return directory

    def failed(self, file: KernelFile, problem: OSError) -> bool:
        """Take note of why a file does not answer; True when it is to be let go of."""
        self._count(problem)
        if problem.errno in REFUSED:
            self._refused.add(file)
        return problem.errno in REFUSED or problem.errno in ENDED

    def drop(self, file: KernelFile) -> None:
        """Close a file that does not answer any more."""
        os.close(self.descriptors.pop(file))
        if file not in self._refused:
            self.missing.add(file)

    def close(self) -> None:
        """Close all of them; they may be opened again."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()

    def _count(self, problem: OSError) -> None:
        if problem.errno in _STARVED:
            self._budget.starved += 1
