"""Whom a request is addressed to: names that are ours, addresses in any way to write them, and all others."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from streamer.config import Http
from streamer.sidecar import access
from streamer.sidecar.listen import own_names
from tests.sidecar.test_access import PATHS, request, told
from tests.sidecar.test_routes import an_address

if TYPE_CHECKING:
    from tests.sidecar.conftest import House

GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "127.0.0.1:99999",
    "[::1]",
    "[::1]:80",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]:80",
    "[::0:1]",
    "[::1%25lo]",
    "[::1%lo]:80",
    "[::FFFF:127.0.0.1]",
    "[::ffff:7f00:1]:80",
    "agent.example",
    "AGENT.example:1",
    "192.0.2.7",
    "[::ffff:c000:207]",
    "[2001:DB8::A]",
    "[2001:0db8:0:0::000a]:443",
    "[fe80::1%25eth1]",
    "[FE80:0::1]",
]
BAD_HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "0.0.0.0",
    "[::2]",
    "[::]",
    "[::ffff:127.0.0.2]",
    "[2001:db8::b]",
    "[2001:db8::a:0]",
    "[fe80::2%25eth0]",
    "127.1",
    "127.0.0.01",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "2130706433",
    "localhost..",
    "localhos\u0167",
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
    "[]",
    "[:]",
    "[:::1]",
    "[::1]x",
    "[::1]]",
    "[::1%]",
    "[::1%25lo/]",
    "[%25lo]",
    "[127.0.0.1]",
    "[localhost]",
    "[::ffff:127.0.0.256]",
    "[1:2:3:4:5:6:7:8:9]",
    "localhost:x",
    "localhost:80:80",
    "localhost\t",
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
    async with house.serving(allowed_hosts=["Agent.example", "192.0.2.7", "2001:db8:0::a", "[fe80::1%eth0]"]) as sidecar:
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


OWN = ["node-7", "node-7.corp.example"]
BY_ADDRESS = [
    "192.0.2.9",
    "192.0.2.9:8080",
    "127.0.0.1",
    "[::1]:80",
    "[2001:DB8::9]",
    "[fe80::9%25eth0]:8080",
    "[::ffff:192.0.2.9]",
]
BY_OWN_NAME = ["localhost", "localhost:1", "NODE-7", "node-7:8080", "node-7.corp.example."]
BY_ANOTHER = [
    "any.example",
    "node-7.evil.example",
    "192.0.2.9.evil.example",
    "3221226009",
    "0xc0.0.2.9",
    "corp.example",
    "streamer",
]
TOKENS_ONLY, TLS_ONLY = {"token_file": "t"}, {"tls_cert_file": "c", "tls_key_file": "k"}


@pytest.mark.parametrize(
    ("http", "hosts", "is_answered"),
    [
        # nobody is asked: a page under another name could read
        ({"insecure": True}, BY_ADDRESS + BY_OWN_NAME, True),
        ({"insecure": True}, BY_ANOTHER, False),
        ({"insecure": True, "allowed_hosts": ["any.example"]}, [*BY_ADDRESS, *BY_OWN_NAME, "any.example", "ANY.example:1"], True),
        ({"insecure": True, "allowed_hosts": ["any.example"]}, ["x.any.example", "other.example"], False),
        ({**TOKENS_ONLY, "metrics_open": True}, BY_ADDRESS + BY_OWN_NAME, True),
        ({**TOKENS_ONLY, "metrics_open": True}, BY_ANOTHER, False),
        # it could not: a browser shows a token only to the name that it was given for, and a name that lies has no certificate
        (TOKENS_ONLY, BY_ADDRESS + BY_OWN_NAME + BY_ANOTHER, True),
        ({**TLS_ONLY, "insecure": True}, BY_ADDRESS + BY_OWN_NAME + BY_ANOTHER, True),
        ({**TLS_ONLY, **TOKENS_ONLY, "metrics_open": True}, BY_ADDRESS + BY_OWN_NAME + BY_ANOTHER, True),
        # but what was said counts
        ({**TOKENS_ONLY, "allowed_hosts": ["any.example"]}, [*BY_ADDRESS, *BY_OWN_NAME, "any.example"], True),
        ({**TOKENS_ONLY, "allowed_hosts": ["any.example"]}, ["other.example", "streamer"], False),
    ],
)
@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.9:8080", "bound.example:80"])
def test_who_is_meant_where_others_can_reach_it(listen: str, http: dict[str, Any], hosts: list[str], is_answered: bool) -> None:
    """By address always: a name that was made to point here is a name. By name where that can do no harm, or by our own."""
    allowed = access.policy(Http(listen=listen, **http), [("/metrics", "metrics")], OWN)
    for host in hosts:
        refused = access.wrong_host(allowed, [(b"host", host.encode())], "1.1")
        assert (refused is None) == is_answered, host
        assert refused is None or (refused.status == 421 and "http.allowed_hosts" in refused.remedy)
    if listen.startswith("bound"):
        assert access.wrong_host(allowed, [(b"host", b"Bound.Example:80")], "1.1") is None


def test_what_a_host_is_called_is_not_asked_of_the_network(tmp_path: Path) -> None:
    """Its name, alone and in the domains of the resolver's file; without one, alone."""
    file = tmp_path / "resolv.conf"
    file.write_text("# search no.example\nnameserver 192.0.2.1\nsearch corp.example b.example\ndomain c.example\noptions x\n")
    name = socket.gethostname()
    short = name.partition(".")[0]
    assert own_names(str(file)) == [name, short, f"{short}.b.example", f"{short}.c.example", f"{short}.corp.example"]
    assert own_names(str(tmp_path / "none")) == [name, short]


async def test_a_name_that_was_made_to_point_here_reads_nothing(house: House, socket_path: Path) -> None:
    """Over real sockets, where nobody is asked; a unix socket no page can reach."""
    async with house.serving("0.0.0.0:0", insecure=True) as sidecar:
        for path in PATHS:
            answered = await told(sidecar, request(an_address(path).replace(" ", "%20"), "evil.example"))
            assert answered.startswith(b"HTTP/1.1 421 ") and b"web" not in answered, path
        for host in ("127.0.0.1", "[::1]", "192.0.2.9:8080", "localhost", socket.gethostname()):
            assert b" 200 " in await told(sidecar, request("/metrics", host)), host
        assert b" 400 " in await told(sidecar, request("/metrics"))
        assert b" 400 " in await told(sidecar, request("/metrics", version="1.0"))
        assert b" 400 " in await told(sidecar, request("/metrics", "localhost", "localhost"))
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
