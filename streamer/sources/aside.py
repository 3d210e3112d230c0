"""A question that may not be answered for long, asked aside: in a thread that holds up neither the event loop nor the end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def aside(question: Callable[[], T], name: str) -> T:
    """Ask in a daemon thread of that name, and wait for the answer; raises what it raises.

    Who is cancelled leaves the thread alone. Not `asyncio.to_thread`: its threads are waited for at the end of the loop
    and again at that of the process, and one that asks a dead file system never ends.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(say: Callable[[], None]) -> None:
        if not answer.done():  # else cancelled
            say()

    def work() -> None:
        try:
            say = partial(answer.set_result, question())
        except Exception as problem:  # noqa: BLE001  raised to whoever waits
            say = partial(answer.set_exception, problem)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, say)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await answer
