"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """An argument: a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def add_save(parser: argparse.ArgumentParser) -> None:
    """`--save`."""
    parser.add_argument("--save", action="store_true", help="write the report and the raw figures to benchmarks/results/")


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """The options, as JSON takes them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items() if not callable(value)}


def progress(what: str) -> None:
    """Say on stderr what is being done."""
    print(f"… {what}", file=sys.stderr)
