"""One run of a fault: an agent that publishes to Kafka, Redis and a file at once, containers that come and go, proxies in
front of the brokers, the ledger, and at the end the verdict on each of the three streams.

`Parts` are the brokers, started once for many worlds. A `World` leaves them as it found them, and its own directory only
when it is asked to keep it: then everything is in there that explains a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import RequestTimedOutError

from streamer.cli import COMMANDS
from streamer.sinks.kafka import create_topics
from tests.faults import streams
from tests.faults.judge import Stream, Verdict, contradictions, judge
from tests.faults.ledger import KernelLog, Ledger
from tests.faults.proxy import FaultProxy
from tests.faults.workload import Workload
from tests.support.brokers import KafkaServer, RedisServer, free_port
from tests.support.docker_engine import DockerEngine

_T = TypeVar("_T")
_PUT_AWAY_ATTEMPTS: Final = 3
_ROOT: Final = Path(__file__).parents[2]
_HOST_ID: Final = "fault-host"
_READY_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_MOST_ENDS: Final = 3
_DELIVER_SECONDS: Final = 1.5
_LEFT: Final = "wait in the state directory"
_AUDIT_SECONDS: Final = 600.0
_PARTITIONS: Final = 2
_KAFKA_DISK: Final = "256m"
_CRASH: Final = re.compile(r"Fatal Python error: (?s:.*?)^Current thread .*\n(?:  .+\n)*", re.MULTILINE)

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "publishing": {"heartbeat": "500ms"},
    # so that a fault of seconds is noticed; the guest's has none, and its brokers share one slow core with all else
    "outbox": dict.fromkeys(("connect_timeout", "send_timeout"), "20s" if "GUEST_DISK" in os.environ else "2s"),
    "docker": {"enabled": False},
}


class Parts:
    """A Kafka whose clients come through a proxy's port, and a Redis that forgets nothing it acknowledged. A context manager.

    kafka_disk  what is full when a file fills it
    """

    kafka: KafkaServer

    def __init__(self) -> None:
        self.kafka_proxy_port, self.redis_proxy_port = free_port(), free_port()
        self.kafka_disk = Path(tempfile.mkdtemp(prefix="streamer-kafka-disk-"))
        self.redis = RedisServer(durable=True)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.kafka_disk, ignore_errors=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={_KAFKA_DISK}", "tmpfs", str(self.kafka_disk))
            stack.callback(_run, "umount", "--lazy", str(self.kafka_disk))
            self.kafka = stack.enter_context(
                KafkaServer(
                    advertised_port=self.kafka_proxy_port,
                    log_dirs=str(self.kafka_disk / "data"),
                    log_segment_delete_delay_ms="1000",
                )
            )
            stack.enter_context(self.redis)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def mend(self) -> None:
        """Both brokers run and answer."""
        for server in (self.redis, self.kafka):
            server.resume()
            if not server.running:
                server.start()
            server.wait_until_it_answers()


class AgentProcess:
    """`streamer run` as a process that is killed, frozen and started again; what it logs is appended to one file."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log_file = log
        self.problems: list[str] = []
        self.starts = 0
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0
        log.touch()

    def start(self) -> None:
        """Start it and do not wait. From the main thread: it is killed when the thread that started it ends."""
        self.starts += 1
        self._started_at = self.log_file.stat().st_size
        with self.log_file.open("ab") as log:
            self._process = self.spawn(log)

    def spawn(self, log: Any) -> subprocess.Popen[bytes]:
        """A process of the same command; the caller waits for it."""
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "streamer",
            "run",
            *self._arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(self) -> None:
        """Until it has told of everything that was there when it started."""
        self.until(lambda: "watching" in self.said(), "did not become ready", _READY_SECONDS)

    def said(self) -> str:
        """What it logged since its last start."""
        with self.log_file.open("rb") as log:
            log.seek(self._started_at)
            return log.read().decode(errors="replace")

    def until(self, condition: Callable[[], object], otherwise: str, seconds: float) -> bool:
        """Wait; when it does not come true or the agent ends by itself, that is one more problem. Returns whether it did."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.running:
                code = None if self._process is None else self._process.returncode
                self.problems.append(f"the agent ended by itself with {code} while it {otherwise}{self._place()}")
                return False
            if time.monotonic() > deadline:
                self.problems.append(f"the agent {otherwise} within {seconds:g} s")
                return False
            time.sleep(0.02)  # the pace of looking; the deadline is above
        return True

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> int:
        """SIGTERM, and wait until it has delivered what it could; returns its exit code."""
        self._signal(signal.SIGTERM)
        code = self._wait()
        if code < 0 and code != -signal.SIGKILL:  # that is ours, for one that does not end
            self.problems.append(f"the agent was asked to end and ended with {code}{self._place()}")
        return code

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is not None:
            self.problems.append(f"the agent ended by itself with {process.returncode}{self._place()}")
            self._process = None
            return
        process.send_signal(number)

    def _place(self) -> str:
        """Where it was when a signal of its own making ended it, as faulthandler says: a log may be gone with its machine."""
        error = _CRASH.search(self.said())
        return f"\n{error[0]}" if error else ""

    def _wait(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            self.problems.append(f"the agent did not end within {_STOP_SECONDS:g} s")
            return process.wait()


class World:
    """Everything of one run. Scenarios use its parts; `seed` decides all chances.

    state_dir     where the agent keeps its state
    memory_kept   False once a scenario has taken away what the agent wrote down
    times_hold    False once the clock was set
    """

    docker_engine: DockerEngine

    def __init__(
        self,
        parts: Parts,
        seed: int,
        *,
        rate: float = 20.0,
        kills: int = 50,
        prepare: Callable[[World], object] = lambda world: None,
    ) -> None:
        """`prepare` is called before the agent is started for the first time."""
        self.parts, self.seed, self.kills = parts, seed, kills
        self.chance = random.Random(f"{seed}/fault")
        self.problems: list[str] = []
        self.memory_kept = self.times_hold = True
        self.directory = Path(tempfile.mkdtemp(prefix=f"streamer-fault-{os.getpid()}-"))
        self.state_dir = self.directory / "state"
        self.state_dir.mkdir()
        self.file = self.directory / "out.jsonl"
        self.prefix = f"f{seed}-{self.directory.name.rpartition('-')[2]}"
        self.config = self.directory / "streamer.toml"
        self.kafka_proxy = FaultProxy(parts.kafka.port, port=parts.kafka_proxy_port)
        self.redis_proxy = FaultProxy(parts.redis.port, port=parts.redis_proxy_port)
        self.urls = {
            "kafka": f"kafka://{self.kafka_proxy.address}",
            "redis": f"redis://{self.redis_proxy.address}/0",
            "file": f"file://{self.file}",
        }
        self.agent = AgentProcess(
            ["--config", str(self.config), "--state-dir", str(self.state_dir), "--listen", "off"]
            + [word for url in self.urls.values() for word in ("--sink", url)],
            self.directory / "agent.log",
        )
        self.ledger = Ledger()
        self._rate = rate
        self._settled = False
        self._prepare = prepare
        self._settings = SETTINGS
        self._open, self._undo = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.kafka_proxy)
            stack.enter_context(self.redis_proxy)
            stack.callback(self._leave_no_messages)
            self.log = stack.enter_context(KernelLog())
            self.workload = Workload(self.ledger, self.log, random.Random(f"{self.seed}/workload"), rate=self._rate)
            stack.callback(self.workload.close)
            stack.callback(self._undo.close)
            stack.callback(self.agent.kill)
            self.configure(publishing={"prefix": self.prefix})
            self._prepare(self)
            asyncio.run(create_topics(self.urls["kafka"], self.prefix, partitions=_PARTITIONS))
            self.agent.start()
            self.agent.wait_ready()
            self.workload.start()
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    # for scenarios

    def wait(self, least_seconds: float, most_seconds: float) -> None:
        """Let things happen for a random time."""
        time.sleep(self.chance.uniform(least_seconds, most_seconds))

    def enter(self, part: AbstractContextManager[_T]) -> _T:
        """Something more that belongs to this world; it ends with it."""
        return self._undo.enter_context(part)

    def at_the_end(self, act: Callable[[], object]) -> None:
        """Undo something before the world ends, however it ends."""
        self._undo.callback(act)

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write the agent's configuration, for its next start: the world's, and these sections over it."""
        self._settings = {name: {**self._settings.get(name, {}), **keys} for name, keys in {**self._settings, **sections}.items()}
        lines = [f'host_id = "{_HOST_ID}"', 'drain = "30s"']
        for name, keys in self._settings.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def set_in_topics(self, name: str, value: str) -> None:
        """A setting of all topics of this world."""

        async def alter(admin: AIOKafkaAdminClient) -> None:
            topics = [topic for topic in await admin.list_topics() if topic.startswith(f"{self.prefix}.")]
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value}) for topic in topics])

        self._ask_kafka(alter)

    # the end

    def settle(self) -> None:
        """All is well again and everything that happened has had its chance to be told. A second time it does nothing."""
        if self._settled:
            return
        self._settled = True
        self.kafka_proxy.forward()
        self.redis_proxy.forward()
        self.parts.mend()
        self.agent.resume()
        if not self.agent.running:
            self.agent.start()
        self.agent.wait_ready()
        self.workload.finish()
        last = self.workload.make("last")
        self.agent.until(lambda: self._is_in_file(last), "told nothing of the last container", _SETTLE_SECONDS)
        self._stop_for_good()
        if any("Traceback" in line for line in self.agent.log_file.read_text(errors="replace").splitlines()):
            self.problems.append("a traceback is in agent.log")
        self.problems += self.agent.problems

    def _stop_for_good(self) -> None:
        """End the agent in order; what it had no time to deliver it delivers at its next start."""
        for _ in range(_MOST_ENDS):
            code = self.agent.stop()
            if code == 0 and _LEFT not in self.agent.said():
                return
            self.agent.start()
            self.agent.wait_ready()
            time.sleep(_DELIVER_SECONDS)
        self.agent.kill()
        self.problems.append(f"the agent ended with {code} and messages were left, {_MOST_ENDS} times: {self._last_words()}")

    def verdicts(self) -> list[Verdict]:
        """What the oracle says of each stream."""
        self.ledger.number_kills(self.log)
        kept = [
            streams.from_kafka(self.parts.kafka, self.prefix),
            streams.from_redis(self.parts.redis, self.prefix, _HOST_ID),
            streams.from_file(self.file),
        ]
        self._write_evidence(kept)
        self.problems += contradictions(kept)
        return [judge(self.ledger, stream, memory_kept=self.memory_kept, times_hold=self.times_hold) for stream in kept]

    def audits(self) -> dict[str, tuple[int, str]]:
        """`streamer verify` on each sink: exit code and what it said. Empty where there is no such command."""
        if not any(command.name == "verify" for command in COMMANDS):
            return {}
        running = {
            sink: subprocess.Popen(
                [sys.executable, "-m", "streamer", "verify", url, "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=_ROOT,
            )
            for sink, url in self.urls.items()
        }  # fmt: skip
        told: dict[str, tuple[int, str]] = {}
        for sink, process in running.items():
            try:
                report, _ = process.communicate(timeout=_AUDIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                report, _ = process.communicate()
                report += f"\nnot done after {_AUDIT_SECONDS:g} s"
            told[sink] = process.returncode, report
            (self.directory / f"verify-{sink}.txt").write_text(f"{report}\nexit code {process.returncode}\n")
        return told

    def keep(self) -> Path:
        """Where the evidence is: inside the guest, whose temporary files end with it, it is carried out first."""
        if "GUEST_DISK" not in os.environ:
            return self.directory
        place = _ROOT / ".cache" / "faults" / self.directory.name
        return Path(shutil.copytree(self.directory, place, dirs_exist_ok=True))

    def discard(self) -> None:
        """Nobody needs the evidence."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask_kafka(self, ask: Callable[[AIOKafkaAdminClient], Awaitable[None]]) -> None:
        async def run() -> None:
            # the guest is slow; a broker that was just mended takes its time anyway
            admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka_proxy.address, request_timeout_ms=60_000)
            await admin.start()
            try:
                await ask(admin)
            finally:
                await admin.close()

        asyncio.run(run())

    def _leave_no_messages(self) -> None:
        """Brokers as they were, for the next world."""

        async def delete(admin: AIOKafkaAdminClient) -> None:
            await admin.delete_topics([topic for topic in await admin.list_topics() if topic.startswith(f"{self.prefix}.")])

        self.kafka_proxy.forward()
        self.parts.mend()
        for attempt in range(_PUT_AWAY_ATTEMPTS):  # a broker whose clock has jumped by an hour is busy with that
            try:
                self._ask_kafka(delete)
                break
            except RequestTimedOutError:
                if attempt == _PUT_AWAY_ATTEMPTS - 1:
                    raise
        self.parts.redis.cli("FLUSHALL")

    def _is_in_file(self, path: str) -> bool:
        with self.file.open("rb") as file:
            file.seek(max(0, self.file.stat().st_size - (1 << 20)))
            return path.encode() in file.read()

    def _last_words(self) -> str:
        return " | ".join(self.agent.said().splitlines()[-3:])

    def _write_evidence(self, kept: Sequence[Stream]) -> None:
        def write(name: str, values: Sequence[Any]) -> None:
            (self.directory / name).write_text("".join(f"{json.dumps(value)}\n" for value in values))

        write("ledger.jsonl", self.ledger.as_records())
        for stream in kept[:-1]:
            write(f"{stream.sink}.jsonl", list(stream.records()))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
