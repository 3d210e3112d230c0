"""`streamer healthcheck` and `check` against a real sidecar that asks who they are: what lets in is found in the configuration."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamer.cli import main, probes
from streamer.config import load
from tests.sidecar.conftest import House, Pki

TOKEN = "t0ken-" + "a" * 40


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Asked:
    """A configuration file, and what `healthcheck` says with it."""

    def __init__(self, directory: Path) -> None:
        self.config, self.tokens = directory / "streamer.toml", directory / "tokens"
        self.tokens.touch(0o600)
        self.tokens.write_text(f"health: {TOKEN}\n")

    def write(self, listen: str, **http: str) -> None:
        self.config.write_text("[http]\n" + "".join(f'{key} = "{value}"\n' for key, value in {"listen": listen, **http}.items()))

    async def healthcheck(self, *more: str) -> int:
        return await asyncio.to_thread(main, ["healthcheck", "--config", str(self.config), *more])


@contextlib.asynccontextmanager
async def an_agent(house: House, asked: Asked, listen: str, **http: str) -> AsyncIterator[str]:
    """It runs, and the file says how to reach it; yields its address."""
    async with house.serving(listen, **http) as sidecar:
        asked.write(sidecar.address, **http)
        yield sidecar.address


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix"])
async def test_it_brings_the_token(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str], listen: str) -> None:
    """The token that the agent lets in; not to an address that was given by hand."""
    asked = Asked(tmp_path)
    where = f"unix:{tmp_path}/s.sock" if listen == "unix" else listen
    async with an_agent(house, asked, where, token_file=str(asked.tokens)) as address:
        assert await asked.healthcheck() == 0
        assert await asked.healthcheck("--live") == 0
        assert capsys.readouterr().out == "ok\nok\n"
        assert await asked.healthcheck(address if listen == "unix" else f"http://{address}") == 1
        assert capsys.readouterr().out.startswith("not ready (401): who asks has to say who they are; send Authorization")
    assert house.telemetry.value("streamer_http_token_uses_total", "health") == 1


async def test_it_trusts_the_agents_own_certificate(
    house: House, pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other one: somebody else on that port is no agent of ours."""
    asked = Asked(tmp_path)
    async with an_agent(house, asked, "127.0.0.1:0", **pki.tls, token_file=str(asked.tokens)) as address:
        assert await asked.healthcheck() == 0
        assert await asked.healthcheck("--live") == 0
        foreign = pki.stranger.sign("impostor")
        asked.write(address, tls_cert_file=str(foreign.certificate), tls_key_file=str(foreign.key), token_file=str(asked.tokens))
        assert await asked.healthcheck() == 1
        assert "certificate verify failed" in capsys.readouterr().out.lower().replace("_", " ")
    assert house.telemetry.value("streamer_http_token_uses_total", "health") == 1


async def test_where_certificates_let_in_it_shows_the_agents_own(
    house: House, pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That does where the same authority signs both; where it does not, a token is what helps, and is said to."""
    asked = Asked(tmp_path)
    async with an_agent(house, asked, "127.0.0.1:0", **pki.mutual):
        assert await asked.healthcheck() == 0
        assert await asked.healthcheck("--live") == 0
    foreign = pki.stranger.sign("for-servers", usage="serverAuth")
    apart = {**pki.mutual, "tls_cert_file": str(foreign.certificate), "tls_key_file": str(foreign.key)}
    async with an_agent(house, asked, "127.0.0.1:0", **apart):
        capsys.readouterr()
        assert await asked.healthcheck() == 1
        assert "http.token_file" in capsys.readouterr().out
        assert await asked.healthcheck("--live") == 0
    async with an_agent(house, asked, "127.0.0.1:0", **apart, token_file=str(asked.tokens)):
        assert await asked.healthcheck() == 0


async def test_what_is_wrong_with_a_file_is_said(
    house: House, pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78 with key and remedy, and never a token."""
    asked = Asked(tmp_path)
    asked.write("127.0.0.1:1", token_file=str(asked.tokens))
    asked.tokens.chmod(0o644)
    assert await asked.healthcheck() == 78
    asked.tokens.chmod(0o600)
    asked.tokens.write_text(f"a b c {TOKEN}")
    assert await asked.healthcheck() == 78
    asked.write("127.0.0.1:1", **{**pki.tls, "tls_cert_file": str(asked.tokens)})
    assert await asked.healthcheck() == 78
    said = capsys.readouterr()
    assert said.err.count("http.token_file") == 2 and "chmod 640" in said.err and "http.tls_cert_file" in said.err
    assert TOKEN not in said.err + said.out


async def test_check_looks_at_the_files_too(house: House, pki: Pki, tmp_path: Path) -> None:
    """An agent that runs is recognised; one that would not start is told before."""
    asked = Asked(tmp_path)
    async with an_agent(house, asked, "127.0.0.1:0", **pki.mutual, token_file=str(asked.tokens)):
        (found,) = await asyncio.to_thread(lambda: list(probes.sidecar(load(asked.config, {}, {}))))
        assert (found.state, "an agent answers" in found.found) == ("ok", True)
    asked.tokens.chmod(0o644)
    (found,) = probes.sidecar(load(asked.config, {}, {}))
    assert found.state == "failed" and "http.token_file" in found.found and "chmod" in found.remedy
    asked.config.write_text('[http]\nlisten = "0.0.0.0:0"\ninsecure = true\n')
    (found,) = probes.sidecar(load(asked.config, {}, {}))
    assert found.state == "degraded" and "may ask everything" in found.found


def test_the_configuration_shows_files_and_no_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config show` names the file."""
    asked = Asked(tmp_path)
    asked.write("127.0.0.1:1", token_file=str(asked.tokens))
    assert main(["config", "show", "--config", str(asked.config)]) == 0
    said = capsys.readouterr().out
    assert f'token_file = "{asked.tokens}"' in said and TOKEN not in said
