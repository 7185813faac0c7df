"""Coroutines beside each other: ended with a block, or with the first of them that fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def accompanied(*beside: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """What runs beside the block, and is ended with it."""
    going = [asyncio.create_task(each) for each in beside]
    try:
        yield
    finally:
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


async def all_or_first_error(*starts: Coroutine[Any, Any, None]) -> None:
    """Side by side; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(start) for start in starts]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
