"""The OpenAI-compatible endpoint of an engine's episodes, as an ASGI app: whatever speaks to OpenAI can be trained.

    POST /sessions/{token}/v1/chat/completions      base_url of an agent: …/sessions/{token}/v1
    GET  /sessions/{token}/v1/models
    POST /sessions/{token}/inference/v1/generate    tokens in, tokens out

The token is the session's id: without it there is nothing here, and after the episode it is gone (410).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from rayzero.rollout_workers.episodes.chat_reply import as_events, chat_completion
from rayzero.rollout_workers.episodes.chat_request import read_chat
from rayzero.rollout_workers.episodes.retries import AnsweredCalls
from rayzero.rollout_workers.episodes.session import EpisodeSession, RecordedTurn
from rayzero.rollout_workers.episodes.sessions import EpisodeSessions
from rayzero.rollout_workers.episodes.token_wire import read_tokens, token_completion
from rayzero.rollout_workers.episodes.wire import FixedSampling, Refusal, read_body
from rayzero.services.schema.episodes import POLICY_MODEL, EpisodeEnd
from rayzero.services.schema.errors import EpisodeClosed, RayzeroError, RecipeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 16 * 2**20
BODY_S = 30.0
"""Until a request's body is there whole."""
_ROUTE = re.compile(r"/sessions/([A-Za-z0-9_-]{16,64})(/v1/chat/completions|/v1/models|/inference/v1/generate)/?")
_REFUSED = {
    EpisodeEnd.MAX_TURNS: ("turns", "episode_max_turns"),
    EpisodeEnd.MAX_TOOL_CALLS: ("tool calls", "episode_max_tool_calls"),
}
"""Ends of an episode that an agent reaches with the next request: what is used up, and the code."""
_CLIENT_RETRIES = b"x-stainless-retry-count"
"""Header of OpenAI's SDKs: 0 at the first try."""


class EpisodeEndpoint:
    """Over the sessions of one engine."""

    def __init__(self, sessions: EpisodeSessions, stop_token_ids: Callable[[], list[int]]) -> None:
        self._sessions, self._stop_token_ids = sessions, stop_token_ids
        self._answered: WeakKeyDictionary[EpisodeSession, AnsweredCalls] = WeakKeyDictionary()
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that goes away is not waited for, its turn is recorded all the same."""
        if scope["type"] != "http":
            return
        try:
            status, kind, parts = await self._answer(scope, receive)
        except Refusal as refusal:
            status, kind, parts = refusal.status, b"application/json", [json.dumps(refusal.body).encode()]
        headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
        if len(parts) == 1:
            headers.append((b"content-length", str(len(parts[0])).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes, list[bytes]]:
        """Status, content type and body."""
        session, path = self._find(scope)
        if path == "/v1/models":
            return 200, b"application/json", [json.dumps(self._models()).encode()]
        body = await _read(receive)
        headers = dict(scope["headers"])
        retries = headers.get(_CLIENT_RETRIES, b"")
        is_retry = retries.strip(b"0") != b"" if retries.isdigit() else None
        digest = hashlib.sha256(path.encode() + b"\n" + body).hexdigest()
        answered = self._answered.setdefault(session, AnsweredCalls())
        make = self._chat if path == "/v1/chat/completions" else self._tokens
        answer = asyncio.ensure_future(answered.answer(digest, is_retry, lambda: make(session, body)))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Refusal(499, "the client went away")
            kind, parts = await answer
        finally:
            gone.cancel()
            answer.cancel()  # of the wait alone: the turn goes on
        return 200, kind, parts

    def _find(self, scope: Scope) -> tuple[EpisodeSession, str]:
        found = _ROUTE.fullmatch(scope["path"])
        try:
            if found is None:
                raise EpisodeClosed("")
            session = self._sessions.find(found[1])
        except EpisodeClosed:
            if found is not None and self._sessions.was_here(found[1]):
                raise _over() from None
            raise Refusal(401, "no episode has this address: base_url must hold the episode's token") from None
        wanted = "GET" if found[2] == "/v1/models" else "POST"
        if scope["method"] != wanted:
            raise Refusal(405, f"{found[2]} takes {wanted}")
        return session, found[2]

    def _models(self) -> dict[str, Any]:
        card = {"id": POLICY_MODEL, "object": "model", "created": 0, "owned_by": "rayzero"}
        return {"object": "list", "data": [{**card, "max_model_len": self._sessions.max_model_tokens}]}

    async def _chat(self, session: EpisodeSession, body: bytes) -> tuple[bytes, list[bytes]]:
        request = read_chat(read_body(body), self._fixed(session))
        taken = await _taken(session.answer(request.messages, request.tools, request.max_tokens))
        reply_id = f"chatcmpl-{next(self._numbers)}"
        reply = chat_completion(request, taken, reply_id, int(time.time()), self._sessions.tokenizer)
        if request.wants_stream:
            return b"text/event-stream", list(as_events(reply, request.wants_usage))
        return b"application/json", [json.dumps(reply).encode()]

    async def _tokens(self, session: EpisodeSession, body: bytes) -> tuple[bytes, list[bytes]]:
        request = read_tokens(read_body(body), self._fixed(session), len(self._sessions.tokenizer))
        taken = await _taken(session.complete(request.tokens, request.max_tokens))
        reply = token_completion(request, taken, f"generate-{next(self._numbers)}")
        return b"application/json", [json.dumps(reply).encode()]

    def _fixed(self, session: EpisodeSession) -> FixedSampling:
        return FixedSampling(session.request.sampling.temperature, frozenset(self._stop_token_ids()))


async def _taken(turn: Awaitable[RecordedTurn]) -> RecordedTurn:
    """A turn that was sampled.

    Raises:
        Refusal: none was; says why, in the codes that agents know.
    """
    try:
        taken = await turn
    except EpisodeClosed:
        raise _over() from None
    except RecipeError as error:
        raise Refusal(400, str(error), field="messages") from None
    except RayzeroError as error:
        raise Refusal(503, str(error)) from None
    end = taken.turn.end
    if end is EpisodeEnd.ABORTED:
        raise _over()
    if taken.completion is None and end in _REFUSED:
        what, code = _REFUSED[end]
        raise Refusal(400, f"the episode has used up its {what}", field="messages", code=code)
    if taken.completion is None and end is EpisodeEnd.CONTEXT:
        raise Refusal(
            400, "the conversation leaves no room in the model's context", field="messages",
            code="context_length_exceeded",
        )  # fmt: skip
    if taken.completion is None:
        raise Refusal(400, "the episode has used up its tokens", field="messages", code="episode_max_tokens")
    return taken


def _over() -> Refusal:
    return Refusal(410, "the episode is over: its token is worth nothing any more", code="episode_over")


async def _read(receive: Receive) -> bytes:
    """The whole body, within its bounds also where no length was announced."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the request was broken off")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Refusal(413, f"a request may have {MAX_BODY_BYTES} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(408, f"the request's body was not there within {BODY_S:g} s") from None


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
