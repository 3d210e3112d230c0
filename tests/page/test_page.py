"""What the page does in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.model.spec import ContainerSpec
from tests.page.reading import A_FRAME, LIVE, NAMES, ROWS, reading, reading_of, serious_findings
from tests.page.town import Town
from tests.support.brokers import free_port
from tests.support.browser import Page, browser

pytestmark = [pytest.mark.live, pytest.mark.browser]

VISIBLE = "(id) => { const e = document.getElementById(id); return e.checkVisibility() ? e.innerText : '' }"


async def text_of(page: Page, element: str) -> str:
    """What is to be read there; "" when it cannot be seen."""
    return await page.evaluate(f"({VISIBLE})('{element}')")


async def test_what_runs_is_shown_with_its_numbers() -> None:
    """Name, image, use, limits as bars, throttling, pressure, kills; the sum at the top; sources and sinks."""
    town = Town(past_seconds=0)
    town.settle(
        "web", "nginx:1.29", cpu_cores=0.5, memory_bytes=64 << 20, network_bytes_per_second=1 << 20, throttled=0.5, pressure=30.0,
        spec=ContainerSpec(memory_limit_bytes=128 << 20, cpu_quota_us=100_000, cpu_period_us=100_000),
    )  # fmt: skip
    for second in range(3):
        town.at(time.time_ns() - (3 - second) * 1_000_000_000)
        town.sample()
    town.kill(town.residents[0].about)
    async with reading_of(town) as (page, _):
        row = await page.until(f"{ROWS}[0]?.innerText.includes('MiB') && {ROWS}[0].innerText", "no numbers were shown")
        for expected in ("web", "nginx:1.29", "OOM 1", "cores", "50 % throttled", "of 128 MiB", "MiB/s", "for CPU"):
            assert expected in row
        assert await page.evaluate(f"{ROWS}[0].querySelectorAll('.bar:not([hidden])').length") == 2
        assert await page.evaluate(f"{ROWS}[0].querySelector('.spark.cpu .line').getAttribute('d').length") > 0
        assert "1" in await text_of(page, "total-running")
        await page.until(f"({VISIBLE})('total-oom') === '1'", "the kill was not counted")  # told by an event, not with the numbers
        assert "OOM kill" in await text_of(page, "events") and "limit 512 MiB" in await text_of(page, "events")
        await page.until(f"({VISIBLE})('components').includes('sink.kafka')", "the sink was not shown")


async def test_a_container_has_a_view_of_its_own() -> None:
    """By a click: charts, statistics, facts, limits, labels, events; back by Escape, and by its address from outside."""
    town = Town(5, past_seconds=30)
    async with reading_of(town) as (page, sidecar):
        chosen = await page.until(f"({NAMES})[1]", "no row was there")
        await page.evaluate(f"{ROWS}.find(r => r.querySelector('.title').textContent === '{chosen}').click()")
        await page.until("document.querySelectorAll('#charts figure:not([hidden])').length >= 4", "no charts were drawn")
        assert await text_of(page, "one-name") == chosen
        assert "minute" in await text_of(page, "derived") and "MiB" in await text_of(page, "derived")
        assert "/docker/" in await text_of(page, "one-facts") and "Memory" in await text_of(page, "one-limits")
        assert "com.docker.compose.project" in await text_of(page, "one-labels")
        assert "created" in await text_of(page, "one-events")
        address = await page.evaluate("location.hash")
        await page.press("Escape")
        assert await text_of(page, "one") == "" and await page.evaluate("document.activeElement.id") == "grid"
        async with reading(f"http://{sidecar.address}/{address}") as other:
            await other.until(f"({VISIBLE})('one-name') === '{chosen}'", "the address led elsewhere")


async def test_a_label_without_a_value_is_a_label() -> None:
    """It stands there as one that is empty, beside the others; what is not known of a container is left out."""
    town = Town(past_seconds=0)
    town.settle("web", labels={"backup.skip": "", "tier": "backend"}, compose_project="")
    town.sample()
    async with reading_of(town) as (page, _):
        await page.evaluate(f"{ROWS}[0].click()")
        await page.until("!!document.querySelector('#one-labels dd')", "no view of its own was shown")
        labels = "[...document.querySelectorAll('#one-labels > *')].map(e => e.tagName + ' ' + e.textContent)"
        assert await page.evaluate(labels) == ["DT backup.skip", "DD (empty)", "DT tier", "DD backend"]
        assert await text_of(page, "no-labels") == ""
        assert "(empty)" not in await text_of(page, "one-facts") + await text_of(page, "one-limits")


async def test_it_is_worked_by_keys() -> None:
    """`/` searches, arrows choose, Enter opens, Escape goes back and clears; what has the focus can be seen."""
    town = Town(40, past_seconds=2)
    async with reading_of(town) as (page, _):
        await page.until(f"{ROWS}.length > 5", "no rows were drawn")
        await page.press("/")
        assert await page.evaluate("document.activeElement.id") == "search"
        await page.type("billing")
        await page.until(f"({NAMES}).every(name => name.startsWith('billing'))", "the search did nothing")
        await page.press("ArrowDown")
        await page.press("ArrowDown")
        assert await page.evaluate("document.activeElement.id") == "grid"
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        chosen = await page.evaluate(
            "document.getElementById(grid.getAttribute('aria-activedescendant')).querySelector('.title').textContent"
        )
        assert await page.evaluate("document.querySelectorAll('[aria-selected=true]').length") == 1
        await page.press("Enter")
        await page.until(f"({VISIBLE})('one-name') === '{chosen}'", "Enter did not open what was chosen")
        await page.press("Escape")
        await page.press("Escape")
        await page.until("document.getElementById('search').value === ''", "Escape did not clear the search")


async def test_it_is_sorted_and_grouped() -> None:
    """By a click on a head, the other way by another; in groups that fold."""
    town = Town(40, past_seconds=2)
    async with reading_of(town) as (page, _):
        await page.evaluate("document.querySelector('.c-name button').click()")
        names = await page.evaluate(NAMES)
        assert names == sorted(names) and names[0].startswith("billing")
        await page.evaluate("document.querySelector('.c-name button').click()")
        names = await page.evaluate(NAMES)
        assert names == sorted(names, reverse=True) and names[0].startswith("shop")
        assert await page.evaluate("document.querySelectorAll('[aria-sort=descending]').length") == 1
        for group, expected in {"project": "billing", "image": "nginx:1.27", "pod": "no pod", "runtime": "docker"}.items():
            await page.evaluate(f"group.value = '{group}', group.dispatchEvent(new Event('change'))")
            assert (await page.evaluate(NAMES))[0] == f"▾ {expected}"
        rows = await page.evaluate("grid.getAttribute('aria-rowcount')")
        await page.evaluate(f"{ROWS}[0].click()")
        assert (await page.evaluate(NAMES))[0] == "▸ docker"
        assert await page.evaluate("grid.getAttribute('aria-rowcount')") < rows


async def test_a_thousand_containers_cost_what_a_few_do() -> None:
    """Only what is seen exists, wherever one scrolls; new numbers change and cost about as little as with forty."""
    costs = {}
    for size in (40, 1000):
        town = Town(size, past_seconds=3)
        async with reading_of(town) as (page, _):
            await page.until(f"shown.textContent === '{size:,}' && {ROWS}.length > 10", "not all were shown", 60)
            await page.evaluate("""
                globalThis.changes = 0;
                new MutationObserver(l => changes += l.length).observe(document.getElementById('rows'), {subtree: true, childList: true, attributes: true, characterData: true});
            """)
            began = await drawing_seconds(page)
            for _ in range(2):
                town.at(time.time_ns())
                town.sample()
                await next_poll(page)
            await next_poll(page)  # which comes when the one before it is answered
            await page.evaluate(A_FRAME)
            changes = await page.evaluate("changes")
            for step in range(10):
                await page.evaluate(
                    f"grid.scrollTop = rows.offsetHeight * {step} / 9; new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
                )
            indexes = await page.evaluate(f"{ROWS}.map(r => +r.getAttribute('aria-rowindex'))")
            assert max(indexes) == size + 1
            nodes = await page.evaluate("document.querySelectorAll('*').length")
            costs[size] = nodes, len(indexes), changes, await drawing_seconds(page) - began
    few, many = costs[40], costs[1000]
    assert many[0] < 2500 and many[1] < 40
    assert many[0] <= few[0] * 1.1 and many[2] <= max(few[2], 100) * 4
    assert many[3] <= few[3] * 5, f"what the thread that draws did: {costs}"


async def drawing_seconds(page: Page) -> float:
    """Time on a CPU that the thread which draws and runs scripts has had: what others do on the machine is not in it."""
    await page.send("Performance.enable", timeDomain="threadTicks")
    return next(each["value"] for each in (await page.send("Performance.getMetrics"))["metrics"] if each["name"] == "TaskDuration")


async def next_poll(page: Page) -> None:
    asked = sum("/rates" in each for each in page.requests)
    await until(lambda: sum("/rates" in each for each in page.requests) > asked)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


TEXTS = {
    "bytes(0)": "0 B",
    "bytes(1023)": "1023 B",
    "bytes(1536)": "1.50 KiB",
    "bytes(5 * 2 ** 30)": "5.00 GiB",
    "bytes(undefined)": "\N{EN DASH}",
    "bytesPerSecond(2 ** 20 * 12.34)": "12.3 MiB/s",
    "cores(0.4567)": "0.46 cores",
    "cores(NaN)": "\N{EN DASH}",
    "coresOf(1)": "1 core",
    "coresOf(0.5)": "0.5 cores",
    "percent(0.04)": "0.0 %",
    "percent(12.3)": "12 %",
    "duration(850)": "850 ms",
    "duration(3600000)": "1 h",
    "duration(93784000)": "1 d 2 h",
    "count(1234567)": "1,234,567",
    "shown('a\\u202eb\\ud800c\\0')": r"a\u{202e}b�c\u{0}",
    "shown('é 漢字 👩‍🚀')": r"é 漢字 👩\u{200d}🚀",
    "shortId('3f2a91c04b7d'.padEnd(64, '0'))": "3f2a91c04b7d",
    "shortId('/a/b')": "/a/b",
}


async def test_values_are_told_with_their_units() -> None:
    async with reading_of(Town()) as (page, _):
        for expression, expected in TEXTS.items():
            assert await page.evaluate(f"import('/page/format.js').then(f => f.{expression})") == expected, expression


async def test_a_stream_of_events_is_read_however_it_is_cut() -> None:
    """Every kind of line end, comments, several lines of data, ids alone; cut at each place."""
    stream = ": heartbeat\nid: 5-1\n\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\nid: 5-2\revent: b\rdata: x: y\r\rdata\n\nid: no\0ne\nevent: left out\n\n"
    expected = ["5-1", ["a", "1\n2"], "5-1", ["b", "x: y"], "5-2", ["message", ""], "5-2", "5-2"]
    async with reading_of(Town()) as (page, _):
        heard = await page.evaluate(f"""import('/page/api.js').then(({{parser}}) => {{
            const stream = {json.dumps(stream)};
            return [...stream, ''].map((_, cut) => {{
                const heard = [];
                const parse = parser((event, data) => heard.push([event, data]), id => heard.push(id));
                parse(stream.slice(0, cut));
                parse(stream.slice(cut));
                return heard;
            }});
        }})""")
        assert len(heard) == len(stream) + 1
        assert [cut for cut in heard if cut != expected] == []


HOSTILE = (
    "<script>document.title = 'hacked'; globalThis.hacked = 1</script>",
    "<img src=x onerror='globalThis.hacked = 1'>",
    "'\"><svg/onload=globalThis.hacked=1>",
    "javascript:globalThis.hacked=1",
    "safe\u202egpj.exe\u2066\u200b",
    "line\nbreak\x00\x1b[31m\x7f\u2028end",
    "__proto__",
    "long" * 500,
    "z\u0351\u0352\u0353\u0354a" * 20,
)


async def test_names_that_mean_harm_are_text() -> None:
    """Markup in a name, image, label or reason is shown as it is; what cannot be seen is made visible; nothing runs."""
    town = Town()
    for name in HOSTILE:
        town.settle(name, image=name, labels={name: name}, compose_project=name, compose_service=name, state=name, runtime="docker")
        town.job(name, 0.5, killed=True)
    town.sample()
    town.components.append(
        town.components[0]._replace(component="source.docker", state="degraded", reason=HOSTILE[0], remedy=HOSTILE[1])
    )
    async with reading_of(town) as (page, _):
        await page.until(f"{ROWS}.length === {len(HOSTILE)}", "not all were shown")
        shown = await page.evaluate(NAMES)
        assert HOSTILE[0] in shown and HOSTILE[1] in shown and "__proto__" in shown
        assert r"safe\u{202e}gpj.exe\u{2066}\u{200b}" in shown
        assert r"line\u{a}break\u{0}\u{1b}[31m\u{7f}\u{2028}end" in shown
        assert max(map(len, shown)) <= 400
        for place in range(len(HOSTILE)):
            await page.evaluate(f"{ROWS}[{place}].click()")
            await page.until("!!document.querySelector('#one:not([hidden]) #one-labels dd')", "no view of its own was shown")
            await page.evaluate("document.getElementById('one-back').click()")
        for group in ("image", "project"):
            await page.evaluate(f"group.value = '{group}', group.dispatchEvent(new Event('change'))")
            assert len(await page.evaluate(NAMES)) > len(HOSTILE)
        await page.until(f"({VISIBLE})('components').includes({json.dumps(HOSTILE[1])})", "the component was not shown")
        assert HOSTILE[0] in await text_of(page, "trouble")
        assert await page.evaluate(
            "globalThis.hacked === undefined && !document.querySelector('img, #rows svg[onload], main script')"
        )
        assert "hacked" not in (await page.evaluate("document.title")).replace(HOSTILE[0], "")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
async def test_axe_has_no_serious_finding(width: int, theme: str) -> None:
    """In the list, its groups, a container's own view, and each part of a narrow page; and nothing is wider than the window."""
    town = Town(30, past_seconds=5)
    town.kill(town.residents[0].about)
    town.job("job", 1.5)
    town.components.append(
        town.components[0]._replace(component="source.docker", state="down", reason="no socket", remedy="mount it")
    )
    async with reading_of(town) as (page, _):
        await page.look(width, 900, theme)
        await page.until(f"{ROWS}.length > 5 && components.children.length > 1", "the page was not filled")
        found = await serious_findings(page)
        if width < 620:
            for panel in ("happened", "health"):
                await page.evaluate(f"document.querySelector('#panels [data-panel={panel}]').click()")
                found += await serious_findings(page)
        await page.evaluate("group.value = 'project', group.dispatchEvent(new Event('change'))")
        found += await serious_findings(page)
        await page.evaluate(f"{ROWS}[1].click()")
        await page.until("!!document.querySelector('#charts figure:not([hidden])')", "no charts were drawn")
        found += await serious_findings(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert found == []


async def test_nothing_runs() -> None:
    """It says what to do; axe has nothing to say of it either."""
    async with reading_of(Town()) as (page, _):
        assert "docker run" in await page.until(f"({VISIBLE})('empty')", "it did not say that nothing runs")
        assert await serious_findings(page) == []


async def test_colours_are_the_systems_until_somebody_chooses() -> None:
    """And the choice is kept."""
    ground = "getComputedStyle(document.body).backgroundColor"
    async with reading_of(Town()) as (page, sidecar):
        light = await page.evaluate(ground)
        await page.look(theme="dark")
        dark = await page.evaluate(ground)
        assert light != dark
        await page.evaluate("theme.value = 'light', theme.dispatchEvent(new Event('change'))")
        assert await page.evaluate(ground) == light
        await page.open(f"http://{sidecar.address}/")
        assert await page.evaluate(ground) == light and await page.evaluate("theme.value") == "light"


async def test_a_lost_connection_is_said_and_found_again() -> None:
    """Since when; afterwards what happened meanwhile is there, without being asked."""
    town = Town(3, past_seconds=2)
    async with contextlib.AsyncExitStack() as serving:
        address = f"127.0.0.1:{free_port()}"  # where it can come back to
        await serving.enter_async_context(town.serving(address))
        async with reading(f"http://{address}/") as page:
            await page.until(f"{LIVE} && {ROWS}.length === 3", "the page did not come to life")
            await serving.aclose()
            assert "Connection lost since" in await page.until(f"({VISIBLE})('lost')", "it did not say that the connection is lost")
            town.at(time.time_ns())
            town.settle("came-meanwhile")
            await serving.enter_async_context(town.serving(address))  # which ends behind the page: nothing else is to be refused
            await page.until(f"{LIVE} && !({VISIBLE})('lost')", "the connection was not found again")
            await page.until(f"({NAMES}).includes('came-meanwhile')", "what happened meanwhile is not there")
            assert all("Failed to load resource" in trouble for trouble in page.troubles)
            page.troubles.clear()


async def test_nothing_is_asked_while_nobody_looks() -> None:
    """A tab in the background lets go of its connection; back in front it goes on where it was."""
    town = Town(3, past_seconds=2)
    async with reading_of(town) as (page, _):
        await page.evaluate("Object.defineProperty(document, 'hidden', {get: () => globalThis.away, configurable: true})")
        await page.evaluate("away = true, document.dispatchEvent(new Event('visibilitychange'))")
        await until(lambda: town.telemetry.value("streamer_http_streams") == 0)
        asked = len(page.requests)
        town.at(time.time_ns())
        town.settle("unseen")
        await page.evaluate("new Promise(r => setTimeout(r, 2500))")  # a poll would have come
        assert len(page.requests) == asked
        await page.evaluate("away = false, document.dispatchEvent(new Event('visibilitychange'))")
        await page.until(f"({NAMES}).includes('unseen')", "what happened meanwhile is not there")


async def test_a_poll_ends_where_nobody_looks_any_more() -> None:
    """It asks several things; what it has not asked yet when the tab goes into the background stays unasked, and is no failure."""
    town = Town(3, past_seconds=2)
    async with reading_of(town) as (page, _):
        await page.evaluate(f"{ROWS}[0].click()")
        await page.until("!!document.querySelector('#one-facts dd')", "no view of its own was shown")
        await page.evaluate("""{
            Object.defineProperty(document, 'hidden', {get: () => globalThis.away, configurable: true});
            const really = fetch;
            globalThis.fetch = (path, ...rest) => {
                const answer = really(path, ...rest);
                if (path.endsWith('/rates')) away = true, document.dispatchEvent(new Event('visibilitychange'));
                return answer;
            };
        }""")
        await page.until("globalThis.away", "no poll came")
        await page.evaluate("new Promise(r => setTimeout(r, 1000))")  # its answer, and what would be asked after it
        assert page.requests[-1].endswith("/rates") and await text_of(page, "lost") == ""
        asked = len(page.requests)
        await page.evaluate("away = false, document.dispatchEvent(new Event('visibilitychange'))")
        await until(lambda: any(url.endswith("/rates") for url in page.requests[asked:]))


class Guarded:
    """The application behind a token, which is a password, too. `is_open`: but for the page's own files."""

    def __init__(self, app: ASGIApp, *, is_open: bool) -> None:
        self.app, self.is_open = app, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        public = self.is_open and (scope["path"] == "/" or scope["path"].startswith("/page/"))
        if public or dict(scope["headers"]).get(b"authorization") in (b"Bearer right", b"Basic YW55OnJpZ2h0"):
            await self.app(scope, receive, send)
            return
        scheme = b"Bearer" if self.is_open else b'Basic realm="streamer"'
        await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", scheme)]})
        await send({"type": "http.response.body", "body": b"{}"})


@contextlib.asynccontextmanager
async def guarded(town: Town, *, is_open: bool) -> AsyncIterator[str]:
    """Where a town is served behind a token: host and port."""
    config = uvicorn.Config(
        Guarded(town.app, is_open=is_open), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=20
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # without its signal handlers
    try:
        await until(lambda: server.started)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True  # not at once: what was being answered when the browser went has to end, too
        await serving


async def test_a_browsers_own_password_is_enough() -> None:
    """Where the page itself is guarded, the browser asks; what it was told goes with everything that the page asks."""
    town = Town(3, past_seconds=2)
    async with guarded(town, is_open=False) as place, browser() as chromium:
        page = await chromium.page()
        await page.open(f"http://any:right@{place}/")
        await page.until(f"{ROWS}.length === 3 && {LIVE}", "the page was not filled")
        assert not await text_of(page, "access-form")
        assert page.troubles == []


async def test_a_token_is_asked_for_and_kept_in_the_tab() -> None:
    """A wrong one is said to be wrong; the right one opens everything, events too; it is in no address."""
    town = Town(3, past_seconds=2)
    async with guarded(town, is_open=True) as place:
        url = f"http://{place}/"
        async with reading(url) as page:
            await page.until(f"({VISIBLE})('access-form')", "no token was asked for")
            assert not await text_of(page, "access-wrong") and await serious_findings(page) == []
            for token in ("wrong", "right"):
                await page.evaluate("document.getElementById('access-token').focus()")
                await page.type(token)
                await page.press("Enter")
                if token == "wrong":
                    await page.until(f"({VISIBLE})('access-wrong')", "it did not say that the token is wrong")
            await page.until(f"{ROWS}.length === 3 && {LIVE}", "the right token opened nothing")
            town.at(time.time_ns())
            town.settle("by-event")
            await page.until(f"({NAMES}).includes('by-event')", "no event came")
            await page.open(url)
            await page.until(f"{ROWS}.length === 4", "the token was not kept")
            assert not any("right" in each for each in page.requests)
            page.troubles = [trouble for trouble in page.troubles if "401" not in trouble]
