"""An engine and the policy it should serve: what the GPU tests and the first hour's steps hold against each other."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.messages import ChatMessage, Completion, GroupCompletions, GroupRequest, Prompt, Sampling
from rayzero.services.schema.weights import WeightManifest
from tests.models import build_tiny_model

DEADLINE_S = 120.0
GENTLE = 0.4
"""What the tiny model's matrices are multiplied by. As they are, its logits are so large that bf16 alone moves the
log-probability of a token by 0.08. So it is 0.014, and weights that have changed move it by 1."""


class Pair:
    """An engine on GPU 0 (or on CPUs), and a policy on `gpu`."""

    def __init__(
        self,
        path: Path,
        settings: RolloutSettings,
        *,
        dtype: str = "bfloat16",
        gpu: int = 0,
        transport: Transport = "auto",
        sleeps: bool = False,
    ) -> None:
        """Nothing is started before `start`; the engine's environment (`engine_environment`) must stand by then."""
        device = f"cuda:{gpu}" if settings.engine_device == "cuda" else "cpu"
        self._spec = EngineSpec(model_path=str(path), dtype=dtype, settings=settings, sleeps=sleeps)
        self.engine = RolloutEngine("rollout-0", self._spec, deadline_s=DEADLINE_S)
        self.policy = Policy(path, dtype=dtype, device=device)
        self.sender = WeightSender(
            self.policy.dtype, deadline_s=DEADLINE_S, device=self.policy.device, transport=transport
        )
        self.version = 0

    async def start(self) -> None:
        """The engine comes up and meets the learner."""
        await self.engine.start()
        await self.meet()

    async def meet(self) -> None:
        """A new transfer group."""
        rendezvous = self.sender.open(self._spec.settings.tensor_parallel_size)
        await asyncio.gather(self.engine.join_transfer(rendezvous, 1), asyncio.to_thread(self.sender.accept))

    def prepare(self, version: int) -> WeightManifest:
        """What the policy would send."""
        return self.sender.prepare(self.policy.sent_weights(), version, self.policy.adapter_scaling)

    async def sync(self) -> None:
        """The policy's weights, served by the engine as the next version."""
        self.version += 1
        manifest = self.prepare(self.version)
        await asyncio.gather(self.engine.receive_weights(manifest), asyncio.to_thread(self.sender.broadcast))
        await self.engine.apply_weights(self.version)

    async def mismatch(self) -> float:
        """Mean |Δ log p| between what the engine reports when it samples and what the policy says."""
        made = await self.engine.generate(request(seed=self.version))
        model = reference(self.policy)
        gaps = [np.abs(expected(model, made, each) - each.rollout_logprobs) for each in made.completions]
        return float(np.concatenate(gaps).mean())

    @torch.no_grad()
    def perturb(self) -> None:
        """Weights that say something else."""
        for _, parameter in self.policy.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 * float(parameter.float().std() or 0.1))

    def kill_engine(self) -> None:
        """SIGKILL for the process that holds the model."""
        for process in self.engine._calls.engine.engine_core.resources.engine_manager.processes:
            os.kill(process.pid, signal.SIGKILL)

    async def replace_engine(self) -> None:
        """Another one in its place, from the model on disk."""
        await self.engine.shutdown()
        self.engine = RolloutEngine("rollout-1", self._spec, deadline_s=DEADLINE_S)
        await self.start()

    async def end(self) -> None:
        """Nothing is left."""
        self.sender.close()
        await self.engine.shutdown()


def build_gentle_model(path: Path) -> Path:
    """Save a random Llama on which bf16 costs little, with its tokenizer, and return `path`."""
    from transformers import AutoModelForCausalLM

    build_tiny_model(path, hidden_size=256, head_dim=64)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(GENTLE if parameter.ndim == 2 else 1.0)
    model.to(torch.bfloat16).save_pretrained(path)
    return path


def reference(policy: Policy) -> Any:
    """The policy's weights in transformers' own forward pass, on the policy's device."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy.path, dtype=policy.dtype).to(policy.device)
    model.load_state_dict(dict(policy.named_weights()), strict=False)
    return model


@torch.no_grad()
def expected(model: Any, made: GroupCompletions, completion: Completion) -> NDArray[np.float32]:
    """[T] log-probabilities of a completion, by a head in float32."""
    tokens = np.concatenate([made.prompt_token_ids, completion.token_ids]).astype(np.int64)
    head = model.lm_head.weight
    hidden = model.model(torch.from_numpy(tokens)[None].to(head.device)).last_hidden_state[0, :-1]
    chosen = F.linear(hidden.float(), head.float()).log_softmax(-1).cpu()
    chosen = chosen.gather(1, torch.from_numpy(tokens[1:, None]))[:, 0]
    return np.asarray(chosen[-completion.num_tokens :], dtype=np.float32)


def request(seed: int, num_completions: int = 8, max_tokens: int = 64) -> GroupRequest:
    """A group of a prompt that is always the same."""
    prompt = Prompt(prompt_id="sum", messages=(ChatMessage(role="user", content="What is 17 + 25?"),), answer="42")
    sampling = Sampling(num_completions=num_completions, max_tokens=max_tokens, seed=seed)
    return GroupRequest(group_id=seed, prompt=prompt, sampling=sampling)


def tokens_of(made: GroupCompletions) -> list[list[int]]:
    """Of every completion."""
    return [completion.token_ids.tolist() for completion in made.completions]
