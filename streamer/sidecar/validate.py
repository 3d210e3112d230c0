"""`/validate/`: a short report for people on what this host offers and how the agent's parts are."""

from __future__ import annotations

from collections.abc import Iterator

from streamer.contracts import Status
from streamer.model.messages import HostInfo
from streamer.sidecar.context import Context, Query
from streamer.sidecar.query import Answer


def report(context: Context, _query: Query) -> Answer:
    """A short text for people: kernel, cgroup version, Docker, kernel log, and every part with its state and remedy."""
    lines = [line for host in context.memory.host_infos.values() for line in _host(host)]
    lines += _parts(context.statuses())
    return Answer("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"), content_type="text/plain; charset=utf-8")


def _host(host: HostInfo) -> Iterator[str]:
    yield f"host            {host.host}"
    yield f"kernel          {host.kernel_version}"
    yield f"system          {host.os}"
    yield f"cgroups         {host.cgroup_mode}"
    yield f"Docker          {host.docker_version or 'no answer yet'}"


def _parts(statuses: list[Status]) -> Iterator[str]:
    for status in sorted(statuses):
        yield f"{status.component:<15} {status.state}" + (f": {status.reason}" if status.reason else "")
        if status.remedy:
            yield f"{'':<15} remedy: {status.remedy}"
