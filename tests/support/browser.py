"""A real Chromium without a window, spoken to by its DevTools protocol over a pipe: no driver, no port, nothing to install beside it.

The protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, each followed by a zero byte; the
browser reads them from descriptor 3 and writes to 4 (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--lang=en",
)
_MOST_BYTES = 1 << 26  # one message: a picture

KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "/": (191, "/"),
}
"""Key -> its code in Windows' numbering, as the protocol wants it, and what it types."""


class Page:
    """One tab. `troubles`: errors in its console and exceptions that nobody caught; `requests`: every URL it asked for."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.troubles: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **params: Any) -> Any:
        return await self._browser.send(method, self._session, **params)

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        loaded = self._browser.expect("Page.loadEventFired", self._session)
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(60):
            await loaded

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited when it is a promise."""
        answer = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            pytest.fail(f"{expression[:200]}: {answer['exceptionDetails']['exception'].get('description')}", pytrace=False)
        return answer["result"].get("value")

    async def until(self, expression: str, otherwise: str, seconds: float = 30.0) -> Any:
        """Wait for a truthy value and return it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (value := await self.evaluate(expression)):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.evaluate("document.body.innerText")
                pytest.fail(f"{otherwise} within {seconds:g} s\n{self.troubles}\n{text[-3000:]}", pytrace=False)
            await asyncio.sleep(0.02)  # the pace of looking; the deadline is above
        return value

    async def press(self, key: str) -> None:
        code, text = KEYS[key]
        about = {"key": key, "windowsVirtualKeyCode": code}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    async def type(self, text: str) -> None:
        """As if it were pasted into whatever has the focus."""
        await self.send("Input.insertText", text=text)

    async def look(self, width: int = 1440, height: int = 900, theme: str = "light") -> None:
        """The size of the window, and which colours the system prefers."""
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    async def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode((await self.send("Page.captureScreenshot", format="png"))["data"])

    def heard(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.troubles.append(f"console.{params['type']}: {params['args']}")
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.troubles.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.troubles.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])


class Browser:
    """Started by `browser()`; `page()` opens tabs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader, self._writer = reader, writer
        self._number = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._expected: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._pages: dict[str, Page] = {}
        self.reading = asyncio.create_task(self._read(), name="browser")

    async def page(self) -> Page:
        """A tab of its own: no storage or cookie of another one."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = (await self.send("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.send(f"{domain}.enable")
        await page.look()
        return page

    async def send(self, method: str, session: str = "", **params: Any) -> Any:
        number = next(self._number)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(60):
            return await answer

    def expect(self, method: str, session: str) -> asyncio.Future[None]:
        """Done when this event comes next."""
        return self._expected.setdefault((session, method), asyncio.get_running_loop().create_future())

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # it has ended
            while True:
                self._take(json.loads((await self._reader.readuntil(b"\0"))[:-1]))

    def _take(self, message: dict[str, Any]) -> None:
        session = message.get("sessionId", "")
        if "id" in message:
            answer = self._answers.pop(message["id"])
            if answer.done():
                return  # nobody waited so long
            if "error" in message:
                answer.set_exception(RuntimeError(message["error"]["message"]))
            else:
                answer.set_result(message["result"])
            return
        if expected := self._expected.pop((session, message["method"]), None):
            expected.set_result(None)
        if page := self._pages.get(session):
            page.heard(message["method"], message["params"])


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser of its own, with an empty profile; ended with everything it started."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is missing: apt-get install chromium, or bash tests/run browser", pytrace=False)
    home = Path(tempfile.mkdtemp(prefix="streamer-browser-"))
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f'exec 3<&{to_read} 4>&{to_write}; exec "$@"', "bash",
        program, *_FLAGS, f"--user-data-dir={home}", "about:blank",
        pass_fds=(to_read, to_write), start_new_session=True, env={**os.environ, "HOME": str(home)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(to_write)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_MOST_BYTES)
    reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write, "wb"))
    found = Browser(reader, writing)
    try:
        yield found
    finally:
        with contextlib.suppress(TimeoutError, RuntimeError):
            await found.send("Browser.close")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        found.reading.cancel()
        await asyncio.wait({found.reading})
        writing.close()
        reading.close()
        await asyncio.sleep(0)
        shutil.rmtree(home, ignore_errors=True)
