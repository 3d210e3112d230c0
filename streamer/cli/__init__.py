"""The command line. A command is a module with `arguments(parser)`, which also sets `execute`, and one row here.

Only the module of the command that was asked for is imported, and what it needs only when it runs: help is instant.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from streamer import __version__
from streamer.cli import exits
from streamer.errors import ConfigError, StreamerError


class Command(NamedTuple):
    """A command: its module in this package, and one line of help."""

    name: str
    module: str
    help: str


COMMANDS: Final[tuple[Command, ...]] = (
    Command("run", "run", "watch this host and publish until stopped"),
    Command("once", "once", "look at this host once: a table on a terminal, JSON Lines otherwise"),
    Command("check", "check", "probe configuration, host, Docker and sinks; say what to do about what is missing"),
    Command("verify", "verify", "read a stream back and say what is missing, out of order or not as the schema says"),
    Command("healthcheck", "healthcheck", "ask a running agent whether it is ready; for HEALTHCHECK lines"),
    Command("topics", "topics", "create the Kafka topics with the right partitions, compaction and retention"),
    Command("schema", "schema", "print the schemas of all records; check that they stay compatible"),
    Command("config", "config", "print the documented default configuration, or the one in use"),
)

_DESCRIPTION: Final = """\
One agent per host: container create and delete, OOM kills and stat samples
become messages on Kafka, Redis Streams or JSON Lines.

`streamer run` needs no configuration: it prints JSON Lines and serves
recent state on http://127.0.0.1:8080."""

_EPILOG: Final = """\
exit codes: 0 ok, 1 failed while running, 2 wrong usage,
            78 bad configuration, 69 sink unavailable under --require-sinks

`streamer COMMAND --help` tells more about each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. What the operator got wrong is one clear text on stderr, a bug is a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser(arguments[0] if arguments else "").parse_args(arguments)
        code: int = args.execute(args)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _say(f"bad configuration: {error}", exits.BAD_CONFIGURATION)
    except StreamerError as error:
        remedy = getattr(error, "remedy", "")
        told = str(error)
        return _say(told if not remedy or remedy in told else f"{told}\n  remedy: {remedy}", exits.FAILED)
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain at exit when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of everything; only `command` knows its arguments."""
    top = argparse.ArgumentParser(
        "streamer", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"streamer {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for row in COMMANDS:
        about = row.help[0].upper() + row.help[1:] + "."
        sub = commands.add_parser(row.name, help=row.help, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        if row.name == command:
            import_module(f"streamer.cli.{row.module}").arguments(sub)
    return top


def _say(text: str, code: int) -> int:
    print(f"streamer: {text}", file=sys.stderr)
    return code
