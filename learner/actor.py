"""The learner as a Ray actor: a thin shell around `Learner` and `WeightSender`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from learner.checkpoint import load_learner, save_learner
from learner.policy import Policy
from learner.sft import SftExample, SftTrainer
from learner.update import Learner
from learner.weight_sender import WeightSender
from services.schema.config.learner import LearnerSettings
from services.schema.messages import Group, Rendezvous, UpdateResult, WeightManifest

T = TypeVar("T")


@ray.remote
class LearnerActor:
    """All heavy work runs on one thread of its own, in order; the event loop stays free for health calls."""

    def __init__(
        self,
        settings: LearnerSettings,
        *,
        model_path: str,
        dtype: str,
        temperature: float,
        num_updates: int,
        max_completion_tokens: int,
        seed: int = 0,
        device: str = "cpu",
        num_threads: int = 0,
        host: str = "127.0.0.1",
        transfer_deadline_s: float = 300.0,
    ) -> None:
        """Load the model. `num_threads` 0 leaves torch's choice; `host` is where receivers reach this process."""
        if num_threads:
            # Ray sets OMP_NUM_THREADS=1 in an actor that declares no CPUs.
            torch.set_num_threads(num_threads)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")
        policy = Policy(model_path, dtype=dtype, device=device, temperature=temperature, compute=settings.compute)
        self._learner = Learner(
            policy, settings, num_updates=num_updates, max_completion_tokens=max_completion_tokens, seed=seed
        )
        self._sender = WeightSender(policy.dtype, host=host, deadline_s=transfer_deadline_s)
        self._sft: SftTrainer | None = None

    async def ready(self) -> dict[str, Any]:
        """Who serves: process id, policy version, parameters."""
        policy = self._learner.policy
        return {
            "pid": os.getpid(),
            "policy_version": self._learner.policy_version,
            "num_parameters": policy.num_parameters,
            "device": str(policy.device),
        }

    async def update(self, groups: Sequence[Group], next_version: int) -> UpdateResult:
        """One update; see `Learner.update`."""
        return await self._run(self._learner.update, groups, next_version)

    async def score(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of a completion; see `Learner.score`."""
        return await self._run(self._learner.score, prompt_token_ids, token_ids)

    async def sft_step(self, examples: Sequence[SftExample], learning_rate: float) -> Mapping[str, float]:
        """One supervised step on (prompt, completion) token pairs; see `SftTrainer.step`."""
        if self._sft is None:
            self._sft = SftTrainer(self._learner.policy, self._learner.optimizer, self._learner.settings.compute)
        return await self._run(self._sft.step, examples, learning_rate)

    async def save_checkpoint(self, directory: str) -> None:
        """Write the model (Hugging Face format) and the learner's state into `directory`."""
        await self._run(save_learner, self._learner, Path(directory))

    async def load_checkpoint(self, directory: str) -> int:
        """Restore what `save_checkpoint` wrote; returns the policy version."""
        await self._run(load_learner, self._learner, Path(directory))
        return self._learner.policy_version

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        """Choose where the weight transfer group meets."""
        return await self._run(self._sender.open, num_receivers)

    async def accept_transfer(self) -> None:
        """Wait until every receiver has joined."""
        await self._run(self._sender.accept)

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """Copy the policy into the send buffer; it may change as soon as this returns."""
        return await self._run(lambda: self._sender.prepare(self._learner.policy.named_weights(), policy_version))

    async def broadcast_weights(self) -> None:
        """Send what was prepared. On a thread of its own, so that an update may run at the same time."""
        await asyncio.to_thread(self._sender.broadcast)

    async def close_transfer(self) -> None:
        """Leave the transfer group."""
        await asyncio.to_thread(self._sender.close)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args))
