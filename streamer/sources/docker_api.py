"""What the Docker Engine says, read: its JSON in, observations out. Pure: no connection, no clock, no docker package.

Formats: Docker Engine API 1.41 and later, `GET /events`, `GET /containers/json`, `GET /containers/<id>/json`. Only
what is used is asked for, so that other versions and Podman's compatible API can be read too.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from streamer.model.observations import Described, RuntimeEvent

_T = TypeVar("_T")
_MAX_NS: Final = (1 << 63) - 1  # a time that does not fit is no time: messages and dates could not hold it


def _reader(kind: type[_T]) -> Callable[[Any], _T]:
    """What makes this kind of value of parsed JSON, in any thread; it raises ValueError where that is something else.

    msgspec looks into a type at its first use and keeps what it found from the moment it begins. A second thread that comes in
    between takes what is half there and the process ends by SIGSEGV (msgspec 0.22). So it is made to look here, while
    the module is loaded.
    """
    msgspec.json.Decoder(kind)
    return partial(msgspec.convert, type=kind)


# events


class Actor(Struct, frozen=True, rename="pascal"):
    """Whom an event is about."""

    id: str = field(name="ID")
    attributes: dict[str, str] | None = None


class Event(Struct, frozen=True, rename="pascal"):
    """One line of `/events`. `status`, `id` and `from` of older versions are not read: API 1.52 dropped them."""

    type: str
    action: str
    actor: Actor
    time_ns: Annotated[int, Meta(ge=0, le=_MAX_NS)] = field(name="timeNano")

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from every other event: Docker repeats events after a reconnect and numbers none of them."""
        return (self.actor.id, self.action, self.time_ns)


ACTIONS: Final = ("create", "start", "die", "oom", "pause", "unpause", "rename", "update", "destroy")
"""The events that are passed on. `stop`, `kill` and `restart` only repeat what `die` and `start` say; exec and health
checks are not about the container's life and would drown it."""

STATE_AFTER: Final = {"create": "created", "start": "running", "unpause": "running", "pause": "paused", "die": "exited"}
"""The state of a container, in the list's words, after an event."""

ENDED: Final = frozenset({"exited", "dead"})
"""The states of what does not run and is not about to."""

INSPECT_AFTER: Final = frozenset({"create", "start", "update", "rename"})
"""Events after which there is something new that only a full description tells: limits, image id, pid, start time."""

_ADDED: Final = frozenset(
    {"name", "image", "exitCode", "signal", "oldName", "execID", "execDuration", "comment", "containerExitCode"}
)
"""Attributes that Docker (the last one: Podman) puts among the container's labels, in the same map. A label with one
of these names cannot be told apart here and is left out; the full description has it."""

_decode: Final = msgspec.json.Decoder(Event).decode

MAX_LINE_BYTES: Final = 1 << 20
"""Events carry all labels of a container; a megabyte without a line's end is something else than Docker."""


class EventLines:
    """Splits the bytes of `/events` into events, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""
        self.unreadable = 0
        """Lines that were no events."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete.

        Raises:
            ValueError: more than `MAX_LINE_BYTES` without the end of a line.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"{len(self._rest)} bytes of events without the end of a line")
        events = []
        for line in lines:
            if not line.strip():
                continue
            try:
                events.append(_decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.unreadable += 1
        return events


def runtime_event(event: Event) -> RuntimeEvent | None:
    """An event as an observation; None when it is not about the life of a container."""
    if event.type != "container" or event.action not in ACTIONS:
        return None
    attributes = event.actor.attributes or {}
    exit_code = attributes.get("exitCode", attributes.get("containerExitCode", "")) if event.action == "die" else ""
    return RuntimeEvent(
        runtime="docker",
        action=event.action,
        container_id=event.actor.id,
        time_ns=event.time_ns,
        name=attributes.get("name", "").removeprefix("/") or None,
        image=attributes.get("image") or None,
        labels={name: text for name, text in attributes.items() if name not in _ADDED},
        exit_code=int(exit_code) if re.fullmatch("-?[0-9]{1,10}", exit_code) else None,
    )


def since(time_ns: int) -> str:
    """A time as `/events` takes it, to the nanosecond: `1700000000.123456789`."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{seconds}.{nanoseconds:09d}"


RING: Final = 256
"""How many events, of all kinds, a Docker daemon remembers (moby, daemon/events: `eventsLimit`)."""

_SLACK_NS: Final = 1_000_000_000


def reaches_back(history: Sequence[Event], last: Event, lost_ns: int) -> bool:
    """Whether nothing can be missing between the last event seen and what the daemon remembers now.

    history  all events that the daemon still has from the time of `last` on, of every kind
    last     the last event that was seen
    lost_ns  when the connection was lost; until then every event was delivered

    A ring that is not full and does not hold `last` belongs to a daemon that was started anew.
    """
    if any(event.key == last.key for event in history):
        return True
    return len(history) >= RING and min(event.time_ns for event in history) < lost_ns - _SLACK_NS


# lists and descriptions


class Listed(Struct, frozen=True, rename="pascal"):
    """One entry of `/containers/json`."""

    id: str
    names: list[str] | None = None
    state: str = ""
    image: str = ""
    labels: dict[str, str] | None = None

    @property
    def name(self) -> str:
        # Links of other containers are listed too, as /other/alias.
        return next((n[1:] for n in self.names or () if n.startswith("/") and "/" not in n[1:]), "")


def listed(entry: Listed, time_ns: int) -> RuntimeEvent:
    """What a list says of a container, as an observation: its name, image and labels."""
    return RuntimeEvent(
        runtime="docker",
        action="listed",
        container_id=entry.id,
        time_ns=time_ns,
        name=entry.name or None,
        image=entry.image or None,
        labels=entry.labels,
    )


_Count = Annotated[int, Meta(ge=0, lt=1 << 32)]


class _Config(Struct, frozen=True, rename="pascal"):
    image: str = ""
    labels: dict[str, str] | None = None


class _State(Struct, frozen=True, rename="pascal"):
    status: str | None = None
    pid: _Count = 0
    exit_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 32)] | None = None
    oom_killed: bool | None = field(default=None, name="OOMKilled")
    started_at: str = ""


class _HostConfig(Struct, frozen=True, rename="pascal"):
    network_mode: str = ""


class _Inspected(Struct, frozen=True, rename="pascal"):
    id: str
    name: str = ""
    image: str = ""
    created: str = ""
    restart_count: _Count | None = None
    config: _Config = _Config()
    state: _State = _State()
    host_config: _HostConfig = _HostConfig()


_listed: Final = _reader(list[Listed])
_inspected: Final = _reader(_Inspected)


def containers(answer: Any) -> list[Listed]:
    """The answer to `/containers/json`.

    Raises:
        ValueError: it is something else.
    """
    return _listed(answer)


def described(answer: Any, time_ns: int) -> Described:
    """The answer to `/containers/<id>/json`.

    Raises:
        ValueError: it is something else.
    """
    told = _inspected(answer)
    runs = told.state.status in ("running", "paused")
    network = told.host_config.network_mode
    description = Described(
        runtime="docker",
        container_id=told.id,
        time_ns=time_ns,
        name=told.name.removeprefix("/"),
        image=told.config.image,
        image_id=told.image or None,
        labels=told.config.labels or {},
        created_at_ns=nanoseconds(told.created),
        started_at_ns=nanoseconds(told.state.started_at),
        pid=told.state.pid,
        state=told.state.status,
        exit_code=None if runs or told.state.status == "created" else told.state.exit_code,
        oom_killed=told.state.oom_killed,
        restart_count=told.restart_count,
        network_shared=network == "host" or network.startswith("container:"),
    )
    msgspec.json.encode(description)  # half a surrogate pair is JSON to the json module, but no text: refused here, at the door
    return description


class Place(NamedTuple):
    """Where a container's files are on the host, as far as the engine says so.

    upper  the directory of its writable layer; "": not said, or the layer is no directory of its own
    home   the directory of its logs and of what the engine mounts into it; "": not said
    pid    its first process; 0: none
    """

    upper: str = ""
    home: str = ""
    pid: int = 0


class _GraphDriver(Struct, frozen=True, rename="pascal"):
    data: dict[str, Any] | None = None


class _Kept(Struct, frozen=True, rename="pascal"):
    id: str
    graph_driver: _GraphDriver | None = None
    log_path: str = ""
    hostname_path: str = ""
    resolv_conf_path: str = ""
    state: _State = _State()


_kept: Final = _reader(_Kept)


def place(answer: Any) -> Place:
    """Where the files of a container are, by the answer to `/containers/<id>/json`; nothing where it is something else."""
    try:
        told = _kept(answer)
    except ValueError:
        return Place()
    upper = ((told.graph_driver and told.graph_driver.data) or {}).get("UpperDir")
    homes = (os.path.dirname(path) for path in (told.log_path, told.hostname_path, told.resolv_conf_path))
    # Who shares another container's network has its files, too; a log driver may put the log elsewhere.
    home = next((home for home in homes if os.path.basename(home) == told.id), "")
    return Place(upper if isinstance(upper, str) and upper.startswith("/") else "", home, told.state.pid)


_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def nanoseconds(text: str) -> int | None:
    """RFC 3339 with up to nine digits -> ns since 1970; None for Docker's "never" (year 1) and for no time at all."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    try:
        second = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
        whole = int((second - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None
    time_ns = whole * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))
    return time_ns if 0 < time_ns <= _MAX_NS else None


# where it is, and why it is not


SOCKETS: Final = ("var/run/docker.sock", "run/docker.sock")
ABSENT: Final = f"there is no Docker socket (looked for /{' and /'.join(SOCKETS)})"


def address(configured: str, docker_host: str, host_root: str) -> str | None:
    """The configured address, else DOCKER_HOST, else a socket that exists below the host's root; None: there is none."""
    if configured or docker_host:
        return configured or docker_host
    for socket in SOCKETS:
        path = inside(Path(host_root), socket)
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                return f"unix://{path}"
        except OSError:
            continue
    return None


_MAX_LINKS: Final = 40  # as the kernel: path_resolution(7)


def inside(root: Path, path: str) -> Path:
    """Resolve symbolic links as the host would: `/var/run -> /run` stays below `root`, and so does `..`."""
    todo = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        step = root.joinpath(*done, part)
        if part == "..":
            del done[-1:]
        elif links < _MAX_LINKS and part != "." and step.is_symlink():
            links += 1
            target = os.readlink(step)
            if target.startswith("/"):
                done.clear()
            todo += [part for part in target.split("/") if part][::-1]
        elif part != ".":
            done.append(part)
    return root.joinpath(*done)


REFUSED_REMEDY: Final = "a proxy before Docker must allow GET of /version, /events and /containers"


def remedy(url: str) -> str:
    """What an operator can do about a Docker Engine that is not there."""
    what = f"access to {url}" if url else f"its socket (docker run -v /{SOCKETS[0]}:/{SOCKETS[0]})"
    return f"start Docker, give the agent {what}, or set docker.enabled = false"


def explain(error: BaseException, url: str) -> tuple[str, str]:
    """Why Docker could not be reached, and what would help: the cause lies deep within what docker-py raises."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, PermissionError):
            help_ = "run the agent as root, or add its user to the group that owns the socket (usually docker)"
            return f"no permission to use {url}", help_
        if isinstance(cause, FileNotFoundError) and url.startswith("unix:"):
            return f"there is nothing at {url}", remedy(url)
        if isinstance(cause, ConnectionRefusedError):
            return f"nothing listens at {url}", remedy(url)
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return f"no answer in time from {url}", "look at the log of dockerd; docker.timeout is how long to wait"
    return f"{url}: {error}", remedy(url)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it was made of: by `raise from`, while handling another, or as an argument (urllib3)."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        cause = todo.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [*cause.args, cause.__context__, cause.__cause__]
