"""`python -m benchmarks [--guest] NAME [options]`; without a name, lists them. `--guest`: on cgroup v2, in user-mode Linux.

A new benchmark is one file and one row here. Its module has `arguments(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from typing import Final

from benchmarks import guest

BENCHMARKS: Final = {
    "churn": "200 containers a second, each there for 50 ms: is each created and deleted, once, in order",
    "drain": "messages a second, and CPU per message, while a backlog drains to Kafka, Redis and a file",
    "encode": "a message as bytes: CPU and size by type, for each sink, and compressed",
    "fleet": "many hosts and one broker: what it stores, how its partitions are balanced, what reading all of it back takes",
    "outage": "memory, disk, losses and drain of a long simulated outage; what writing through adds to a fact's way",
    "peers": "CPU, memory and what arrives, beside cAdvisor, Telegraf and the OpenTelemetry Collector on the same containers",
    "sampling": "CPU per container and sample, from cgroup files to acknowledged message, beside a C loop that reads the same files",
    "growth": "does a container cost the same, in CPU and memory, whether there are ten or two thousand",
    "latency": "from a cgroup made, a cgroup removed, an OOM kill to Kafka, Redis, a file and a client of /events",
    "soak": "hours of an agent over 500 cgroups: does memory, do descriptors grow; is everything delivered",
    "sidecar": "/metrics and cAdvisor's REST API beside cAdvisor itself and while clients hammer them; our own API; clients that never read",
    "start": "how long help, version and a ready agent take, with and without containers",
}


IN_GUEST: Final = ("sampling", "growth")


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark, or list them. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        for name, about in BENCHMARKS.items():
            print(f"{name:12} {about}")
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--guest", action="store_true", help="sampling and growth: on cgroup v2, in user-mode Linux, the broker outside of it"
    )
    commands = parser.add_subparsers(required=True, metavar="NAME")
    for name, about in BENCHMARKS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        module.arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(given)
    in_guest, name = args.guest, next((word for word in given if not word.startswith("-")), "")
    del args.guest  # it is where it runs, not what
    if in_guest and (name not in IN_GUEST or args.workload != "idle" or args.sink == "redis"):
        where = f"--guest: for {' and '.join(IN_GUEST)}, idle, to Kafka or a file"
        parser.error(f"{where}: all that the guest does is counted, a broker's work and a tenant's, too")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)  # what was made is taken away
    try:
        return (
            guest.run([word for word in given if word != "--guest"], kafka=args.sink != "file") if in_guest else int(args.run(args))
        )
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
