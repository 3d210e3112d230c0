"""Whose cgroup is this? One row per runtime and path form; the first row that matches wins.

Sources of the forms: runc and crun name cgroups `<parent>/<id>` (cgroupfs driver) or `<prefix>-<id>.scope` (systemd
driver); the prefixes are `docker`, `libpod`, `cri-containerd`, `crio`; LXC uses `lxc.payload.<name>`, nspawn
`machine.slice/systemd-nspawn@<name>.service` or `machine-<name>.scope`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_ID = r"(?P<id>[0-9a-f]{64})"

RUNTIMES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("docker", re.compile(rf"/docker-{_ID}\.scope$")),
    ("docker", re.compile(rf"/docker(?:/buildkit)?/{_ID}$")),
    ("podman", re.compile(rf"/libpod-{_ID}\.scope$")),
    ("podman", re.compile(rf"/(?:libpod_parent|podman)/(?:libpod-)?{_ID}$")),
    ("podman", re.compile(rf"/libpod-{_ID}$")),
    ("containerd", re.compile(rf"/cri-containerd-{_ID}\.scope$")),
    ("crio", re.compile(rf"/crio-{_ID}(?:\.scope)?$")),
    ("containerd", re.compile(rf"/kubepods(?:[^/]*/)+{_ID}$")),
    ("lxc", re.compile(r"/lxc(?:\.payload)?[./](?P<id>[^/]+)$")),
    ("systemd-nspawn", re.compile(r"/systemd-nspawn@(?P<id>[^/]+)\.service$")),
    ("systemd-nspawn", re.compile(r"/machine\.slice/machine-(?P<id>[^/]+)\.scope$")),
    ("docker", re.compile(rf"/{_ID}$")),  # --cgroup-parent: Docker is the runtime that lets people choose
)

_HELPERS: Final = re.compile(r"/(?:crio|libpod)-conmon-[^/]+$|/lxc\.(?:monitor|pivot)[^/]*$|\.mount$")
"""Cgroups of a runtime's own helper processes: never a container."""

_FOLDERS: Final = re.compile(
    r"^/$|\.slice$|\.scope$|\.service$|\.socket$|\.swap$|\.mount$|\.partition$"
    r"|^/(?:docker|podman|lxc|machine|system|user|kubepods|libpod_parent|actions_job|buildkit)$"
    r"|/kubepods(?:/|$)(?:burstable|besteffort)?$|/pod[0-9a-f_-]{8,}$"
)
"""Folders of systemd and of runtimes: they hold containers or services and are shown under scope `all` only."""


class Owner(NamedTuple):
    """What a cgroup path says about itself. `container_id` is the path itself for a raw cgroup."""

    runtime: str
    container_id: str
    folder: bool
    """Not a container but a place for some, or a service of systemd: shown under scope `all`."""


def owner(path: str) -> Owner | None:
    """Recognise a cgroup by its path; None for helpers of a runtime, which are never shown."""
    if _HELPERS.search(path):
        return None
    for runtime, pattern in RUNTIMES:
        match = pattern.search(path)
        if match:
            return Owner(runtime, match["id"], folder=False)
    return Owner("raw", path, folder=bool(_FOLDERS.search(path)))


def enclosing(path: str) -> str | None:
    """The path of the runtime's container in which this cgroup lies, or None: containers may have cgroups of their own."""
    parent = path
    found = None
    while (cut := parent.rfind("/")) > 0:
        parent = parent[:cut]
        above = owner(parent)
        if above is not None and above.runtime != "raw":
            found = parent
    return found


def shown(path: str, scope: str) -> Owner | None:
    """Whether a cgroup is a container of its own under this scope (`containers` or `all`), and whose."""
    found = owner(path)
    if found is None or scope == "all":
        return found
    return None if found.folder or enclosing(path) else found
