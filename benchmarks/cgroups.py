"""Raw cgroups of the benchmark's own, one process in each (`tenant.c`); gone again afterwards, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from streamer.kernel.hierarchy import Hierarchies
from streamer.kernel.plan import files_for

_PREFIX: Final = "streamer-bench-"
_REMOVE_SECONDS: Final = 10.0
BUSY_MS: Final = 500


def compiled(name: str, directory: Path) -> Path:
    """The program of a C file beside this one, built by gcc."""
    program = directory / name
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(Path(__file__).with_name(f"{name}.c"))], check=True)
    return program


def tenant_command(directory: Path, workload: str) -> list[str]:
    """The command of a tenant, built in this directory: `idle`, asleep; `busy`, other numbers at every sample."""
    return [str(compiled("tenant", directory)), str(BUSY_MS if workload == "busy" else 0)]


class Cgroups:
    """`count` cgroups below a folder of their own, in every hierarchy that samples are read from. A context manager.

    tenant  the command that runs in each; it has to end when the pipe on its stdin does
    hidden  the folder is named as if it were a container, so that other agents on this host do not take what is in it for
            containers; to see them, an agent has to be `alone` with it
    own     what the ids that an agent tells them by begin with (unless it is alone with the folder)
    """

    def __init__(self, hierarchies: Hierarchies, count: int, tenant: list[str], *, hidden: bool = False) -> None:
        self.hierarchies, self._tenant = hierarchies, tenant
        self._top: Final = f"/{_PREFIX}{os.getpid()}"
        self.folder: Final = f"{self._top}/libpod-{os.getpid():064x}" if hidden else self._top
        self.own: Final = f"{self.folder}/"
        self.paths: Final = [f"{self.folder}/c{number:05}" for number in range(count)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._life_line = -1
        self.mounts: Final = [hierarchies.mounts[hierarchy] for hierarchy in hierarchies.watched]  # the anchor first

    def __enter__(self) -> Cgroups:
        sweep(self.mounts)
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def listing(self) -> list[list[str]]:
        """The files of each cgroup that a sample is made from, by the agent's own plan; in one order for all."""
        return files_of(self.hierarchies, self.paths)

    def alone(self) -> list[str]:
        """A command that runs another one, to which the folder looks as if it were the whole of each hierarchy."""
        binds = [f"mount --bind {shlex.quote(mount + self.folder)} {shlex.quote(mount)}" for mount in self.mounts]
        return ["unshare", "--mount", "sh", "-c", " && ".join([*binds, 'exec "$@"']), "sh"]

    @contextlib.contextmanager
    def one_more(self, name: str) -> Iterator[None]:
        """A cgroup beside the others, with a process in it, for as long as this lasts."""
        path = f"{self.folder}/{name}"
        reader, life_line = os.pipe()
        process = subprocess.Popen(self._tenant, stdin=reader)
        os.close(reader)
        try:
            self._fill(path, process.pid)
            yield
        finally:
            os.close(life_line)
            process.kill()
            process.wait()
            for mount in self.mounts:
                remove_tree(Path(mount + path))

    def _fill(self, path: str, pid: int) -> None:
        for mount in self.mounts:
            Path(mount + path).mkdir()
            Path(mount + path, "cgroup.procs").write_text(str(pid))

    def _make(self) -> None:
        for mount in self.mounts:
            for folder in dict.fromkeys((Path(mount + self._top), Path(mount + self.folder))):
                folder.mkdir()
                if self.hierarchies.mode == "v2":
                    controllers = (folder / "cgroup.controllers").read_text().split()
                    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        # Also when this process is killed, the pipe ends, and no tenant stays behind.
        reader, self._life_line = os.pipe()
        try:
            for path in self.paths:
                process = subprocess.Popen(self._tenant, stdin=reader)
                self._processes.append(process)
                self._fill(path, process.pid)
        finally:
            os.close(reader)

    def _remove(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()
        if self._life_line >= 0:
            os.close(self._life_line)
            self._life_line = -1
        for mount in self.mounts:
            remove_tree(Path(mount + self._top))


def files_of(hierarchies: Hierarchies, paths: Sequence[str]) -> list[list[str]]:
    """The files of each cgroup that a sample is made from, by the agent's own plan; in one order for all."""
    places = [
        (controller, file.name)
        for file in files_for(hierarchies)
        if (controller := next((c for c in file.controllers if _readable(hierarchies.file(c, paths[0], file.name))), None))
        is not None
    ]
    return [[hierarchies.file(controller, path, name) or "" for controller, name in places] for path in paths]


def sweep(mounts: list[str]) -> None:
    """Remove what runs left behind that were killed."""
    for mount in mounts:
        for folder in Path(mount).glob(f"{_PREFIX}*"):
            pid = folder.name.removeprefix(_PREFIX)
            if re.fullmatch("[0-9]+", pid) and not Path("/proc", pid).exists():
                remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a cgroup and those below it. A cgroup is busy until the kernel is done with its last process: retried for a while.

    Raises:
        OSError: it is still busy after that.
    """
    for child in _below(folder):
        remove_tree(child)

    def gone() -> bool:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    if not wait_until(gone, _REMOVE_SECONDS):
        folder.rmdir()


def _below(folder: Path) -> Iterator[Path]:
    try:
        yield from [child for child in folder.iterdir() if child.is_dir()]
    except FileNotFoundError:
        return


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.02) -> bool:
    """Look until it is so, or too late; returns whether it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def _readable(path: str | None) -> bool:
    try:
        with open(path or "", "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True
