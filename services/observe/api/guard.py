"""Who may ask what: a token, this machine alone without one, small JSON bodies. An ASGI layer before every route.

Without a token only this machine's own addresses are answered, by name too: a page in the user's browser that was
served from elsewhere (or that rebinds its DNS name to 127.0.0.1) can neither read a run nor change it.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from rayzero.services.schema.config.observe import ApiSettings
from rayzero.services.schema.errors import RecipeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
OPEN_PATHS = frozenset({"/", "/healthz"})
"""The page holds no data of its own, it asks for the token; the health check says nothing of the run."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
READING = frozenset({"GET", "HEAD"})


def check_api(settings: ApiSettings) -> None:
    """Refuse to listen to other machines without a token.

    Raises:
        RecipeError: names the key and the variable to set.
    """
    if settings.enabled and settings.host not in LOOPBACK and not os.environ.get(settings.token_env):
        raise RecipeError(
            f"observe.api.host {settings.host} lets other machines in: set a token in the environment variable "
            f"{settings.token_env}, or leave host at 127.0.0.1"
        )


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str) -> None:
        """`message` is the answer to the caller."""
        super().__init__(message)
        self.status = status


class Guard:
    """Wraps the app."""

    def __init__(self, app: App, token: str | None) -> None:
        """`token` None: loopback only."""
        self.app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
            body = await _read_body(receive) if scope["method"] not in READING else b""
        except Refused as refused:
            await _answer(send, refused)
            return
        await self.app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        host = headers.get("host", b"").decode("latin-1")
        origin = headers.get("origin", b"").decode("latin-1")
        if self._token is None and _host_name(f"//{host}") not in LOOPBACK:
            raise Refused(403, "this API has no token and answers requests to this machine's loopback alone")
        if origin and urlsplit(origin).netloc != host:
            raise Refused(403, "requests from other sites' pages are refused")
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", b"").removeprefix(b"Bearer ")
            if not hmac.compare_digest(given, self._token):
                raise Refused(401, "a token is needed: Authorization: Bearer …")
        if scope["method"] not in READING:
            # A form that another site makes the browser send has another type; JSON makes it ask first.
            if headers.get("content-type", b"").split(b";")[0].strip() != b"application/json":
                raise Refused(415, "changes are asked for as application/json")
            length = headers.get("content-length", b"0")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _read_body(receive: Receive) -> bytes:
    """The whole body, within bounds also where no length was announced."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request was broken off")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def next_message() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
