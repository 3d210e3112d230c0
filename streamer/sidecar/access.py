"""Who may ask what: from what a request shows to an answer or a refusal. Pure; `gate.py` asks for each request.

Three questions, in this order. Is the request addressed to us (`Host`)? A page of somebody else, whose name was made to
point here, has its own name there. Does it show a credential, where one is asked for: a token or a client certificate, either
is enough? And may the page that it comes from read the answer (`Origin`)?

What is open is named by its whole path, as the table of routes has it; everything else, known or not, is closed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, NamedTuple

from streamer.config import Http, exposed, listen_address

Rule = Literal["open", "metrics", "guarded"]
"""Of a route: `open` to everybody; `metrics`: open with `http.metrics_open`; `guarded`: wants a credential when any are asked for."""

Standing = Literal["none", "valid", "expired", "replaced"]
"""How a client's certificate stands now. `replaced`: the authorities are others than those that found it good."""

Headers = Sequence[tuple[bytes, bytes]]

Host = str | IPv4Address | IPv6Address
"""Whom a request is addressed to: a name in lower case, or an address."""

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._~%-]+)?)\]|([^\s:\[\]/@?#,]+))(?::[0-9]*)?")
_BEARER: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


class Policy(NamedTuple):
    """What the configuration asks for.

    hosts          names and addresses that a request may be addressed to; None: any
    any_address    whether it may be addressed to any address, too
    tokens         whether a token lets in; certificates: whether a client certificate does; neither: nobody is asked
    open_paths     answered all the same
    origins        pages that may read answers
    """

    hosts: frozenset[Host] | None
    any_address: bool
    tokens: bool
    certificates: bool
    open_paths: frozenset[str]
    origins: frozenset[str]


class Refusal(NamedTuple):
    """`reason`: the label of `streamer_http_refused_total`."""

    status: int
    reason: Literal["host", "missing", "wrong", "expired"]
    error: str
    remedy: str


def policy(http: Http, rules: Iterable[tuple[str, Rule]], own_names: Iterable[str] = ()) -> Policy:
    """The policy of a configuration. `rules`: each route's path and rule; `own_names`: what this host is called."""
    answered = ("open", "metrics") if http.metrics_open else ("open",)
    listen = listen_address(http.listen)
    return Policy(
        hosts=_hosts(http, own_names),
        any_address=bool(listen and not listen.loopback),
        tokens=bool(http.token_file),
        certificates=bool(http.tls_client_ca_file),
        open_paths=frozenset(path for path, rule in rules if rule in answered),
        origins=frozenset(http.cors_origins),
    )


def _hosts(http: Http, own_names: Iterable[str]) -> frozenset[Host] | None:
    """Where a page with a name that was made to point here could read something, only our own names are answered.

    It cannot where everything wants a token, which browsers keep by name, nor over TLS, where that name has no certificate.
    On a loopback address addresses are names like others: nobody else is to be asked there.
    """
    listen = listen_address(http.listen)
    if listen is None or listen.path:
        return None
    given = {host_of(name) for name in http.allowed_hosts}
    if listen.loopback:
        return _LOOPBACK | {host_of(listen.host)} | given
    if not given and (http.tls_cert_file or not (exposed(http) or http.metrics_open)):
        return None
    return _LOOPBACK | {host_of(listen.host), *map(host_of, own_names)} | given


def host_of(name: str) -> Host:
    """A name, or an address in any of the ways to write it, such that the same ones are equal.

    IPv6 addresses may stand in brackets and have a zone (RFC 6874), which says by which network card, not who.
    """
    bare = name.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare.partition("%")[0] if ":" in bare else bare)
    except ValueError:
        return name.removesuffix(".").lower()
    return getattr(address, "ipv4_mapped", None) or address


_LOOPBACK: Final = frozenset({host_of("localhost"), host_of("127.0.0.1"), host_of("::1")})


def wrong_host(allowed: Policy, headers: Headers, http_version: str) -> Refusal | None:
    """Whether the request is addressed to somebody else, or to two (RFC 9112, 3.2)."""
    given = [value for name, value in headers if name == b"host"]
    if len(given) > 1:
        return Refusal(400, "host", "the request has more than one Host", "send one")
    if allowed.hosts is None:
        lacking = not given and http_version == "1.1"
        return Refusal(400, "host", "the request has no Host", "send one") if lacking else None
    if not given:
        return Refusal(400, "host", "the request has no Host", "send one: a name that this agent answers to is asked for")
    match = _HOST.fullmatch(given[0].decode("latin-1"))
    if match is None:
        return Refusal(400, "host", "the request's Host is none", "send NAME or NAME:PORT")
    host = host_of(match[1] or match[2])
    if match[1] and isinstance(host, str):
        return Refusal(400, "host", "the request's Host is none", "send NAME or NAME:PORT")
    if host in allowed.hosts or (allowed.any_address and not isinstance(host, str)):
        return None
    return Refusal(
        421,
        "host",
        f"this agent does not answer to the name {str(host)[:100]!r}",
        "ask it by address, or add the name to http.allowed_hosts"
        if allowed.any_address
        else "ask it as localhost, 127.0.0.1 or [::1], or add the name to http.allowed_hosts",
    )


class Shown(NamedTuple):
    """What a request shows of who asks. `token`: None when it brings none; whether it is one of ours."""

    token: bool | None
    certificate: Standing


def token_of(headers: Headers) -> bytes | None:
    """The token of the `Authorization` header: RFC 6750's `Bearer`, or the password of `Basic`, which browsers can ask people for.

    None: there is no such header. Empty: it holds no token, or there are two of them.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if not given:
        return None
    scheme, _, rest = given[0].strip().partition(b" ")
    rest = rest.strip()
    if len(given) > 1:
        return b""
    if scheme.lower() == b"bearer":
        return rest if _BEARER.fullmatch(rest) else b""
    if scheme.lower() == b"basic":
        try:
            _, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return b""
        return password if _BEARER.fullmatch(password) else b""
    return b""


def is_known(allowed: Policy, shown: Shown) -> bool:
    """Whether who asks has shown a right credential, or nobody has to show any."""
    if not (allowed.tokens or allowed.certificates):
        return True
    return shown.certificate == "valid" or (allowed.tokens and shown.token is True)


def refusal(allowed: Policy, path: str, shown: Shown) -> Refusal | None:
    """Whether who asks is let in. `path`: as routes are found by."""
    if path in allowed.open_paths or is_known(allowed, shown):
        return None
    status = 401 if allowed.tokens else 403
    if allowed.tokens and shown.token is False:
        return Refusal(status, "wrong", "this token lets nobody in", _REMEDY[True, False])
    wanted = _REMEDY[allowed.tokens, allowed.certificates]
    match shown.certificate:
        case "expired":
            return Refusal(status, "expired", "the client's certificate has expired", wanted)
        case "replaced":
            return Refusal(status, "expired", "the authorities of clients' certificates have changed", "connect again")
        case _:
            return Refusal(status, "missing", "who asks has to say who they are", wanted)


_REMEDY: Final = {
    (True, False): "send Authorization: Bearer and a token of the agent's http.token_file",
    (False, True): "bring a certificate of an authority of the agent's http.tls_client_ca_file",
    (True, True): "send Authorization: Bearer and a token of http.token_file, or bring a certificate of http.tls_client_ca_file",
}


def challenges(headers: Headers, found: Refusal) -> list[tuple[str, str]]:
    """The `WWW-Authenticate` headers of a 401. Only who wants a page is told that a password would do: a browser then asks for it."""
    if found.status != 401:
        return []
    said = [("www-authenticate", 'Bearer realm="streamer"' + (', error="invalid_token"' if found.reason == "wrong" else ""))]
    if any(name == b"accept" and b"text/html" in value for name, value in headers):
        said.append(("www-authenticate", 'Basic realm="streamer: any name, a token as the password"'))
    return said


def sharing(allowed: Policy, method: str, headers: Headers) -> list[tuple[bytes, bytes]]:
    """CORS headers of an answer: none, unless pages of other origins were named. Never with credentials, only to GET and HEAD."""
    if not allowed.origins:
        return []
    said = [(b"vary", b"origin")]
    given = [value for name, value in headers if name == b"origin"]
    if method in ("GET", "HEAD") and len(given) == 1 and given[0].decode("latin-1") in allowed.origins:
        said.append((b"access-control-allow-origin", given[0]))
    return said
