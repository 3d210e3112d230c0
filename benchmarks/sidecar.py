"""What queries cost, in three parts, each with sampling at its usual pace beside it.

peer       `/metrics` and `/api/v1.3/subcontainers` by turns with cAdvisor, then sampling while clients hammer both
own        our own API, and cAdvisor's routes, question by question (`answers.py`)
listeners  clients of `/events` that never read (`listeners.py`)

A peer is given as a program, which is started here beside the agent, or as a URL at which one runs already on this host.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import itertools
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks import answers as questions
from benchmarks import listeners, report
from benchmarks.agent import AgentProcess, free_port
from benchmarks.asking import Got, connection, get, is_there
from benchmarks.cgroups import Cgroups, tenant_command, wait_until
from benchmarks.command import add_save, plain, positive, progress
from streamer.kernel.hierarchy import detect

PARTS: Final = ("peer", "own", "listeners")
PATHS: Final = ("/metrics", "/api/v1.3/subcontainers")
_READY_SECONDS: Final = 60.0
_PEER_FLAGS: Final = ("--listen_ip=127.0.0.1", "--housekeeping_interval=1s", "--allow_dynamic_housekeeping=false")
_OWN_TIMES: Final = 10
"""A percentile of a question wants more answers than a median."""
_MS: Final = 1e3


class Pace(NamedTuple):
    """How regularly the benchmark's cgroups were sampled in a window: samples per cgroup and second, and the time between two samples of one."""

    per_second: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks sidecar`."""
    parser.add_argument("--containers", type=positive, default=500, metavar="N", help="cgroups to make")
    parser.add_argument("--warm-up", type=positive, default=70, metavar="S", help="time to fill the memory with samples")
    parser.add_argument("--requests", type=positive, default=20, metavar="R", help="of each path to each, by turns")
    parser.add_argument("--clients", type=positive, default=10, metavar="C", help="that hammer both paths at once")
    parser.add_argument(
        "--seconds", type=positive, default=20, metavar="S", help="for which they do, and for which sampling is watched before"
    )
    parser.add_argument(
        "--workload", choices=("idle", "busy"), default="idle", help="processes that sleep, or that do a little twice a second"
    )
    parser.add_argument("--parts", default=",".join(PARTS), metavar="P", help=f"which of {', '.join(PARTS)}, with commas between")
    parser.add_argument("--listeners", type=positive, default=200, metavar="L", help="clients of /events that never read")
    parser.add_argument("--cadvisor", metavar="PROGRAM|URL", help="cAdvisor to run beside it, or one that runs on this host")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns 0."""
    hierarchies = detect(Path("/"))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        tenant = tenant_command(directory, args.workload)
        progress(f"{args.containers} cgroups")
        cgroups = stack.enter_context(Cgroups(hierarchies, args.containers, tenant))
        told = directory / "messages.jsonl"
        port = free_port()
        scope = ["--scope", "all"] if args.cadvisor else []  # the same cgroups as it shows
        agent = stack.enter_context(
            AgentProcess(["--sink", told.as_uri(), "--interval", "1s", "--listen", f"127.0.0.1:{port}", *scope], directory / "log")
        )
        urls = {"streamer": f"http://127.0.0.1:{port}"}
        if args.cadvisor:
            urls["cadvisor"] = stack.enter_context(_peer(args.cadvisor))
        for url in urls.values():
            if not wait_until(functools.partial(is_there, url), _READY_SECONDS, every=0.2):
                raise RuntimeError(f"{url} does not answer")
        progress(f"{args.warm_up} s to fill the memory")
        time.sleep(args.warm_up)
        bench = Bench(args, agent, urls, told, cgroups)
        parts = [_PARTS[name](bench) for name in PARTS if name in args.parts.split(",")]
    machine = report.machine()
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"{args.containers} {args.workload} cgroups, a sample a second",
            *(part.text for part in parts),
        ]
    )
    print(text)
    if args.save:
        figures = {
            "machine": machine,
            "options": plain(args),
            **{name: value for part in parts for name, value in part.figures.items()},
        }
        for path in report.save(f"sidecar-{args.workload}", text, json.loads(json.dumps(figures))):
            print(f"saved to {path}")
    return 0


class Bench(NamedTuple):
    """What is measured: the agent, itself and its peer by name, the file it publishes to, and the cgroups."""

    args: argparse.Namespace
    agent: AgentProcess
    urls: dict[str, str]
    told: Path
    cgroups: Cgroups

    def watched(self, meanwhile: Callable[[], None]) -> Pace:
        return _watched(self.told, self.cgroups.folder, meanwhile)


class Part(NamedTuple):
    """What one part found."""

    text: str
    figures: dict[str, Any]


def _beside_peer(bench: Bench) -> Part:
    args, url = bench.args, bench.urls["streamer"]
    progress("one request at a time")
    alone = _by_turns(bench.urls, args.requests)
    progress("sampling, nobody asks")
    quiet = bench.watched(lambda: time.sleep(args.seconds))
    before = bench.agent.rss_bytes()
    progress(f"sampling, {args.clients} clients hammer")
    got: list[tuple[str, Got]] = []
    hammered = bench.watched(lambda: got.extend(_hammer(url, args.clients, args.seconds)))
    rss = {"before": before, "after": bench.agent.rss_bytes()}
    return _report(args, alone, {"nobody asks": quiet, f"{args.clients} clients": hammered}, got, rss)


def _own(bench: Bench) -> Part:
    progress("question by question")
    got: dict[str, list[Got]] = {}
    pace = bench.watched(
        lambda: got.update(questions.measure(bench.urls["streamer"], bench.cgroups.paths, bench.args.requests * _OWN_TIMES))
    )
    text = f"One question at a time, ms; samples meanwhile: {pace.per_second:.3f} per cgroup and second, 99 % at most {pace.p99_ms} ms apart."
    return Part(f"{text}\n\n{questions.table(got)}", {"own": questions.figures(got), "own_pace": pace._asdict()})


def _listening(bench: Bench) -> Part:
    args = bench.args
    progress(f"{args.listeners} clients that never read")
    turns = listeners.measure(
        bench.urls["streamer"], bench.agent, bench.cgroups.mounts, bench.cgroups.folder, args.listeners, args.seconds, bench.watched
    )
    return Part(
        f"{args.listeners} clients of /events that never read:\n\n{listeners.table(turns)}", {"listeners": listeners.figures(turns)}
    )


_PARTS: Final[dict[str, Callable[[Bench], Part]]] = dict(zip(PARTS, (_beside_peer, _own, _listening), strict=True))


@contextlib.contextmanager
def _peer(given: str) -> Iterator[str]:
    if given.startswith("http"):
        yield given
        return
    port = free_port()
    process = subprocess.Popen([given, f"--port={port}", *_PEER_FLAGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _by_turns(urls: dict[str, str], requests: int) -> dict[tuple[str, str], list[Got]]:
    connections = {name: connection(url) for name, url in urls.items()}
    got: dict[tuple[str, str], list[Got]] = {(path, name): [] for path in PATHS for name in urls}
    for _ in range(requests):
        for (path, name), answers in got.items():
            answers.append(get(connections[name], path))
            time.sleep(0.1)
    return got


def _hammer(url: str, clients: int, seconds: float) -> list[tuple[str, Got]]:
    """Every client asks both paths in turn, without a pause."""
    until = time.monotonic() + seconds
    got: list[tuple[str, Got]] = []
    wrong: list[Exception] = []

    def client(paths: Iterator[str]) -> None:
        client = connection(url)
        try:
            while time.monotonic() < until:
                path = next(paths)
                got.append((path, get(client, path)))
        except (OSError, RuntimeError, http.client.HTTPException) as problem:
            wrong.append(problem)

    threads = [threading.Thread(target=client, args=(itertools.cycle(PATHS[i % 2 :] + PATHS[: i % 2]),)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {clients} clients failed") from wrong[0]
    return got


class _Line(msgspec.Struct):
    type: str
    container_id: str = ""
    time_ms: int = 0


def _watched(told: Path, folder: str, meanwhile: Callable[[], None]) -> Pace:
    """How regularly samples were taken meanwhile: by their own times, as published."""
    start = told.stat().st_size
    began_ms = time.time_ns() // 1_000_000
    meanwhile()
    ended_ms = time.time_ns() // 1_000_000
    time.sleep(1)
    times: dict[str, list[int]] = {}
    with told.open("rb") as file:
        file.seek(start)
        for raw in file:
            line = msgspec.json.decode(raw, type=_Line) if raw.endswith(b"\n") else None
            if (
                line
                and line.type == "container.stats"
                and line.container_id.startswith(f"{folder}/")
                and began_ms <= line.time_ms <= ended_ms
            ):
                times.setdefault(line.container_id, []).append(line.time_ms)
    gaps = sorted(after - before for of_one in times.values() for before, after in itertools.pairwise(of_one))
    count = sum(map(len, times.values()))
    return Pace(
        count / max(1, len(times)) / ((ended_ms - began_ms) / 1000), gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100], gaps[-1]
    )


def _report(
    args: argparse.Namespace,
    alone: dict[tuple[str, str], list[Got]],
    paces: dict[str, Pace],
    answers: list[tuple[str, Got]],
    rss: dict[str, int],
) -> Part:
    ratios = []
    for path in PATHS:
        if (path, "cadvisor") in alone:
            ours, theirs = (sorted(got.seconds for got in alone[path, name]) for name in ("streamer", "cadvisor"))
            ratios.append(f"{path}: {theirs[len(theirs) // 2] / ours[len(ours) // 2]:.1f} times as fast as cAdvisor (medians)")
    under_load = [
        (path, len(mine), report.spread([got.seconds * _MS for got in mine]))
        for path in PATHS
        if (mine := [got for p, got in answers if p == path])
    ]
    text = "\n\n".join(
        [
            f"{args.requests} requests of each path to each, by turns; ms as min / median / max.",
            report.table(
                ("path", "of", "ms", "MB"),
                [
                    (path, name, report.spread([got.seconds * _MS for got in mine]), f"{mine[-1].bytes / 1e6:.2f}")
                    for (path, name), mine in alone.items()
                ],
            ),
            "\n".join(ratios) or "no cAdvisor to compare with (--cadvisor)",
            f"Under {args.clients} clients without a pause, for {args.seconds} s:",
            report.table(("path", "answers", "ms"), under_load),
            "Samples meanwhile, by their own times:",
            report.table(
                ("", "per cgroup and second", "apart p50 ms", "p99", "longest"),
                [(name, f"{pace.per_second:.3f}", pace.p50_ms, pace.p99_ms, pace.longest_ms) for name, pace in paces.items()],
            ),
            f"RSS MB: {rss['before'] / 1e6:.1f} before, {rss['after'] / 1e6:.1f} after the clients",
        ]
    )
    return Part(
        text,
        {
            "alone": {f"{name} {path}": [got._asdict() for got in mine] for (path, name), mine in alone.items()},
            "paces": {name: pace._asdict() for name, pace in paces.items()},
            "under_load": [(path, got._asdict()) for path, got in answers],
            "rss_bytes": rss,
        },
    )
