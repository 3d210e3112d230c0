"""TLS of the sidecar: certificates from files, read again when these change, and how a client's certificate stands.

Each connection is greeted with the newest context, so nothing waits for a restart. What cannot be used leaves the one
before in place: half of a pair of files may have been replaced a moment ago.

No session is taken up again, which would skip the question who the client is. TLS 1.3 does that by tickets only, and none
are given out. TLS 1.2 does it by number too, for what the context remembers, and Python has no switch for that: a context
that remembers a session greets nobody any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from streamer.config import Http
from streamer.contracts import Clock
from streamer.errors import ConfigError
from streamer.sidecar import private
from streamer.sidecar.access import Standing

log = logging.getLogger(__name__)

_KEYS: Final = ("tls_cert_file", "tls_key_file", "tls_client_ca_file")


class Greeting(NamedTuple):
    """`authorities`: a digest of those that a client's certificate is judged by."""

    context: ssl.SSLContext
    authorities: bytes


class Certificate(NamedTuple):
    """A client's, found good as its connection was made. `authorities`: by whom, see `Greeting`."""

    expires_ns: int
    authorities: bytes


def certificate_of(peer: Mapping[str, Any] | None, greeting: Greeting) -> Certificate | None:
    """A client's certificate as `ssl.SSLObject.getpeercert` tells it, which has been found good by then."""
    if not peer or "notAfter" not in peer:
        return None
    return Certificate(int(ssl.cert_time_to_seconds(peer["notAfter"])) * 1_000_000_000, greeting.authorities)


class Tls:
    """The sidecar's side of TLS."""

    def __init__(self, http: Http, clock: Clock) -> None:
        """Raises:
        ConfigError: a file cannot be used.
        """
        self.trouble = ""
        self._clock = clock
        self._paths = {key: getattr(http, key) for key in _KEYS if getattr(http, key)}
        self._seldom = private.Seldom(clock)
        self._contents = self._read()
        self._greeting = self._greeting_of(self._contents)

    def greeting(self) -> Greeting:
        """What the next connection is greeted with."""
        self.look()
        if self._greeting.context.session_stats()["number"]:
            self._greeting = self._greeting_of(self._contents)
        return self._greeting

    def standing(self, certificate: Certificate | None) -> Standing:
        """How it stands now: a connection may live longer than what it was let in by."""
        if certificate is None:
            return "none"
        self.look()
        if certificate.authorities != self._greeting.authorities:
            return "replaced"
        return "expired" if self._clock.wall_ns() >= certificate.expires_ns else "valid"

    def look(self) -> None:
        """Read the files again, if that was not done just now."""
        if not self._seldom.is_due():
            return
        try:
            if (contents := self._read()) != self._contents:
                self._greeting = self._greeting_of(contents)
                self._contents = contents
                log.info("the sidecar's certificates were read again")
            self.trouble = ""
        except (ConfigError, OSError) as error:  # no descriptor for a copy is one of these
            if str(error) != self.trouble:
                log.error("the sidecar goes on with the certificates it has: %s", error)  # noqa: TRY400  the operator's mistake needs no traceback
            self.trouble = str(error)

    def _read(self) -> dict[str, bytes]:
        return {key: private.read(path, f"http.{key}", secret=key == "tls_key_file") for key, path in self._paths.items()}

    def _greeting_of(self, contents: Mapping[str, bytes]) -> Greeting:
        """Of what was read, not of the files: these may be others by now."""
        with contextlib.ExitStack() as held:
            copies = {key: held.enter_context(_as_file(content)) for key, content in contents.items()}
            context = _context(self._paths, **copies)
        return Greeting(context, hashlib.sha256(contents.get("tls_client_ca_file", b"")).digest())


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """OpenSSL's side of Python takes keys and certificates by path only."""
    with open(os.memfd_create("tls"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"


def _context(paths: Mapping[str, str], tls_cert_file: str, tls_key_file: str, tls_client_ca_file: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls_cert_file, tls_key_file, password=lambda: "")  # without it OpenSSL asks on the terminal
    except (ssl.SSLError, OSError) as error:
        remedy = "give a PEM certificate, and as tls_key_file its key, unencrypted"
        raise _error("tls_cert_file", paths["tls_cert_file"], error, remedy) from None
    if tls_client_ca_file:
        try:
            context.load_verify_locations(cafile=tls_client_ca_file)
        except (ssl.SSLError, OSError) as error:
            remedy = "give the authorities' certificates, PEM"
            raise _error("tls_client_ca_file", paths["tls_client_ca_file"], error, remedy) from None
        # a wrong one ends the connection; without one there is /healthz, and what a token opens
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _error(key: str, path: str, error: OSError, remedy: str) -> ConfigError:
    reason = getattr(error, "reason", None)
    text = reason.replace("_", " ").lower() if isinstance(reason, str) else error.strerror or str(error)
    return ConfigError(f"cannot be used: {text}", key=f"http.{key}", value=path, remedy=remedy)
