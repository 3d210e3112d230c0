"""The real server: addresses, unix sockets, what one client may cost, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from streamer.errors import ConfigError
from streamer.sidecar import connection
from streamer.sidecar.application import UNROUTED
from streamer.sidecar.listen import inode_of

if TYPE_CHECKING:
    from tests.sidecar.conftest import House, Pki

END_SECONDS = 10.0
"""It ends within two; without our bounds it would wait for the clients, who never go."""


async def raw(address: str, sent: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def stop(running: asyncio.Task[None]) -> None:
    """Cancel, and be done soon."""
    running.cancel()
    async with asyncio.timeout(END_SECONDS):
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_it_answers_on_a_free_port(house: House) -> None:
    """Port 0 is any free one; `address` tells which; responses are not to be cached or guessed at."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        assert sidecar.address != "127.0.0.1:0"
        got = await client.get(f"http://{sidecar.address}/healthz")
        assert (got.status_code, got.text) == (200, "ok")
        assert got.headers["cache-control"] == "no-store"
        assert "server" not in got.headers
        body = (await client.get(f"http://{sidecar.address}/api/streamer/v1/containers//a/raw%20one")).json()
        assert body["cgroup_path"] == "/a/raw one"
        assert sidecar.status().state == "ok"
    assert sidecar.status().state == "down"


async def test_who_has_gone_leaves_nothing_that_keeps_itself(house: House) -> None:
    """Neither a request nor its connection waits for the collector of cycles; asyncio's transports do, the client's and ours."""
    asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    async with house.serving() as sidecar:
        await raw(sidecar.address, asked % b"Connection: close\r\n")
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                got = await raw(sidecar.address, asked % b"" * 2 + asked % b"Connection: close\r\n")
                assert got.count(b"HTTP/1.1 200") == 3
            await asyncio.sleep(0.01)  # the server's ends of them
            assert gc.collect() <= 10 * 2 * 8
        finally:
            gc.enable()


async def test_a_unix_socket_is_for_owner_and_group(house: House, socket_path: Path) -> None:
    """Mode 0660 whatever the umask, answers as TCP does, and is gone afterwards."""
    before = os.umask(0)
    try:
        async with house.serving(f"unix:{socket_path}") as sidecar:
            assert stat.S_IMODE(socket_path.stat().st_mode) == 0o660
            assert sidecar.address == f"unix:{socket_path}"
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket_path))) as client:
                assert (await client.get("http://sidecar/healthz")).text == "ok"
    finally:
        os.umask(before)
    assert not socket_path.exists()


@pytest.mark.parametrize("mode", ["0600", "0666", "640"])
async def test_a_unix_socket_has_the_configured_mode_and_group(house: House, socket_path: Path, mode: str) -> None:
    """Who may connect is what the file system says."""
    group = os.getgroups()[-1] if os.geteuid() else 65534
    before = os.umask(0o777)
    try:
        async with house.serving(f"unix:{socket_path}", unix_mode=mode, unix_group=str(group)):
            about = socket_path.stat()
            assert (stat.S_IMODE(about.st_mode), about.st_gid) == (int(mode, 8), group)
    finally:
        os.umask(before)


@pytest.mark.parametrize("group", ["no-such-group", "99999999999"])
def test_a_group_that_cannot_be_given_is_said(house: House, socket_path: Path, group: str) -> None:
    """Before anybody can connect, and nothing is left at the path."""
    with pytest.raises(ConfigError) as refused:
        house.sidecar(f"unix:{socket_path}", unix_group=group).open()
    assert (refused.value.key, refused.value.value, bool(refused.value.remedy)) == ("http.unix_group", group, True)
    assert not socket_path.exists()


def test_without_a_group_nobody_is_given_the_socket(house: House, socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may not call chown(2), not even for nothing."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    sidecar = house.sidecar(f"unix:{socket_path}")
    sidecar.open()
    sidecar.close()


async def test_a_socket_that_a_killed_run_left_is_replaced(house: House, socket_path: Path) -> None:
    """Nobody listens there any more."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path))
    async with (
        house.serving(f"unix:{socket_path}"),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket_path))) as client,
    ):
        assert (await client.get("http://sidecar/healthz")).text == "ok"


async def test_what_is_alive_or_no_socket_is_left_alone(house: House, socket_path: Path) -> None:
    """A second agent, a file and a symbolic link are refused and stay as they were."""
    async with house.serving(f"unix:{socket_path}"):
        inode = inode_of(str(socket_path))
        with pytest.raises(ConfigError, match="another program listens there"):
            house.sidecar(f"unix:{socket_path}").open()
        assert inode_of(str(socket_path)) == inode
    socket_path.write_text("precious")
    link = socket_path.with_name("link")
    link.symlink_to(socket_path)
    for path in (socket_path, link, socket_path.parent):
        with pytest.raises(ConfigError, match="not a socket"):
            house.sidecar(f"unix:{path}").open()
    assert link.read_text() == "precious"


async def test_a_successor_keeps_its_socket(house: House, socket_path: Path) -> None:
    """At its end an agent does not remove the path that another one has taken over."""
    async with house.serving(f"unix:{socket_path}"):
        socket_path.unlink()
        async with house.serving(f"unix:{socket_path}"):
            pass
        socket_path.write_text("another's")
    assert socket_path.read_text() == "another's"


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("unix:/nonexistent/dir/http.sock", "No such file or directory: /nonexistent/dir"),
        ("unix:/" + "x" * 200, "too long"),
        ("unix:/etc/passwd/http.sock", "Not a directory"),
        ("127.0.0.2.3:80", "other machines"),
        ("nonsense", "is not HOST:PORT"),
        ("127.0.0.1:99999", "no port number"),
        ("[::1", "is not HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_had_names_key_and_remedy(house: House, listen: str, problem: str) -> None:
    """Whatever is wrong with it is a ConfigError about `http.listen`."""
    with pytest.raises(ConfigError) as refused:
        house.sidecar(listen).open()
    assert problem in str(refused.value)
    assert (refused.value.key, refused.value.value, bool(refused.value.remedy)) == ("http.listen", listen, True)


async def test_a_port_in_use_is_said(house: House) -> None:
    """It fails at `open`, before anything else has started, with the address and what to do."""
    async with house.serving() as first:
        with pytest.raises(ConfigError, match="another program listens there") as refused:
            house.sidecar(first.address).open()
        assert "--listen" in refused.value.remedy
        with pytest.raises(ConfigError):
            await house.sidecar(first.address).run()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "some.host:0"])
def test_an_address_that_others_can_reach_needs_a_word(house: House, listen: str) -> None:
    """Without access control only loopback is bound, unless the operator says otherwise."""
    with pytest.raises(ConfigError, match="other machines can reach") as refused:
        house.sidecar(listen)
    for way in ("--insecure", "http.token_file", "http.tls_client_ca_file"):
        assert way in refused.value.remedy
    house.sidecar(listen, insecure=True)


def test_tls_alone_asks_nobody(house: House, pki: Pki) -> None:
    """It says who we are, not who asks."""
    with pytest.raises(ConfigError, match="other machines can reach"):
        house.sidecar("0.0.0.0:0", **pki.tls)
    house.sidecar("0.0.0.0:0", **pki.mutual)


def test_certificates_that_cannot_be_used_are_said(house: House, pki: Pki, tmp_path: Path) -> None:
    """Key, file, what is wrong, and what to do; no question on the terminal."""
    locked, open_key, nonsense = tmp_path / "locked.key", tmp_path / "open.key", tmp_path / "nonsense.pem"
    encrypt = ["openssl", "ec", "-in", pki.server.key, "-aes128", "-passout", "pass:hunter2", "-out", locked]
    subprocess.run(encrypt, check=True, capture_output=True)
    open_key.write_bytes(pki.server.key.read_bytes())
    open_key.chmod(0o644)
    nonsense.write_text("nonsense")
    for changed, key, problem in (
        ({"tls_key_file": pki.client.key}, "tls_cert_file", "key values mismatch"),
        ({"tls_key_file": locked}, "tls_cert_file", "cannot be used"),
        ({"tls_key_file": open_key}, "tls_key_file", "others may read"),
        ({"tls_key_file": tmp_path / "none"}, "tls_key_file", "No such file"),
        ({"tls_cert_file": nonsense}, "tls_cert_file", "cannot be used"),
        ({"tls_client_ca_file": nonsense}, "tls_client_ca_file", "cannot be used"),
        ({"tls_client_ca_file": tmp_path / "none"}, "tls_client_ca_file", "No such file"),
    ):
        with pytest.raises(ConfigError, match=problem) as refused:
            house.sidecar(**{**pki.mutual, **{name: str(path) for name, path in changed.items()}})
        assert refused.value.key == f"http.{key}" and refused.value.remedy


def test_close_without_run_gives_the_address_back(house: House, socket_path: Path) -> None:
    """Whatever fails between `open` and `run` leaves nothing behind; closing twice is fine."""
    sidecar = house.sidecar(f"unix:{socket_path}")
    sidecar.open()
    assert socket_path.exists()
    sidecar.close()
    sidecar.close()
    assert not socket_path.exists()
    assert sidecar.status().state == "down"


async def test_off_waits_to_be_cancelled(house: House) -> None:
    """`off` listens nowhere, and does not end by itself either."""
    sidecar = house.sidecar("off")
    running = asyncio.create_task(sidecar.run())
    await asyncio.wait({running}, timeout=0.05)
    assert not running.done()
    assert (sidecar.address, sidecar.status().state) == ("off", "off")
    await stop(running)


async def test_the_end_does_not_wait_for_clients(house: House) -> None:
    """Idle, half-said and untaken requests are open at the end; all of it is let go."""
    sidecar = house.sidecar()
    sidecar.open()
    running = asyncio.create_task(sidecar.run())
    host, port = sidecar.address.rsplit(":", 1)
    async with contextlib.AsyncExitStack() as stack:
        writers = []
        for sent in (
            b"",
            b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"GET /hea",
            b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(sent)
            writers.append((reader, writer))
        await writers[1][0].readuntil(b"ok")
        await stop(running)
        for reader, _ in writers:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), END_SECONDS)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(host, int(port))


async def test_signals_stay_the_applications(house: House) -> None:
    """The embedded server installs no handler of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        await client.get(f"http://{sidecar.address}/healthz")
        assert {number: signal.getsignal(number) for number in before} == before


async def test_a_request_head_without_end_is_cut(house: House) -> None:
    """More than 64 KiB of headers: 431 and closed, counted."""
    async with house.serving() as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            for number in range(5000):
                writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "431") == 1


@pytest.mark.slow
async def test_a_request_that_takes_too_long_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a byte now and then, or nothing, gets 408 and loses its place."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.4)
    async with house.serving() as sidecar:
        assert (await raw(sidecar.address, b"")).startswith(b"HTTP/1.1 408 ")
        assert (await raw(sidecar.address, b"GET /healthz HTTP/1.1\r\nhost")).startswith(b"HTTP/1.1 408 ")
        # The head of this one is whole: it is answered, and then its body is waited for.
        monkeypatch.setattr(connection, "REQUEST_SECONDS", 3.0)
        answered = await raw(sidecar.address, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1")
        assert b"ok" in answered
    assert house.telemetry.value("streamer_http_requests_total", UNROUTED, "408") == 3


async def test_a_client_that_takes_no_answer_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers pile up in no buffer: after a while the connection is aborted."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.1)
    for number in range(300):
        house.tell.created(f"{number:064x}")
        house.tell.sampled(f"{number:064x}")
    async with house.serving() as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, (host, int(port)))
            for _ in range(20):
                deaf.send(b"GET /api/streamer/v1/containers HTTP/1.1\r\nhost: localhost\r\n\r\n")
            async with asyncio.timeout(30):
                while not house.telemetry.value("streamer_http_requests_total", UNROUTED, "aborted"):
                    await asyncio.sleep(0.02)
                async with httpx.AsyncClient() as client:
                    assert (await client.get(f"http://{sidecar.address}/healthz")).text == "ok"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /ü HTTP/1.1\r\n\r\n".encode(),
    ],
    ids=repr,
)
async def test_what_is_not_http_is_refused_and_counted(house: House, sent: bytes) -> None:
    """A status of 4xx, and the server goes on."""
    async with house.serving() as sidecar, httpx.AsyncClient() as client:
        answered = await raw(sidecar.address, sent + b"\r\n")
        assert answered.startswith(b"HTTP/1.1 4"), answered
        assert (await client.get(f"http://{sidecar.address}/healthz")).text == "ok"
