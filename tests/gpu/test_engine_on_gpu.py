"""A CUDA engine serves what the learner on the GPU sends: mismatch, determinism, IPC, NCCL, sleep and wake."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.messages import ChatMessage, GroupCompletions, GroupRequest, Prompt, Sampling
from tests.models import build_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="module")]

SETTINGS = RolloutSettings(device="cuda", kv_cache_bytes=2**29, max_model_tokens=512, sampling={"max_tokens": 64})
DEADLINE_S = 120.0
LARGEST_MISMATCH = 2e-2
"""Mean |Δ log p| of a token, bf16 on both sides."""
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs, and this machine has one")


class Pair:
    """An engine on GPU 0, and a policy on `gpu`."""

    def __init__(self, path: Path, gpu: int, transport: Transport) -> None:
        spec = EngineSpec(model_path=str(path), dtype="bfloat16", settings=SETTINGS, sleeps=True)
        self.engine = RolloutEngine("rollout-0", spec, deadline_s=DEADLINE_S)
        self.policy = Policy(path, dtype="bfloat16", device=f"cuda:{gpu}")
        self.sender = WeightSender(
            torch.bfloat16, deadline_s=DEADLINE_S, device=self.policy.device, transport=transport
        )
        self.version = 0

    async def start(self) -> None:
        await self.engine.start()
        rendezvous = self.sender.open(1)
        await asyncio.gather(self.engine.join_transfer(rendezvous, 1), asyncio.to_thread(self.sender.accept))

    async def sync(self) -> None:
        self.version += 1
        manifest = self.sender.prepare(self.policy.sent_weights(), self.version, self.policy.adapter_scaling)
        await asyncio.gather(self.engine.receive_weights(manifest), asyncio.to_thread(self.sender.broadcast))
        await self.engine.apply_weights(self.version)

    async def mismatch(self) -> float:
        made = await self.engine.generate(request(seed=self.version))
        differences = []
        for completion in made.completions:
            tokens = np.concatenate([made.prompt_token_ids, completion.token_ids]).astype(np.int64)
            with torch.no_grad():
                logits = reference(self.policy)(torch.from_numpy(tokens)[None]).logits[0, :-1].float()
            chosen = logits.log_softmax(-1).gather(1, torch.from_numpy(tokens[1:, None]))[:, 0]
            differences.append(np.abs(chosen[-completion.num_tokens :].numpy() - completion.rollout_logprobs))
        return float(np.concatenate(differences).mean())

    @torch.no_grad()
    def perturb(self) -> None:
        for _, parameter in self.policy.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 * float(parameter.float().std() or 0.1))


def reference(policy: Policy) -> torch.nn.Module:
    """The policy's weights in transformers' own forward pass, in bf16 on the CPU."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy.path, dtype=torch.bfloat16)
    weights = {name: weight.cpu() for name, weight in policy.named_weights()}
    model.load_state_dict(weights, strict=False)
    return model  # type: ignore[no-any-return]


def request(seed: int) -> GroupRequest:
    prompt = Prompt(prompt_id="sum", messages=(ChatMessage(role="user", content="What is 17 + 25?"),), answer="42")
    sampling = Sampling(num_completions=8, max_tokens=64, seed=seed)
    return GroupRequest(group_id=seed, prompt=prompt, sampling=sampling)


def tokens(made: GroupCompletions) -> list[list[int]]:
    return [completion.token_ids.tolist() for completion in made.completions]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(engine_environment(SETTINGS))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[(0, "auto"), pytest.param((1, "auto"), marks=TWO_GPUS), (0, "gloo")],
    ids=["ipc", "nccl", "host"],
)
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    gpu, transport = request.param
    pair = Pair(build_tiny_model(tmp_path_factory.mktemp("model"), hidden_size=256, head_dim=64), gpu, transport)
    await pair.start()
    yield pair
    pair.sender.close()
    await pair.engine.shutdown()


async def test_engine_and_learner_agree_after_every_sync(pair: Pair) -> None:
    assert await pair.mismatch() <= LARGEST_MISMATCH
    for _ in range(3):
        pair.perturb()
        assert await pair.mismatch() > 2 * LARGEST_MISMATCH, "the change is too small for the test to see"
        await pair.sync()
        assert await pair.mismatch() <= LARGEST_MISMATCH


async def test_adapters_alone_are_served_on_the_base_whatever_was_served_before(pair: Pair) -> None:
    whole = pair.policy
    lora = LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "up_proj", "down_proj"))
    pair.policy = Policy(whole.path, dtype="bfloat16", device=str(whole.device), lora=lora)
    for _ in range(2):
        with torch.no_grad():
            for _, factor in pair.policy.named_parameters():
                factor.normal_(std=0.12)
        assert await pair.mismatch() > 2 * LARGEST_MISMATCH, "the change is too small for the test to see"
        await pair.sync()
        assert await pair.mismatch() <= LARGEST_MISMATCH
    pair.policy = whole
    await pair.sync()
    assert await pair.mismatch() <= LARGEST_MISMATCH


async def test_same_seeds_give_the_same_completions(pair: Pair) -> None:
    first = await pair.engine.generate(request(seed=7))
    again = await pair.engine.generate(request(seed=7))
    assert tokens(first) == tokens(again)
    assert tokens(first) != tokens(await pair.engine.generate(request(seed=8)))


async def test_flipped_byte_is_caught_before_it_is_loaded(pair: Pair) -> None:
    manifest = pair.sender.prepare(pair.policy.named_weights(), pair.version + 1)
    victim = manifest.tensors[3]
    start = sum(manifest.bucket_bytes[: victim.bucket]) + victim.offset_bytes
    pair.sender._buffer.memory[start] ^= 1
    received, _ = await asyncio.gather(
        pair.engine.receive_weights(manifest), asyncio.to_thread(pair.sender.broadcast), return_exceptions=True
    )
    assert isinstance(received, WeightSyncError) and victim.name in str(received)
    await pair.sync()
    assert await pair.mismatch() <= LARGEST_MISMATCH


async def test_an_engine_that_slept_serves_as_before(pair: Pair) -> None:
    before = tokens(await pair.engine.generate(request(seed=9)))
    free_awake = torch.cuda.mem_get_info(0)[0]
    await pair.engine.sleep()
    assert torch.cuda.mem_get_info(0)[0] > free_awake + SETTINGS.kv_cache_bytes // 2
    await pair.engine.wake()
    assert tokens(await pair.engine.generate(request(seed=9))) == before
    pair.perturb()
    await pair.sync()
    assert await pair.mismatch() <= LARGEST_MISMATCH
