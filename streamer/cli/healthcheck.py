"""`streamer healthcheck`: is the agent on this machine ready? One line and an exit code, for HEALTHCHECK lines.

Asked at the address of the configuration, it shows what the configuration says that lets in, and trusts the certificate that
the configuration names. A URL that was given is asked without any of that.
"""

from __future__ import annotations

import argparse
import json
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from streamer.cli import exits, options
from streamer.cli.httpget import Answer, get
from streamer.cli.text import clean
from streamer.config import Settings, listen_address
from streamer.errors import ConfigError, StreamerError
from streamer.sidecar import tokens

_LIVE: Final = "/healthz"


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
    try:
        answer = _given(args) if args.url else _own(args)
    except ValueError as error:
        raise StreamerError(str(error)) from error
    except _NoAnswer as error:
        print(error)
        return exits.FAILED
    said = summary(answer.body)
    if answer.status == 200:
        print(f"ok: {said}" if said else "ok")
        return exits.OK
    print(f"not {'running well' if args.live else 'ready'} ({answer.status})" + (f": {said}" if said else ""))
    return exits.FAILED


class _NoAnswer(Exception):
    pass


def _given(args: argparse.Namespace) -> Answer:
    parts = urlsplit(args.url)
    named = parts.path.strip("/") if args.url.startswith("http") else ""
    path = f"{parts.path}?{parts.query}" if named else _path(args)
    try:
        return get(args.url, path, args.timeout)
    except OSError as error:
        raise _NoAnswer(f"no answer from {args.url}: {error.strerror or error}") from error


def _own(args: argparse.Namespace) -> Answer:
    settings = options.settings(args)
    try:
        return ask(settings, _path(args), args.timeout)
    except OSError as error:
        refused = _shows_certificate(settings) and not isinstance(error, ConnectionRefusedError)
        hint = "; where the agent's own certificate does not let in, set http.token_file too" if refused else ""
        raise _NoAnswer(f"no answer from {own_address(settings)}: {error.strerror or error}{hint}") from error


def _path(args: argparse.Namespace) -> str:
    return _LIVE if args.live else "/readyz"


def ask(settings: Settings, path: str, timeout_seconds: float) -> Answer:
    """Ask the agent of this configuration; with the credentials that it names, unless the path is open to all.

    Raises:
        OSError: nobody answers there in time, or nobody who is trusted.
        StreamerError: it answers nowhere, or a file of tokens or certificates cannot be used.
    """
    guarded = path != _LIVE
    token = tokens.read(settings.http.token_file)[0].secret if guarded and settings.http.token_file else ""
    tls = _trust(settings, show=guarded) if settings.http.tls_cert_file else None
    return get(own_address(settings), path, timeout_seconds, token=token, tls=tls)


def _shows_certificate(settings: Settings) -> bool:
    """Whether there is only the agent's own certificate to show."""
    return bool(settings.http.tls_client_ca_file and not settings.http.token_file)


def _trust(settings: Settings, *, show: bool) -> ssl.SSLContext:
    http = settings.http
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it bears the name that others use; who is trusted is that very certificate
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=http.tls_cert_file)
        if show and _shows_certificate(settings):
            context.load_cert_chain(http.tls_cert_file, http.tls_key_file, password=lambda: "")
    except OSError as error:
        raise ConfigError(
            f"cannot be used: {error.strerror or error}",
            key="http.tls_cert_file",
            value=http.tls_cert_file,
            remedy="give PEM files that this user can read",
        ) from None
    return context


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
    scheme = "https" if settings.http.tls_cert_file else "http"
    return f"{scheme}://[{host}]:{listen.port}" if ":" in host else f"{scheme}://{host}:{listen.port}"


def summary(body: bytes) -> str:
    """What is not well, in one line: the components whose state is not ok, as `/readyz` lists them, or a refusal."""
    try:
        answer: Any = json.loads(body)
        if "error" in answer:
            return clean("; ".join(text for text in (answer["error"], answer["remedy"]) if text))
        parts = answer.get("components", [])
        troubles = [part for part in parts if part["state"] not in ("ok", "off")]
        said = [
            f"{part['component']} {part['state']}"
            + (f" since {part['since'][:19]}Z" if part.get("since") else "")
            + (f" ({part['reason']})" if part.get("reason") else "")
            for part in troubles
        ]
    except (ValueError, LookupError, TypeError, AttributeError):  # not ours, or /healthz
        text = body[:200].decode(errors="replace").strip().partition("\n")[0]
        return "" if text == "ok" else clean(text)
    return clean("; ".join(said))
