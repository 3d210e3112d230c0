"""A base image for tests where no registry can be reached: this Debian's own Python, taken from its installed packages."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

NAME: Final = "python-base:local"

_WANTED: Final = ("python3", "python3-venv", "coreutils", "dash", "libgcc-s1", "libstdc++6")
_MISSING: Final = "{} is not installed: apt-get install -y --no-install-recommends python3 python3-venv"
_CONFIGURES_ONLY: Final = {"debconf", "debconf-2.0", "dpkg"}  # needed to install packages, not to use them
_NOT_NEEDED: Final = re.compile(r"/usr/share/(?:doc|man|locale|lintian|info)/|/usr/lib/python3/dist-packages/")
_MERGED: Final = ("bin", "lib", "lib64", "sbin")  # Debian 12: links into /usr


def root_file_system() -> bytes:
    """A tar archive for `docker import`: the files of Python's Debian packages and of all that they depend on."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _MERGED:
            _link(archive, name, f"usr/{name}")
        _directory(archive, "tmp", 0o1777)
        for name in ("dev", "proc", "sys"):
            _directory(archive, name, 0o755)
        _file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for path in sorted(_paths(_closure())):
            archive.add(path, str(path).lstrip("/"), recursive=False)
    return buffer.getvalue()


def _closure() -> set[str]:
    """The packages wanted and, recursively, what they depend on and is installed."""
    listed = _dpkg("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Pre-Depends}, ${Depends}\n")
    depends = {}
    for line in listed.splitlines():
        status, name, words = line.split("\t")
        if status.startswith("ii"):
            depends[name] = {w for w in re.findall(r"(?:^|[,|]) *([a-z0-9.+-]+)", words) if w not in _CONFIGURES_ONLY}
    todo, found = list(_WANTED), set()
    while todo:
        name = todo.pop()
        if name in _WANTED and name not in depends:
            pytest.fail(_MISSING.format(name), pytrace=False)
        if name in depends and name not in found:
            found.add(name)
            todo += depends[name]
    return found


def _paths(packages: set[str]) -> Iterator[Path]:
    """Their files, links and directories, each by a path without links in its parents, parents included."""
    seen = set()
    for text in _dpkg("dpkg", "-L", *sorted(packages)).splitlines():
        if not text.startswith("/") or _NOT_NEEDED.search(text):
            continue
        path = Path(text).parent.resolve() / Path(text).name
        if path.parent != Path("/") and (path.is_symlink() or path.exists()):
            seen.add(path)
            seen.update(p for p in path.parents if p != Path("/"))
    seen.update(Path("/usr", name) for name in _MERGED)
    return iter(seen)


def _dpkg(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing: the base image for these tests is made of Debian's packages", pytrace=False)


def _directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
