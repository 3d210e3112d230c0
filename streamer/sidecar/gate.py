"""The gate before the application: asks `access.py` about each request, and again while a long answer is given.

Refusals are JSON but below cAdvisor's paths, where they are text, as all of theirs. They are counted, and never logged:
what a request shows is nobody's business but its sender's.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.contracts import Clock
from streamer.sidecar import access
from streamer.sidecar.access import Policy, Refusal, Shown
from streamer.sidecar.application import UNROUTED
from streamer.sidecar.exchange import CONNECTION, Connection, Exchange
from streamer.sidecar.query import Answer, Refused
from streamer.sidecar.tls import Tls
from streamer.sidecar.tokens import Tokens
from streamer.telemetry import Telemetry

_AGAIN_NS: Final = 1_000_000_000


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self, app: ASGIApp, policy: Policy, telemetry: Telemetry, clock: Clock, tokens: Tokens | None = None, tls: Tls | None = None
    ) -> None:
        self._app, self._policy, self._telemetry, self._clock = app, policy, telemetry, clock
        self._tokens, self._tls = tokens, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        refused = access.wrong_host(self._policy, headers, scope["http_version"]) or self._ask(scope)
        if refused is not None:
            await self._refuse(refused, scope, receive, send)
            return
        if self._tokens is not None and (name := self._token_name(access.token_of(headers))) is not None:
            self._telemetry.count("streamer_http_token_uses_total", name)
        await self._app(scope, receive, self._watched(scope, send))

    def _ask(self, scope: Scope) -> Refusal | None:
        connection = _connection(scope)
        certificate = connection.certificate if connection is not None else None
        standing = self._tls.standing(certificate) if self._tls is not None else "none"
        shown = Shown(access.token_of(scope["headers"]), standing)
        return access.refusal(self._policy, scope["path"], shown, lambda token: self._token_name(token) is not None)

    def _token_name(self, token: bytes | None) -> str | None:
        return self._tokens.name_of(token) if self._tokens is not None and token else None

    def _watched(self, scope: Scope, send: Send) -> Send:
        """Answers may take hours: who is not let in any more is cut off with the next part."""
        shared = access.sharing(self._policy, scope["method"], scope["headers"])
        asked_ns = self._clock.monotonic_ns()

        async def watched(message: Message) -> None:
            nonlocal asked_ns
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *shared]} if shared else message
            elif self._clock.monotonic_ns() - asked_ns >= _AGAIN_NS:
                asked_ns = self._clock.monotonic_ns()
                if (refused := self._ask(scope)) is not None:
                    self._telemetry.count("streamer_http_refused_total", refused.reason)
                    if (connection := _connection(scope)) is not None:
                        connection.abort()
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
