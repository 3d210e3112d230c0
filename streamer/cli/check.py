"""`streamer check`: what this host offers the agent, one line each, and what to do about what is missing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Final

from streamer.cli import exits, options
from streamer.cli.probes import PROBES, Finding
from streamer.cli.text import Screen, clean

_COLOURS: Final = {"ok": ("green",), "degraded": ("yellow",), "failed": ("red", "bold")}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The same settings as `run`, so that exactly what will run is checked."""
    options.add_settings(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.epilog = "Exit code 0 when nothing failed (degraded is fine), 1 otherwise, 78 for a bad configuration."
    parser.set_defaults(execute=_check)


def _check(args: argparse.Namespace) -> int:
    settings, origins = options.settings_with_origins(args)
    options.silence_libraries()
    sources = sorted({origin.rpartition(":")[0] if origin.rpartition(":")[2].isdigit() else origin for origin in origins.values()})
    configuration = Finding("ok", "configuration", ", ".join(sources) or "defaults")
    failed = False
    screen = Screen.of(sys.stdout)
    for finding in _all(configuration, (finding for probe in PROBES for finding in probe(settings))):
        failed = failed or finding.state == "failed"
        print(json.dumps(finding._asdict()) if args.json else line(finding, screen), flush=True)
    return exits.FAILED if failed else exits.OK


def _all(first: Finding, rest: Iterable[Finding]) -> Iterable[Finding]:
    yield first
    yield from rest


def line(finding: Finding, screen: Screen) -> str:
    """`degraded  docker: /var/run/docker.sock: No such file or directory — start Docker`."""
    remedy = f" {'—' if screen.unicode else '--'} {finding.remedy}" if finding.remedy else ""
    return f"{screen.paint(f'{finding.state:<8}', *_COLOURS[finding.state])}  {clean(f'{finding.what}: {finding.found}{remedy}')}"
