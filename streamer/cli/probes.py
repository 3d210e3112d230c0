"""What `streamer check` looks at. A probe is a function `(Settings) -> findings` and one row in `PROBES`.

A probe looks and leaves nothing behind. What it cannot do without changing something, it does not do.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from streamer.cli.healthcheck import ask
from streamer.cli.httpget import get
from streamer.cli.text import size
from streamer.clock import SystemClock, rfc3339
from streamer.config import Settings, SinkSettings, exposed, listen_address, mask, seconds
from streamer.errors import ConfigError, NotConnected, PermanentlyRefused, Unsupported
from streamer.kernel import hierarchy
from streamer.kernel.hierarchy import UNIFIED, Hierarchies
from streamer.kernel.proc import sees_host_pids
from streamer.outbox.state import directory
from streamer.sources import docker_api
from streamer.sources.cgroup import STRANGE_PIDS, STRANGE_PIDS_REMEDY
from streamer.sources.hardware import disks


class Finding(NamedTuple):
    """One line of the answer. `failed`: the agent cannot do its work; `degraded`: it does it with something missing."""

    state: Literal["ok", "degraded", "failed"]
    what: str
    found: str
    remedy: str = ""


Probe = Callable[[Settings], Iterable[Finding]]


def cgroups(settings: Settings) -> Iterator[Finding]:
    """Is there a hierarchy to watch, and which controllers does it have?"""
    try:
        found = hierarchy.detect(Path(settings.host_root))
    except Unsupported as problem:
        yield Finding("failed", "cgroups", problem.problem, problem.remedy)
        return
    yield Finding("ok", "cgroups", f"{found.mode}, {', '.join(found.mounts[name] for name in found.watched)}")
    controllers = _controllers(found)
    missing = [name for name in ("cpu", "memory", "pids") if name not in controllers]
    missing += [] if {"io", "blkio"} & controllers else ["io"]
    if missing:
        told = f"without {', '.join(missing)}: their statistics and limits are absent"
        remedy = "on v2 write +NAME to cgroup.subtree_control of the root; on v1 mount them; or boot with cgroup_enable=NAME"
        yield Finding("degraded", "controllers", told, remedy)
    else:
        yield Finding("ok", "controllers", ", ".join(sorted(controllers)))


def _controllers(found: Hierarchies) -> set[str]:
    """Those mounted (v1) or enabled for the root's children (v2)."""
    if found.mode != "v2":
        return set(found.mounts) - {UNIFIED}
    try:
        return set((Path(found.mounts[UNIFIED]) / "cgroup.subtree_control").read_text().split())
    except OSError:  # inside a cgroup namespace of its own the root may not have it
        return set((Path(found.mounts[UNIFIED]) / "cgroup.controllers").read_text().split())


_INOTIFY: Final = "proc/sys/fs/inotify"


def processes(settings: Settings) -> Iterator[Finding]:
    """Can the processes of containers be followed to their end?"""
    if sees_host_pids(f"{settings.host_root.rstrip('/')}/proc"):
        yield Finding("ok", "processes", "have the host's numbers here: totals are read as the last one ends")
    else:
        yield Finding("degraded", "processes", STRANGE_PIDS, STRANGE_PIDS_REMEDY)


def inotify(settings: Settings) -> Iterator[Finding]:
    """Are there watches enough for every cgroup, with as many again to grow?"""
    directory = Path(settings.host_root) / _INOTIFY
    limits = {name: _number(directory / name) for name in ("max_user_watches", "max_user_instances", "max_queued_events")}
    if None in limits.values():
        yield Finding(
            "degraded", "inotify", f"no limits under {directory}: the tree is scanned instead", "use a kernel with inotify"
        )
        return
    needed = _watches_needed(settings)
    watches = limits["max_user_watches"] or 0
    told = f"{needed} watches needed of {watches}, {limits['max_user_instances']} instances, queue of {limits['max_queued_events']} events"
    if watches < needed:
        yield Finding(
            "degraded", "inotify", f"{told}: some cgroups are scanned instead", f"sysctl fs.inotify.max_user_watches={needed * 4}"
        )
    elif watches < 2 * needed:
        yield Finding("degraded", "inotify", f"{told}: little room to grow", f"sysctl fs.inotify.max_user_watches={needed * 4}")
    elif (limits["max_queued_events"] or 0) < 16384:
        yield Finding("degraded", "inotify", f"{told}: a burst may overflow the queue", "sysctl fs.inotify.max_queued_events=16384")
    else:
        yield Finding("ok", "inotify", told)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _watches_needed(settings: Settings) -> int:
    """One for each directory of every watched hierarchy."""
    try:
        found = hierarchy.detect(Path(settings.host_root))
    except Unsupported:
        return 0
    return sum(1 for watched in found.watched for _ in hierarchy.tree(found, watched))


def kernel_log(settings: Settings) -> Iterator[Finding]:
    """May the kernel log be read?"""
    if not settings.kmsg.enabled:
        yield Finding("ok", "kernel log", "off by configuration; OOM kills are known from counters and Docker alone")
        return
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        remedy = "mount the host's /dev/kmsg" if error.errno == errno.ENOENT else "run with CAP_SYSLOG and access to the device"
        yield Finding("degraded", "kernel log", f"/dev/kmsg: {error.strerror}; OOM kills lack process and cgroup", remedy)
        return
    try:
        os.read(descriptor, 8192)
    except BlockingIOError:
        pass  # readable, and empty
    except BrokenPipeError:
        pass  # readable: records were overwritten while we looked
    except OSError as error:
        remedy = "run with CAP_SYSLOG, or sysctl kernel.dmesg_restrict=0"
        yield Finding("degraded", "kernel log", f"/dev/kmsg: {error.strerror}; OOM kills lack process and cgroup", remedy)
        return
    finally:
        os.close(descriptor)
    yield Finding("ok", "kernel log", "/dev/kmsg can be read")


def docker(settings: Settings) -> Iterator[Finding]:
    """Does a Docker Engine answer?"""
    if not settings.docker.enabled:
        yield Finding("ok", "docker", "off by configuration; containers are known by their cgroups")
        return
    lost = "containers have no names, images and exit codes"
    host = docker_api.address(settings.docker.host, os.environ.get("DOCKER_HOST", ""), settings.host_root)
    if host is None:
        yield Finding(
            "degraded", "docker", f"{docker_api.ABSENT}; {lost}", "start Docker, mount its socket, or set docker.enabled = false"
        )
        return
    try:
        answer = get(host, "/version", seconds(settings.docker.timeout))
        version: dict[str, Any] = json.loads(answer.body)
        yield Finding("ok", "docker", f"{host}: Docker {version['Version']}, API {version['ApiVersion']}")
    except OSError as error:
        remedies = {
            errno.EACCES: "run as root or as a user of the socket's group (docker)",
            errno.ENOENT: "start Docker, mount its socket, or set docker.enabled = false",
            errno.ECONNREFUSED: "start Docker, or set docker.enabled = false",
        }
        remedy = remedies.get(error.errno or 0, "see whether it runs, or set docker.enabled = false")
        yield Finding("degraded", "docker", f"{host}: {error.strerror or error}; {lost}", remedy)
    except (ValueError, LookupError, TypeError):
        yield Finding("degraded", "docker", f"{host}: who answers is not Docker; {lost}", "correct docker.host")


def pressure(settings: Settings) -> Iterator[Finding]:
    """Does the kernel account for pressure, and per container?"""
    try:
        (Path(settings.host_root) / "proc/pressure/cpu").read_text()
    except OSError as error:
        off = error.errno in (errno.EOPNOTSUPP, errno.ENOENT)
        yield Finding(
            "degraded",
            "pressure (PSI)",
            f"{error.strerror}; psi_* columns are absent",
            "boot with psi=1" if off else "let the agent read /proc/pressure",
        )
        return
    try:
        per_container = hierarchy.detect(Path(settings.host_root)).mode == "v2"
    except Unsupported:
        per_container = False
    if per_container:
        yield Finding("ok", "pressure (PSI)", "per container")
    else:
        remedy = "boot with systemd.unified_cgroup_hierarchy=1"
        yield Finding("degraded", "pressure (PSI)", "only cgroup v2 has it per container; psi_* columns are absent", remedy)


_NOT_COUNTED_SINCE: Final = (6, 10)


def block_io(settings: Settings) -> Iterator[Finding]:
    """Is I/O counted by cgroup, and on every disk?"""
    root = Path(settings.host_root)
    try:
        found = hierarchy.detect(root)
    except Unsupported:
        return
    told = found.file("blkio", "/", "blkio.throttle.io_serviced_recursive")
    if found.mode == "v2" or told is None:
        return
    lazy = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= _NOT_COUNTED_SINCE
    try:
        counted = set(re.findall(r"(?m)^(\d+:\d+) ", Path(told).read_text()))
    except OSError as error:
        yield Finding("degraded", "block I/O", f"{error.strerror}; io_* columns are absent", "boot with CONFIG_BLK_DEV_THROTTLING")
        return
    numbers = {f"{disk.major}:{disk.minor}": disk.name for disk in disks(root)} if lazy else {}
    if missing := sorted(number for number in numbers if number not in counted):
        names = ", ".join(numbers[number] for number in missing)
        remedy = f"echo '{missing[0]} 0' > {os.path.dirname(told)}/blkio.throttle.read_bps_device (no limit), for each of them, at each boot"
        yield Finding("degraded", "block I/O", f"not counted on {names}, io_* columns are 0: this kernel waits for a limit", remedy)
    else:
        yield Finding("ok", "block I/O", "counted by cgroup")


_FILES_PER_CONTAINER: Final = 12
_OTHER_FILES: Final = 256


def descriptors(_: Settings) -> Iterator[Finding]:
    """May enough files be held open for sampling? Above the limit files are opened for each sample, which costs CPU."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        yield Finding("ok", "open files", "no limit")
        return
    room = max(0, hard - _OTHER_FILES) // _FILES_PER_CONTAINER
    told = f"limit {hard}: the files of about {room} containers stay open between samples"
    if room < 250:
        yield Finding(
            "degraded", "open files", told, "raise it: LimitNOFILE=65536 in the unit, --ulimit nofile=65536 for a container"
        )
    else:
        yield Finding("ok", "open files", told)


_PLAUSIBLE: Final = (1_735_689_600, 4_102_444_800)  # 2025 and 2100, s since 1970
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised


def clock(_: Settings) -> Iterator[Finding]:
    """Is the wall clock believable, and does the kernel think that it is synchronised?"""
    now = SystemClock().wall_ns()
    told = rfc3339(now)[:19] + "Z"
    if not _PLAUSIBLE[0] < now / 1e9 < _PLAUSIBLE[1]:
        yield Finding("failed", "clock", told, "set the clock: times and ids of messages come from it")
        return
    timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0 only asks
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state == _TIME_ERROR:
        yield Finding(
            "degraded", "clock", f"{told}, not synchronised as far as the kernel knows", "run chrony or systemd-timesyncd"
        )
    else:
        yield Finding("ok", "clock", f"{told}, synchronised" if state >= 0 else f"{told}, synchronisation not known")


def state(settings: Settings) -> Iterator[Finding]:
    """What would a crash lose, and is there room for an outage?"""
    where = directory(settings.state_dir, os.environ, root=os.geteuid() == 0)
    held = size(settings.outbox.memory_bytes * 2 * max(1, len(settings.sinks)))
    in_memory = f"what waits for a sink is held in memory ({held} at most) and lost if the agent is killed"
    if where is None:
        yield Finding("degraded", "state", in_memory, "give it a directory: --state-dir DIR")
        return
    existing = next(path for path in (where, *where.parents) if os.path.exists(path))  # False where we may not look
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("degraded", "state", f"{where} cannot be written: {in_memory}", "make it writable, or --state-dir DIR")
        return
    room, most = shutil.disk_usage(existing).free, settings.outbox.durable_bytes + settings.outbox.stats_bytes
    told = f"{where}, {size(room)} free, at most {size(most)} used; a crash of the agent loses no lifecycle or OOM message"
    if room < most:
        remedy = (
            "make room, or lower outbox.durable_bytes and outbox.stats_bytes: a full disk means that an outage is held in memory"
        )
        yield Finding("degraded", "state", told, remedy)
    else:
        yield Finding("ok", "state", told)


def sinks(settings: Settings) -> Iterator[Finding]:
    """Can each sink be reached, and written to?"""
    for sink in settings.sinks or [SinkSettings(url="stdout:")]:
        what = f"sink {mask(sink.url).rstrip(':')}"
        if sink.url.startswith("file:"):
            yield _file_sink(what, unquote(urlsplit(sink.url).path))
        else:
            yield asyncio.run(_sink(settings, sink, what))


def _file_sink(what: str, path: str) -> Finding:
    """Its `connect` would lock and mend the file, which may be in use: it is only tried here."""
    try:
        if not os.path.lexists(path):
            tempfile.TemporaryFile(dir=os.path.dirname(path)).close()
            return Finding("ok", what, "can be made")
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return Finding("degraded", what, "is a FIFO that nobody reads", "start its reader")
        return Finding("failed", what, error.strerror or str(error), f"let user id {os.geteuid()} write there, or correct the path")
    return Finding("ok", what, "can be written")


async def _sink(settings: Settings, sink: SinkSettings, what: str) -> Finding:
    from streamer.sinks import make

    made = make(sink, settings.publishing, settings.host_id or "streamer-check")
    patience = seconds(settings.outbox.connect_timeout)
    try:
        async with asyncio.timeout(patience):
            await made.connect()
            probe = getattr(made, "probe", None)  # offered by sinks that can try a write without leaving anything behind
            said = await probe() if probe else "connected"
    except TimeoutError:
        return Finding(
            "failed", what, f"no answer within {settings.outbox.connect_timeout}", "see whether it runs, and what is in between"
        )
    except (NotConnected, PermanentlyRefused) as problem:
        return Finding("failed", what, problem.problem, problem.remedy or "see whether it runs, and what is in between")
    finally:
        await made.close()
    return Finding("ok", what, said or "can be written")


def sidecar(settings: Settings) -> Iterator[Finding]:
    """Can the sidecar's address be had, or is an agent answering there already?"""
    listen = settings.http.listen
    address = listen_address(listen)
    if address is None:
        yield Finding("ok", "sidecar", "off by configuration")
        return
    from streamer.sidecar.listen import bind, inode_of, release
    from streamer.sidecar.tls import Tls
    from streamer.sidecar.tokens import Tokens

    try:
        if settings.http.token_file:
            Tokens(settings.http.token_file, SystemClock())
        if settings.http.tls_cert_file:
            Tls(settings.http, SystemClock())
    except ConfigError as problem:
        yield Finding("failed", "sidecar", f"{problem.key} = {problem.value}: {problem.problem}", problem.remedy)
        return
    try:
        if ask(settings, "/healthz", 2.0).body.strip() == b"ok":
            yield Finding("ok", "sidecar", f"an agent answers on {listen}")
            return
    except (OSError, ValueError):
        pass  # nobody is there, or somebody else: binding tells
    try:
        with bind(address, settings.http):
            inode = inode_of(address.path) if address.path else 0
        release(address.path, inode)
    except ConfigError as problem:
        yield Finding("failed", "sidecar", f"{listen}: {problem.problem}", problem.remedy)
        return
    if exposed(settings.http):
        yield Finding(
            "degraded",
            "sidecar",
            f"{listen} is free, and whoever reaches it may ask everything (http.insecure)",
            "set http.token_file or http.tls_client_ca_file, or listen on 127.0.0.1",
        )
        return
    yield Finding("ok", "sidecar", f"{listen} is free")


PROBES: Final[tuple[Probe, ...]] = (
    cgroups,
    processes,
    inotify,
    kernel_log,
    docker,
    pressure,
    block_io,
    descriptors,
    clock,
    state,
    sinks,
    sidecar,
)
