"""Who gets in: every route by every way in with every kind of credential, over real sockets; and what is decided, by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import pytest

from streamer.config import Http
from streamer.sidecar import access, handshake
from streamer.sidecar.access import Shown
from streamer.sidecar.routes import ROUTES
from streamer.testing.clock import FakeClock
from tests.sidecar.test_routes import an_address
from tests.support.certificates import Pair

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


# addressed to us


GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "127.0.0.1:99999",
    "[::1]",
    "[::1]:80",
    "agent.example",
    "AGENT.example:1",
    "192.0.2.7",
]
BAD_HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "0.0.0.0",
    "[::2]",
    "example",
    "agent.example.x",
]
NO_HOSTS = [
    "",
    "localhost evil",
    "localhost,evil",
    "localhost@evil",
    "evil@localhost",
    "localhost/x",
    "localhost#",
    "[::1",
    "::1",
    "localhost:x",
]


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        *(((host,), 200) for host in GOOD_HOSTS),
        *(((host,), 421) for host in BAD_HOSTS),
        *(((host,), 400) for host in NO_HOSTS),
        ((), 400),
        (("localhost", "localhost"), 400),
        (("localhost", "evil.example"), 400),
        (("evil.example", "localhost"), 400),
    ],
)
async def test_on_loopback_only_our_names_are_answered(house: House, hosts: tuple[str, ...], status: int) -> None:
    """A page whose name was made to point here has its own name in `Host`, and reads nothing."""
    async with house.serving(allowed_hosts=["Agent.example", "192.0.2.7"]) as sidecar:
        for target in ("/healthz", "/metrics", "/api/v1.3/machine"):
            answered = await told(sidecar, request(target, *hosts))
            assert answered.startswith(b"HTTP/1.1 %d " % status), answered
            assert status == 200 or b"machine_" not in answered
    assert house.telemetry.value("streamer_http_refused_total", "host") == (0 if status == 200 else 3)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_target_with_a_host_of_its_own_counts(house: House, version: str) -> None:
    """`GET http://evil/… ` is addressed to evil, whatever `Host` says; and the other way round it is to us."""
    async with house.serving() as sidecar:
        for target in (
            "http://evil.example/metrics",
            "http://evil.example:80/",
            "https://localhost@evil.example/metrics",
            "//evil/x",
        ):
            answered = await told(sidecar, request(target, "localhost", version=version))
            wanted = b"404" if target.startswith("//") else b"421"  # begins with a slash: a path
            assert answered.startswith(b"HTTP/1.1 " + wanted), answered
        assert b" 200 " in await told(sidecar, request("http://LocalHost:1/metrics", "evil.example", version=version))
        assert b" 200 " in await told(sidecar, request("http://[::1]:1/metrics", "evil.example", version=version))
        assert b" 400 " in await told(sidecar, request("http://localhost/metrics", "localhost", "localhost", version=version))
        assert b" 400 " in await told(sidecar, request("http://localhost/metrics", version=version))


async def test_elsewhere_any_name_is_answered_unless_some_are_named(house: House, socket_path: Path) -> None:
    """Names of a host in its network are not known to it; a unix socket has none."""
    async with house.serving("0.0.0.0:0", insecure=True) as sidecar:
        assert b" 200 " in await told(sidecar, request("/metrics", "any.example"))
        assert b" 400 " in await told(sidecar, request("/metrics"))
        assert b" 200 " in await told(sidecar, request("/metrics", version="1.0"))
        assert b" 400 " in await told(sidecar, request("/metrics", "a", "a", version="1.0"))
    async with house.serving("0.0.0.0:0", insecure=True, allowed_hosts=["agent.example"]) as sidecar:
        assert b" 421 " in await told(sidecar, request("/metrics", "any.example"))
        assert b" 200 " in await told(sidecar, request("/metrics", "agent.example"))
        assert b" 200 " in await told(sidecar, request("/metrics", "127.0.0.1"))
    async with (
        house.serving(f"unix:{socket_path}"),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket_path))) as client,
    ):
        assert (await client.get("http://any.example/metrics")).status_code == 200


async def test_a_refusal_is_said_in_the_words_of_the_path(house: House) -> None:
    """JSON with a remedy; below cAdvisor's paths text, as its clients show it."""
    async with house.serving() as sidecar, httpx.AsyncClient(headers={"host": "evil.example"}) as client:
        own = await client.get(f"http://{sidecar.address}/readyz")
        old = await client.get(f"http://{sidecar.address}/api/v1.3/machine")
    assert (own.status_code, set(own.json())) == (421, {"error", "remedy"})
    assert "http.allowed_hosts" in own.json()["remedy"] and "'evil.example'" in own.json()["error"]
    assert (
        old.status_code == 421
        and old.headers["content-type"].startswith("text/plain")
        and old.text.startswith("this agent does not")
    )


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


# TLS


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


async def test_handshakes_are_counted_out(house: House, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only begins to greet does not keep descriptors beyond a bound, nor for long."""
    monkeypatch.setattr(handshake, "MOST_HANDSHAKES", 2)
    async with house.serving(**pki.tls) as sidecar:
        host, port = sidecar.address.rsplit(":", 1)
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        while not house.telemetry.value("streamer_http_refused_total", "handshake"):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await asyncio.sleep(0.01)
        for _, writer in idle:
            writer.close()


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


# decided


@pytest.mark.parametrize("standing", ["none", "valid", "expired", "replaced"])
@pytest.mark.parametrize("token", [None, b"", b"wrong", b"right"])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("certificates", [False, True])
def test_either_credential_is_enough_and_none_is_not(
    tokens: bool, certificates: bool, token: bytes | None, standing: access.Standing
) -> None:
    """All that a request can show, against all that can be asked for."""
    http = Http(token_file="t" if tokens else "", tls_client_ca_file="c" if certificates else "")
    allowed = access.policy(http, [("/healthz", "open"), ("/metrics", "metrics"), ("/x", "guarded")])
    shown = Shown(token, standing if certificates else "none")
    found = access.refusal(allowed, "/x", shown, lambda given: given == b"right")
    good = (tokens and token == b"right") or (certificates and standing == "valid")
    assert (found is None) == (good or not (tokens or certificates))
    assert found is None or found.status == (401 if tokens else 403)
    assert access.refusal(allowed, "/healthz", shown, lambda _: False) is None


async def test_insecure_is_said_loudly(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, as a metric, and as a part that is degraded; not where only this machine can ask, nor where somebody is asked."""
    async with house.serving("0.0.0.0:0", insecure=True) as sidecar:
        assert "may ask everything" in caplog.text and "WARNING" in caplog.text
        assert house.telemetry.value("streamer_http_insecure") == 1
        assert b" 200 " in await told(sidecar, request("/healthz", "any.example"))
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
