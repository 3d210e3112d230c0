"""Who gets in: every route by every way in with every kind of credential, over real sockets; and what is decided, by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import pytest

from streamer.config import Http
from streamer.sidecar import access, gate, server
from streamer.sidecar.access import Shown
from streamer.sidecar.routes import ROUTES
from streamer.testing.clock import FakeClock
from tests.sidecar.test_routes import an_address

if TYPE_CHECKING:
    from streamer.sidecar.server import Sidecar
    from tests.sidecar.conftest import House, Pki

OLD, NEW = "old-" + "a" * 40, "new-" + "b" * 40
"""A token that was taken out of the file while the agent runs, and the one that is in it."""
PATHS = {path: route for route in ROUTES for path in route.paths}
REFUSED: Final = (401, 403)


class Way(NamedTuple):
    """How the sidecar is reached, and what it asks for."""

    tokens: bool = False
    tls: bool = False
    certificates: bool = False
    unix: bool = False


WAYS = {
    "loopback": Way(),
    "loopback, token": Way(tokens=True),
    "TLS": Way(tls=True),
    "TLS, token": Way(tls=True, tokens=True),
    "mTLS": Way(tls=True, certificates=True),
    "mTLS or token": Way(tls=True, certificates=True, tokens=True),
    "unix socket": Way(unix=True),
    "unix socket, token": Way(unix=True, tokens=True),
}
USUAL = ("loopback", "loopback, token", "mTLS or token", "unix socket, token")
"""Between them they come by every part of the way; the others are `slow`."""
TOKENS = {"right": NEW, "wrong": "x" * 40, "missing": None, "expired": OLD}
CREDENTIALS = tuple(TOKENS)


class Entrance:
    """A sidecar that was set up for one way in, and clients that come with one kind of credential."""

    def __init__(self, house: House, pki: Pki, directory: Path, way: Way) -> None:
        house.clock = self.clock = FakeClock(wall_ns=time.time_ns())
        self._house, self._pki, self._way = house, pki, way
        self.token_file, self._path = directory / "tokens", directory / "http.sock"
        self.token_file.touch(0o600)
        self.token_file.write_text(f"before: {OLD}\nnow: {NEW}\n")

    @contextlib.asynccontextmanager
    async def open(self, **more: Any) -> AsyncIterator[Sidecar]:
        way = self._way
        http = {**(self._pki.mutual if way.certificates else self._pki.tls if way.tls else {}), **more}
        if way.tokens:
            http["token_file"] = str(self.token_file)
        async with self._house.serving(f"unix:{self._path}" if way.unix else "127.0.0.1:0", **http) as sidecar:
            self.token_file.write_text(f"now: {NEW}\n")
            self.clock.advance(1)
            yield sidecar

    def client(self, sidecar: Sidecar, *, token: str | None = None, certificate: str = "missing") -> httpx.AsyncClient:
        """`certificate`: which kind is shown, where any are asked for."""
        pairs = {"right": self._pki.client, "wrong": self._pki.foreign, "missing": None, "expired": self._pki.ended}
        shown = pairs[certificate] if self._way.certificates else None
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self._path))
            if self._way.unix
            else httpx.AsyncHTTPTransport(verify=self._pki.authority.trust(shown)),
            base_url=f"http{'s' if self._way.tls else ''}://{'localhost' if self._way.unix else sidecar.address}",
            headers={"authorization": f"Bearer {token}"} if token else {},
        )


def is_let_in(way: Way, token: str, certificate: str, path: str) -> bool:
    asked = way.tokens or way.certificates
    return not asked or path == "/healthz" or (way.tokens and token == "right") or (way.certificates and certificate == "right")


ASKED = [
    pytest.param(
        way,
        token,
        certificate,
        id=f"{name}, {token} token, {certificate} certificate",
        marks=() if name in USUAL and {token, certificate} <= {"right", "missing"} else pytest.mark.slow,
    )
    for name, way in WAYS.items()
    for token in (CREDENTIALS if way.tokens or not way.certificates else ("missing",))
    for certificate in (CREDENTIALS if way.certificates else ("missing",))
]


@pytest.mark.parametrize(("way", "token", "certificate"), ASKED)
async def test_every_route_by_every_way(house: House, pki: Pki, tmp_path: Path, way: Way, token: str, certificate: str) -> None:
    """Who shows what is asked for is answered; all others get /healthz, a refusal, and not a word of what is in memory."""
    entrance = Entrance(house, pki, tmp_path, way)
    async with (
        entrance.open() as sidecar,
        entrance.client(sidecar, token=TOKENS[token], certificate=certificate) as client,
    ):
        if way.certificates and certificate in ("wrong", "expired"):  # whatever else they show
            for path in PATHS:
                with pytest.raises(httpx.TransportError):
                    await client.get(an_address(path))
            assert house.telemetry.value("streamer_http_refused_total", "handshake") == len(PATHS)
            return
        refused = 0
        for path, route in PATHS.items():
            for method in (*route.methods, "OPTIONS", "DELETE"):
                async with client.stream(method, an_address(path)) as got:
                    if is_let_in(way, token, certificate, path):
                        assert got.status_code not in REFUSED, (method, path)
                        if not route.endless:
                            await got.aread()  # and the connection is kept: TLS begins once
                        continue
                    refused += 1
                    body = await got.aread()
                    assert got.status_code == (401 if way.tokens else 403), (method, path)
                    assert ("www-authenticate" in got.headers) == way.tokens
                    assert len(body) < 300 and b"web" not in body
        counted = "missing" if token == "missing" or not way.tokens else "wrong"
        assert house.telemetry.value("streamer_http_refused_total", counted) == refused


@pytest.mark.parametrize("is_open", [False, True])
async def test_metrics_may_be_apart(house: House, pki: Pki, tmp_path: Path, is_open: bool) -> None:
    """With `metrics_open` nobody is asked there, and nowhere else."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open(metrics_open=is_open) as sidecar, entrance.client(sidecar) as client:
        for path in PATHS:
            async with client.stream("GET", an_address(path)) as got:
                assert (got.status_code == 401) == (path != "/healthz" and not (is_open and path == "/metrics")), path


TRICKS = [
    "//metrics", "/metrics/", "/metrics/..;/metrics", "/healthz/../metrics", "/healthz/%2e%2e/metrics", "/healthz%2f..%2fmetrics",
    "/healthz;/metrics", "/METRICS", "/Healthz", "/healthz%00", "/healthz%0a", "/healthz/", "/healthz//", "/./metrics", "/%6detrics",
    "/metrics%3f/healthz", "/metrics?/healthz", "/metrics#/healthz", "/api/../healthz", "/healthz\\..\\metrics", "/validate/healthz",
    "http://localhost/metrics", "http://localhost//healthz/../metrics", "http://x@localhost/metrics", "/api/v1.3/healthz",
    "/api/streamer/v1/containers/healthz", "/nothing", "/%ff", "/healthz%e2%80%8b", "/:/healthz",
]  # fmt: skip


async def told(sidecar: Sidecar, sent: bytes) -> bytes:
    """What comes back until the server closes."""
    host, port = sidecar.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(target: str, *hosts: str, more: str = "", version: str = "1.1") -> bytes:
    named = "".join(f"host: {host}\r\n" for host in hosts)
    return f"GET {target} HTTP/{version}\r\n{named}{more}connection: close\r\n\r\n".encode()


@pytest.mark.parametrize("target", TRICKS)
async def test_no_way_of_writing_a_path_gets_round_it(house: House, pki: Pki, tmp_path: Path, target: str) -> None:
    """Only /healthz, read as the table of routes reads it, is open."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar:
        answered = await told(sidecar, request(target, "localhost"))
        assert answered.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), answered
        assert (await told(sidecar, request("/%68ealthz?x", "localhost"))).startswith(b"HTTP/1.1 200 ")


HIDDEN = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer " + NEW.encode() + b"\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: %d\r\ntransfer-encoding: chunked\r\n" % len(HIDDEN),
        b"content-length: 0\r\ncontent-length: %d\r\n" % len(HIDDEN),
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: \x0bchunked\r\n",
        b"x: y\r\n transfer-encoding: chunked\r\n",
    ],
)
async def test_a_request_within_a_refused_one_is_not_answered(house: House, pki: Pki, tmp_path: Path, head: bytes) -> None:
    """Where two parsers could disagree, the connection ends with the refusal: what follows does not ride on it."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar:
        answered = await told(sidecar, b"POST /api/v1.3/machine HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n" + HIDDEN)
    assert answered.count(b"HTTP/1.1 ") == 1 and b" 200 " not in answered and b"streamer_" not in answered


async def test_a_refused_body_is_no_request(house: House, pki: Pki, tmp_path: Path) -> None:
    """The body of a refused request is passed over, whatever it looks like; the next request is judged by itself."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    outer = b"POST /api/v1.3/machine HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN)
    async with entrance.open() as sidecar:
        answered = await told(sidecar, outer + request("/metrics", "localhost"))
    assert answered.count(b"HTTP/1.1 401 ") == 2 and answered.count(b"HTTP/1.1 ") == 2


# other pages


async def test_no_page_reads_answers_unless_it_was_named(house: House) -> None:
    """Only a named origin, only GET and HEAD, never with credentials, no preflight."""
    page = "https://grafana.example:3000"
    async with house.serving() as sidecar, httpx.AsyncClient(base_url=f"http://{sidecar.address}") as client:
        got = await client.get("/healthz", headers={"origin": page})
        assert not any(name.startswith("access-control") for name in got.headers) and "vary" not in got.headers
    async with house.serving(cors_origins=[page]) as sidecar, httpx.AsyncClient(base_url=f"http://{sidecar.address}") as client:
        for path in ("/healthz", "/metrics", "/nothing"):
            got = await client.get(path, headers={"origin": page})
            assert got.headers["access-control-allow-origin"] == page
            assert "origin" in got.headers["vary"] and "access-control-allow-credentials" not in got.headers
        others = [
            await client.get("/healthz", headers={"origin": other})
            for other in (
                "https://grafana.example",
                "http://grafana.example:3000",
                "null",
                page + ".evil.example",
                page.upper(),
                "*",
            )
        ]
        others.append(await client.get("/healthz"))
        others.append(await client.get("/healthz", headers=[("origin", page), ("origin", page)]))
        others.append(await client.post("/api/v1.3/machine", headers={"origin": page}))
        preflight = {"origin": page, "access-control-request-method": "GET", "access-control-request-headers": "authorization"}
        others.append(await client.options("/healthz", headers=preflight))
        for got in others:
            assert not any(name.startswith("access-control") for name in got.headers)
            assert "origin" in got.headers["vary"]


# tokens


@pytest.mark.parametrize(
    "sent",
    [
        [f"bearer {NEW}"], [f"BEARER  {NEW}"], ["Basic " + base64.b64encode(f"anybody:{NEW}".encode()).decode()],
        ["basic " + base64.b64encode(f":{NEW}".encode()).decode()],
    ],
)  # fmt: skip
async def test_a_token_comes_as_bearer_or_as_a_password(house: House, pki: Pki, tmp_path: Path, sent: list[str]) -> None:
    """Programs send `Bearer`; browsers can only ask people for a password. Uses are counted by the token's name."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar, entrance.client(sidecar) as client:
        got = await client.get("/readyz", headers=[("authorization", value) for value in sent])
    assert got.status_code == 200
    assert house.telemetry.value("streamer_http_token_uses_total", "now") == 1


@pytest.mark.parametrize(
    "sent",
    [
        ["Bearer"], [NEW], [f"Bearer {NEW}x"], [f"Bearer {NEW[:-1]}"], [f"Bearer {NEW} {NEW}"], [f"Bearer {NEW},{NEW}"],
        [f"Bearer {NEW.upper()}"], [f"Token {NEW}"], ["Basic !!!"], ["Basic " + base64.b64encode(NEW.encode()).decode()],
        ["Basic " + base64.b64encode(f"{NEW}:".encode()).decode()], [f"Bearer {NEW}", f"Bearer {NEW}"], ["", f"Bearer {NEW}"],
        [f"Bearer {'x' * 60000}"], ["Bearer now"], ["Bearer now: " + NEW], [f"Bearer \xff{NEW}"],
    ],
)  # fmt: skip
async def test_what_is_not_quite_a_token_is_none(house: House, pki: Pki, tmp_path: Path, sent: list[str]) -> None:
    """Whatever stands there, it is 401, counted as wrong, and not repeated."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar, entrance.client(sidecar) as client:
        got = await client.get("/readyz", headers=[("authorization", value.encode("latin-1")) for value in sent])
    assert got.status_code == 401
    assert got.headers["www-authenticate"] == 'Bearer realm="streamer", error="invalid_token"'
    assert NEW not in got.text
    assert house.telemetry.value("streamer_http_refused_total", "wrong") == 1


async def test_no_line_and_no_answer_tells_a_token(
    house: House, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Right, wrong, or in a request or a file that cannot be read: not in the log, whatever its level, nor in what is answered."""
    caplog.set_level(logging.DEBUG)
    wrong = "wr0ng" * 8
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    answered = b""
    async with entrance.open() as sidecar:
        for path in ("/readyz", "/metrics", "/openapi.json", "/nothing", "/api/v1.3/machine"):
            for token in (NEW, OLD, wrong):
                basic = base64.b64encode(f"x:{token}".encode()).decode()
                for shown in (f"Bearer {token}", f"Basic {basic}", f"Bearer {token} {token}"):
                    for rest in ("", "content-length: x\r\n", "x: \0\r\n", f"authorization: {token}\r\n"):
                        answered += await told(sidecar, request(path, "localhost", more=f"authorization: {shown}\r\n{rest}"))
        entrance.token_file.write_text(f"now: {NEW}\nbroken {wrong}\n")
        entrance.clock.advance(1)
        answered += await told(sidecar, request("/readyz", "localhost", more=f"authorization: Bearer {NEW}\r\n"))
        answered += repr(sidecar.status()).encode()
    assert b" 200 " in answered and b" 401 " in answered and b" 400 " in answered and b"line 2 is not TOKEN" in answered
    assert "line 2 is not TOKEN" in caplog.text
    for secret in (NEW, OLD, wrong, base64.b64encode(f"x:{NEW}".encode()).decode()):
        assert secret.encode() not in answered and secret not in caplog.text


async def test_a_browser_is_told_that_it_may_ask_for_a_password(house: House, pki: Pki, tmp_path: Path) -> None:
    """Only who wants a page: a program that was refused is not to guess."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar, entrance.client(sidecar) as client:
        page = await client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        program = await client.get("/")
    assert page.headers.get_list("www-authenticate") == [
        'Bearer realm="streamer"',
        'Basic realm="streamer: any name, a token as the password"',
    ]
    assert program.headers.get_list("www-authenticate") == ['Bearer realm="streamer"']


async def test_an_answer_that_goes_on_ends_with_its_token(house: House, pki: Pki, tmp_path: Path) -> None:
    """Who listens to events and has lost the token hears nothing more."""
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    stream = request(
        "/api/v1.3/events?stream=true&all_events=true&subcontainers=true", "localhost", more=f"authorization: Bearer {NEW}\r\n"
    )
    async with entrance.open() as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(stream)
            async with asyncio.timeout(30):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                house.tell.created("a" * 64, cgroup_path="/first")
                assert b"/first" in await reader.readuntil(b"}\n")
                entrance.token_file.write_text(f"other: {OLD}\n")
                entrance.clock.advance(1)
                house.tell.created("b" * 64, cgroup_path="/second")
                with contextlib.suppress(ConnectionError):
                    assert b"/second" not in await reader.read()
        finally:
            writer.close()
    assert house.telemetry.value("streamer_http_refused_total", "wrong") == 1


@pytest.mark.parametrize("path", ["/api/v1.3/events?stream=true&oom_events=true", "/events?types=oom"])
async def test_an_answer_that_says_nothing_ends_with_its_token(
    house: House, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Where nothing happens nothing is sent; it is asked again all the same, and nothing is left of the answer."""
    monkeypatch.setattr(gate, "SILENT_SECONDS", 0.01)
    entrance = Entrance(house, pki, tmp_path, WAYS["loopback, token"])
    async with entrance.open() as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request(path, "localhost", more=f"authorization: Bearer {NEW}\r\n"))
            async with asyncio.timeout(30):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                entrance.clock.advance(1)
                entrance.token_file.write_text(f"other: {OLD}\n")
                entrance.clock.advance(1)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                while house.telemetry.value("streamer_http_streams"):
                    await asyncio.sleep(0.01)
        finally:
            writer.close()
    assert house.telemetry.value("streamer_http_refused_total", "wrong") == 1


async def test_an_answer_that_says_nothing_ends_with_its_certificate(
    house: House, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of who was let in by a certificate whose time ends."""
    monkeypatch.setattr(gate, "SILENT_SECONDS", 0.01)
    house.clock = clock = FakeClock(wall_ns=time.time_ns())
    async with house.serving(**pki.mutual) as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        trust = pki.authority.trust(pki.client)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=trust, server_hostname="localhost")
        writer.write(request("/api/v1.3/events?stream=true&oom_events=true", "localhost"))
        async with asyncio.timeout(30):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            clock.advance(3 * 86400)
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert house.telemetry.value("streamer_http_refused_total", "expired") == 1


@pytest.mark.parametrize("way", ["mTLS or token", "loopback, token"])
async def test_trouble_with_a_file_is_noticed_unasked(
    house: House, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """In the log once, as a metric and as a degraded part, though nobody asks; and its end, too."""
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.01)
    entrance = Entrance(house, pki, tmp_path, WAYS[way])
    key = tmp_path / "server.key"
    key.touch(0o600)
    key.write_bytes(pki.server.key.read_bytes())

    def unusable() -> tuple[float, float]:
        value = house.telemetry.value
        return value("streamer_http_files_unusable", "tokens"), value("streamer_http_files_unusable", "certificates")

    async def until(wanted: tuple[float, float]) -> None:
        async with asyncio.timeout(30):
            while unusable() != wanted:
                entrance.clock.advance(1)
                await asyncio.sleep(0.01)

    async with entrance.open(**({"tls_key_file": str(key)} if WAYS[way].tls else {})) as sidecar:
        await until((0, 0))
        entrance.token_file.chmod(0o644)
        await until((1, 0))
        assert caplog.text.count("nobody is let in by a token") == 1
        if WAYS[way].tls:
            key.unlink()
            await until((1, 1))
            assert caplog.text.count("goes on with the certificates it has") == 1
            key.touch(0o600)
            key.write_bytes(pki.server.key.read_bytes())
        for _ in range(5):
            entrance.clock.advance(1)
            await asyncio.sleep(0.02)
        assert caplog.text.count("nobody is let in by a token") == 1
        assert sidecar.status().state == "degraded" and "chmod 640" in sidecar.status().remedy
        entrance.token_file.chmod(0o600)
        await until((0, 0))
        assert sidecar.status().state == "ok"
    assert NEW not in caplog.text and OLD not in caplog.text


# decided


@pytest.mark.parametrize("standing", ["none", "valid", "expired", "replaced"])
@pytest.mark.parametrize("token", [None, False, True])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("certificates", [False, True])
def test_either_credential_is_enough_and_none_is_not(
    tokens: bool, certificates: bool, token: bool | None, standing: access.Standing
) -> None:
    """All that a request can show, against all that can be asked for."""
    http = Http(token_file="t" if tokens else "", tls_client_ca_file="c" if certificates else "")
    allowed = access.policy(http, [("/healthz", "open"), ("/metrics", "metrics"), ("/x", "guarded")])
    shown = Shown(token, standing if certificates else "none")
    found = access.refusal(allowed, "/x", shown)
    good = (tokens and token is True) or (certificates and standing == "valid")
    assert (found is None) == access.is_known(allowed, shown) == (good or not (tokens or certificates))
    assert found is None or found.status == (401 if tokens else 403)
    assert access.refusal(allowed, "/healthz", shown) is None


async def test_insecure_is_said_loudly(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, as a metric, and as a part that is degraded; not where only this machine can ask, nor where somebody is asked."""
    async with house.serving("0.0.0.0:0", insecure=True) as sidecar:
        assert "may ask everything" in caplog.text and "WARNING" in caplog.text
        assert house.telemetry.value("streamer_http_insecure") == 1
        assert b" 200 " in await told(sidecar, request("/healthz", "192.0.2.9"))
        assert sidecar.status().state == "degraded" and "http.token_file" in sidecar.status().remedy
    caplog.clear()
    async with house.serving(insecure=True) as sidecar:
        assert b" 200 " in await told(sidecar, request("/healthz", "localhost"))
        assert not caplog.text and house.telemetry.value("streamer_http_insecure") == 0 and sidecar.status().state == "ok"


async def test_tokens_off_this_machine_are_enough_but_not_in_silence(
    house: House, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without TLS whoever listens in reads them: that is logged."""
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(NEW)
    async with house.serving("0.0.0.0:0", token_file=str(tokens)) as sidecar:
        assert "clear text" in caplog.text and NEW not in caplog.text
        assert b" 401 " in await told(sidecar, request("/readyz", "any.example"))
    caplog.clear()
    async with house.serving("0.0.0.0:0", token_file=str(tokens), **pki.tls):
        assert not caplog.text
