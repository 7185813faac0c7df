"""Mixtures of experts in a real engine: what it serves after a sync is what an engine started from the saved checkpoint
serves, and what the learner computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    Rollout,
    Sampling,
    Verdict,
    VerdictStatus,
)
from tests.engine_environment import as_an_engines
from tests.integration.test_weight_sync import DEADLINE_S, SETTINGS
from tests.models import build_tiny_mixture
from tests.unit.learner.kit import packed_logprobs

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAYS = {
    "Qwen3-MoE, loaded in the pause": ("qwen3_moe", "streamed", "float32"),
    "Mixtral, staged": ("mixtral", "staged", "float32"),
}
K3_LIMIT = 1e-6
"""Mean k3 estimate of the KL between engine and learner a token, in nats, at equal weights, in fp32. In bf16 each sends
some tokens to other experts: .005 to .02 with routers of random weights."""
QUESTION = Prompt(prompt_id="sum", messages=(ChatMessage(role="user", content="What is 17 + 25?"),), answer="42")


class Mixture:
    """A policy, the engine that it sends its weights to, and the way."""

    def __init__(self, path: Path, kind: str, loading: str, dtype: str) -> None:
        self.kind, self.dtype, self.streams, self.version = kind, dtype, loading == "streamed", 0
        self.policy = Policy(build_tiny_mixture(path, kind), dtype=dtype)
        self._settings = SETTINGS.model_copy(update={"weight_loading": loading})
        self.engine = self.new_engine(path)
        # A layer's experts come in several buckets.
        self.sender = WeightSender(self.policy.dtype, deadline_s=DEADLINE_S, bucket_bytes=2**14)

    def new_engine(self, path: Path) -> RolloutEngine:
        spec = EngineSpec(model_path=str(path), dtype=self.dtype, settings=self._settings)
        return RolloutEngine("rollout-0", spec, deadline_s=DEADLINE_S)

    async def meet(self) -> None:
        rendezvous = self.sender.open(1)
        await asyncio.gather(self.engine.join_transfer(rendezvous, 1), asyncio.to_thread(self.sender.accept))

    async def sync(self) -> None:
        self.version += 1
        if self.streams:
            manifest = self.sender.announce(self.policy.sent_outline(), self.version)
            sending: Awaitable[int] = asyncio.to_thread(self.sender.stream, self.policy.sent_weights())
        else:
            manifest = self.sender.prepare(self.policy.sent_weights(), self.version)
            sending = asyncio.to_thread(self.sender.broadcast)
        await asyncio.gather(self.engine.receive_weights(manifest), sending)
        receipt = await self.engine.apply_weights(self.version)
        assert receipt.policy_version == self.version
        assert receipt.num_tensors == len(self.policy.sent_outline()) > 40, "each expert counts"

    @torch.no_grad()
    def perturb(self) -> None:
        for _, parameter in self.policy.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 * float(parameter.float().std() or 0.1))

    async def k3(self) -> float:
        """Mean k3 between what the engine says of the tokens that it samples, and what the policy says of them."""
        made = await self.engine.generate(request(self.version))
        ratio = self.scored(made) - np.concatenate([each.rollout_logprobs for each in made.completions])
        return float((np.exp(ratio) - ratio - 1).mean())

    def scored(self, made: GroupCompletions) -> NDArray[np.float32]:
        """The learner's log-probabilities of all completions, packed as in training."""
        batch = make_batch([group_of(made)])
        with torch.no_grad():
            found = packed_logprobs(self.policy, pack(batch.samples, tokens_per_microbatch=10_000), batch.num_tokens)
        return found.numpy()


def request(seed: int, *, temperature: float = 1.0) -> GroupRequest:
    number = 4 if temperature else 1
    sampling = Sampling(num_completions=number, max_tokens=48, seed=seed, temperature=temperature)
    return GroupRequest(group_id=seed, prompt=QUESTION, sampling=sampling)


def group_of(made: GroupCompletions) -> Group:
    """Judged so that each completion is trained on."""

    def judged(index: int, completion: Completion) -> Rollout:
        status = VerdictStatus.CORRECT if index == 0 else VerdictStatus.WRONG
        verdict = Verdict(reward=float(index == 0), components={}, status=status, reason="", seconds=0.0)
        return Rollout(completion=completion, verdict=verdict)

    rollouts = tuple(judged(index, completion) for index, completion in enumerate(made.completions))
    return Group(group_id=0, prompt=QUESTION, prompt_token_ids=made.prompt_token_ids, rollouts=rollouts)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with as_an_engines(SETTINGS):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(WAYS.values()), ids=list(WAYS))
async def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mixture]:
    mixture = Mixture(tmp_path_factory.mktemp("model"), *request.param)
    await mixture.engine.start()
    await mixture.meet()
    yield mixture
    mixture.sender.close()
    await mixture.engine.shutdown()


async def test_engine_and_learner_agree_before_and_after_a_sync(mixture: Mixture) -> None:
    assert await mixture.k3() < K3_LIMIT
    mixture.perturb()
    assert await mixture.k3() > 10 * K3_LIMIT, "the change is too small for the test to see"
    await mixture.sync()
    assert await mixture.k3() < K3_LIMIT


async def test_a_synced_engine_is_an_engine_of_the_saved_checkpoint(mixture: Mixture, tmp_path: Path) -> None:
    mixture.perturb()
    await mixture.sync()
    mixture.policy.save(tmp_path)
    fresh = mixture.new_engine(tmp_path)
    await fresh.start()
    try:
        for asked in (request(90, temperature=0.0), request(91)):
            synced, started = await mixture.engine.generate(asked), await fresh.generate(asked)
            for mine, theirs in zip(synced.completions, started.completions, strict=True):
                np.testing.assert_array_equal(mine.token_ids, theirs.token_ids)
                np.testing.assert_array_equal(mine.rollout_logprobs, theirs.rollout_logprobs)
    finally:
        await fresh.shutdown()


async def test_a_dropped_expert_is_missed_by_name(mixture: Mixture) -> None:
    before, part = mixture.version, "experts.3.w2" if mixture.kind == "mixtral" else "experts.7.down_proj"
    outline = [(name, shape) for name, shape in mixture.policy.sent_outline() if part not in name]
    manifest = mixture.sender.announce(outline, before + 1)
    with pytest.raises(WeightSyncError, match=f"missing from the manifest: model.layers.0.*{part}"):
        await mixture.engine.receive_weights(manifest)
    await mixture.meet()
    await mixture.sync()
    assert await mixture.k3() < K3_LIMIT
