"""JSON over HTTP with a deadline: retries passing failures, names the cause of others in one word."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import httpx

from rayzero.services.schema.causes import ErrorCause

MAX_REPLY_BYTES = 16 * 2**20


class ServerFailure(Exception):
    """A server gave no usable answer."""

    def __init__(self, cause: ErrorCause, text: str) -> None:
        super().__init__(cause, text)
        self.cause = cause
        self.text = text


class JsonClient:
    """Posts to one URL, at most `max_concurrency` requests at a time.

    Connection errors, 429 and 5xx are tried again, each time after twice as long, until the deadline, which counts from
    the moment that a request has its turn.
    """

    def __init__(self, url: str, *, deadline_s: float, max_concurrency: int, token_env: str | None = None) -> None:
        self.url = url
        self.deadline_s = deadline_s
        self.token_env = token_env
        self._turns = asyncio.Semaphore(max_concurrency)
        self._session: httpx.AsyncClient | None = None

    async def post(self, payload: Mapping[str, Any]) -> Any:
        """The reply's JSON. Raises ServerFailure."""
        headers = self._headers()
        body = json.dumps(payload, default=str).encode()
        async with self._turns:
            if self._session is None:
                self._session = httpx.AsyncClient(timeout=None, trust_env=False)
            last = ServerFailure(ErrorCause.UNREACHABLE, f"no answer from {self.url}")
            try:
                async with asyncio.timeout(self.deadline_s):
                    pause_s = 0.1
                    while True:
                        try:
                            return await self._once(self._session, body, headers)
                        except ServerFailure as failure:
                            if failure.cause != ErrorCause.UNREACHABLE:
                                raise
                            last = failure
                        await asyncio.sleep(pause_s)
                        pause_s *= 2
            except TimeoutError:
                raise ServerFailure(ErrorCause.DEADLINE, f"{last.text}; gave up after {self.deadline_s:g} s") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.aclose()
            self._session = None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.token_env is not None:
            token = os.environ.get(self.token_env)
            if not token:
                raise ServerFailure(
                    ErrorCause.REFUSED, f"the environment variable {self.token_env} is not set in this worker"
                )
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def _once(self, session: httpx.AsyncClient, body: bytes, headers: Mapping[str, str]) -> Any:
        try:
            async with session.stream("POST", self.url, content=body, headers=headers) as response:
                content = await _read(response)
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ServerFailure(ErrorCause.UNREACHABLE, f"{self.url}: {type(error).__name__}: {error}") from None
        shown = content[:200].decode("utf-8", "replace")
        if status == 429 or status >= 500:
            raise ServerFailure(ErrorCause.UNREACHABLE, f"{self.url} answered {status}: {shown}")
        if status != 200:
            raise ServerFailure(ErrorCause.REFUSED, f"{self.url} answered {status}: {shown}")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ServerFailure(ErrorCause.BAD_REPLY, f"{self.url} did not answer with JSON: {shown}") from None


async def _read(response: httpx.Response) -> bytes:
    """The body, bounded: a server that streams for ever must not fill the worker's memory."""
    content = bytearray()
    async for chunk in response.aiter_bytes(1 << 16):
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            raise ServerFailure(ErrorCause.BAD_REPLY, f"an answer of more than {MAX_REPLY_BYTES} bytes")
    return bytes(content)
