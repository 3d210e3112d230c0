"""The pictures of the documentation, made anew: python -m tests.page.pictures"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from streamer.contracts import Status
from tests.page.png import smaller
from tests.page.reading import ROWS, reading_of
from tests.page.town import Town

FOLDER = Path(__file__).parents[2] / "deploy" / "screenshots"
MOST_BYTES = 150_000


def a_day() -> Town:
    """Forty containers and what happened to them in a quarter of an hour."""
    town = Town(40, past_seconds=300)
    now_ns = time.time_ns()
    for ago in range(840, 0, -35):
        town.at(now_ns - ago * 1_000_000_000)
        town.job(f"nightly-{ago // 35}", town.chance.uniform(0.2, 30), killed=ago in (525, 140))
    town.at(now_ns - 60_000_000_000)
    town.kill(town.residents[3].about, "node")
    town.at(now_ns)
    since = now_ns // 1_000_000 - 7_200_000
    town.components[:] = [
        Status("source.cgroup", "ok", since_ms=since),
        Status("source.kmsg", "ok", since_ms=since),
        Status("source.docker", "ok", since_ms=since),
        Status("sink.kafka", "ok", since_ms=since),
    ]
    return town


async def main() -> None:
    """Make them all."""
    FOLDER.mkdir(exist_ok=True)
    async with reading_of(a_day()) as (page, _):
        await page.until(f"{ROWS}.length > 10 && document.querySelectorAll('#components li').length > 1", "the page was not filled")
        for name, look in {"light": (1360, 800, "light"), "dark": (1360, 800, "dark"), "narrow": (400, 800, "light")}.items():
            await page.look(*look)
            keep(name, await page.picture())
        await page.look(1360, 800, "dark")
        await page.evaluate(f"{ROWS}[0].click()")
        await page.until("document.querySelectorAll('#charts figure:not([hidden])').length > 3", "no charts were drawn")
        await page.evaluate("document.activeElement.blur()")
        keep("container", await page.picture())


def keep(name: str, picture: bytes) -> None:
    if len(picture) > MOST_BYTES:
        picture = smaller(picture)
    if len(picture) > MOST_BYTES:
        raise SystemExit(f"{name}: {len(picture)} bytes are too many for a repository")
    (FOLDER / f"{name}.png").write_bytes(picture)
    sys.stdout.write(f"{name}.png {len(picture)} bytes\n")


if __name__ == "__main__":
    asyncio.run(main())
