"""A real Redis and a real Apache Kafka of the tests' own, each in a temporary directory and on free ports.

Fixtures: `redis_server` and `kafka`, one per session. A test that stops, kills or freezes its broker takes one of its
own: `with RedisServer() as redis:`. Every server ends with the thread that started it, however that ends.

Redis comes by apt; Kafka's jars are fetched once by Maven (`tests/support/kafka/pom.xml`) into `.cache/kafka-libs`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

_ROOT: Final = Path(__file__).parents[2]
_LIBS: Final = _ROOT / ".cache" / "kafka-libs"
_POM: Final = Path(__file__).parent / "kafka" / "pom.xml"
_START_SECONDS: Final = 240.0
_LOG4J: Final = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d %p %m (%c)%n
"""


class Server:
    """A process that can be stopped, killed, frozen, and started again on the same port with the same data."""

    package = ""
    program = ""
    host = "127.0.0.1"  # of `address`

    def __init__(self) -> None:
        need(self.program, self.package)
        self.directory = Path(tempfile.mkdtemp(prefix=f"streamer-{self.program}-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it does its work: more than an open port, which opens early."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """It was started and has not ended; it may be frozen."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start it and do not wait. From the main thread: it is killed when the thread that started it ends."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call, which must come before exec
            )

    def wait_until_it_answers(self) -> None:
        """Wait for a server that was launched; a test fails when that takes minutes or it has ended."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{self.program} did not start:\n{(self.directory / 'log').read_text()[-4000:]}", pytrace=False)
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._signal(signal.SIGKILL)
        self._wait()

    def pause(self) -> None:
        """Freeze it: its connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process is not None and self.running:
            os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait(20)
            self._process = None


class RedisServer(Server):
    """`arguments` are added to redis-server's. With `durable`, what it acknowledged survives a kill."""

    program, package = "redis-server", "redis-server"

    def __init__(self, *arguments: str, durable: bool = False) -> None:
        super().__init__()
        self.url = f"redis://{self.address}/0"
        self.socket = self.directory / "redis.sock"
        self._arguments = [*arguments, "--appendonly", "yes" if durable else "no"]

    def command(self) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        return [str(shutil.which(self.program)), *where, "--save", "", *self._arguments]

    def answers(self) -> bool:
        return b"LOADING" not in (reply := _said(self.address, b"PING\r\n")) and reply[:1] in (b"+", b"-")

    def cli(self, *arguments: str) -> str:
        """What redis-cli prints."""
        need("redis-cli", "redis-tools")
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


class KafkaServer(Server):
    """One KRaft node with four listeners, whoever asks from the first may do anything:

    address        plain text, no authentication
    sasl_address   SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN: users `agent` (may do anything) and `guest` (may do nothing)
    tls_address    the same over TLS; `ca` is the certificate's authority

    advertised_port  what clients of the first listener are told to connect to: a proxy's, which leads back here. 0: its own
    """

    program, package = "java", "default-jre-headless"
    password: Final = "p@ss:w/rd"  # what has to be percent-encoded in a URL

    def __init__(self, *, advertised_port: int = 0, joins: KafkaServer | None = None, **properties: str) -> None:
        """`joins`: this is the second broker of that one's cluster, and has users only as far as that one tells it."""
        self.libs = kafka_libs()
        super().__init__()
        self._advertised_port = advertised_port or self.port
        self.sasl_port, self.tls_port, self._controller_port = free_port(), free_port(), free_port()
        self.ca = self.directory / "ca.pem"
        self._make_certificate()
        (self.directory / "log4j2.properties").write_text(_LOG4J)
        self._properties = self.directory / "server.properties"
        lines = self._defaults()
        if joins is not None:
            lines |= {"process.roles": "broker", "node.id": "2", "listeners": lines["advertised.listeners"]}
            lines["controller.quorum.voters"] = f"1@127.0.0.1:{joins._controller_port}"
        lines |= {name.replace("_", "."): value for name, value in properties.items()}
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        scram = [f"SCRAM-SHA-{bits}=[name={user},password={self.password}]" for bits in (256, 512) for user in ("agent", "guest")]
        scram = [] if joins is not None else scram
        format_ = ["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(self._properties)]
        self.tool("kafka.tools.StorageTool", *format_, *(word for each in scram for word in ("--add-scram", each)))

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    @property
    def sasl_address(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def tls_address(self) -> str:
        return f"localhost:{self.tls_port}"

    def command(self) -> list[str]:
        return [*self._java("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"), "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        # Metadata v1 of no topic: (size, key, version, id, client, topics). The broker answers when it has started, and names itself
        # once the controller counts it in: a client that asks before finds nobody. (size, id, brokers, ...)
        reply = _said(self.address, bytes.fromhex("0000000e 0003 0001 00000001 ffff 00000000"))
        return reply[4:8] == b"\0\0\0\1" and int.from_bytes(reply[8:12]) > 0

    def tool(self, main_class: str, *arguments: str, given: str | None = None) -> str:
        """What one of Kafka's own command line tools prints."""
        command = [*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), main_class, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def configure_topic(self, topic: str, *settings: str) -> None:
        """Change settings of a topic: `name=value`."""
        where = ["--entity-type", "topics", "--entity-name", topic, "--add-config", ",".join(settings)]
        self.tool("kafka.admin.ConfigCommand", "--bootstrap-server", self.address, "--alter", *where)

    def in_sync(self, topic: str) -> list[str]:
        """The brokers that have all of each partition, as the leaders know it."""
        told = self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.address, "--describe", "--topic", topic)
        return re.findall(r"Isr: (\S+)", told)

    def consume(self, topic: str, count: int, *shown: str) -> list[str]:
        """The first `count` records of a topic as Kafka's console consumer prints them; `shown`: `key`, `headers`, …"""
        properties = [word for name in shown for word in ("--property", f"print.{name}=true")]
        main_class = "org.apache.kafka.tools.consumer.ConsoleConsumer"
        where = ["--bootstrap-server", self.address, "--topic", topic, "--from-beginning", "--max-messages", str(count)]
        return self.tool(main_class, *where, "--timeout-ms", "90000", *properties).splitlines()

    def _java(self, *options: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.directory}/log4j2.properties"
        return [str(shutil.which("java")), *options, log4j, "-cp", f"{self.libs}/*"]

    def _defaults(self) -> dict[str, str]:
        module = "org.apache.kafka.common.security.{} required"
        scram = module.format("scram.ScramLoginModule") + ";"
        users = " ".join(f'user_{user}="{self.password}"' for user in ("agent", "guest"))
        plain = module.format("plain.PlainLoginModule") + f" {users};"
        ports = {"PLAINTEXT": self.port, "SASL_PLAINTEXT": self.sasl_port, "SASL_SSL": self.tls_port}
        clients = _listeners(ports, self.host)
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": _listeners({**ports, "PLAINTEXT": self._advertised_port}, self.host),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT," + ",".join(f"{name}:{name}" for name in ports),
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.location": str(self.directory / "keys.p12"),
            "ssl.keystore.password": "changeit",
            "ssl.keystore.type": "PKCS12",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:agent",
            "auto.create.topics.enable": "false",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker may come back once its session has ended. In the guest none is, and a host that takes its processor
            # away for a moment would end it.
            "broker.session.timeout.ms": "60000" if "GUEST_DISK" in os.environ else "2000",
            "broker.heartbeat.interval.ms": "500",
            "log.retention.check.interval.ms": "86400000",  # messages of a test may be years old
            "log.initial.task.delay.ms": "86400000",  # and be deleted 30 s after the start, when it looks for the first time
            "num.network.threads": "2",
            "num.io.threads": "4",
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            lines[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
            for bits in (256, 512):
                lines[f"listener.name.{listener}.scram-sha-{bits}.sasl.jaas.config"] = scram
        return lines

    def _make_certificate(self) -> None:
        store = [
            "-keystore",
            str(self.directory / "keys.p12"),
            "-storepass",
            "changeit",
            "-storetype",
            "PKCS12",
            "-alias",
            "broker",
        ]
        need("keytool", "default-jre-headless")
        names = ["-dname", "CN=localhost", "-ext", "SAN=dns:localhost,ip:127.0.0.1", "-validity", "30"]
        for command in (
            ["keytool", "-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", *names, *store],
            ["keytool", "-exportcert", "-rfc", "-file", str(self.ca), *store],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=180)


def _listeners(ports: dict[str, int], host: str) -> str:
    hosts = {"PLAINTEXT": host, "SASL_PLAINTEXT": "127.0.0.1", "SASL_SSL": "localhost"}
    return ",".join(f"{name}://{hosts[name]}:{port}" for name, port in ports.items())


def kafka_libs() -> Path:
    """The directory with Kafka's jars, fetched once."""
    _LIBS.mkdir(parents=True, exist_ok=True)
    with (_LIBS.parent / "kafka-libs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _LIBS / f"fetched-{_POM.stat().st_mtime_ns}"
        if not done.exists():
            need("mvn", "maven")
            command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={_LIBS}"]
            fetched = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if fetched.returncode:
                pytest.fail(f"Kafka's jars could not be fetched:\n{fetched.stdout[-4000:]}", pytrace=False)
            done.touch()
    return _LIBS


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own at `path`, of `size` as mount(8) writes it: `1m`."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def need(program: str, package: str) -> None:
    """Fail, saying how to get it, when a program is missing."""
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: apt-get install -y --no-install-recommends {package}", pytrace=False)


_CONNECTIONS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, and that this function has not given out before.

    It is none of those that the kernel gives to whoever connects: their own end of some connection could be there by the time the
    server listens, or comes back. A client that keeps trying a server that is away even gets to that very port, and then talks
    to itself.
    """
    lowest = int(_CONNECTIONS.read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, min(lowest, 32_768))  # the common one is sown anew by some tests
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def _said(address: str, question: bytes) -> bytes:
    """What a server answers, or nothing."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as connection:
        connection.sendall(question)
        return connection.recv(4096)
    return b""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that nobody stops."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A Kafka that nobody stops. Where the machine stands still for a moment, it is not taken for dead."""
    with KafkaServer(broker_session_timeout_ms="60000") as server:
        yield server
