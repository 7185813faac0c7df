"""Side by side: nothing goes on after the block, or after the first failure."""

from __future__ import annotations

import asyncio

import pytest

from rayzero.services.run.side_by_side import accompanied, all_or_first_error


class Work:
    """Runs until it is ended."""

    def __init__(self) -> None:
        self.is_running = False

    async def go_on(self) -> None:
        self.is_running = True
        try:
            await asyncio.sleep(60)
        finally:
            self.is_running = False


async def test_what_runs_beside_a_block_ends_with_it_however_it_ends() -> None:
    work = Work()
    with pytest.raises(KeyError):
        async with accompanied(work.go_on()):
            await asyncio.sleep(0.01)
            assert work.is_running
            raise KeyError
    assert not work.is_running


async def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    work = Work()

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await all_or_first_error(work.go_on(), fail())
    assert not work.is_running
