"""Flags that stand for configuration keys, the same for every command that reads the configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final

from streamer.config import DEFAULT_FILE, FLAGS, Settings, key_of, load, load_with_origins, seconds

_METAVAR: Final = {
    "sinks": "URL",
    "http.listen": "HOST:PORT|unix:PATH|off",
    "sampling.interval": "DUR",
    "state_dir": "DIR",
    "scope": "containers|all",
    "host_root": "DIR",
    "log_level": "LEVEL",
    "log_format": "FORMAT",
}
_QUOTE: Final = '"'
_SWITCHES: Final = ("require_sinks", "http.insecure")


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` alone."""
    parser.add_argument("--config", metavar="FILE", type=Path, help=f"configuration file (default: {DEFAULT_FILE} if there is one)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` and every flag that stands for a key; their help is the key's."""
    add_config(parser)
    group = parser.add_argument_group("configuration", "Over the environment (STREAMER_SECTION__KEY), which is over the file.")
    for key, flag in FLAGS.items():
        about = _about(key).replace("%", "%%")
        if key in _SWITCHES:
            group.add_argument(flag, dest=key, action="store_true", default=None, help=about)
        elif key == "sinks":
            group.add_argument(flag, dest=key, metavar=_METAVAR[key], action="append", help=f"{about}; may be repeated")
        else:
            group.add_argument(flag, dest=key, metavar=_METAVAR[key], help=about)


def _about(key: str) -> str:
    """The key's help, what may be written where that is a short list, and the default where there is one to tell."""
    row = key_of("sinks[].url" if key == "sinks" else key)
    notes = [row.type] if row.type.startswith("one of") else []
    notes += [f"default: {row.default.strip(_QUOTE)}"] if row.default not in ("required", "false", '""') else []
    return f"{row.help} ({'; '.join(notes)})" if notes else row.help


def settings(args: argparse.Namespace) -> Settings:
    """The configuration that the command line, the environment and the files give.

    Raises:
        ConfigError: exit code 78.
    """
    return load(args.config, os.environ, _given(args))


def settings_with_origins(args: argparse.Namespace) -> tuple[Settings, dict[str, str]]:
    """As `settings`, and where each given key comes from."""
    return load_with_origins(args.config, os.environ, _given(args))


def _given(args: argparse.Namespace) -> dict[str, Any]:
    return {key: getattr(args, key, None) for key in FLAGS}


def duration(text: str) -> float:
    """An argparse type: seconds."""
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def silence_libraries() -> None:
    """For commands that tell themselves what went wrong: nothing that a library logs gets between their lines."""
    import logging

    logging.getLogger().addHandler(logging.NullHandler())
