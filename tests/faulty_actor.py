"""The rollout worker's actor, whose engine takes orders of faults (tests/faulty_engine.py)."""

from __future__ import annotations

from typing import Any

from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.actor import RolloutActor

EXTENSION = "tests.faulty_engine.Receiver"
"""As vLLM's `worker_extension_cls` names it."""

engine_arguments = engine_process.engine_arguments


def arguments_with_faults(spec: engine_process.EngineSpec) -> dict[str, Any]:
    """Of an engine that takes orders."""
    return engine_arguments(spec) | {"worker_extension_cls": EXTENSION}


class FaultyRolloutActor(RolloutActor):
    """All else is the real actor's."""

    async def start(self) -> None:
        engine_process.engine_arguments = arguments_with_faults
        await super().start()

    async def order_fault(self, kind: str, bucket: int) -> None:
        """Of the next streamed broadcast."""
        await self._calls.ready().collective_rpc("order_fault", args=(kind, bucket))
