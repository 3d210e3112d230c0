"""The live containers as a tree of cgroup paths, with the folders between them. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from streamer.memory import Container


def canonical(name: str) -> str:
    """A container's name as a path: `a//b/../c/` -> `/a/c`."""
    return "/" + posixpath.normpath("/" + name).lstrip("/")


def parent(path: str) -> str:
    return path[: path.rfind("/")] or "/"


class Tree:
    """Containers by path; `/` and the folders above a container are there too, without one."""

    def __init__(self, containers: Iterable[Container]) -> None:
        self._containers: dict[str, Container] = {c.facts["cgroup_path"]: c for c in containers}
        self._children: dict[str, dict[str, None]] = {"/": {}}
        for path in self._containers:
            self._place(path)

    def _place(self, path: str) -> None:
        self._children.setdefault(path, {})
        while path != "/":
            above = parent(path)
            siblings = self._children.setdefault(above, {})
            if path in siblings:
                return
            siblings[path] = None
            path = above

    def __contains__(self, path: str) -> bool:
        return path in self._children

    def get(self, path: str) -> Container | None:
        """The container itself; None for a folder."""
        return self._containers.get(path)

    def containers(self) -> Iterable[tuple[str, Container]]:
        """By path, in no order."""
        return self._containers.items()

    def children(self, path: str) -> list[str]:
        """Directly below it, in order."""
        return sorted(self._children[path])

    def below(self, path: str) -> Iterator[str]:
        """The path itself and all below it, each before what is below it."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            yield path
            waiting += reversed(self.children(path))
