"""Docker containers of the benchmark's own, in a Docker Engine of its own; gone again afterwards, however it ends."""

from __future__ import annotations

import io
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.cgroups import BUSY_MS, files_of
from benchmarks.command import progress
from streamer.kernel.hierarchy import Hierarchies

if TYPE_CHECKING:
    from tests.support.docker_engine import DockerEngine

_IMAGE: Final = "tenant:local"
_AT_ONCE: Final = 4
_LABELS: Final = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "team": "payments"}


class DockerContainers:
    """`count` containers with `tenant.c` in each, in a network namespace of their own that has only a loopback. A context manager.

    paths     their cgroups
    own       what the ids that an agent tells them by begin with: the ids themselves
    pids      their first processes
    """

    def __init__(self, engine: DockerEngine, hierarchies: Hierarchies, count: int, workload: str) -> None:
        self._engine, self._hierarchies, self._count = engine, hierarchies, count
        self._pause_ms = BUSY_MS if workload == "busy" else 0
        self.own: tuple[str, ...] = ()
        self.paths: list[str] = []
        self.pids: list[int] = []

    def __enter__(self) -> DockerContainers:
        client = self._engine.client()
        try:
            client.api.import_image_from_data(_image(self._engine.directory), *_IMAGE.split(":"))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                containers = list(pool.map(lambda number: self._start(client, number), range(self._count)))
            self.own = tuple(str(container.id) for container in containers)
            self.paths = [f"/docker/{name}" for name in self.own]
            self.pids = [client.api.inspect_container(name)["State"]["Pid"] for name in self.own]
        except BaseException:
            self._remove()
            raise
        finally:
            client.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def listing(self) -> list[list[str]]:
        """The files of each that a sample is made from: those of its cgroup, and its network's, which only a process of its own shows."""
        cgroups = files_of(self._hierarchies, self.paths)
        return [[*files, f"/proc/{pid}/net/dev"] for files, pid in zip(cgroups, self.pids, strict=True)]

    def _start(self, client: Any, number: int) -> Any:
        return client.containers.run(
            _IMAGE,
            ["/tenant", str(self._pause_ms)],
            name=f"shop-web-{number}",
            labels=_LABELS,
            network_mode="none",
            log_config={"type": "none", "config": {}},
            mem_limit="64m",
            pids_limit=64,
            detach=True,
        )

    def _remove(self) -> None:
        names = self._engine.cli("ps", "-aq", "--no-trunc", "--filter", f"ancestor={_IMAGE}").split()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._engine.cli("rm", "-f", name), names))


def started_engine(stack: ExitStack) -> DockerEngine:
    """A Docker Engine of our own, for as long as `stack` holds; only here is what the tests have for that imported."""
    from tests.support.docker_engine import DockerEngine

    progress("a Docker Engine")
    return stack.enter_context(DockerEngine())


def _image(directory: Path) -> bytes:
    """A tar archive that holds one static program."""
    program = directory / "tenant"
    subprocess.run(["gcc", "-O2", "-static", "-s", "-o", str(program), str(Path(__file__).with_name("tenant.c"))], check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(program, "tenant")
    return buffer.getvalue()
