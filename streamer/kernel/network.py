"""Network counters of a container: `/proc/<pid>/net/dev` as one of its processes sees it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from streamer.errors import Gone
from streamer.kernel.budget import DescriptorBudget
from streamer.kernel.proc import net_namespace_at, parse_net_dev
from streamer.model.stats import NetworkInterface

_NOT_THE_HOST_S: Final = (
    "lo",
    "veth",
    "docker",
    "br-",
    "cni",
    "cali",
    "flannel",
    "lxc",
    "podman",
    "nerdctl",
    "virbr",
    "tap",
    "ifb",
)


def of_the_host(name: str) -> bool:
    """Whether a network device is the host's own: not its loopback, nor one that a runtime made for containers."""
    return not name.startswith(_NOT_THE_HOST_S)


_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_BUFFER = 4000


class NetDev:
    """The interfaces in the network namespace of one process, none when it has ended.

    Held open is the process's directory, never the file: that would keep the namespace, and with it the container's
    devices, alive after the container. Such a directory stays with its process, so a later one of the same pid is never
    read. Above the budget it is opened each time, and the namespace compared instead.

    wanted  which interfaces, by name; None: all
    """

    def __init__(self, proc: str, budget: DescriptorBudget, wanted: Callable[[str], bool] | None = None) -> None:
        self._proc, self._budget, self._wanted = proc, budget, wanted
        self._pid = 0
        self._directory = -1
        self._namespace = 0
        self._seen: bytes = b""
        self._interfaces: tuple[NetworkInterface, ...] = ()

    @property
    def descriptors(self) -> int:
        """Descriptors held open now."""
        return int(self._directory >= 0)

    def follow(self, pid: int) -> None:
        """Read that process's from now on; 0: nobody's."""
        self.close()
        self._pid = pid
        if not pid:
            return
        directory = self._enter()
        if directory < 0:
            self._pid = 0
        elif self._budget.take(1):
            self._directory = directory
        else:
            self._namespace = _namespace(directory)
            os.close(directory)

    def read(self) -> tuple[NetworkInterface, ...]:
        """The interfaces with their counters now."""
        if not self._pid:
            return ()
        if self._directory >= 0 and self._budget.over:
            self._namespace = _namespace(self._directory)
            self._let_go()
        directory = self._directory if self._directory >= 0 else self._enter()
        if directory < 0:
            self.close()
            return ()
        try:
            if directory != self._directory and _namespace(directory) != self._namespace:
                self._pid = 0  # another process has the number now
                return ()
            raw = _whole(directory)
        except OSError:  # it has ended
            self._seen, self._interfaces = b"", ()
            return ()
        finally:
            if directory != self._directory:
                os.close(directory)
        if raw != self._seen:
            self._seen = raw
            self._interfaces = parse_net_dev(raw, self._wanted)
        return self._interfaces

    def close(self) -> None:
        """Let go of the process."""
        self._let_go()
        self._pid, self._seen, self._interfaces = 0, b"", ()

    def _let_go(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
            self._budget.give(1)

    def _enter(self) -> int:
        try:
            return os.open(f"{self._proc}/{self._pid}", _DIRECTORY)
        except OSError:  # it has ended
            return -1


def _namespace(directory: int) -> int:
    try:
        return net_namespace_at(directory)
    except Gone:
        return -1


def _whole(directory: int) -> bytes:
    file = os.open("net/dev", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        raw = chunk = os.read(file, _BUFFER)
        while len(chunk) >= _BUFFER // 2:  # the kernel gives whole lines, at most a page of them at once
            chunk = os.read(file, _BUFFER)
            raw += chunk
        return raw
    finally:
        os.close(file)
