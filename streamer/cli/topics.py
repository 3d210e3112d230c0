"""`streamer topics create URL`: the Kafka topics, made as the records need them."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from streamer.cli import exits, options
from streamer.cli.text import clean
from streamer.config import SinkSettings, mask, password
from streamer.errors import StreamerError


def arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command."""
    commands = parser.add_subparsers(metavar="create", required=True)
    about = "make the topics that are missing; those that are there are left as they are"
    create = commands.add_parser("create", help=about, description=about[0].upper() + about[1:] + ".")
    create.add_argument("url", metavar="URL", help="kafka://host:port,host:port, or kafkas:// for TLS")
    create.add_argument(
        "--partitions", metavar="N", type=positive, default=6, help="partitions of each topic (default: %(default)s)"
    )
    create.add_argument(
        "--replication-factor", metavar="N", type=positive, help="copies of each partition (default: 3, or one for each broker)"
    )
    create.add_argument("--password-file", metavar="FILE", type=Path, help="file that holds the password, instead of the URL")
    options.add_config(create)
    create.epilog = "The configuration is asked for publishing.prefix alone. Exit code 1 when a topic could not be made."
    create.set_defaults(execute=_create)


def positive(text: str) -> int:
    """An argparse type: a whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _create(args: argparse.Namespace) -> int:
    if args.url.partition(":")[0] not in ("kafka", "kafkas"):
        raise StreamerError(f"{mask(args.url)}: topics are made on Kafka only; give kafka://host:port")
    prefix = options.settings(args).publishing.prefix
    secret = password(SinkSettings(url=args.url, password_file=str(args.password_file or "")))
    options.silence_libraries()
    from streamer.sinks.kafka import create_topics

    made = create_topics(args.url, prefix, password=secret, partitions=args.partitions, replication=args.replication_factor)
    reports = asyncio.run(made)
    width = max(len(report.name) for report in reports)
    for report in reports:
        told = f"{report.outcome:<8} {report.name:<{width}}  {'; '.join(report.differences)}"
        print(clean(told.rstrip()))
    return exits.FAILED if any(report.outcome == "refused" for report in reports) else exits.OK
