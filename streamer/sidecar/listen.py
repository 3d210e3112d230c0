"""Address -> listening socket. Bound here and not by the HTTP server, which leaves unix sockets open to everybody. And who has connected."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import struct
from typing import Final

from streamer.config import Http, Listen, http_conflicts, listen_address
from streamer.errors import ConfigError
from streamer.sidecar.places import Address

BACKLOG: Final = 512
_LIVE_CHECK_SECONDS: Final = 1.0
_ELSEWHERE: Final = "choose another address with --listen, or --listen off"


def allowed(settings: Http) -> Listen | None:
    """The address to bind; None for `off`.

    Raises:
        ConfigError: it is no address, or other machines could reach it and nobody is asked who they are.
    """
    try:
        address = listen_address(settings.listen)
    except ValueError as wrong:
        raise _error(str(wrong), settings.listen, "write HOST:PORT, unix:/path or off") from None
    for at, value, problem, remedy in http_conflicts(settings):
        raise ConfigError(problem, key=".".join(map(str, at)), value=value, remedy=remedy)
    return address


def bind(address: Listen, settings: Http) -> socket.socket:
    """A socket that listens there; clients wait in its backlog until it is served.

    Raises:
        ConfigError: the address cannot be had; says why and what to do.
    """
    return _bind_unix(address.path, settings) if address.path else _bind_tcp(address, settings.listen)


def own_names(resolver: str = "/etc/resolv.conf") -> list[str]:
    """What this host is called in its network: its name, and this in the domains that it looks names up in. Asks nobody."""
    name = socket.gethostname()
    try:
        with open(resolver, encoding="utf-8", errors="replace") as file:
            said = [line.split() for line in file]
    except OSError:
        said = []
    domains = {domain for words in said if words[:1] in (["search"], ["domain"]) for domain in words[1:]}
    short = name.partition(".")[0]
    return [name, short, *(f"{short}.{domain}" for domain in sorted(domains))]


_MAPPED: Final = bytes(10) + b"\xff\xff"
_CREDENTIALS: Final = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid."""


def address_of(client: socket.socket) -> Address:
    """Whose share of the places a connection takes: an IPv4 address, an IPv6 /64 (one host has all of it), a user of a unix socket."""
    try:
        if client.family == socket.AF_UNIX:
            uid: int = _CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
            return uid
        host: str = client.getpeername()[0]
    except OSError:  # it has gone already
        return ""
    if client.family != socket.AF_INET6:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return socket.inet_ntoa(packed[12:]) if packed.startswith(_MAPPED) else packed[:8]


def release(path: str, inode: int) -> None:
    """Remove a unix socket's path behind us, unless somebody has put another one there."""
    if inode and inode_of(path) == inode:
        os.unlink(path)


def inode_of(path: str) -> int:
    """Inode of what is at `path` now, 0 for nothing."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _bind_tcp(address: Listen, listen: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as wrong:
        raise _error(f"no such host: {wrong}", listen, _ELSEWHERE) from None
    # `localhost` may be both ::1 and 127.0.0.1: the one that every client knows goes first
    family, kind, protocol, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of an earlier run is no reason to fail
        listening.bind(where)
        listening.listen(BACKLOG)
    except OSError as wrong:
        listening.close()
        raise _tcp_error(wrong, listen) from None
    return listening


def _tcp_error(wrong: OSError, listen: str) -> ConfigError:
    if wrong.errno == errno.EADDRINUSE:
        return _error("another program listens there", listen, f"stop it, {_ELSEWHERE}")
    if wrong.errno == errno.EACCES:
        return _error("ports below 1024 need CAP_NET_BIND_SERVICE", listen, _ELSEWHERE)
    if wrong.errno == errno.EADDRNOTAVAIL:
        return _error("this machine has no such address", listen, _ELSEWHERE)
    return _error(os.strerror(wrong.errno or 0), listen, _ELSEWHERE)


def _bind_unix(path: str, settings: Http) -> socket.socket:
    listen, group = settings.listen, _group(settings.unix_group)
    _clear(path, listen)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        # before listen(): until then nobody can connect, whatever the umask allowed
        _give_to(path, group, settings.unix_group)
        os.chmod(path, int(settings.unix_mode, 8))
        listening.listen(BACKLOG)
    except ConfigError:
        listening.close()
        os.unlink(path)
        raise
    except (OSError, ValueError) as wrong:
        listening.close()
        raise _error(
            _unix_problem(wrong, path), listen, f"make the directory and let this user write to it, {_ELSEWHERE}"
        ) from None
    return listening


def _group(group: str) -> int:
    """-1 leaves it as it is."""
    if not group or group.isdecimal():
        return int(group or -1)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            "there is no such group",
            key="http.unix_group",
            value=group,
            remedy="give the name of a group of this machine, or a number",
        ) from None


def _give_to(path: str, group: int, named: str) -> None:
    if group < 0:  # changing nothing is a chown(2), too, which the service may not make
        return
    try:
        os.chown(path, -1, group)
    except (OSError, OverflowError) as wrong:
        raise ConfigError(
            f"the socket cannot be given to this group: {wrong}",
            key="http.unix_group",
            value=named,
            remedy=f"make user id {os.geteuid()} a member of it, or leave it out",
        ) from None


def _unix_problem(wrong: Exception, path: str) -> str:
    if isinstance(wrong, OSError) and wrong.errno:
        return f"{wrong.strerror}: {os.path.dirname(path) or '.'}"
    return str(wrong)  # too long for a socket, or holds a NUL


def _clear(path: str, listen: str) -> None:
    """Remove what a killed run has left behind; refuse anything that is alive or is not ours to remove."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise _error("something that is not a socket is at this path, and stays there", listen, f"remove it, {_ELSEWHERE}")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return  # bind says what is wrong with the path, if anything
    except OSError as wrong:
        raise _error(str(wrong), listen, _ELSEWHERE) from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_LIVE_CHECK_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # nobody listens
            os.unlink(path)
            return
        except FileNotFoundError:  # it has gone just now
            return
        except OSError as wrong:  # no permission, or a full backlog: it may well be alive
            raise _error(
                f"the socket that is there cannot be tried: {wrong}", listen, f"stop what listens there, {_ELSEWHERE}"
            ) from None
    raise _error("another program listens there", listen, f"stop it, {_ELSEWHERE}")


def _error(problem: str, listen: str, remedy: str) -> ConfigError:
    return ConfigError(problem, key="http.listen", value=listen, remedy=remedy)
