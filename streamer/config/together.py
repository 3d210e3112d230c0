"""What one key alone does not show: settings that contradict each other, or leave open what must not be. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streamer.config.forms import mask
from streamer.config.settings import Http, Sampling, Settings, SinkSettings, listen_address, seconds

At = tuple[str | int, ...]
"""Where a value stands: `("sinks", 1, "url")`."""


class Conflict(NamedTuple):
    """A value that cannot be used beside the others."""

    at: At
    value: str
    problem: str
    remedy: str


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """All of them, in the order of the file."""
    yield from _sampling(settings.sampling)
    yield from http_conflicts(settings.http)
    for number, sink in enumerate(settings.sinks):
        yield from _sink(number, sink)


def _sampling(sampling: Sampling) -> Iterator[Conflict]:
    if seconds(sampling.interval) < 0.01:
        yield Conflict(
            ("sampling", "interval"),
            sampling.interval,
            "is shorter than 10ms",
            "sample less often: the agent would do nothing else",
        )
    if sampling.dynamic and seconds(sampling.max_interval) < seconds(sampling.interval):
        yield Conflict(
            ("sampling", "max_interval"),
            sampling.max_interval,
            f"is shorter than sampling.interval, {sampling.interval}",
            "make it longer",
        )


def http_conflicts(http: Http) -> Iterator[Conflict]:
    """Those of the sidecar.

    Raises:
        ValueError: `http.listen` is no address.
    """
    listen = listen_address(http.listen)
    if exposed(http) and not http.insecure:
        yield Conflict(
            ("http", "listen"),
            http.listen,
            "other machines can reach this address, and nothing controls their access",
            "ask them for a token (http.token_file) or a certificate (http.tls_client_ca_file), listen on 127.0.0.1, [::1] or unix:PATH, "
            "or say http.insecure = true (--insecure) where everybody who reaches it may know everything",
        )
    for given, lacking in (
        ("tls_cert_file", "tls_key_file"),
        ("tls_key_file", "tls_cert_file"),
        ("tls_client_ca_file", "tls_cert_file"),
    ):
        if getattr(http, given) and not getattr(http, lacking):
            yield Conflict(
                ("http", given), getattr(http, given), f"needs http.{lacking} too", f"set http.{lacking}, or leave both out"
            )
    if listen and listen.path and http.tls_cert_file:
        yield Conflict(
            ("http", "tls_cert_file"),
            http.tls_cert_file,
            "a unix socket speaks no TLS",
            "leave the tls_… keys out: http.unix_mode and http.unix_group say who may connect",
        )


def exposed(http: Http) -> bool:
    """Whether other machines can reach the sidecar, and it asks nobody who they are.

    Raises:
        ValueError: `http.listen` is no address.
    """
    listen = listen_address(http.listen)
    return bool(listen and not listen.loopback and not http.token_file and not http.tls_client_ca_file)


def _sink(number: int, sink: SinkSettings) -> Iterator[Conflict]:
    if sink.password_file and mask(sink.url) != sink.url:
        yield Conflict(
            ("sinks", number, "password_file"), sink.password_file, "the URL has a password too", "leave one of them out"
        )
