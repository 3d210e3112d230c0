"""`streamer config defaults|show`."""

from __future__ import annotations

import argparse
import sys

from streamer.cli import exits, options
from streamer.config import default_toml, effective_toml


def arguments(parser: argparse.ArgumentParser) -> None:
    """Two sub-commands."""
    commands = parser.add_subparsers(metavar="defaults|show", required=True)
    defaults = commands.add_parser(
        "defaults", help="every key with its help and default, as TOML", description="Every key with its help and default, as TOML."
    )
    defaults.set_defaults(execute=_defaults)
    show = commands.add_parser(
        "show",
        help="the configuration in use, and where it comes from; passwords are masked",
        description="The configuration in use, and where each given key comes from; passwords are masked.",
    )
    options.add_settings(show)
    show.set_defaults(execute=_show)


def _defaults(_: argparse.Namespace) -> int:
    sys.stdout.write(default_toml())
    return exits.OK


def _show(args: argparse.Namespace) -> int:
    sys.stdout.write(effective_toml(*options.settings_with_origins(args)))
    return exits.OK
