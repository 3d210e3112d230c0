"""TLS of the sidecar: certificates from files, read again when these change, and how a client's certificate stands.

Each connection is greeted with the newest context, so nothing waits for a restart. What cannot be used leaves the one
before in place: half of a pair of files may have been replaced a moment ago.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Mapping
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
        self._contents: dict[str, bytes] = {}
        self._load()

    def greeting(self) -> Greeting:
        """What the next connection is greeted with."""
        self._look()
        return self._greeting

    def standing(self, certificate: Certificate | None) -> Standing:
        """How it stands now: a connection may live longer than what it was let in by."""
        if certificate is None:
            return "none"
        self._look()
        if certificate.authorities != self._greeting.authorities:
            return "replaced"
        return "expired" if self._clock.wall_ns() >= certificate.expires_ns else "valid"

    def _look(self) -> None:
        if not self._seldom.is_due():
            return
        try:
            if self._read() != self._contents:
                self._load()
                log.info("the sidecar's certificates were read again")
            self.trouble = ""
        except ConfigError as error:
            if str(error) != self.trouble:
                log.error("the sidecar goes on with the certificates it has: %s", error)  # noqa: TRY400  the operator's mistake needs no traceback
            self.trouble = str(error)

    def _read(self) -> dict[str, bytes]:
        return {key: private.read(path, f"http.{key}", secret=key == "tls_key_file") for key, path in self._paths.items()}

    def _load(self) -> None:
        contents = self._read()
        context = _context(**self._paths)
        if self._read() != contents:
            raise ConfigError("is being replaced", key="http.tls_cert_file", value=self._paths["tls_cert_file"], remedy="wait")
        self._contents = contents
        self._greeting = Greeting(context, hashlib.sha256(contents.get("tls_client_ca_file", b"")).digest())


def _context(tls_cert_file: str, tls_key_file: str, tls_client_ca_file: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # no tickets: a session that is taken up again would not show its certificate to the authorities of today
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls_cert_file, tls_key_file, password=lambda: "")  # without it OpenSSL asks on the terminal
    except (ssl.SSLError, OSError) as error:
        raise _error(
            "tls_cert_file", tls_cert_file, error, "give a PEM certificate, and as tls_key_file its key, unencrypted"
        ) from None
    if tls_client_ca_file:
        try:
            context.load_verify_locations(cafile=tls_client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise _error("tls_client_ca_file", tls_client_ca_file, error, "give the authorities' certificates, PEM") from None
        # a wrong one ends the connection; without one there is /healthz, and what a token opens
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _error(key: str, path: str, error: OSError, remedy: str) -> ConfigError:
    reason = getattr(error, "reason", None)
    text = reason.replace("_", " ").lower() if isinstance(reason, str) else error.strerror or str(error)
    return ConfigError(f"cannot be used: {text}", key=f"http.{key}", value=path, remedy=remedy)
