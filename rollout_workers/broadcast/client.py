"""vLLM's weight-sync control plane (its `VLLMWeightSyncClient` protocol), with a deadline on every call.

vLLM's own clients wait with a bare `ray.get` or without a look at the answer: a worker that died would hang the sync.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Protocol

from rayzero.rollout_workers.engine_calls import DEATH_POLL_S
from rayzero.services.schema.errors import DeadlineError, WorkerError


class WeightTransferEngineClient(Protocol):
    """The part of vLLM's `AsyncLLM` that the four phases need."""

    @property
    def errored(self) -> bool:
        """Whether the engine's process is dead."""
        ...

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a method of every worker of the engine."""
        ...

    async def update_weight_version(self, new_version: str) -> None:
        """Label what is sampled from here on."""
        ...


class DeadlineWeightSyncClient:
    """Drives one engine through init, start, update and finish.

    The methods block, as the protocol wants them to: call them from a thread, never from the engine's event loop.

    Raises:
        DeadlineError: a phase was not over in time. The engine may be stuck: end it.
        WorkerError: the engine died; vLLM leaves the calls to it open.
    """

    def __init__(
        self, engine: WeightTransferEngineClient, loop: asyncio.AbstractEventLoop, deadline_s: float, name: str
    ) -> None:
        self._engine, self._loop, self._deadline_s, self._name = engine, loop, deadline_s, name

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Phase 1: join a transfer group."""
        self._call("init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Phase 2: make the layers ready."""
        self._call("start_weight_update")

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Phase 3: load."""
        self._call("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Phase 4: hand the new weights to the layers, and label what is sampled from now on."""
        self._call("finish_weight_update")
        if weight_version is not None:
            self._wait(self._engine.update_weight_version(weight_version), "update_weight_version")

    def _call(self, method: str, kwargs: dict[str, Any] | None = None) -> Any:
        return self._wait(self._engine.collective_rpc(method, kwargs=kwargs or {}), method)

    def _wait(self, call: Coroutine[Any, Any, Any], what: str) -> Any:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        give_up = time.monotonic() + self._deadline_s
        while (left_s := give_up - time.monotonic()) > 0:
            try:
                return future.result(min(DEATH_POLL_S, left_s))
            except FutureTimeoutError:
                if future.done():
                    raise
            if self._engine.errored:
                future.cancel()
                raise WorkerError(f"the engine of {self._name} died in {what}")
        future.cancel()
        raise DeadlineError(f"{what} of the engine of {self._name} not over after {self._deadline_s:g} s")
