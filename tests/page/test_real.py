"""The page over the real agent and real cgroups: how soon what happens on the host is seen."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.page.reading import LIVE, NAMES, ROWS, reading
from tests.support.agent import Agent
from tests.support.brokers import free_port
from tests.support.browser import Page
from tests.support.cgroups import CgroupFolder

pytestmark = [pytest.mark.live, pytest.mark.browser]

SOON_MS = 1000
"""Within a second: of three tries the quickest, as others may have the machine for a moment. Asking would not show it at all here."""

_WATCH = """
    globalThis.seen = {};
    new MutationObserver(() => {
        for (const row of document.querySelectorAll('#rows .row:not([hidden])')) {
            const name = row.querySelector('.title').textContent;
            seen[name] ??= Date.now();
            if (row.querySelector('.badge').textContent) seen[name + ' killed'] ??= Date.now();
        }
    }).observe(document.getElementById('rows'), {subtree: true, childList: true, characterData: true, attributes: true});
"""


async def seen_ms(page: Page, what: str) -> int:
    """When the page first showed it."""
    return await page.until(f"seen['{what}']", f"{what} was not shown")


async def test_a_start_and_an_oom_kill_are_seen_within_a_second(cgroups: CgroupFolder) -> None:
    """Told by events, not found by asking: the answers with numbers are held back meanwhile."""
    port = free_port()
    with Agent("--listen", f"127.0.0.1:{port}", environment={"STREAMER_DOCKER__ENABLED": "false"}) as agent:
        agent.ready()
        async with reading(f"http://127.0.0.1:{port}/") as page:
            await page.until(LIVE, "the page did not come to life")
            await page.evaluate(
                f"search.value = '{cgroups.path}/', search.dispatchEvent(new Event('input'))"
            )  # whatever else runs here
            await page.evaluate(_WATCH)
            await page.send("Network.setBlockedURLs", urls=["*/api/streamer/v1/containers*", "*/api/streamer/v1/rates*"])
            starts, kills = [], []
            for number in range(3):
                began = time.time() * 1000
                path = cgroups.make(f"greedy-{number}", memory_limit_bytes=20 << 20)
                starts.append(await seen_ms(page, path) - began)
                await asyncio.to_thread(cgroups.run(f"greedy-{number}", "tail", "/dev/zero").wait)
                began = time.time() * 1000
                kills.append(await seen_ms(page, f"{path} killed") - began)
            assert min(starts) < SOON_MS, f"{starts} ms"
            assert min(kills) < SOON_MS, f"from the end of the process: {kills} ms"
            assert "OOM kill" in await page.evaluate("document.getElementById('events').innerText")
            assert "tail" in await page.evaluate("document.getElementById('events').innerText")
            await page.send("Network.setBlockedURLs", urls=[])
            await page.until(f"!document.querySelector('.is-lost') && ({NAMES}).includes('{path}')", "the page did not recover")
            row = f"{ROWS}.find(r => r.querySelector('.title').textContent === '{path}')"
            await page.until(f"{row}.innerText.includes('of 20.0 MiB')", "its limit was not shown")
            cgroups.remove("greedy-0")
            await page.until(f"!({NAMES}).includes('{cgroups.path}/greedy-0')", "what has ended is still shown")
            page.troubles = [trouble for trouble in page.troubles if "ERR_BLOCKED_BY_CLIENT" not in trouble]
        assert agent.stop() == 0
