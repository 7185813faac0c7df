"""A request that is sent again, because its answer did not arrive, is not sampled again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

MAX_REMEMBERED = 32
"""Answers of one episode; a retry comes within seconds."""


@dataclass(slots=True)
class _KnownCall:
    """One request, and who waits for its answer."""

    answer: asyncio.Task[Any]
    num_waiting: int = 0


class AnsweredCalls:
    """Of one episode, by the digest of the request's body."""

    def __init__(self) -> None:
        self._calls: dict[str, _KnownCall] = {}

    async def answer(self, digest: str, is_retry: bool | None, make: Callable[[], Awaitable[Any]]) -> Any:
        """What `make` gives, or gave for the same body before. It goes on where the caller goes away.

        `is_retry`: as the client says. None: it does not; then the same body is a retry, unless another client still
        waits for the first answer: two calls side by side are two calls.
        """
        known = self._calls.get(digest)
        if known is not None and _has_failed(known.answer):
            known = None
        if known is not None and is_retry is None:
            is_retry = known.answer.done() or known.num_waiting == 0
        if known is None or not is_retry:
            known = _KnownCall(answer=asyncio.ensure_future(_as_coroutine(make)))
            known.answer.add_done_callback(_has_failed)  # looked at: its caller may be gone
            self._calls[digest] = known
            self._forget_oldest()
        known.num_waiting += 1
        try:
            return await asyncio.shield(known.answer)
        finally:
            known.num_waiting -= 1

    def _forget_oldest(self) -> None:
        for digest in list(self._calls)[: max(0, len(self._calls) - MAX_REMEMBERED)]:
            if self._calls[digest].answer.done():
                del self._calls[digest]


def _has_failed(answer: asyncio.Task[Any]) -> bool:
    """What failed may be tried again."""
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


async def _as_coroutine(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()
