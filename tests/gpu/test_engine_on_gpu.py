"""A CUDA engine serves what the learner on the GPU sends: over every link, eager or with graphs, idle or busy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch

from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.config.rollout import OnWeights, RolloutSettings
from rayzero.services.schema.errors import WeightSyncError, WorkerError
from tests.gpu.conftest import DEVICE
from tests.gpu.pair import Pair, build_gentle_model, expected, reference, request, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="module")]

LARGEST_MISMATCH = 5e-2
"""Mean |Δ log p| of a token, bf16 on both sides and fp32 logits in the reference; between two CPU programs 0.02."""
LARGEST_MISMATCH_FP8 = 2e-1
"""The same with an engine whose linear layers are in 8 bits; a policy that has changed is further away."""
GRID, ON_GRID = 2.0**-10, 0.02
"""bf16 logits of magnitude 1/8 and above are multiples of GRID; ON_GRID of it is room for rounding in logarithms."""
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs, and this machine has not two")
CUDA_ONLY = pytest.mark.cuda_only


def settings_of(**changes: Any) -> RolloutSettings:
    given = {"device": DEVICE, "kv_cache_bytes": 2**29, "max_model_tokens": 512, "sampling": {"max_tokens": 64}}
    return RolloutSettings.model_validate(given | {"enforce_eager": True} | changes)


@dataclass(frozen=True)
class Setup:
    """How an engine is started, and where the policy is."""

    gpu: int = 0
    transport: Transport = "auto"
    eager: bool = True
    tensor_parallel_size: int = 1
    quantization: str | None = None
    sleeps: bool = False
    dies: bool = False
    """Whether it is killed by the last of its tests, which costs another start."""

    @property
    def settings(self) -> RolloutSettings:
        return settings_of(
            enforce_eager=self.eager, tensor_parallel_size=self.tensor_parallel_size, quantization=self.quantization
        )

    @property
    def tolerance(self) -> float:
        return LARGEST_MISMATCH if self.quantization is None else LARGEST_MISMATCH_FP8


SETUPS: dict[str, tuple[Setup, tuple[pytest.MarkDecorator, ...]]] = {
    "ipc-graphs": (Setup(eager=False, sleeps=True), (CUDA_ONLY,)),
    "fp8": (Setup(quantization="fp8"), (CUDA_ONLY,)),
    "host": (Setup(transport="gloo", dies=True), ()),
    "nccl-graphs": (Setup(gpu=1, eager=False, dies=True), (CUDA_ONLY, TWO_GPUS)),
    "tensor_parallel": (Setup(tensor_parallel_size=2), (CUDA_ONLY, TWO_GPUS)),
}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(engine_environment(settings_of()))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(
    scope="module", params=[pytest.param(setup, marks=marks, id=name) for name, (setup, marks) in SETUPS.items()]
)
def setup(request: pytest.FixtureRequest) -> Setup:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    path = build_gentle_model(tmp_path_factory.mktemp("model"))
    pair = Pair(path, setup.settings, gpu=setup.gpu, transport=setup.transport, sleeps=setup.sleeps)
    await pair.start()
    yield pair
    await pair.end()


async def test_engine_and_learner_agree_after_every_sync(pair: Pair, setup: Setup) -> None:
    assert await pair.mismatch() <= setup.tolerance
    for _ in range(3):
        pair.perturb()
        assert await pair.mismatch() > 2 * setup.tolerance, "the change is too small for the test to see"
        await pair.sync()
        assert await pair.mismatch() <= setup.tolerance


async def test_adapters_alone_are_served_on_the_base_whatever_was_served_before(pair: Pair, setup: Setup) -> None:
    whole = pair.policy
    lora = LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "up_proj", "down_proj"))
    pair.policy = Policy(whole.path, dtype="bfloat16", device=str(whole.device), lora=lora)
    for _ in range(2):
        with torch.no_grad():
            for _, factor in pair.policy.named_parameters():
                factor.normal_(std=0.12)
        assert await pair.mismatch() > 2 * setup.tolerance, "the change is too small for the test to see"
        await pair.sync()
        assert await pair.mismatch() <= setup.tolerance
    pair.policy = whole
    await pair.sync()
    assert await pair.mismatch() <= setup.tolerance


async def test_same_seeds_give_the_same_completions(pair: Pair) -> None:
    first = await pair.engine.generate(request(seed=7))
    again = await pair.engine.generate(request(seed=7))
    assert tokens_of(first) == tokens_of(again)
    assert tokens_of(first) != tokens_of(await pair.engine.generate(request(seed=8)))


@pytest.mark.parametrize("on_weights", ["keep_recompute", "keep_stale", "abort"])
async def test_weights_that_come_while_it_generates_sample_the_rest(
    pair: Pair, setup: Setup, on_weights: OnWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (pair.engine, pair.engine._weights):
        monkeypatch.setattr(part, "_settings", setup.settings.model_copy(update={"on_weights": on_weights}))
    running = asyncio.create_task(pair.engine.generate(request(seed=90, num_completions=16, max_tokens=400)))
    while pair.engine.stats().num_running == 0:
        await asyncio.sleep(0.002)
    before, old = pair.version, reference(pair.policy)
    pair.perturb()
    await pair.sync()
    made = await running
    crossed = [each for each in made.completions if each.oldest_version < each.newest_version]
    assert crossed, "every completion was over before the weights came"
    assert {each.finish_reason for each in made.completions} <= {"stop", "length"}
    gaps: dict[str, list[np.ndarray]] = {"old": [], "new": []}
    for each in crossed:
        first, second = each.version_spans
        assert (first.policy_version, second.policy_version) == (before, pair.version)
        assert (first.start, first.end, second.end) == (0, second.start, each.num_tokens)
        of_old, of_new = expected(old, made, each), expected(reference(pair.policy), made, each)
        gaps["old"].append(np.abs(each.rollout_logprobs - of_old)[: first.end])
        gaps["new"].append(np.abs(each.rollout_logprobs - of_new)[first.end :])
    assert np.concatenate(gaps["old"]).mean() <= setup.tolerance
    if on_weights != "keep_stale":  # there the new weights go on from keys and values of the old ones
        assert np.concatenate(gaps["new"]).mean() <= setup.tolerance


async def test_flipped_byte_is_caught_before_it_is_loaded(pair: Pair, setup: Setup) -> None:
    manifest = pair.sender.prepare(pair.policy.named_weights(), pair.version + 1)
    victim = manifest.tensors[3]
    start = sum(manifest.bucket_bytes[: victim.bucket]) + victim.offset_bytes
    pair.sender._buffer.memory[start] ^= 1
    if DEVICE == "cuda":
        torch.cuda.synchronize()  # the flip is on this thread's stream, the broadcast on others
    received, _ = await asyncio.gather(
        pair.engine.receive_weights(manifest), asyncio.to_thread(pair.sender.broadcast), return_exceptions=True
    )
    assert isinstance(received, WeightSyncError) and victim.name in str(received)
    await pair.sync()
    assert await pair.mismatch() <= setup.tolerance


async def test_logits_are_those_of_a_float32_head(pair: Pair) -> None:
    """What a bf16 head has rounded are multiples of a grid, and so are their differences; a float32 head's are not. In
    a rehearsal the head is in bf16, and the test must see it."""
    prompt = (await pair.engine.generate(request(seed=3))).prompt_token_ids
    scores = [await pair.engine.logprobs(prompt, np.asarray([token], dtype=np.int32)) for token in range(4, 36)]
    steps = (np.concatenate(scores)[1:].astype(np.float64) - scores[0][0]) / GRID
    on_grid = float((np.abs(steps - steps.round()) < ON_GRID).mean())
    assert (on_grid > 0.5) == (DEVICE == "cpu"), f"{on_grid:.0%} of the logits lie where bf16 can be"


@CUDA_ONLY
async def test_an_engine_that_slept_serves_as_before(pair: Pair, setup: Setup) -> None:
    if not setup.sleeps:
        pytest.skip("this engine was not started to sleep")
    before = tokens_of(await pair.engine.generate(request(seed=9)))
    free_awake = torch.cuda.mem_get_info(0)[0]
    await pair.engine.sleep()
    assert torch.cuda.mem_get_info(0)[0] > free_awake + setup.settings.kv_cache_bytes // 2
    await pair.engine.wake()
    await pair.sync()  # its own weights are gone: the same come again
    assert tokens_of(await pair.engine.generate(request(seed=9))) == before
    pair.perturb()
    await pair.sync()
    assert await pair.mismatch() <= setup.tolerance


async def test_an_engine_killed_inside_a_broadcast_is_known_to_be_dead_and_the_next_one_serves(
    pair: Pair, setup: Setup
) -> None:
    if not setup.dies:
        pytest.skip("another engine of these tests is killed")
    manifest = pair.prepare(pair.version + 1)
    receiving = asyncio.create_task(pair.engine.receive_weights(manifest))
    sending = asyncio.create_task(asyncio.to_thread(pair.sender.broadcast))
    await asyncio.sleep(0)
    pair.kill_engine()
    with pytest.raises(WorkerError, match="rollout-0"):
        await asyncio.wait_for(receiving, 30)
    pair.sender.abort()  # as the control plane does
    sent = (await asyncio.gather(asyncio.wait_for(sending, 30), return_exceptions=True))[0]
    assert sent is None or isinstance(sent, WeightSyncError)
    with pytest.raises(WorkerError, match="has died"):
        await pair.engine.generate(request(seed=1))
    await pair.replace_engine()
    pair.perturb()
    await pair.sync()
    assert await pair.mismatch() <= setup.tolerance
