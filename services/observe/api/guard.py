"""Who may ask what: a token, this user alone without one, small JSON bodies. An ASGI layer before every route.

Without a token only this machine's own addresses are answered, by name too: a page in the user's browser that was
served from elsewhere (or that rebinds its DNS name to 127.0.0.1) can neither read a run nor change it. Nor can the
machine's other users (services/observe/api/connections.py marks them).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from rayzero.services.observe.api.peers import STRANGER
from rayzero.services.schema.config.observe import ApiSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.store.api_file import RUN_HEADER

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
BODY_S = 10.0
"""Until a request's body is there whole."""
MIN_TOKEN = 16
"""Characters: fewer can be guessed."""
OPEN_PATHS = frozenset({"/", "/healthz"})
"""The page holds no data of its own, it asks for the token; the health check says nothing of the run."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
READING = frozenset({"GET", "HEAD"})
ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))
"""Headers of every answer: it is what it says, and no other site's page may embed it."""


def check_api(settings: ApiSettings) -> None:
    """Refuse to listen to other machines without a token, and to anybody with one that can be guessed.

    Raises:
        RecipeError: names the key and the variable to set.
    """
    token = os.environ.get(settings.token_env)
    if settings.enabled and token and len(token) < MIN_TOKEN:
        raise RecipeError(
            f"the token in the environment variable {settings.token_env} has {len(token)} characters, and needs "
            f"{MIN_TOKEN}: take one from `openssl rand -hex 24`, or unset it"
        )
    if settings.enabled and settings.host not in LOOPBACK and not token:
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

    def __init__(self, app: App, token: str | None, run_id: str = "") -> None:
        """`token` None: loopback only. Every answer repeats `run_id`."""
        self.app = app
        self._token = token.encode() if token else None
        self._headers = [*ALWAYS, (RUN_HEADER.encode(), run_id.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = self._marked(send)
        try:
            self._check(scope)
            body = await _read_body(receive) if scope["method"] not in READING else b""
        except Refused as refused:
            await _answer(send, refused)
            return
        await self.app(scope, _replay(body, receive), send)

    def _marked(self, send: Send) -> Send:
        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return send_marked

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if sum(name.lower() == b"host" for name, _ in scope["headers"]) > 1 or not scope["path"].startswith("/"):
            raise Refused(400, "a request names one host, in its header")
        self._check_origin(scope, headers)
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise Refused(401, "a token is needed: Authorization: Bearer …")
        if scope["method"] not in READING:
            # A form that another site makes the browser send has another type; JSON makes it ask first.
            if headers.get("content-type", b"").split(b";")[0].strip() != b"application/json":
                raise Refused(415, "changes are asked for as application/json")
            length = headers.get("content-length", b"0")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")

    def _check_origin(self, scope: Scope, headers: dict[str, bytes]) -> None:
        host = headers.get("host", b"").decode("latin-1")
        origin = headers.get("origin", b"").decode("latin-1")
        if self._token is None and scope.get("state", {}).get(STRANGER):
            raise Refused(
                401,
                "this API has no token and answers the user who started the run alone, if the kernel tells users apart",
            )
        if self._token is None and _host_name(f"//{host}") not in LOOPBACK:
            raise Refused(403, "this API has no token and answers requests to this machine's loopback alone")
        if origin and _site(origin) != host:
            raise Refused(403, "requests from other sites' pages are refused")


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _site(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _read_body(receive: Receive) -> bytes:
    """The whole body, within bounds also where no length was announced."""
    try:
        return await asyncio.wait_for(_whole_body(receive), BODY_S)
    except TimeoutError:
        raise Refused(408, f"the request's body was not there within {BODY_S:g} s") from None


async def _whole_body(receive: Receive) -> bytes:
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
