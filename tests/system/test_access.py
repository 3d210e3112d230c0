"""The real agent with access control: what it says of itself, what others see of it, and credentials that change while it runs."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent
from tests.support.brokers import free_port
from tests.support.certificates import Authority

pytestmark = [pytest.mark.live]

OLD, NEW = "0ld-" + "a" * 40, "n3w-" + "b" * 40


def asked(url: str, token: str, trust: ssl.SSLContext | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def healthcheck(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer", "healthcheck", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_tokens_over_tls_from_start_to_rotation(tmp_path: Path) -> None:
    """On all addresses; readiness tells each part and since when; the secret is nowhere to be read; a new one needs no restart."""
    authority, port, config, tokens = Authority(tmp_path, "ours"), free_port(), tmp_path / "streamer.toml", tmp_path / "tokens"
    pair = authority.sign("server")
    tokens.touch(0o600)
    tokens.write_text(f"old: {OLD}\n")
    config.write_text(
        f'[docker]\nenabled = false\n[http]\nlisten = "0.0.0.0:{port}"\ntoken_file = "{tokens}"\n'
        f'tls_cert_file = "{pair.certificate}"\ntls_key_file = "{pair.key}"\n'
    )
    ready, trust = f"https://127.0.0.1:{port}/readyz", authority.trust()
    with Agent("--config", str(config)) as agent:
        agent.ready()
        status, said = asked(ready, OLD, trust)
        parts = {part["component"]: part for part in said["components"]}
        assert status == 200
        assert {"source.cgroup", "source.docker", "source.kmsg", "source.machine", "sink.stdout", "sidecar"} <= parts.keys()
        assert all(part["since"].startswith("20") for part in parts.values()), parts
        assert all(part["reason"] for part in parts.values() if part["state"] in ("degraded", "down")), parts
        assert parts["source.docker"]["state"] == "off" and "docker.enabled" in parts["source.docker"]["reason"]
        assert parts["sidecar"]["state"] == "ok"
        checked = healthcheck(config)
        assert (checked.returncode, checked.stderr) == (0, ""), checked

        tokens.write_text(f"new: {NEW}\n")
        agent.until(lambda: asked(ready, NEW, trust)[0] == 200, "the new token lets nobody in")
        assert asked(ready, OLD, trust)[0] == 401
        assert healthcheck(config).returncode == 0
        agent.process.send_signal(signal.SIGHUP)
        agent.until(lambda: any("configuration reloaded" in line for line in agent.errors), "it did not reload")

        process = Path(f"/proc/{agent.process.pid}")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        shown += subprocess.run(
            [sys.executable, "-m", "streamer", "config", "show", "--config", str(config)],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
    everything = shown + "".join(agent.errors).encode() + json.dumps(agent.lines).encode()
    assert str(tokens).encode() in everything
    assert OLD.encode() not in everything and NEW.encode() not in everything


def test_insecure_is_said_by_all_that_can_say_it(tmp_path: Path) -> None:
    """Log, readiness, healthcheck and metric. Without the word it does not start, and says what would do instead."""
    port, config = free_port(), tmp_path / "streamer.toml"
    config.write_text(f'[docker]\nenabled = false\n[http]\nlisten = "0.0.0.0:{port}"\n')
    with Agent("--config", str(config)) as agent:
        assert agent.process.wait(timeout=30) == 78
    assert all(key in "".join(agent.errors) for key in ("http.listen", "http.token_file", "http.tls_client_ca_file", "--insecure"))
    with Agent("--config", str(config), "--insecure") as agent:
        agent.ready()
        status, said = asked(f"http://127.0.0.1:{port}/readyz", "any")
        assert status == 200
        assert next(part for part in said["components"] if part["component"] == "sidecar")["state"] == "degraded"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"\nstreamer_http_insecure 1\n" in answer.read()
        config.write_text(config.read_text() + "insecure = true\n")
        assert "sidecar degraded since 20" in healthcheck(config).stdout
    assert any("insecure: whoever reaches" in line for line in agent.errors)
