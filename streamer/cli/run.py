"""`streamer run`: the agent."""

from __future__ import annotations

import argparse
import gc

from streamer.cli import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """All settings, and `--duration`."""
    options.add_settings(parser)
    parser.add_argument("--duration", metavar="DUR", type=options.duration, help="stop after this time, as if by SIGTERM")
    parser.epilog = (
        "SIGTERM and SIGINT deliver what is left and end; a second one ends at once. "
        "SIGHUP reads the configuration again; a bad one is told and the old one stays."
    )
    parser.set_defaults(execute=_run)


def _run(args: argparse.Namespace) -> int:
    settings = options.settings(args)
    gc.disable()  # loading leaves nothing that could be collected, and looking for it takes a twentieth of its time
    try:
        from streamer.app import run
    finally:
        gc.enable()

    return run(settings, args.duration, reload=lambda: options.settings(args))
