"""vLLM's four phases, each with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rayzero.rollout_workers.broadcast.client import DeadlineWeightSyncClient
from rayzero.services.schema.errors import DeadlineError, WorkerError


class FakeEngine:
    """Records what is called; hangs where told to."""

    def __init__(self, hangs_in: str = "") -> None:
        self.events: list[str] = []
        self.hangs_in = hangs_in
        self.errored = False

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        self.events.append(f"{method} {kwargs}" if kwargs else method)
        if method == self.hangs_in:
            await asyncio.sleep(60)
        return [None]

    async def update_weight_version(self, new_version: str) -> None:
        self.events.append(f"version {new_version}")


def client(engine: FakeEngine, deadline_s: float = 5.0) -> DeadlineWeightSyncClient:
    return DeadlineWeightSyncClient(engine, asyncio.get_running_loop(), deadline_s, "rollout-3")


async def test_phases_reach_every_worker_of_the_engine_and_the_version_comes_last() -> None:
    engine = FakeEngine()
    driver = client(engine)

    def all_phases() -> None:
        driver.init_weight_transfer_engine({"port": 1})
        driver.start_weight_update()
        driver.update_weights({"policy_version": 7})
        driver.finish_weight_update("7")

    await asyncio.to_thread(all_phases)
    assert engine.events == [
        "init_weight_transfer_engine {'init_info': {'port': 1}}",
        "start_weight_update",
        "update_weights {'update_info': {'policy_version': 7}}",
        "finish_weight_update",
        "version 7",
    ]


async def test_finish_without_a_version_leaves_the_label() -> None:
    engine = FakeEngine()
    await asyncio.to_thread(client(engine).finish_weight_update)
    assert engine.events == ["finish_weight_update"]


async def test_hanging_phase_ends_at_the_deadline_and_says_who_and_what() -> None:
    engine = FakeEngine(hangs_in="start_weight_update")
    begun = time.monotonic()
    with pytest.raises(DeadlineError, match=r"start_weight_update of the engine of rollout-3 not over after 0\.1 s"):
        await asyncio.to_thread(client(engine, 0.1).start_weight_update)
    assert time.monotonic() - begun < 10


async def test_client_is_vllms_protocol_by_its_methods() -> None:
    names = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
    assert all(callable(getattr(DeadlineWeightSyncClient, name)) for name in names)


async def test_an_engine_that_dies_is_not_waited_for() -> None:
    engine = FakeEngine(hangs_in="start_weight_update")
    starting = asyncio.create_task(asyncio.to_thread(client(engine, deadline_s=60.0).start_weight_update))
    await asyncio.sleep(0.01)
    engine.errored = True
    begun = time.monotonic()
    with pytest.raises(WorkerError, match="rollout-3 died in start_weight_update"):
        await starting
    assert time.monotonic() - begun < 5
