"""A real Docker Engine of the tests' own: its own data, socket and containerd; no registry, no system daemon.

Use the `docker_engine` fixture (one per session), or `DockerEngine()` as a context manager for one that a test may stop,
kill or freeze. Several can run at once. The image `busybox:local` is there, with a link for every applet.

    engine.cli("run", "-d", "--network", "none", "busybox:local", "sleep", "60")   the docker command line
    engine.client()                                                               docker-py
    engine.environment                                                            for testcontainers and others

What it leaves nothing of, also after a failed or killed test run: dockerd ends with the thread that started it
(PR_SET_PDEATHSIG), and each new engine first sweeps away what engines of dead test runs left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from types import TracebackType

    import docker

IMAGE: Final = "busybox:local"

_PREFIX: Final = "streamer-docker-"
_MISSING: Final = "{} is missing: apt-get install -y --no-install-recommends docker.io iptables busybox-static"
_DIRECTORIES: Final = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")
_MNT_DETACH: Final = 2
# It waits 15 s for the containerd that it starts, and ends when that was not enough.
_NO_CONTAINERD: Final = "timeout waiting for containerd to start"
_STARTS: Final = 4
# `sleep` does not hear SIGTERM as process 1. By default dockerd kills it after 10 s, gives up 5 s later and leaves a cgroup
# behind when that was not enough. Killed at once, and waited for a minute, it is gone whenever dockerd has ended.
_ENDS_AT_ONCE: Final = ("--stop-signal", "KILL", "--stop-timeout", "60")


class DockerEngine:
    """One dockerd with everything that belongs to it, below one temporary directory.

    storage_driver  "" leaves the choice to dockerd; `vfs` where overlays cannot be mounted (TEST_DOCKER_STORAGE
                    sets the default)
    live_restore    containers go on while dockerd is away
    cgroup_parent   "" is Docker's own choice, `/docker`
    """

    def __init__(self, *, storage_driver: str = "", live_restore: bool = False, cgroup_parent: str = "") -> None:
        self._dockerd = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        self._busybox = shutil.which("busybox")
        if self._dockerd is None or self._busybox is None:
            pytest.fail(_MISSING.format("dockerd" if self._dockerd is None else "busybox"), pytrace=False)
        sweep()
        # Short on purpose: the path of a unix socket holds 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.socket = self.directory / "docker.sock"
        self.host = f"unix://{self.socket}"
        self._options = [
            *(["--storage-driver", driver] if (driver := storage_driver or os.environ.get("TEST_DOCKER_STORAGE", "")) else []),
            *(["--live-restore"] if live_restore else []),
            *(["--cgroup-parent", cgroup_parent] if cgroup_parent else []),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._has_image = False

    def __enter__(self) -> DockerEngine:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # its life

    def start(self) -> None:
        """Start dockerd and wait until it answers; the first time the image is imported too. Call it on a thread that lives on."""
        (self.directory / "daemon.json").write_text("{}")  # not the configuration of a system daemon
        command = [
            "setpriv", "--pdeathsig", "TERM", str(self._dockerd),
            "--config-file", f"{self.directory}/daemon.json",
            "--data-root", f"{self.directory}/data",
            "--exec-root", f"{self.directory}/exec",
            "--pidfile", f"{self.directory}/docker.pid",
            "--host", self.host,
            "--bridge=none", "--iptables=false", "--shutdown-timeout=2",
            *self._options,
        ]  # fmt: skip
        for _ in range(_STARTS):
            with (self.directory / "dockerd.log").open("ab") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            if self._answers(self._process):
                break
            if _NO_CONTAINERD not in self._last_words():
                pytest.fail(f"dockerd does not answer:\n{self._last_words()}", pytrace=False)
        else:
            pytest.fail(f"dockerd did not start {_STARTS} times:\n{self._last_words()}", pytrace=False)
        if not self._has_image:
            self._import_image()
            self._has_image = True

    def stop(self) -> None:
        """End dockerd in order. Without `live_restore` it stops its containers first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End dockerd at once, as a crash does: containers go on under their shims, its containerd ends with it."""
        pidfile = self.directory / "exec" / "containerd" / "containerd.pid"
        containerd = int(pidfile.read_text())
        self._end(signal.SIGKILL)
        # The next dockerd must not take the dying containerd for a live one, nor the next process of that number.
        with contextlib.suppress(ProcessLookupError):
            os.kill(containerd, signal.SIGKILL)
        _wait_for(lambda: not _runs(containerd), "containerd did not end")
        pidfile.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """dockerd accepts connections but does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End everything that belongs to this engine and remove its directory."""
        if self.running:
            with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
                self.remove_containers()
            self.stop()
        _sweep(self.directory)

    # its use

    @property
    def environment(self) -> dict[str, str]:
        """What makes docker-py, the command line, testcontainers and the agent use this engine, however slow it is."""
        return {"DOCKER_HOST": self.host, "TESTCONTAINERS_RYUK_DISABLED": "true", "STREAMER_DOCKER__TIMEOUT": "60s"}

    def client(self) -> docker.DockerClient:
        """A docker-py client; the caller closes it."""
        import docker

        return docker.DockerClient(base_url=self.host, timeout=600)

    def cli(self, *arguments: str) -> str:
        """Run `docker …` against this engine and return what it printed, stripped.

        Raises:
            subprocess.CalledProcessError: its exit code was not 0; what it printed to stderr is a note of the error.
        """
        if shutil.which("docker") is None:
            pytest.fail(_MISSING.format("docker"), pytrace=False)
        done = subprocess.run(
            ["docker", "--host", self.host, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done.stdout.strip()

    def run(self, *arguments: str, command: tuple[str, ...] = ("sleep", "600")) -> str:
        """Start a container without a network in the background, that ends at once when it is stopped; returns its id."""
        return self.cli("run", "-d", "--network", "none", *_ENDS_AT_ONCE, *arguments, IMAGE, *command)

    def remove_containers(self) -> None:
        """Remove every container, running or not."""
        if ids := self.cli("ps", "-aq", "--no-trunc").split():
            self.cli("rm", "-f", *ids)

    # inside

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until it does; whether it did before it ended."""
        import docker

        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client = docker.APIClient(base_url=self.host, timeout=60)
            except docker.errors.DockerException:
                time.sleep(0.05)  # the pace of asking; the deadline is above
                continue
            client.close()
            return True
        return False

    def _last_words(self) -> str:
        return "\n".join((self.directory / "dockerd.log").read_text(errors="replace").splitlines()[-20:])

    def _import_image(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.api.import_image_from_data(_root_file_system(Path(str(self._busybox))), *IMAGE.split(":"))

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a frozen one ends too
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None


def _root_file_system(busybox: Path) -> bytes:
    """A tar archive with busybox and a link for each of its applets."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(busybox.resolve(), "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()


def _runs(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(otherwise)
        time.sleep(0.01)  # the pace of asking; the deadline is above


# cleaning up after test runs that could not


def sweep() -> None:
    """End and remove what the engines of test runs left that are no longer there."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = directory.name.removeprefix(_PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            _sweep(directory)


def _sweep(directory: Path) -> None:
    """End every process of an engine, then take down its mounts, its containers' cgroups and its directory."""
    deadline = time.monotonic() + 60
    while (pids := _processes(directory)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # the pace of looking again: a killed shim's container shows up as an orphan
    libc = ctypes.CDLL(None, use_errno=True)
    for mount in sorted(_mounts(directory), reverse=True):
        libc.umount2(os.fsencode(mount), _MNT_DETACH)
    for container in (directory / "data" / "containers").glob("*"):
        for cgroup in (*Path("/sys/fs/cgroup").glob(f"*/docker/{container.name}"), Path("/sys/fs/cgroup/docker", container.name)):
            with contextlib.suppress(OSError):  # not there, or not ours to remove
                cgroup.rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def _processes(directory: Path) -> list[int]:
    """dockerd, containerd and shims name the directory in their arguments; a container's processes have their root in it."""
    found = []
    wanted = os.fsencode(directory) + b"/"
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (proc / "cmdline").read_bytes().split(b"\0")
            if (any(name in arguments[0] for name in (b"dockerd", b"containerd")) and any(wanted in a for a in arguments)) or any(
                wanted in line for line in (proc / "mountinfo").read_bytes().splitlines() if line.split(b" ")[4] == b"/"
            ):
                found.append(int(proc.name))
    return [pid for pid in found if pid != os.getpid()]


def _mounts(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [target for line in lines if (target := line.split(" ")[4]).startswith(f"{directory}/")]


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """One engine for the whole session; use `container names` of your own, other tests use it too."""
    with DockerEngine() as engine:
        yield engine
