"""The operations of cAdvisor's manager, answered from memory.

The same failures, by the same words; where cAdvisor is known to be wrong, what it means to do: subcontainers are matched by
whole path components, events are filtered before they are counted, a count below -1 is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence

from msgspec import structs

from streamer.cadvisor import events, machine, specs
from streamer.cadvisor import shapes as s
from streamer.cadvisor import shapes_v2 as v2
from streamer.cadvisor.channel import EventChannel
from streamer.cadvisor.errors import InvalidRequest, NotFound, unknown_container
from streamer.cadvisor.go import quoted, rfc3339
from streamer.cadvisor.requests import EventRequest, InfoRequest, RequestOptions, Window, checked, window
from streamer.cadvisor.shapes_machine import MachineInfo, VersionInfo
from streamer.cadvisor.tree import Tree, canonical
from streamer.cadvisor.views import Views, derived_stats
from streamer.contracts import Clock
from streamer.errors import Gone
from streamer.memory import Container, Memory
from streamer.model import messages as m
from streamer.model.messages import HostInfo, Message
from streamer.model.wire import Entry

Freshen = Callable[[Sequence[str], float], Awaitable[None]]
"""Has these cgroups sampled whose newest sample is older than so many seconds, and waits for it, but not for long."""

Processes = Callable[[str], Awaitable[list[v2.ProcessInfo]]]
"""The processes of a cgroup. Raises `Gone` where there is none."""


class Operations:
    """What can be asked of the host that a memory is about. All raise `RequestFailed`, with cAdvisor's text.

    The `each_…` methods are the same as those that return all at once, one by one, nothing built ahead; they raise when the first
    is taken. They do not wait for fresh samples: call `freshen` before.
    """

    def __init__(self, memory: Memory, clock: Clock, *, freshen: Freshen | None = None, processes: Processes | None = None) -> None:
        """`freshen`: without it, `max_age` changes nothing. `processes`: without it, they cannot be listed."""
        self.memory, self.clock = memory, clock
        self._freshen, self._processes = freshen, processes
        self._tree: tuple[list[Container], int, Tree] | None = None
        self._views = Views(memory)
        self._channels: dict[int, tuple[EventRequest, EventChannel]] = {}
        self._watch_ids = itertools.count(1)
        self._stop_watching: Callable[[], None] | None = None

    # containers, v1

    async def container_info(self, name: str, request: InfoRequest = InfoRequest()) -> s.ContainerInfo:  # noqa: B008  frozen
        """A container by its cgroup path."""
        path, wanted, tree = canonical(name), window(request), self._known()
        if path not in tree:
            raise unknown_container(path)
        return self._info(path, wanted, tree)

    async def subcontainers_info(self, name: str, request: InfoRequest = InfoRequest()) -> list[s.ContainerInfo]:  # noqa: B008  frozen
        """A container and all below it."""
        return list(self.each_subcontainer(name, request))

    async def all_docker_containers(self, request: InfoRequest = InfoRequest()) -> dict[str, s.ContainerInfo]:  # noqa: B008  frozen
        """All Docker containers by cgroup path."""
        return dict(self.each_docker_container(request))

    async def docker_container(self, name: str, request: InfoRequest = InfoRequest()) -> s.ContainerInfo:  # noqa: B008  frozen
        """A Docker container by name, id or the beginning of either, if that fits one alone."""
        wanted, tree = window(request), self._known()
        return self._info(_by_alias(name, "docker", tree), wanted, tree)

    def each_subcontainer(self, name: str, request: InfoRequest) -> Iterator[s.ContainerInfo]:
        path, wanted, tree = canonical(name), window(request), self._known()
        if path not in tree:
            raise NotFound("no containers found")
        for below in tree.below(path):
            yield self._info(below, wanted, tree)

    def each_docker_container(self, request: InfoRequest) -> Iterator[tuple[str, s.ContainerInfo]]:
        wanted, tree = window(request), self._known()
        for path in _of_runtime("docker", tree):
            yield path, self._info(path, wanted, tree)

    def _info(self, path: str, wanted: Window, tree: Tree) -> s.ContainerInfo:
        return self._views.info(path, tree.get(path), tree.children(path), wanted)

    # containers, by options

    async def requested_containers(self, name: str, options: RequestOptions = RequestOptions()) -> dict[str, s.ContainerInfo]:  # noqa: B008  frozen
        """By cgroup path, in v1's shape."""
        await self.freshen(name, options)
        return dict(self.each_requested(name, options))

    async def requested_containers_v2(
        self,
        name: str,
        options: RequestOptions = RequestOptions(),  # noqa: B008  frozen
    ) -> dict[str, v2.ContainerInfoV2]:
        """By cgroup path, in v2's shape."""
        await self.freshen(name, options)
        return dict(self.each_requested_v2(name, options))

    async def container_spec(self, name: str, options: RequestOptions = RequestOptions()) -> dict[str, v2.ContainerSpecV2]:  # noqa: B008  frozen
        """Limits by cgroup path."""
        tree = self._known()
        return {path: self._views.spec_v2(tree.get(path)) for path in self._requested(name, options, tree)}

    async def derived_stats(self, name: str, options: RequestOptions = RequestOptions()) -> dict[str, v2.DerivedStats]:  # noqa: B008  frozen
        """Statistics of the last minute, hour and day by cgroup path."""
        await self.freshen(name, options)
        return dict(self.each_derived(name, options))

    def each_requested(self, name: str, options: RequestOptions) -> Iterator[tuple[str, s.ContainerInfo]]:
        tree = self._known()
        for path in self._requested(name, options, tree):
            yield path, self._info(path, Window(options.count), tree)

    def each_requested_v2(self, name: str, options: RequestOptions) -> Iterator[tuple[str, v2.ContainerInfoV2]]:
        tree = self._known()
        for path in self._requested(name, options, tree):
            yield path, self._views.info_v2(tree.get(path), options.count)

    def each_deprecated(self, name: str, options: RequestOptions) -> Iterator[tuple[str, list[v2.DeprecatedContainerStats]]]:
        """v2.0's samples by cgroup path."""
        tree = self._known()
        for path in self._requested(name, options, tree):
            yield path, self._views.deprecated_stats(tree.get(path), options.count)

    def each_derived(self, name: str, options: RequestOptions) -> Iterator[tuple[str, v2.DerivedStats]]:
        """Of several, those that have samples; folders that are no containers have none."""
        tree = self._known()
        for path in self._requested(name, options, tree):
            container = tree.get(path)
            if container is not None and container.latest is not None:
                yield path, derived_stats(container)
            elif not options.recursive:
                raise NotFound(f"derived stats not enabled for container {quoted(path)}")

    async def freshen(self, name: str, options: RequestOptions) -> None:
        """If the options set a greatest age, have what is older sampled again first."""
        if self._freshen is not None and options.max_age is not None:
            tree = self._known()
            paths = [path for path in self._requested(name, options, tree) if tree.get(path) is not None]
            if paths:
                await self._freshen(paths, options.max_age)

    # the machine

    async def machine_info(self) -> MachineInfo:
        return machine.machine_info(self._host())

    async def version_info(self) -> VersionInfo:
        return machine.version_info(self._host())

    async def attributes(self) -> v2.Attributes:
        return machine.attributes(self._host())

    async def machine_stats(self, options: RequestOptions = RequestOptions()) -> list[v2.MachineStats]:  # noqa: B008  frozen
        """The machine's samples; none where the root cgroup is not watched (`scope = "containers"`)."""
        of_root = structs.replace(options, type="name", recursive=False)
        await self.freshen("/", of_root)
        return self._views.machine_stats(self.memory.by_path("/"), checked(of_root).count)

    async def fs_info(self, label: str = "", uuid: str = "") -> list[v2.FsInfo]:
        """The machine's file systems: all, or those with a label (`root`, `docker-images`)."""
        root = self.memory.by_path("/")
        if root is None or (not root.filesystems and self._host().filesystems):
            raise NotFound("unable to find data in memory cache: no file system was measured yet; scope = all measures them")
        if uuid:
            raise NotFound("cadvisor: no such device")  # the kernel does not tell who has which
        docker = (c for _, c in self._known().containers() if specs.runtime_of(c) == "docker")
        engines = frozenset(fs.device for container in docker for fs in container.filesystems)
        found = machine.fs_infos(rfc3339(root.filesystems_ns), root.filesystems, engines)
        if label:
            found = [fs for fs in found if label in (fs.labels or ())]
            if not found and label != machine.ROOT_LABEL:  # a host may have none on a disk, and cAdvisor always knows this one
                raise NotFound(f"non-existent label {quoted(label)}")
        return found

    async def process_list(self, name: str, options: RequestOptions = RequestOptions()) -> list[v2.ProcessInfo]:  # noqa: B008  frozen
        """The processes of one container."""
        (path,) = self._requested(name, structs.replace(options, recursive=False), self._known())
        if self._processes is None:
            raise NotFound("processes are not listed here")
        try:
            return await self._processes(path)
        except Gone:
            raise unknown_container(path) from None

    # events

    async def past_events(self, request: EventRequest) -> list[s.Event]:
        """What happened, the oldest first, as far as memory reaches back."""
        if request.max_events < -1:
            raise InvalidRequest(f"invalid 'max_events' option: only -1 and larger values allowed, not {request.max_events}")
        told = itertools.chain(self.memory.events(m.LIFECYCLE), self.memory.events(m.OOM))
        return events.past(told, _by_path(request))

    def watch_for_events(self, request: EventRequest) -> EventChannel:
        """What happens from now on. For a reader that is too slow it ends early; nobody waits for it."""
        if request.start_ns or request.end_ns:
            raise InvalidRequest("for a call to watch, request.StartTime and request.EndTime must be uninitialized")
        channel = EventChannel(next(self._watch_ids), self._forget)
        self._channels[channel.watch_id] = (_by_path(request), channel)
        if self._stop_watching is None:
            self._stop_watching = self.memory.watch(self._hear)
        return channel

    def close_event_channel(self, watch_id: int) -> None:
        """End a watch."""
        if watch_id not in self._channels:
            raise NotFound(f"no watch has the id {watch_id}")
        self._channels[watch_id][1].close()

    def close_event_channels(self) -> None:
        """End all watches."""
        for _, channel in list(self._channels.values()):
            channel.close()

    def _hear(self, message: Message, _entry: Entry) -> None:
        told = events.of_record(message.record)
        for request, channel in list(self._channels.values()) if told else ():
            channel.offer(event for event in told if events.matches(event, request))

    def _forget(self, watch_id: int) -> None:
        self._channels.pop(watch_id, None)
        if not self._channels and self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    # which

    def _known(self) -> Tree:
        """Kept until a container comes or goes."""
        everyone, living = self.memory.containers(), len(self.memory)
        if self._tree is None or self._tree[0] is not everyone or self._tree[1] != living:
            paths: set[str] = {c.facts["cgroup_path"] for c in everyone if not c.deleted_ms}
            # of two runs of a container, of which the first is about to be told of as ended, the second
            self._tree = (everyone, living, Tree(c for path in paths if (c := self.memory.by_path(path)) is not None))
        return self._tree[2]

    def _requested(self, name: str, options: RequestOptions, tree: Tree) -> list[str]:
        checked(options)
        if options.type == "name":
            path = canonical(name)
            if path not in tree:
                raise NotFound(f"unknown container: {quoted(path)}") if options.recursive else unknown_container(path)
            return list(tree.below(path)) if options.recursive else [path]
        if not options.recursive:
            return [_by_alias(name, options.type, tree)]
        if canonical(name) != "/":
            raise InvalidRequest(f"invalid request for {options.type} container {quoted(canonical(name))} with subcontainers")
        return _of_runtime(options.type, tree)

    def _host(self) -> HostInfo:
        known = self.memory.host_infos
        if len(known) != 1:
            raise NotFound("several hosts are known here" if known else "machine info is not known yet")
        return next(iter(known.values()))


def _of_runtime(runtime: str, tree: Tree) -> list[str]:
    return [path for path in tree.below("/") if (c := tree.get(path)) is not None and specs.runtime_of(c) == runtime]


def _by_alias(name: str, runtime: str, tree: Tree) -> str:
    alias = name.removeprefix("/")
    begun: list[str] = []
    for path, container in tree.containers():
        if specs.runtime_of(container) != runtime:
            continue
        aliases = specs.aliases_of(container)
        if alias in aliases:
            return path
        if any(known.startswith(alias) for known in aliases):
            begun.append(path)
    if len(begun) > 1:
        raise NotFound(f'unable to find container in "{runtime}" namespace. Container {quoted(alias)} is not unique')
    if not begun:
        raise NotFound(f'unable to find container {quoted(alias)} in "{runtime}" namespace')
    return begun[0]


def _by_path(request: EventRequest) -> EventRequest:
    return structs.replace(request, container_name=canonical(request.container_name)) if request.container_name else request
