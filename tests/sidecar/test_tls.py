"""TLS: versions, certificates of both sides, and that nobody's session is taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from streamer.errors import ConfigError
from streamer.sidecar import handshake
from streamer.sidecar.tls import Greeting, Tls
from streamer.testing.clock import FakeClock
from tests.sidecar.test_access import request, told
from tests.support.certificates import Pair

if TYPE_CHECKING:
    from streamer.sidecar.server import Sidecar
    from tests.sidecar.conftest import House, Pki


def greet(sidecar: Sidecar, context: ssl.SSLContext) -> str | None:
    """The version of TLS that is agreed on."""
    host, port = sidecar.address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.version()


@pytest.mark.parametrize(
    ("least", "most", "agreed"),
    [
        (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, None),
        (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1, None),
        (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_are_refused(
    house: House, pki: Pki, least: ssl.TLSVersion, most: ssl.TLSVersion, agreed: str | None
) -> None:
    """TLS 1.2 and 1.3. The client would take weaker ones: it is us who refuse."""
    context = pki.authority.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    async with house.serving(**pki.tls) as sidecar:
        if agreed is None:
            with pytest.raises(ssl.SSLError):  # asyncio closes without saying why
                await asyncio.to_thread(greet, sidecar, context)
            assert house.telemetry.value("streamer_http_refused_total", "handshake") == 1
        else:
            assert await asyncio.to_thread(greet, sidecar, context) == agreed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("shown", "answered"), [("client", True), ("foreign", False), ("ended", False), ("self-signed", False)])
async def test_a_wrong_certificate_opens_nothing_in_any_version(
    house: House, pki: Pki, version: ssl.TLSVersion, shown: str, answered: bool
) -> None:
    """Of another authority, of an earlier time, or of nobody: not even /healthz."""
    pairs = {"client": pki.client, "foreign": pki.foreign, "ended": pki.ended}
    pair = pairs.get(shown) or Pair(pki.stranger.certificate, pki.stranger.key)
    context = pki.authority.trust(pair)
    context.minimum_version = context.maximum_version = version
    async with house.serving(**pki.mutual) as sidecar, httpx.AsyncClient(verify=context) as client:
        if answered:
            assert (await client.get(f"https://{sidecar.address}/metrics")).status_code == 200
            return
        for path in ("/healthz", "/metrics"):
            with pytest.raises(httpx.TransportError):
                await client.get(f"https://{sidecar.address}{path}")


def greet_again(sidecar: Sidecar, context: ssl.SSLContext, times: int) -> list[bool]:
    """Whether a session was taken up again, by a client that offers the last one each time and says goodbye each time."""
    host, port = sidecar.address.rsplit(":", 1)
    taken_up, session = [], None
    for _ in range(times):
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=host, session=session) as secured,
        ):
            secured.sendall(request("/healthz", "localhost"))
            while secured.recv(4096):
                pass
            taken_up.append(bool(secured.session_reused))
            session = secured.session
            secured.unwrap()
    return taken_up


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shows", [False, True])
async def test_no_session_is_taken_up_again(house: House, pki: Pki, version: ssl.TLSVersion, shows: bool) -> None:
    """Whatever the client remembers, it is asked anew who it is; not by a ticket, nor by a number."""
    context = pki.authority.trust(pki.client if shows else None)
    context.minimum_version = context.maximum_version = version
    async with house.serving(**pki.mutual) as sidecar:
        assert await asyncio.to_thread(greet_again, sidecar, context, 5) == [False] * 5


async def test_no_session_is_taken_up_again_as_openssl_tells_it(house: House, pki: Pki) -> None:
    """By a client that is not ours: `-reconnect` comes back five times with the session that it was given."""
    async with house.serving(**pki.mutual) as sidecar:
        command = ["openssl", "s_client", "-connect", sidecar.address, "-tls1_2", "-reconnect", "-cert", pki.client.certificate]
        command += ["-key", pki.client.key, "-CAfile", pki.authority.certificate]
        done = await asyncio.to_thread(subprocess.run, command, input=b"Q", capture_output=True, timeout=60, check=False)
    said = done.stdout.decode()
    assert said.count("New, TLSv1.2") == 6 and "Reused" not in said, said


async def test_a_greeting_that_was_begun_before_takes_nothing_up(house: House, pki: Pki) -> None:
    """Its context was changed for another one meanwhile, but it still has the old one, and that remembers."""
    context = pki.authority.trust(pki.client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def again(sidecar: Sidecar) -> bool:
        host, port = sidecar.address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port)), timeout=30) as first,
            socket.create_connection((host, int(port)), timeout=30) as second,
        ):
            secured = context.wrap_socket(first, server_hostname=host)
            secured.sendall(request("/healthz", "localhost"))
            while secured.recv(4096):
                pass
            late = context.wrap_socket(second, server_hostname=host, session=secured.session)
            late.sendall(request("/metrics", "localhost"))
            with secured, late:
                return bool(late.recv(4096))

    async with house.serving(**pki.mutual) as sidecar:
        try:
            assert not await asyncio.to_thread(again, sidecar)
        except OSError:
            pass  # or cut off in the midst of it
    assert house.telemetry.value("streamer_http_refused_total", "handshake") == 1


async def test_the_files_may_be_gone_where_a_context_is_renewed(house: House, pki: Pki, tmp_path: Path) -> None:
    """What was read counts: TLS 1.2 goes on when the files are in trouble, and takes nothing up then either."""
    house.clock = clock = FakeClock(wall_ns=time.time_ns())
    key = tmp_path / "server.key"
    key.touch(0o600)
    key.write_bytes(pki.server.key.read_bytes())
    context = pki.authority.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with house.serving(**{**pki.tls, "tls_key_file": str(key)}) as sidecar:
        key.unlink()
        clock.advance(1)
        assert await asyncio.to_thread(greet_again, sidecar, context, 3) == [False] * 3
        assert sidecar.status().state == "degraded"


async def test_who_speaks_no_tls_is_let_go(house: House, pki: Pki) -> None:
    """Plain HTTP, nothing, and half a greeting; the server goes on, and ends at once."""
    async with house.serving(**pki.tls) as sidecar:
        assert not (await told(sidecar, request("/healthz", "localhost"))).startswith(b"HTTP")
        host, port = sidecar.address.rsplit(":", 1)
        silent = await asyncio.open_connection(host, int(port))
        half = await asyncio.open_connection(host, int(port))
        half[1].write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        left = await asyncio.open_connection(host, int(port))
        left[1].close()
        async with httpx.AsyncClient(verify=pki.authority.trust()) as client:
            assert (await client.get(f"https://{sidecar.address}/healthz")).text == "ok"
    for _, writer in (silent, half):
        writer.close()
    assert house.telemetry.value("streamer_http_refused_total", "handshake") >= 2


async def test_a_handshake_that_takes_too_long_is_cut(house: House, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing is closed."""
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.05)
    async with house.serving(**pki.tls) as sidecar:
        assert await told(sidecar, b"") == b""
    assert house.telemetry.value("streamer_http_refused_total", "handshake") == 1


async def test_a_connection_does_not_outlive_its_certificate(house: House, pki: Pki, tmp_path: Path) -> None:
    """A certificate that ends, or whose authority goes, opens nothing more, on a connection that was made before, too."""
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(pki.authority.certificate.read_bytes())
    house.clock = clock = FakeClock(wall_ns=time.time_ns())
    async with (
        house.serving(**{**pki.mutual, "tls_client_ca_file": str(authorities)}) as sidecar,
        httpx.AsyncClient(verify=pki.authority.trust(pki.client), base_url=f"https://{sidecar.address}") as client,
    ):
        assert (await client.get("/metrics")).status_code == 200
        authorities.write_bytes(pki.authority.certificate.read_bytes() + pki.stranger.certificate.read_bytes())
        clock.advance(1)
        changed = await client.get("/metrics")
        assert (changed.status_code, changed.headers["connection"]) == (403, "close")
        assert "connect again" in changed.text
        assert (await client.get("/metrics")).status_code == 200  # over a new connection
        async with httpx.AsyncClient(verify=pki.authority.trust(pki.foreign)) as stranger:
            assert (await stranger.get(f"https://{sidecar.address}/metrics")).status_code == 200
        clock.advance(3 * 86400)
        ended = await client.get("/metrics")
        assert (ended.status_code, ended.headers["connection"]) == (403, "close")
        authorities.write_bytes(pki.stranger.certificate.read_bytes())
        clock.advance(1)
        with pytest.raises(httpx.TransportError):
            await client.get("/metrics")


async def test_certificates_are_renewed_without_a_restart(house: House, pki: Pki, tmp_path: Path) -> None:
    """New files are used from the next connection on; while half of them is there, or none, the old ones are."""
    house.clock = clock = FakeClock(wall_ns=time.time_ns())
    certificate, key = tmp_path / "s.pem", tmp_path / "s.key"
    for path, source in ((certificate, pki.server.certificate), (key, pki.server.key)):
        path.touch(0o600)
        path.write_bytes(source.read_bytes())
    foreign = pki.stranger.sign("renewed")
    async with house.serving(tls_cert_file=str(certificate), tls_key_file=str(key)) as sidecar:

        async def trusted_by(context: ssl.SSLContext) -> bool:
            clock.advance(1)
            try:
                return bool(await asyncio.to_thread(greet, sidecar, context))
            except ssl.SSLError:
                return False

        ours, theirs = pki.authority.trust(), pki.stranger.trust()
        assert await trusted_by(ours)
        certificate.write_bytes(foreign.certificate.read_bytes())
        assert await trusted_by(ours)
        assert sidecar.status().state == "degraded" and "key values mismatch" in sidecar.status().reason
        key.write_bytes(foreign.key.read_bytes())
        assert await trusted_by(theirs) and sidecar.status().state == "ok"
        key.unlink()
        assert await trusted_by(theirs) and sidecar.status().state == "degraded"


@pytest.mark.parametrize(
    "why", [OSError(errno.EMFILE, "Too many open files"), ConfigError("no key")], ids=["no descriptor", "no key"]
)
async def test_who_cannot_be_greeted_is_let_go(house: House, pki: Pki, monkeypatch: pytest.MonkeyPatch, why: Exception) -> None:
    """A new context is wanted and cannot be made: the connection does not stay, and the next one finds its place."""

    def none(_: Tls) -> Greeting:
        raise why

    async with house.serving(**pki.mutual) as sidecar:
        with monkeypatch.context() as broken:
            broken.setattr(Tls, "greeting", none)
            for number in range(1, 4):
                assert await asyncio.to_thread(goodbye_to, sidecar, b"\x16\x03\x01")
                assert house.telemetry.value("streamer_http_refused_total", "handshake") == number
        assert await asyncio.to_thread(greet, sidecar, pki.authority.trust(pki.client)) == "TLSv1.3"


def goodbye_to(sidecar: Sidecar, sent: bytes) -> bool:
    """Whether the server makes an end, in whatever way, of one who says this."""
    host, port = sidecar.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as plain, contextlib.suppress(ConnectionError):
        try:
            plain.sendall(sent)
            return not plain.recv(1)
        except TimeoutError:
            return False
    return True
