"""How a broker is named in a URL, and what its client library wants to know of that. Shared by sinks and consumers.

    redis://user:password@host:6379/0        rediss://… with TLS        unix://user:password@/run/redis.sock?db=0
    kafka://user:password@host:9092,host:9092?sasl=SCRAM-SHA-512        kafkas://… with TLS

User and password are percent-encoded. `ca`, `cert` and `key` name PEM files for TLS.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from streamer.config import mask, urls
from streamer.errors import ConfigError

_TLS_FILES: Final = {"ca": "PEM file of the authority that signed the broker's certificate", "cert": "PEM file", "key": "PEM file"}

OPTIONS: Final[dict[str, dict[str, str]]] = {
    "redis": {"db": "number of the database", **_TLS_FILES},
    "kafka": {"sasl": "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", "tls": "true or false", **_TLS_FILES},
}
"""What may follow the `?`, for each kind of broker."""

_KINDS: Final = {"redis": "redis", "rediss": "redis", "unix": "redis", "kafka": "kafka", "kafkas": "kafka"}
_PORTS: Final = {"redis": 6379, "kafka": 9092}
_SASL: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SERVER: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]@/?#]+))(?::(?P<port>[0-9]{1,5}))?")


class BrokerUrl(NamedTuple):
    """A URL taken apart. `shown` is for people: no password in it."""

    kind: str
    scheme: str
    servers: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    path: str
    options: Mapping[str, str]
    shown: str

    def __repr__(self) -> str:
        return f"BrokerUrl({self.shown!r})"


def parse(url: str, *, password: str | None = None, key: str = "sinks.url") -> BrokerUrl:
    """Take the URL of a broker apart; `password` stands in for one that the URL does not have.

    Raises:
        ConfigError: not such a URL; it names `key` and the URL without its password.
    """

    def bad(problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, key=key, value=mask(url), remedy=remedy)

    parts = urls.split(url)
    kind = _KINDS.get(parts.scheme, "")
    if not kind:
        raise bad(f"no broker has the scheme {parts.scheme!r}", "use one of " + ", ".join(_KINDS))
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, secret = user.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - set(OPTIONS[kind]):
        known = "; ".join(f"{option}: {text}" for option, text in OPTIONS[kind].items())
        raise bad(f"unknown option {', '.join(sorted(unknown))}", f"known are {known}")
    servers: list[tuple[str, int]] = []
    if parts.scheme == "unix":
        if hosts or not parts.path.strip("/"):
            raise bad("no path of a socket", "write unix:///run/redis/redis.sock")
    else:
        for server in hosts.split(","):
            match = _SERVER.fullmatch(server)
            if match is None or not 0 < int(match["port"] or 1) <= 65535:
                raise bad("no host, or a port that is none", f"write {parts.scheme}://host:port")
            servers.append((match["v6"] or match["host"], int(match["port"] or _PORTS[kind])))
    at = f"{name}@" if name else ""
    return BrokerUrl(
        kind,
        parts.scheme,
        tuple(servers),
        unquote(name) or None,
        unquote(secret) or password,
        unquote(parts.path),
        options,
        f"{parts.scheme}://{at}{hosts}{parts.path}",
    )


def redis_options(url: BrokerUrl, *, key: str = "sinks.url") -> dict[str, Any]:
    """Keyword arguments of redis-py's connection classes.

    Raises:
        ConfigError: more than one host, or a database that is no number.
    """
    if len(url.servers) > 1:
        raise ConfigError("more than one host", key=key, value=url.shown, remedy="name one Redis server")
    db = url.options.get("db") or ("" if url.scheme == "unix" else url.path.strip("/")) or "0"
    if not db.isascii() or not db.isdigit():
        raise ConfigError("the database is not a number", key=key, value=url.shown, remedy="write redis://host:6379/0")
    options: dict[str, Any] = {"db": int(db), "username": url.username, "password": url.password}
    if url.scheme == "unix":
        return {**options, "path": url.path}
    host, port = url.servers[0]
    options |= {"host": host, "port": port}
    if url.scheme == "rediss":
        files = {"ssl_ca_certs": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key"}
        options |= {name: url.options[option] for name, option in files.items() if option in url.options}
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


def kafka_options(url: BrokerUrl, *, key: str = "sinks.url") -> dict[str, Any]:
    """Keyword arguments of every aiokafka client.

    Raises:
        ConfigError: an option's value, or a TLS file, that cannot be used.
    """

    def bad(option: str, problem: str, remedy: str) -> ConfigError:
        return ConfigError(f"option {option}: {problem}", key=key, value=url.shown, remedy=remedy)

    if url.path.strip("/"):
        raise ConfigError("a path says nothing here", key=key, value=url.shown, remedy="topics are named by publishing.prefix")
    tls = url.options.get("tls", "true" if url.scheme == "kafkas" else "false")
    if tls not in ("true", "false") or (tls == "false" and url.scheme == "kafkas"):
        raise bad("tls", f"{tls!r} cannot be used with {url.scheme}://", "write kafkas://, or kafka:// and tls=true")
    sasl = url.options.get("sasl", "PLAIN" if url.username else "")
    if sasl and sasl not in _SASL:
        raise bad("sasl", f"no mechanism {sasl!r}", "use one of " + ", ".join(_SASL))
    if sasl and not (url.username and url.password):
        raise bad("sasl", "needs a user and a password", "write kafka://user:password@host:port, or set password_file")
    hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in url.servers]
    protocol = f"{'SASL_' if sasl else ''}{'SSL' if tls == 'true' else 'PLAINTEXT'}"
    options: dict[str, Any] = {"bootstrap_servers": hosts, "security_protocol": protocol}
    if sasl:
        options |= {"sasl_mechanism": sasl, "sasl_plain_username": url.username, "sasl_plain_password": url.password}
    if tls == "true":
        try:
            options["ssl_context"] = context = ssl.create_default_context(cafile=url.options.get("ca"))
            if "cert" in url.options:
                # A key with a passphrase would ask for it on the terminal: the empty one makes that an error.
                context.load_cert_chain(url.options["cert"], url.options.get("key"), password="")
        except (OSError, ssl.SSLError) as error:
            raise bad("ca, cert or key", f"cannot be read: {error}", "name PEM files that the agent's user may read") from error
    return options
