"""A benchmark on cgroup v2: in the guest of the tests (user-mode Linux), with its Kafka broker outside, on a wire between the two.

What the guest's kernel does is what is measured there, and all of it is: a broker inside would be, too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.command import progress

KAFKA: Final = "BENCHMARKS_KAFKA"
"""Environment: the address of a broker that runs already, and has no topics yet."""

_RUN: Final = Path(__file__).parents[1] / "tests/guest/run"
_NETWORKS: Final = ipaddress.IPv4Address("198.18.0.0")  # and 2^17 more are for benchmarks of networks (RFC 2544): nobody's
_PROCESSES: Final = 1 << 15
_BITS: Final = 30  # of the mask: a network, two addresses, a broadcast
_TIMEOUT_SECONDS: Final = 7200


class Wire(NamedTuple):
    """A tap device; its end here has the address `host`, the guest's has `guest`."""

    device: str
    host: str
    guest: str


def run(arguments: Sequence[str], *, kafka: bool) -> int:
    """Run `python -m benchmarks` with these arguments in the guest, beside a broker if it needs one. Returns its exit code."""
    with _wire() as wire, _broker(wire.host) if kafka else contextlib.nullcontext("") as address:
        progress("user-mode Linux")
        options = ["--timeout", str(_TIMEOUT_SECONDS), "--tap", wire.device, "--address", f"{wire.guest}/{_BITS}"]
        command = ["env", f"{KAFKA}={address}", sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.call(["bash", str(_RUN), *options, "--", *command])


@contextlib.contextmanager
def _wire() -> Iterator[Wire]:
    wire = wire_of(os.getpid())
    try:
        _ip("tuntap", "add", "dev", wire.device, "mode", "tap")
        _ip("address", "add", f"{wire.host}/{_BITS}", "dev", wire.device)
        _ip("link", "set", wire.device, "up")
        yield wire
    finally:
        if Path("/sys/class/net", wire.device).exists():  # it could be made
            _ip("link", "delete", wire.device)


def wire_of(pid: int) -> Wire:
    """Its names for a process: two that run at once have two."""
    network = _NETWORKS + pid % _PROCESSES * 4
    return Wire(f"bench{pid}", str(network + 1), str(network + 2))


@contextlib.contextmanager
def _broker(address: str) -> Iterator[str]:
    """A broker whose first listener is at this address; gives `address:port`."""
    from tests.support.brokers import KafkaServer

    class Server(KafkaServer):
        host = address

    progress("a Kafka broker")
    with Server() as server:
        yield server.address


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
