"""The rollout worker really serves the learner's weights: a real engine, real gloo, a model that changes."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft  # noqa: F401  # its own import warns of deprecations

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import WeightSyncError, WorkerError
from rayzero.services.schema.messages import ChatMessage, GroupCompletions, GroupRequest, Prompt, Sampling
from rayzero.services.schema.weights import WeightManifest
from tests.engine_environment import as_an_engines
from tests.models import build_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = RolloutSettings(kv_cache_bytes=2**28, max_model_tokens=512, num_threads=1, sampling={"max_tokens": 64})
DEADLINE_S = 20.0
SHORT_S = 2.0
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Mean |Δ log p| a token: both sides compute in the same precision, in another order."""


class Pair:
    """An engine and the policy that it should serve."""

    def __init__(self, path: Path, dtype: str, *, share_memory: bool = False) -> None:
        self.path, self.dtype = path, dtype
        spec = EngineSpec(model_path=str(path), dtype=dtype, settings=SETTINGS)
        self.engine = RolloutEngine("rollout-0", spec, deadline_s=DEADLINE_S)
        self.policy: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
        self.first = copy.deepcopy(self.policy)
        self.chance = torch.Generator().manual_seed(0)
        self.sender = WeightSender(
            self.policy.dtype,
            deadline_s=DEADLINE_S,
            bucket_bytes=2**16,
            share_memory=share_memory,
            makes_deltas=True,
        )
        self.tolerance = TOLERANCE[dtype]
        self.share_memory = share_memory
        self.version = 0

    async def start(self) -> None:
        await self.engine.start()
        await self.meet()

    async def meet(self) -> None:
        rendezvous = self.sender.open(1)
        await asyncio.gather(self.engine.join_transfer(rendezvous, 1), asyncio.to_thread(self.sender.accept))

    def prepare(self, version: int, adapters: Policy | None = None) -> WeightManifest:
        if adapters is None:
            return self.sender.prepare(self.policy.named_parameters(), version)
        return self.sender.prepare(adapters.sent_weights(), version, adapters.adapter_scaling)

    async def sync(self, adapters: Policy | None = None) -> int:
        """Bytes that went to the engine."""
        self.version += 1
        manifest = self.prepare(self.version, adapters)
        sending = asyncio.to_thread(self.sender.broadcast)
        _, num_bytes = await asyncio.gather(self.engine.receive_weights(manifest), sending)
        receipt = await self.engine.apply_weights(self.version)
        assert (receipt.policy_version, receipt.num_tensors) == (self.version, len(list(self.policy.parameters())))
        return num_bytes

    async def end(self) -> None:
        self.sender.close()
        await self.engine.shutdown()

    @torch.no_grad()
    def perturb(self, share: float = 1.0) -> None:
        """Change so many of the weights."""
        for parameter in self.policy.parameters():
            changed = torch.rand(parameter.shape, generator=self.chance) < share
            noise = torch.randn(parameter.shape, generator=self.chance).to(parameter.dtype) * changed
            parameter.add_(noise, alpha=0.3 * float(parameter.float().std() or 0.1) / share**0.5)

    @torch.no_grad()
    def train(self, adapters: Policy) -> None:
        """Give the adapters other values, and `policy` the weights that a checkpoint would have with them."""
        for _, factor in adapters.named_parameters():
            factor.copy_(0.12 * torch.randn(factor.shape, generator=self.chance))
        self.policy.load_state_dict(dict(adapters.named_weights()), strict=False)

    @torch.no_grad()
    def expected(self, made: GroupCompletions, index: int) -> np.ndarray:
        """The learner's log-probabilities of one completion."""
        tokens = np.concatenate([made.prompt_token_ids, made.completions[index].token_ids]).astype(np.int64)
        logits = self.policy(torch.from_numpy(tokens)[None]).logits[0, :-1].float()
        chosen = logits.log_softmax(-1).gather(1, torch.from_numpy(tokens[1:, None]))[:, 0]
        return np.asarray(chosen[-made.completions[index].num_tokens :])

    async def differs_by(self) -> float:
        """Mean |Δ log p| between what the engine reports when it samples, and what the policy says."""
        made = await self.engine.generate(request(group_id=self.version))
        differences = [
            np.abs(completion.rollout_logprobs - self.expected(made, index))
            for index, completion in enumerate(made.completions)
        ]
        assert {completion.newest_version for completion in made.completions} == {self.version}
        assert {completion.oldest_version for completion in made.completions} == {self.version}
        return float(np.concatenate(differences).mean())


def request(group_id: int, max_tokens: int = 32, num_completions: int = 4) -> GroupRequest:
    prompt = Prompt(prompt_id="sum", messages=(ChatMessage(role="user", content="What is 17 + 25?"),), answer="42")
    sampling = Sampling(num_completions=num_completions, max_tokens=max_tokens, seed=group_id)
    return GroupRequest(group_id=group_id, prompt=prompt, sampling=sampling)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """What placement gives an actor's process; the engine's process inherits it."""
    with as_an_engines(SETTINGS):
        yield


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[("float32", True, False), ("bfloat16", False, True)],
    ids=["float32 tied, head in the file, gloo", "bfloat16 shared memory"],
)
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    dtype, tied, share_memory = request.param
    path = build_tiny_model(tmp_path_factory.mktemp("model"), tied=tied, redundant_head=tied, dtype=dtype)
    pair = Pair(path, dtype, share_memory=share_memory)
    await pair.start()
    yield pair
    await pair.end()


@pytest_asyncio.fixture(loop_scope="module")
async def pair(served: Pair) -> Pair:
    """With the first weights again: what all tests changed would add up to what bf16 rounds too coarsely."""
    served.chance.manual_seed(0)
    served.policy = copy.deepcopy(served.first)
    await served.sync()
    return served


async def test_engine_and_policy_agree_token_by_token_after_every_sync(pair: Pair) -> None:
    assert await pair.differs_by() <= pair.tolerance
    for _ in range(2):
        pair.perturb()
        assert await pair.differs_by() > 2 * pair.tolerance, "the change is too small for the test to see"
        await pair.sync()
        assert pair.engine.policy_version == pair.version
        assert await pair.differs_by() <= pair.tolerance


async def test_what_is_new_is_all_that_an_engine_elsewhere_is_sent(pair: Pair) -> None:
    pair.perturb()
    whole = await pair.sync()
    for _ in range(2):
        pair.perturb(share=0.05)
        assert await pair.differs_by() > 2 * pair.tolerance, "the change is too small for the test to see"
        num_bytes = await pair.sync()
        assert num_bytes == whole if pair.share_memory else whole // 16 < num_bytes < whole // 4
        assert await pair.differs_by() <= 2 * pair.tolerance, "few large changes: bf16 rounds them coarsely"


async def test_given_tokens_are_scored_as_the_policy_scores_them(pair: Pair) -> None:
    made = await pair.engine.generate(request(group_id=90))
    for index, completion in enumerate(made.completions):
        scores = await pair.engine.logprobs(made.prompt_token_ids, completion.token_ids)
        assert scores.shape == completion.token_ids.shape
        assert np.abs(scores - pair.expected(made, index)).mean() <= pair.tolerance


@pytest.mark.parametrize("on_weights", ["keep_stale", "keep_recompute"])
async def test_running_completions_go_on_and_say_which_weights_sampled_what(
    pair: Pair, on_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.engine._weights, "_settings", SETTINGS.model_copy(update={"on_weights": on_weights}))
    running = asyncio.create_task(pair.engine.generate(request(group_id=91, max_tokens=400, num_completions=8)))
    while pair.engine.stats().num_running == 0:
        await asyncio.sleep(0.01)
    before = pair.version
    pair.perturb()
    await pair.sync()
    made = await running
    crossed = [i for i, each in enumerate(made.completions) if each.oldest_version < each.newest_version]
    assert crossed
    gaps = []
    for index in crossed:
        completion = made.completions[index]
        spans = completion.version_spans
        assert [span.policy_version for span in spans] == [before, pair.version]
        assert (spans[0].start, spans[0].end, spans[1].end) == (0, spans[1].start, completion.num_tokens)
        tail = slice(spans[1].start, None)
        gaps.append(np.abs(completion.rollout_logprobs[tail] - pair.expected(made, index)[tail]))
    gap = np.concatenate(gaps).mean()  # of all together: one may end a token or two after the new weights
    assert (gap <= pair.tolerance) == (on_weights == "keep_recompute"), "old keys have part in it, or none"


async def test_completions_that_new_weights_cut_off_are_carried_on_by_them(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (pair.engine, pair.engine._weights):
        monkeypatch.setattr(part, "_settings", SETTINGS.model_copy(update={"on_weights": "abort"}))
    await pair.engine.generate(request(group_id=94))  # the prompt's keys and values are cached now
    running = asyncio.create_task(pair.engine.generate(request(group_id=94, max_tokens=400, num_completions=8)))
    while pair.engine.stats().num_running == 0:
        await asyncio.sleep(0.01)
    before, old = pair.version, copy.deepcopy(pair.policy)
    pair.perturb()
    await pair.sync()
    made = await running
    crossed = [i for i, c in enumerate(made.completions) if c.oldest_version < c.newest_version]
    assert crossed and {completion.finish_reason for completion in made.completions} <= {"stop", "length"}
    # Of all completions together: one may end a token or two after the new weights, which says little in bf16.
    gaps: dict[str, list[np.ndarray[Any, Any]]] = {"kept": [], "added": []}
    for index in crossed:
        completion = made.completions[index]
        first, second = completion.version_spans
        assert (first.policy_version, second.policy_version) == (before, pair.version)
        assert (first.start, first.end, second.end) == (0, second.start, completion.num_tokens)
        kept, added = completion.rollout_logprobs[: first.end], completion.rollout_logprobs[first.end :]
        gaps["added"].append(np.abs(added - pair.expected(made, index)[first.end :]))
        new, pair.policy = pair.policy, old
        gaps["kept"].append(np.abs(kept - pair.expected(made, index)[: first.end]))
        pair.policy = new
    for gap in gaps.values():
        assert np.concatenate(gap).mean() <= pair.tolerance


async def test_cached_prefix_does_not_outlive_its_weights(pair: Pair) -> None:
    await pair.engine.generate(request(group_id=92))  # the prompt's keys and values are cached now
    pair.perturb()
    await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def test_flipped_element_is_caught_before_it_is_loaded(pair: Pair) -> None:
    before, served = pair.version, copy.deepcopy(pair.policy)
    pair.perturb()  # all of them: so all of them are sent
    manifest = pair.sender.prepare(pair.policy.named_parameters(), before + 1)
    victim = manifest.tensors[3]
    pair.sender._buffer.host_buckets[victim.bucket][victim.offset_bytes] ^= 1
    await fails_to_receive(pair, manifest, victim.name)
    pair.policy = served
    assert await pair.differs_by() <= pair.tolerance, "the engine goes on with the weights it had"
    pair.version = before + 1
    await pair.sync()  # and the same group carries the next broadcast


async def test_adapters_alone_are_served_on_the_base_whatever_was_served_before(pair: Pair) -> None:
    pair.perturb()
    await pair.sync()
    await serves_adapters(pair)


async def test_dropped_tensor_is_caught(pair: Pair) -> None:
    named = list(pair.policy.named_parameters())
    manifest = pair.sender.prepare(named[:2] + named[3:], pair.version + 1)
    with pytest.raises(WeightSyncError, match=f"missing from the manifest: {named[2][0]}"):
        await pair.engine.receive_weights(manifest)


async def test_wrong_shape_and_wrong_dtype_are_caught(pair: Pair) -> None:
    (name, tensor), *others = pair.policy.named_parameters()
    manifest = pair.sender.prepare([(name, tensor[:-1]), *others], pair.version + 1)
    with pytest.raises(WeightSyncError, match=f"{name} has shape"):
        await pair.engine.receive_weights(manifest)
    manifest = WeightSender(torch.float16).prepare(pair.policy.named_parameters(), pair.version + 1)
    with pytest.raises(WeightSyncError, match="comes as float16"):
        await pair.engine.receive_weights(manifest)


async def test_bytes_that_never_come_end_at_the_deadline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair.engine._calls, "deadline_s", SHORT_S)
    manifest = pair.sender.prepare(pair.policy.named_parameters(), pair.version + 1)
    begun = time.monotonic()
    with pytest.raises(WeightSyncError, match="did not get its weights in time"):
        await pair.engine.receive_weights(manifest)
    assert time.monotonic() - begun < SHORT_S + 2
    monkeypatch.undo()
    await pair.meet()
    await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def test_peer_that_dies_within_a_broadcast_costs_only_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    doomed = spawn.Process(target=join_and_die, args=(theirs, pair.version + 1))
    doomed.start()
    assert await asyncio.to_thread(ours.poll, 120)  # its imports, on a busy machine, are no part of the deadline
    rendezvous = pair.sender.open(2)
    ours.send(rendezvous)
    await asyncio.gather(pair.engine.join_transfer(rendezvous, 1), asyncio.to_thread(pair.sender.accept))
    monkeypatch.setattr(pair.engine._calls, "deadline_s", SHORT_S)
    manifest = pair.sender.prepare(pair.policy.named_parameters(), pair.version + 1)
    results = await asyncio.gather(
        pair.engine.receive_weights(manifest), asyncio.to_thread(pair.sender.broadcast), return_exceptions=True
    )
    broke_off = any(isinstance(result, WeightSyncError) for result in results)
    assert broke_off != pair.share_memory, "receivers that read the learner's own memory do not depend on each other"
    await asyncio.to_thread(doomed.join)
    monkeypatch.undo()
    pair.perturb()
    await pair.meet()
    await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def test_skipped_finish_is_caught_and_the_engine_serves_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(build_tiny_model(tmp_path), "float32")
    await pair.start()
    try:

        def without_finish(client: Any, policy_version: int) -> None:
            client.start_weight_update()
            client.update_weights({"policy_version": policy_version})

        monkeypatch.setattr(pair.engine._weights, "_load_weights", without_finish)
        with pytest.raises(WeightSyncError, match="should serve version 1"):
            await pair.sync()
        assert pair.engine.policy_version == 0
        with pytest.raises(WorkerError, match="cannot be trusted"):
            await pair.engine.generate(request(group_id=93))
    finally:
        await pair.end()


async def serves_adapters(pair: Pair) -> None:
    """An engine that serves whole weights of another source serves base and adapters, twice, and then whole ones."""
    lora = LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "up_proj", "down_proj"))
    adapters = Policy(pair.path, dtype=pair.dtype, lora=lora)
    for _ in range(2):
        pair.train(adapters)
        assert await pair.differs_by() > 2 * pair.tolerance, "the change is too small for the test to see"
        await pair.sync(adapters)
        assert await pair.differs_by() <= pair.tolerance
    manifest = pair.prepare(pair.version + 1, adapters)
    assert manifest.num_bytes < 0.2 * sum(weight.nbytes for weight in pair.policy.parameters())
    victim = manifest.tensors[3]
    pair.sender._buffer.host_buckets[victim.bucket][victim.offset_bytes] ^= 1
    await fails_to_receive(pair, manifest, victim.name)
    assert await pair.differs_by() <= pair.tolerance, "the engine goes on with the weights it had"
    pair.version += 1
    pair.perturb()
    await pair.sync()
    assert await pair.differs_by() <= pair.tolerance


async def fails_to_receive(pair: Pair, manifest: Any, name: str) -> None:
    received, sent = await asyncio.gather(
        pair.engine.receive_weights(manifest), asyncio.to_thread(pair.sender.broadcast), return_exceptions=True
    )
    assert not isinstance(sent, BaseException)
    assert isinstance(received, WeightSyncError)
    assert name in str(received)


def join_and_die(pipe: Connection, policy_version: int) -> None:
    pipe.send("ready")
    group = ReceiverGroup(pipe.recv(), 2, DEADLINE_S)
    group.announce(policy_version)
    os._exit(1)
