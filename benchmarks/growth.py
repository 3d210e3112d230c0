"""Does a container cost the same however many there are: CPU per container and sample, memory, descriptors, the pace of sampling.

Beside it the fixed cost: an agent that has none to sample; a C loop that reads the same files; and what one more container costs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import cpu, report
from benchmarks.agent import SecondAgent, total
from benchmarks.cgroups import Cgroups, tenant_command
from benchmarks.command import add_save, plain, positive, progress
from benchmarks.ends import open_ends
from benchmarks.yardstick import PACED, Yardstick
from streamer.kernel.hierarchy import detect

_REST_SECONDS: Final = 10.0
_ENOUGH: Final = 0.95
_US: Final = 1e6


class Window(NamedTuple):
    """A part of a run: CPU seconds and samples in `seconds`; `skipped`, what the sampler left out."""

    seconds: float
    cpu: float
    samples: float
    skipped: float


class Size(NamedTuple):
    """An agent with so many containers; the last five as they were at the end.

    floor_us  the C loop's CPU per container and round before and after; empty where it cannot hold all files open
    """

    containers: int
    windows: list[Window]
    floor_us: list[float]
    rss_bytes: int
    pss_bytes: int
    descriptors: int
    memory_bytes: float
    samples_held: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks growth`."""
    parser.add_argument(
        "--sizes", type=positive, nargs="+", default=[10, 50, 100, 500, 1000, 1400, 2000], metavar="N", help="containers"
    )
    parser.add_argument("--workload", choices=("idle", "busy"), default="idle", help="processes that sleep, or that do a little")
    parser.add_argument("--sink", choices=("file", "kafka", "redis"), default="file", help="where to")
    parser.add_argument("--warm-up", type=positive, default=5, metavar="S", help="130: the memory of samples is full then")
    parser.add_argument("--seconds", type=positive, default=8, metavar="S", help="length of a window")
    parser.add_argument("--windows", type=positive, default=3, metavar="R", help="windows, one after the other")
    add_save(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0, or 1 when an agent did not keep the pace."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-bench-")))
        url = open_ends(stack, [args.sink], 6, directory)[args.sink].url
        yardstick = Yardstick(directory)
        sizes = [_size(count, url, args, directory, yardstick) for count in (0, *sorted(set(args.sizes)))]
    return _report(args, sizes, yardstick)


def _size(count: int, url: str, args: argparse.Namespace, directory: Path, yardstick: Yardstick) -> Size:
    progress(f"{count} containers")
    tenant = tenant_command(directory, args.workload)
    with Cgroups(detect(Path("/")), count, tenant, hidden=True) as cgroups:
        floor = _floor(cgroups, args.seconds, yardstick)
        with SecondAgent(url, directory / f"log-{count}", cgroups.alone()) as agent:
            agent.wait_sampled(2 * count)
            time.sleep(args.warm_up if count else min(args.warm_up, _REST_SECONDS))
            windows = [_window(agent, args.seconds, in_ticks=yardstick.in_ticks) for _ in range(args.windows)]
            told = agent.metrics()
            if args.sink == "file":
                (directory / "messages.jsonl").open("r+b").truncate(0)
            progress(f"  {sum(w.cpu for w in windows) * _US / max(1, sum(w.samples for w in windows)):.0f} µs a sample")
            measured = agent.rss_bytes(), agent.pss_bytes(), agent.descriptors()
        floor += _floor(cgroups, args.seconds, yardstick)
    return Size(count, windows, floor, *measured, total(told, "streamer_memory_bytes"), told["streamer_memory_samples"])


def _floor(cgroups: Cgroups, seconds: int, yardstick: Yardstick) -> list[float]:
    """One turn of the C loop."""
    if not cgroups.paths:
        return []
    yardstick.take(cgroups.listing())
    try:
        return [yardstick.us(seconds, PACED)]
    except subprocess.CalledProcessError as failed:
        progress(f"  no C loop: {failed.stderr.decode().strip()}")
        return []


def _window(agent: SecondAgent, seconds: float, *, in_ticks: bool) -> Window:
    told = agent.metrics()
    used = cpu.not_idle_seconds if in_ticks else agent.cpu_seconds
    before, began = used(), time.monotonic()
    time.sleep(seconds)
    took, spent = time.monotonic() - began, used() - before  # before the next scrape, which costs something itself
    now = agent.metrics()
    samples, skipped = (now[name] - told[name] for name in ("streamer_samples_total", "streamer_samples_skipped_total"))
    return Window(took, spent, samples, skipped)


def _one_more(smaller: Size, size: Size) -> float:
    """What each container more than the smaller number of them costs, µs of CPU a second."""
    of_each = [statistics.median(window.cpu / window.seconds for window in of.windows) for of in (smaller, size)]
    return (of_each[1] - of_each[0]) * _US / (size.containers - smaller.containers)


def _report(args: argparse.Namespace, sizes: list[Size], yardstick: Yardstick) -> int:
    machine, mode = report.machine(), detect(Path("/")).mode
    rest = sizes[0]
    rest_share = statistics.median(window.cpu / window.seconds for window in rest.windows)
    rows = []
    per_sample: dict[int, float] = {}
    slow = []
    for smaller, size in itertools.pairwise(sizes):
        costs = [window.cpu * _US / window.samples for window in size.windows]
        without = [(window.cpu - rest_share * window.seconds) * _US / window.samples for window in size.windows]
        pace = sum(window.samples for window in size.windows) / size.containers / sum(window.seconds for window in size.windows)
        if pace < _ENOUGH:
            slow.append(size.containers)
        per_sample[size.containers] = statistics.median(without)
        rows.append(
            (
                str(size.containers), report.spread(costs), report.spread(without), f"{_one_more(smaller, size):.0f}",
                f"{statistics.mean(size.floor_us):.0f}" if size.floor_us else "-", f"{pace:.3f}", f"{sum(w.skipped for w in size.windows):.0f}",
                f"{size.rss_bytes / 1e6:.1f}", f"{size.descriptors}", f"{(size.rss_bytes - rest.rss_bytes) / size.containers / 1000:.1f}",
                f"{size.memory_bytes / size.containers / 1000:.1f}", f"{size.samples_held / size.containers:.0f}",
            )
        )  # fmt: skip
    middle = statistics.median(per_sample.values())
    head = (
        "containers", "CPU µs a sample", "without the fixed cost", "one more, µs a second", "C loop µs", "samples a container and second", "left out",
        "RSS MB", "descriptors", "KB a container: RSS", "samples", "samples held of each",
    )  # fmt: skip
    text = "\n\n".join(
        [
            "\n".join(f"{name}: {value}" for name, value in machine.items()),
            f"{args.workload} cgroups (cgroup {mode}), a sample a second, to {args.sink}, {args.windows} windows of {args.seconds} s after {args.warm_up} s; min / median / max.",
            *([cpu.IN_TICKS] if yardstick.in_ticks else []),
            f"At rest, without containers: {rest_share * 1000:.2f} ms of CPU a second, RSS {rest.rss_bytes / 1e6:.1f} MB, PSS {rest.pss_bytes / 1e6:.1f} MB, {rest.descriptors} descriptors.",
            report.table(head, rows),
            "Without the fixed cost, against the median of all sizes: "
            + ", ".join(f"{count}: {(cost / middle - 1) * 100:+.0f} %" for count, cost in per_sample.items()),
        ]
    )
    print(text)
    if args.save:
        figures: dict[str, Any] = {
            "machine": machine, "options": plain(args),
            "sizes": [{**size._asdict(), "windows": [window._asdict() for window in size.windows]} for size in sizes],
        }  # fmt: skip
        for path in report.save("-".join(["growth", *(["v2"] if mode == "v2" else []), args.workload]), text, figures):
            print(f"saved to {path}")
    return 1 if slow else 0
