"""What a value must look like beyond its type, and how a type is called in words. Pure: nothing is opened or connected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

from msgspec import Meta

from streamer.config import urls
from streamer.config.settings import listen_address, seconds
from streamer.model.messages import TOPICS


class Form(NamedTuple):
    """words: what is wanted · check: raises ValueError (the problem, as what follows "it") · remedy: what to write instead."""

    words: str
    check: Callable[[str], object]
    remedy: str


class SinkKind(NamedTuple):
    """A kind of sink: how its URL is written, and what checks the part after the scheme."""

    example: str
    check: Callable[[str], None]


def _stdout(url: str) -> None:
    if url != "stdout:":
        raise ValueError("has something after stdout:")


def _file(url: str) -> None:
    parts = urls.split(url)
    if parts.netloc or not url.startswith("file:///") or parts.path.endswith("/"):
        raise ValueError("is not file:// and the absolute path of a file")


def _servers(url: str) -> None:
    """`scheme://[user:password@]host[:port][,host[:port]…][/path]`. Says nothing of what it found: it may be a password."""
    if "://" not in url:
        raise ValueError("has no // after the scheme")
    user, _, hosts = urls.split(url).netloc.rpartition("@")
    if "[" in user or "]" in user:
        raise ValueError("has a bracket before the @ that is not percent-encoded")
    for server in hosts.split(","):
        match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]@/?#]+)(?::([0-9]{1,5}))?", server)
        if match is None:
            raise ValueError("has no host, or something that is not a port number after it")
        if match[1] and not 0 < int(match[1]) <= 65535:
            raise ValueError("has a port that is not from 1 to 65535")


def _redis(url: str) -> None:
    _servers(url)
    parts = urls.split(url)
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("has more than one host")
    if not re.fullmatch(r"(?:/[0-9]*)?", parts.path):
        raise ValueError("has a database that is not a number")


def _redis_socket(url: str) -> None:
    if not urls.split(url).path.startswith("/") or urls.split(url).path.endswith("/"):
        raise ValueError("is not unix:// and the absolute path of a Redis socket")


SINK_KINDS: Final[dict[str, SinkKind]] = {
    "stdout": SinkKind("stdout:", _stdout),
    "file": SinkKind("file:///path.jsonl", _file),
    "redis": SinkKind("redis://host:6379/0", _redis),
    "rediss": SinkKind("rediss://host:6379/0", _redis),
    "unix": SinkKind("unix:///path/redis.sock?db=0", _redis_socket),
    "kafka": SinkKind("kafka://host:9092,host:9092", _servers),
    "kafkas": SinkKind("kafkas://host:9093,host:9093", _servers),
}


def _sink(url: str) -> None:
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise ValueError("has no scheme")
    if scheme not in SINK_KINDS:
        raise ValueError(f"names no kind of sink that there is{suggest(scheme, SINK_KINDS)}")
    if re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("holds a space or a control character")
    SINK_KINDS[scheme].check(url)


def _docker(host: str) -> None:
    if host and not re.fullmatch(r"unix:///.+|(?:tcp|http|https)://[^\s/:]+(?::[0-9]{1,5})?/?", host):
        raise ValueError("is not unix:///path or tcp://host:port")


def _topic(name: str) -> None:
    known = [topic.short for topic in TOPICS]
    if name not in known:
        raise ValueError(f"is no topic{suggest(name, known)}")


def _mode(text: str) -> None:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError("is not three octal digits")


def _host(name: str) -> None:
    if ":" in name:
        import ipaddress

        ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]"))  # its error is a ValueError that says what is wrong
    elif not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", name):
        raise ValueError("is not the name or address of a host alone")


def _origin(origin: str) -> None:
    if not re.fullmatch(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", origin):
        raise ValueError("is not an origin as browsers write it")


def _path(path: str) -> None:
    if "\0" in path:
        raise ValueError("holds a NUL character")


FORMS: Final[dict[str, Form]] = {
    "duration": Form("a duration", seconds, "write a positive number and ms, s, m, h or d: 500ms, 2s, 1.5m"),
    "sink": Form("the URL of a sink", _sink, "write one of " + " | ".join(kind.example for kind in SINK_KINDS.values())),
    "listen": Form("an address to listen on", listen_address, "write HOST:PORT (127.0.0.1:8080, [::1]:8080), unix:/path or off"),
    "docker": Form(
        "the address of a Docker Engine", _docker, "write unix:///var/run/docker.sock or tcp://host:port, or leave it empty"
    ),
    "topic": Form("the short name of a topic", _topic, "choose from " + ", ".join(topic.short for topic in TOPICS)),
    "mode": Form("permissions in octal digits", _mode, "write 0660 for owner and group, 0600 for the owner alone"),
    "host": Form(
        "the name or address of a host", _host, "write a name or an address without port: streamer.example, 192.0.2.7, ::1"
    ),
    "origin": Form(
        "an origin", _origin, "write scheme, host and port as the browser's address line has them: https://grafana.example:3000"
    ),
    "path": Form("a path", _path, "write the path of a file or directory"),
}


def form(annotation: Any) -> Form | None:
    """The check that an annotation asks for with `Meta(extra={"form": …})`, if any."""
    for meta in metas(annotation):
        if meta.extra and "form" in meta.extra:
            return FORMS[meta.extra["form"]]
    return None


def metas(annotation: Any) -> tuple[Meta, ...]:
    """The `Meta`s of an annotated type, outermost last."""
    if get_origin(annotation) is not Annotated:
        return ()
    return tuple(meta for meta in get_args(annotation)[1:] if isinstance(meta, Meta))


def bare(annotation: Any) -> Any:
    """`Annotated[list[str], …]` -> `list[str]`."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def words(annotation: Any) -> str:
    """A type as people call it: `a whole number from 1 to 10000`, `one of containers, all`, `a duration`."""
    if (known := form(annotation)) is not None:
        return known.words
    kind = bare(annotation)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is list:
        return "a list: each " + words(get_args(kind)[0])
    if kind is bool:
        return "true or false"
    if kind is str:
        patterns = [meta.pattern for meta in metas(annotation) if meta.pattern]
        return "text" + "".join(f" like {pattern}" for pattern in patterns)
    low = next((meta.ge for meta in metas(annotation) if meta.ge is not None), None)
    high = next((meta.le for meta in metas(annotation) if meta.le is not None), None)
    bounds = f" from {low} to {high}" if None not in (low, high) else f", at least {low}" if low is not None else ""
    return {int: "a whole number", float: "a number"}.get(kind, "a section") + bounds


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "interval"?` when something known is close, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


_USERINFO: Final = re.compile(r"(://[^:/@\s]*:).*@", re.DOTALL)
_QUERY: Final = re.compile(r"([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&\s\"']*", re.IGNORECASE)


def mask(text: str) -> str:
    """A text without the passwords of the URLs in it: `redis://user:***@host`. Rather hides too much than too little."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1***@", text))
