"""The gate before the application: asks `access.py` about each request, and again while a long answer is given.

Refusals are JSON but below cAdvisor's paths, where they are text, as all of theirs. They are counted, and never logged:
what a request shows is nobody's business but its sender's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.contracts import Clock
from streamer.sidecar import access
from streamer.sidecar.access import Policy, Refusal, Shown, Standing
from streamer.sidecar.application import UNROUTED
from streamer.sidecar.exchange import CONNECTION, Connection, Exchange
from streamer.sidecar.query import Answer, Refused
from streamer.sidecar.tls import Tls
from streamer.sidecar.tokens import Tokens
from streamer.telemetry import Telemetry

_AGAIN_NS: Final = 1_000_000_000
SILENT_SECONDS: Final = 2.0
"""How long an answer in which nothing happens may go on after its credential has ended."""


class _Watch:
    """An answer may take hours. Asks again with its parts, and while none are sent."""

    def __init__(self, clock: Clock, ask: Callable[[], bool]) -> None:
        """`ask`: tells whether it is over, and ends it."""
        self._clock, self._ask = clock, ask
        self._asked_ns = clock.monotonic_ns()
        self._is_over = False
        self._timer = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._in_silence)

    def is_over(self) -> bool:
        """Before each part; asks once a second at most."""
        now_ns = self._clock.monotonic_ns()
        if not self._is_over and now_ns - self._asked_ns >= _AGAIN_NS:
            self._asked_ns = now_ns
            self._is_over = self._ask()
        return self._is_over

    def end(self) -> None:
        self._timer.cancel()

    def _in_silence(self) -> None:
        if not self.is_over():
            self._timer = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._in_silence)


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self, app: ASGIApp, policy: Policy, telemetry: Telemetry, clock: Clock, tokens: Tokens | None = None, tls: Tls | None = None
    ) -> None:
        self._app, self._policy, self._telemetry, self._clock = app, policy, telemetry, clock
        self._tokens, self._tls = tokens, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = access.wrong_host(self._policy, scope["headers"], scope["http_version"])
        if refused is None:
            shown, name = self._shown(scope)
            if (connection := _connection(scope)) is not None:
                connection.judged(is_known=access.is_known(self._policy, shown))
            refused = access.refusal(self._policy, scope["path"], shown)
            if name and refused is None:
                self._telemetry.count("streamer_http_token_uses_total", name)
        if refused is not None:
            await self._refuse(refused, scope, receive, send)
            return
        watch = _Watch(self._clock, lambda: self._is_over(scope))
        try:
            await self._app(scope, receive, self._watched(scope, send, watch))
        finally:
            watch.end()

    def _shown(self, scope: Scope) -> tuple[Shown, str | None]:
        """What a request shows, and the name of its token."""
        connection = _connection(scope)
        certificate = connection.certificate if connection is not None else None
        token = access.token_of(scope["headers"])
        name = self._tokens.name_of(token) if self._tokens is not None and token else None
        standing: Standing = "none" if self._tls is None else self._tls.standing(certificate)
        return Shown(None if token is None else name is not None, standing), name

    def _is_over(self, scope: Scope) -> bool:
        """Ask again; cut off who is not let in any more."""
        refused = access.refusal(self._policy, scope["path"], self._shown(scope)[0])
        if refused is None:
            return False
        self._telemetry.count("streamer_http_refused_total", refused.reason)
        if (connection := _connection(scope)) is not None:
            connection.abort()
        return True

    def _watched(self, scope: Scope, send: Send, watch: _Watch) -> Send:
        shared = access.sharing(self._policy, scope["method"], scope["headers"])

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *shared]} if shared else message
            elif watch.is_over():
                return
            await send(message)

        return watched

    async def _refuse(self, refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self._telemetry.count("streamer_http_refused_total", refused.reason)
        self._telemetry.count("streamer_http_requests_total", UNROUTED, str(refused.status))
        answer = Refused(refused.status, refused.error, refused.remedy).answer()
        if scope["path"].startswith("/api/") and not scope["path"].startswith("/api/streamer/"):
            answer = Answer(f"{refused.error}: {refused.remedy}\n".encode(), refused.status, "text/plain; charset=utf-8")
        headers = access.challenges(scope["headers"], refused)
        if refused.reason == "expired":  # another certificate takes another connection
            headers.append(("connection", "close"))
        await Exchange(scope, receive, send).send_whole(answer, headers)


def _connection(scope: Scope) -> Connection | None:
    found: Connection | None = scope.get("extensions", {}).get(CONNECTION)
    return found
