"""The page in a real browser, over a sidecar that really listens; and what must hold whatever a test is about."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from importlib.resources import files

from streamer.sidecar.server import Sidecar
from tests.page.town import Town
from tests.support.browser import Page, browser

ROWS = "[...document.querySelectorAll('#rows .row:not([hidden])')]"
NAMES = f"{ROWS}.sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map(r => r.querySelector('.title').textContent)"
LIVE = "document.querySelector('#connection-state').textContent === 'live'"
A_FRAME = "new Promise(r => requestAnimationFrame(() => r(true)))"
"""Until what is to be drawn is drawn: rows and totals are, once in a frame."""
_SERIOUS = {"serious", "critical"}


@contextlib.asynccontextmanager
async def reading(url: str) -> AsyncIterator[Page]:
    """The page there, opened; at the end no error was in its console and nothing was asked of anybody else."""
    async with browser() as chromium:
        page = await chromium.page()
        await page.open(url)
        yield page
        assert page.troubles == []
        own = url.partition("#")[0]
        assert page.requests and not [asked for asked in page.requests if not asked.startswith((own, "data:"))]


@contextlib.asynccontextmanager
async def reading_of(town: Town) -> AsyncIterator[tuple[Page, Sidecar]]:
    """The page over a town, once it shows it."""
    async with town.serving() as sidecar, reading(f"http://{sidecar.address}/") as page:
        await page.until(LIVE, "the page did not come to life")
        await page.evaluate(A_FRAME)
        yield page, sidecar


async def serious_findings(page: Page) -> list[str]:
    """What axe (https://github.com/dequelabs/axe-core) finds wrong for people who cannot see, or not use a mouse."""
    await page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text() + "; 0")
    found = await page.evaluate("axe.run().then(r => ({rules: r.passes.length, violations: r.violations}))")
    assert found["rules"] > 20  # it has looked
    return [
        f"{each['impact']} {each['id']}: {json.dumps([node['target'] for node in each['nodes']][:3])}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
    ]
