"""What Redis answers when it does not take a command, and what to do about it."""

from __future__ import annotations

from typing import Final

from streamer.errors import NotConnected, PermanentlyRefused

_REFUSALS: Final[tuple[tuple[str, str], ...]] = (
    ("CERTIFICATE_VERIFY_FAILED", "name the authority that signed the server's certificate: ?ca=/path.pem"),
    ("NOAUTH", "give user and password in the URL, or password_file"),
    ("WRONGPASS", "correct user and password"),
    ("NOPERM", "allow it: ACL SETUSER … ~{prefix}:* +xadd +xrange +xinfo|stream +hset +hdel +zadd +ping +select"),
    ("WRONGTYPE", "another program uses this key: delete it, or set publishing.prefix"),
    ("MOVED", "this is one node of a cluster and the keys of this host are on another: name that one"),
    ("ERR unknown command", "streams with MINID need Redis 6.2 or newer"),
    ("ERR syntax error", "streams with MINID need Redis 6.2 or newer"),
    ("ERR DB index", "correct the number of the database"),
)
"""What stands in an error that stays until the operator acts, and what to do."""

_PASSING: Final[tuple[tuple[str, str], ...]] = (
    ("OOM", "raise Redis's maxmemory, or lower publishing.redis_stats_maxlen or redis_retention"),
    ("READONLY", "name the primary"),
    ("MISCONF", "Redis cannot save to its disk: see its log"),
    ("NOREPLICAS", "too few replicas are connected: min-replicas-to-write"),
    ("LOADING", "nothing to do: Redis is reading its data"),
    ("MASTERDOWN", "this replica has lost its primary: name the primary"),
    ("CLUSTERDOWN", "the cluster serves no keys of this host: see CLUSTER INFO"),
    ("BUSY", "a script runs for long: SCRIPT KILL, FUNCTION KILL"),
)
"""Error replies that pass by themselves or when Redis is mended, with a hint. What we do not know is taken for one of
these: it is retried with back-off, and nothing is lost meanwhile."""


def refused(text: str, prefix: str) -> NotConnected | PermanentlyRefused:
    """The error for an error reply, or for what redis-py said when connecting."""
    for mark, remedy in _REFUSALS:
        if mark in text:
            return PermanentlyRefused(text, remedy=remedy.replace("{prefix}", prefix))
    for beginning, remedy in _PASSING:
        if text.startswith(beginning) or (beginning == "LOADING" and "is loading the dataset" in text):
            return NotConnected(text, remedy=remedy)
    return NotConnected(text)
