"""Every configuration key: its section, type, default and help. The defaults are here and nowhere else.

`load.py` reads them; the documented default file, the key table, the JSON Schema and the help of the flags are generated
from these types. `Meta(extra={"form": …})` names a row of `FORMS` in `forms.py`: a check beyond the type.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct, field

from streamer.model.wire import Envelope

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Duration = Annotated[str, Meta(pattern=f"^{_DURATION.pattern}$", extra={"form": "duration"})]
SinkUrl = Annotated[str, Meta(extra={"form": "sink"})]
ListenAddress = Annotated[str, Meta(extra={"form": "listen"})]
DockerHost = Annotated[str, Meta(extra={"form": "docker"})]
FilePath = Annotated[str, Meta(extra={"form": "path"})]
TopicName = Annotated[str, Meta(extra={"form": "topic"})]
FileMode = Annotated[str, Meta(pattern="^0?[0-7]{3}$", extra={"form": "mode"})]
HostName = Annotated[str, Meta(extra={"form": "host"})]
Origin = Annotated[str, Meta(extra={"form": "origin"})]


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often containers are looked at."""

    interval: Annotated[Duration, Meta(description="Time between two samples of a container.")] = "1s"
    max_interval: Annotated[
        Duration, Meta(description="Longest time between two samples of an idle container; only used when dynamic is on.")
    ] = "10s"
    dynamic: Annotated[bool, Meta(description="Sample a container that does nothing less often, up to max_interval.")] = False
    jitter: Annotated[
        float,
        Meta(
            description="By how much one interval may differ from another, as a share of it, so that containers do not fall into step."
            " In whole batches: these come every interval, or in equal parts of it of a second at most.",
            ge=0,
            le=1,
        ),
    ] = 0.1
    network: Annotated[bool, Meta(description="Read the network counters of containers.")] = True
    rescan: Annotated[
        Duration,
        Meta(
            description="Time between two comparisons of the whole cgroup tree with what is known; finds what a lost notification hid."
        ),
    ] = "60s"


class Docker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Docker Engine, asked for names, images, labels and exit codes. The agent works without one."""

    enabled: Annotated[bool, Meta(description="Ask a Docker Engine when there is one.")] = True
    host: Annotated[
        DockerHost,
        Meta(description="Its address (unix:///path or tcp://host:port); empty: DOCKER_HOST, else /var/run/docker.sock."),
    ] = ""
    relist: Annotated[Duration, Meta(description="Time between two lists of all containers; finds what a lost event hid.")] = "60s"
    timeout: Annotated[Duration, Meta(description="Longest wait for an answer.")] = "5s"
    disk_usage: Annotated[
        bool, Meta(description="Measure how much disk containers take: their writable layers (overlay2) and their logs.")
    ] = True
    disk_usage_interval: Annotated[
        Duration,
        Meta(
            description="Time between two measurements of a container, which walk through its files; longer where that takes long."
        ),
    ] = "60s"


class Kmsg(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kernel log, read for OOM kills."""

    enabled: Annotated[
        bool, Meta(description="Read /dev/kmsg; without it OOM kills are only known from counters and from Docker.")
    ] = True


class Labels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which labels of containers go into messages. Environment variables never do."""

    allow: Annotated[list[str], Meta(description="Label names to pass on; a trailing * matches any ending; * is all.")] = field(
        default_factory=lambda: ["*"]
    )
    deny: Annotated[
        list[str], Meta(description="Label names never to pass on, stronger than allow; a trailing * matches any ending.")
    ] = []


class Publishing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How messages look and where they go."""

    prefix: Annotated[str, Meta(description="First word of every topic and stream key.", pattern="^[A-Za-z0-9._-]+$")] = "streamer"
    envelope: Annotated[
        Envelope, Meta(description="CloudEvents attributes beside the value (binary) or around it (structured).")
    ] = "binary"
    heartbeat: Annotated[
        Duration, Meta(description="Time between two heartbeats, which carry the high-water marks of every topic.")
    ] = "10s"
    redis_stats_maxlen: Annotated[int, Meta(description="Redis: about how many entries the stats stream keeps.", ge=1)] = 100_000
    redis_retention: Annotated[Duration, Meta(description="Redis: how long the other streams keep their entries.")] = "24h"
    kafka_compression: Annotated[
        Literal["none", "gzip", "lz4", "zstd"],
        Meta(description="Kafka: how batches are compressed; zstd needs brokers and consumers of Kafka 2.1 or newer."),
    ] = "zstd"


class Outbox(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What waits for a sink: in memory while it keeps up, in the state directory otherwise."""

    durable_bytes: Annotated[
        int,
        Meta(
            description="Most bytes of lifecycle, OOM, host, state and control messages on disk, for all sinks; then the oldest go, counted and declared.",
            ge=1_000_000,
        ),
    ] = 256_000_000
    durable_age: Annotated[Duration, Meta(description="How long they are kept on disk for a sink that is away.")] = "7d"
    stats_bytes: Annotated[
        int,
        Meta(
            description="Most bytes of samples on disk (compressed to about a tenth), for all sinks; only used while a sink lags; then the oldest go, counted and declared.",
            ge=1_000_000,
        ),
    ] = 512_000_000
    stats_age: Annotated[Duration, Meta(description="How long samples are kept on disk for a sink that is away.")] = "24h"
    memory_bytes: Annotated[
        int,
        Meta(
            description="Most bytes of each lane, durable and stats, to hold in memory for a sink while there is no disk to hold it.",
            ge=1_000_000,
        ),
    ] = 32_000_000
    sync: Annotated[
        Literal["normal", "full"],
        Meta(
            description="normal: a crash of the agent loses nothing, a power failure may lose the last seconds; full: every write is synced to the disk before a message is offered to a sink."
        ),
    ] = "normal"
    batch_messages: Annotated[int, Meta(description="Most messages in one send.", ge=1, le=100_000)] = 5000
    batch_bytes: Annotated[
        int, Meta(description="Most bytes in one send; a sink cuts it up further where its broker wants that.", ge=1000)
    ] = 8_000_000
    connect_timeout: Annotated[Duration, Meta(description="Longest wait for a connection.")] = "10s"
    send_timeout: Annotated[
        Duration, Meta(description="Longest wait for an acknowledgement; then the sink is thrown away and replaced.")
    ] = "30s"


class Http(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query sidecar."""

    listen: Annotated[ListenAddress, Meta(description="Where to answer HTTP: HOST:PORT, unix:PATH or off.")] = "127.0.0.1:8080"
    insecure: Annotated[
        bool,
        Meta(
            description="Allow an address that other machines can reach without token_file and tls_client_ca_file: whoever reaches it may ask everything."
        ),
    ] = False
    token_file: Annotated[
        FilePath,
        Meta(
            description="File with bearer tokens, one a line, NAME: before it if you like, # begins a comment; read again when it changes. Set: who asks has to bring one of them, or a client certificate."
        ),
    ] = ""
    tls_cert_file: Annotated[
        FilePath,
        Meta(
            description="Certificate of the sidecar and those between it and its authority, PEM; read again when it changes. Set: HTTPS only."
        ),
    ] = ""
    tls_key_file: Annotated[FilePath, Meta(description="Its private key, PEM, without a passphrase.")] = ""
    tls_client_ca_file: Annotated[
        FilePath,
        Meta(
            description="Authorities of client certificates, PEM; read again when it changes. Set: who asks has to bring a certificate that one of them has signed, or a token."
        ),
    ] = ""
    unix_mode: Annotated[FileMode, Meta(description="Permissions of a unix socket, octal: who may write to it may connect.")] = (
        "0660"
    )
    unix_group: Annotated[str, Meta(description="Group of a unix socket, name or number; empty: the agent's own.")] = ""
    allowed_hosts: Annotated[
        list[HostName],
        Meta(
            description="Further names or addresses that requests may be addressed to (their Host header, without port). Always answered: on a loopback address localhost, 127.0.0.1 and [::1]; elsewhere every address, localhost and this host's own name. An empty list allows any name where everything wants a token or certificate, or with TLS."
        ),
    ] = []
    cors_origins: Annotated[
        list[Origin],
        Meta(
            description="Origins (https://host:port) whose pages may read answers: GET without credentials; none: no other page may."
        ),
    ] = []
    metrics_open: Annotated[bool, Meta(description="Answer /metrics without asking for token or certificate.")] = False
    samples: Annotated[int, Meta(description="Samples kept in memory for each container.", ge=1, le=3600)] = 120


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What /metrics says of containers."""

    container_labels: Annotated[
        bool, Meta(description="Give each series the labels that messages carry (labels.allow), as container_label_NAME.")
    ] = True
    allow_labels: Annotated[
        list[str],
        Meta(description="With container_labels off: the labels to give all the same; a trailing * matches any ending."),
    ] = []
    timestamps: Annotated[
        bool, Meta(description="Give measured values the time of their sample, as cAdvisor does; off: they count as of the scrape.")
    ] = True


class SinkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place to publish to; as many of these sections as there are places."""

    url: Annotated[
        SinkUrl,
        Meta(
            description="stdout:, file:///path.jsonl, redis://host:port/db, kafka://host:port,host:port; rediss:// and kafkas:// speak TLS, unix:///path is a Redis socket"
        ),
    ]
    types: Annotated[
        list[TopicName],
        Meta(
            description="Short topic names to send (lifecycle, oom, stats, state, host, control); empty: all of them, for stdout: and file: all but state."
        ),
    ] = []
    password_file: Annotated[
        FilePath, Meta(description="File that holds the password, so that it need not stand in the URL; read at each start.")
    ] = ""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be configured."""

    host_root: Annotated[FilePath, Meta(description="Where the host's / is mounted, for an agent in a container.")] = "/"
    host_name: Annotated[str, Meta(description="Name of this host in messages; empty: its own.")] = ""
    host_id: Annotated[str, Meta(description="Id of this host in messages; empty: its machine id.")] = ""
    scope: Annotated[
        Literal["containers", "all"],
        Meta(description="What is reported: containers, or all: also systemd's services and slices and the folders of runtimes."),
    ] = "containers"
    state_dir: Annotated[
        FilePath,
        Meta(
            description="Directory for what survives a crash: messages no sink has acknowledged yet, who is alive, how far each source was read. Empty: $STATE_DIRECTORY, else /var/lib/streamer for root and ~/.local/state/streamer for others. off: nothing is kept on disk."
        ),
    ] = ""
    require_sinks: Annotated[bool, Meta(description="End with exit code 69 when a sink cannot be reached at start.")] = False
    drain: Annotated[Duration, Meta(description="Longest time to deliver what is left at the end.")] = "20s"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least important log lines to write.")] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], Meta(description="How log lines look on stderr.")] = "text"
    sampling: Sampling = Sampling()
    docker: Docker = Docker()
    kmsg: Kmsg = Kmsg()
    labels: Labels = Labels()
    publishing: Publishing = Publishing()
    outbox: Outbox = Outbox()
    http: Http = Http()
    metrics: Metrics = Metrics()
    sinks: Annotated[list[SinkSettings], Meta(description="Where to publish; none: stdout.")] = []


def seconds(duration: str) -> float:
    """`250ms`, `1s`, `1.5m`, `24h`, `2d` -> seconds.

    Raises:
        ValueError: not a positive number with one of these units.
    """
    match = _DURATION.fullmatch(duration)
    value = float(match[1]) if match else 0.0
    if match is None or value <= 0:
        raise ValueError(f"{duration!r} is not a duration: a positive number and ms, s, m, h or d, like 500ms or 1.5m")
    return value * _UNITS[match[2]]


class Listen(NamedTuple):
    """Where the sidecar answers: host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        import ipaddress

        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def listen_address(listen: str) -> Listen | None:
    """`127.0.0.1:8080`, `[::1]:8080`, `unix:/run/streamer.sock` -> where to listen; `off` -> None.

    Raises:
        ValueError: none of these.
    """
    if listen == "off":
        return None
    if listen.startswith("unix:"):
        if path := listen.removeprefix("unix:"):
            return Listen(path=path)
        raise ValueError("has no path after unix:")
    host, colon, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError("is not HOST:PORT, unix:PATH or off")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"has no port number from 0 to 65535 after the host, but {port!r}")
    return Listen(host=host[1:-1] if bracketed else host, port=int(port))
