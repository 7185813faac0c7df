"""The learner as a Ray actor: a thin shell around `Learner`, `SftTrainer` and `WeightSender`.

The driver imports this module to spawn it: torch and transformers, ten seconds of one core, are imported by `start`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.devices import Device
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import Group, UpdateResult
from rayzero.services.schema.temporary import own_folder
from rayzero.services.schema.weights import Rendezvous, WeightManifest

if TYPE_CHECKING:
    from rayzero.services.schema.interfaces import SftExample

T = TypeVar("T")


class LearnerActor:
    """Spawned by services/run/placement.py. Heavy work runs on one thread, in order; the event loop stays free."""

    def __init__(self, recipe: Recipe, model_path: str) -> None:
        """Cheap: `start` loads the model."""
        self._recipe, self._model_path = recipe, model_path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")

    async def start(self, device: Device, rank: int = 0, rendezvous: Rendezvous | None = None) -> None:
        """Load the model onto `device`: `cuda` is the one GPU that Ray reserved for this actor.

        Where several learners shard one model, each gets its rank and where they meet; from then on every call
        but the transfer's must be made to all of them at once.

        Raises:
            RecipeError: the model cannot be trained.
            ActorStartError: torch cannot use the GPU.
        """
        await self._run(self._load, device, rank, rendezvous)

    async def meeting_point(self, world_size: int) -> Rendezvous:
        """Where the learner's ranks may meet: a free port of this node; on a local Ray a file."""
        host = ray.util.get_node_ip_address()
        file = str(own_folder() / "ranks") if self._recipe.cluster.address is None else ""
        return Rendezvous(host=host, port=free_port(host), world_size=world_size, file=file)

    async def describe(self) -> dict[str, Any]:
        """Who learns: process id, policy version, parameters, device, threads."""
        policy = self._learner.policy
        return {
            "pid": os.getpid(),
            "policy_version": self._learner.policy_version,
            "num_parameters": policy.num_parameters,
            "device": str(policy.device),
            "num_threads": self._num_threads,
        }

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """One update; see `Learner.update`."""
        result = await self._run(self._learner.update, groups, policy_version)
        if self._recipe.cluster.takes_turns:
            import torch

            await self._run(torch.cuda.empty_cache)  # what torch keeps for the next update, the engine needs now
        return result

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of a completion at temperature 1."""
        return await self._run(self._learner.score, prompt_token_ids, token_ids, 1.0)

    async def sft_step(self, examples: Sequence[SftExample], update: int) -> Mapping[str, float]:
        """One supervised step on (prompt, completion) token pairs; see `SftTrainer.step`."""
        return await self._run(self._sft.step, examples, update)

    async def end_sft(self) -> None:
        """Forget the supervised optimizer and take the policy of now as the reference: the loop starts afresh."""
        await self._run(self._learner.restart)

    async def save_checkpoint(self, directory: str) -> None:
        """Write the model (Hugging Face format) and the learner's state into `directory`."""
        from rayzero.learner.update.checkpoint import save_learner

        await self._run(save_learner, self._learner, Path(directory))

    async def load_checkpoint(self, directory: str) -> None:
        """Restore what `save_checkpoint` wrote."""
        from rayzero.learner.update.checkpoint import load_learner

        await self._run(load_learner, self._learner, Path(directory))

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        """Choose where the weight transfer group meets."""
        return await self._run(self._sender.open, num_receivers)

    async def accept_transfer(self) -> None:
        """Wait until every receiver has joined."""
        await asyncio.to_thread(self._sender.accept)

    async def abort_transfer(self) -> None:
        """A receiver is lost: what waits for it in `accept_transfer` or `broadcast_weights` fails now."""
        self._sender.abort()

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """Say what will be sent, and have it ready: the whole policy in the send buffer, or, where it is streamed,
        nothing but its outline."""
        return await self._run(self._prepare, policy_version)

    async def broadcast_weights(self) -> int:
        """Send what was prepared, beside whatever the learner's own thread does; or stream the policy in that thread.
        Where ranks shard it all of them take part, and rank 0 sends. Returns the bytes that go to an engine."""
        if self._streams:
            return await self._run(self._stream)
        return await asyncio.to_thread(self._sender.broadcast)

    async def shutdown(self) -> None:
        """Leave the transfer group; the process may then be killed."""
        from rayzero.learner.model.ranks import leave

        if hasattr(self, "_sender"):
            await asyncio.to_thread(self._sender.close)
        self._thread.shutdown(wait=False, cancel_futures=True)
        leave()

    def _load(self, device: str, rank: int, rendezvous: Rendezvous | None) -> None:
        import torch

        from rayzero.learner.broadcast.sender import WeightSender
        from rayzero.learner.model.policy import Policy
        from rayzero.learner.model.ranks import ONE_RANK, join
        from rayzero.learner.update.learner import Learner
        from rayzero.learner.update.sft import SftTrainer

        recipe, settings = self._recipe, self._recipe.learner
        if device == "cuda" and not torch.cuda.is_available():
            raise ActorStartError(
                f"a GPU is reserved for the learner, and torch {torch.__version__} on {os.uname().nodename} cannot use "
                "it: install torch for CUDA there, and a driver that is new enough, or set rollout.device: cpu"
            )
        if settings.compute.num_threads is None:
            # A Ray node may claim more CPUs than its machine has: more threads than cores are slower than one.
            torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
        self._num_threads = torch.get_num_threads()  # of this thread: each has a number of its own
        policy = Policy(
            self._model_path,
            dtype=recipe.model.dtype,
            device=device,
            temperature=recipe.rollout.sampling.temperature,
            compute=settings.compute,
            lora=settings.lora,
            seed=recipe.seed,
            ranks=ONE_RANK if rendezvous is None else join(rank, rendezvous, device, recipe.deadlines.update_s),
            reference_path=settings.kl.reference,
            routing_replay=settings.routing_replay,
        )
        self._learner = Learner(
            policy,
            settings,
            num_updates=recipe.training.num_updates,
            max_completion_tokens=recipe.max_completion_tokens,
            stale_cache=recipe.rollout.on_weights == "keep_stale",
            seed=recipe.seed,
        )
        # A pipeline's supervised stage has no cold start: what it does stands in its recipe's learner and training.
        start = recipe.cold_start
        self._sft = SftTrainer(
            policy,
            self._learner.optimizer,
            settings.compute,
            settings=settings.optimizer if start is None else start.optimizer,
            num_updates=recipe.training.num_updates if start is None else start.num_updates,
        )
        self._sender = WeightSender(
            policy.dtype,
            host=ray.util.get_node_ip_address(),
            deadline_s=recipe.deadlines.sync_s,
            device=policy.device,
            transport=recipe.cluster.weight_transport,
            makes_deltas=recipe.cluster.delta_sync,
            overlaps=not (recipe.cluster.shares_gpu and policy.ranks.world_size > 1),
        )

    @property
    def _streams(self) -> bool:
        """Whether weights are put together while they are sent: no GPU may be able to hold all of them, or no engine
        takes them before it can load them."""
        return self._learner.policy.ranks.world_size > 1 or self._recipe.rollout.loads_in_pause

    def _prepare(self, policy_version: int) -> WeightManifest:
        policy = self._learner.policy
        if not self._streams:
            return self._sender.prepare(policy.sent_weights(), policy_version, policy.adapter_scaling)
        return self._sender.announce(policy.sent_outline(), policy_version, policy.adapter_scaling)

    def _stream(self) -> int:
        policy = self._learner.policy
        if policy.ranks.rank == 0:
            return self._sender.stream(policy.sent_weights())
        for _ in policy.sent_weights():
            pass  # Putting shards together takes all ranks.
        return 0

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args))
