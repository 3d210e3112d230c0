"""`streamer healthcheck`: is the agent on this machine ready? One line and an exit code, for HEALTHCHECK lines."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import urlsplit

from streamer.cli import exits, options
from streamer.cli.httpget import get
from streamer.cli.text import clean
from streamer.config import Settings, listen_address
from streamer.errors import StreamerError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where to ask, and what."""
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="http://HOST:PORT or unix:PATH (default: http.listen of the configuration)"
    )
    options.add_config(parser)
    parser.add_argument(
        "--live", action="store_true", help="ask /healthz (is it running) instead of /readyz (does it do all of its work)"
    )
    parser.add_argument(
        "--timeout", metavar="DUR", type=options.duration, default=3.0, help="longest wait for an answer (default: 3s)"
    )
    parser.set_defaults(execute=_healthcheck)


def _healthcheck(args: argparse.Namespace) -> int:
    base = args.url or own_address(options.settings(args))
    parts = urlsplit(base)
    named = parts.path.strip("/") if base.startswith("http") else ""
    path = f"{parts.path}?{parts.query}" if named else "/healthz" if args.live else "/readyz"
    try:
        answer = get(base, path, args.timeout)
    except ValueError as error:
        raise StreamerError(str(error)) from error
    except OSError as error:
        print(f"no answer from {base}: {error.strerror or error}")
        return exits.FAILED
    said = summary(answer.body)
    if answer.status == 200:
        print(f"ok: {said}" if said else "ok")
        return exits.OK
    print(f"not {'running well' if args.live else 'ready'} ({answer.status})" + (f": {said}" if said else ""))
    return exits.FAILED


def own_address(settings: Settings) -> str:
    """Where the agent of this configuration answers, seen from its own machine.

    Raises:
        StreamerError: it answers nowhere.
    """
    listen = listen_address(settings.http.listen)
    if listen is None:
        raise StreamerError("http.listen is off: there is nobody to ask; give a URL")
    if listen.path:
        return f"unix:{listen.path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"


def summary(body: bytes) -> str:
    """What is not well, in one line: the components whose state is not ok, as `/readyz` lists them."""
    try:
        answer: Any = json.loads(body)
        parts = answer.get("components", [])
        troubles = [part for part in parts if part["state"] not in ("ok", "off")]
        said = [
            f"{part['component']} {part['state']}" + (f" ({part['reason']})" if part.get("reason") else "") for part in troubles
        ]
    except (ValueError, LookupError, TypeError, AttributeError):  # not ours, or /healthz
        text = body[:200].decode(errors="replace").strip().partition("\n")[0]
        return "" if text == "ok" else clean(text)
    return clean("; ".join(said))
