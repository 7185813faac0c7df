"""Routing of a real engine, captured, and replayed in the learner: the same experts, the same log-probabilities."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import Batch, make_batch
from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.episodes import EpisodeRequest
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    GroupCompletions,
    GroupRequest,
    Prompt,
    Sampling,
)
from tests.engine_environment import as_an_engines
from tests.integration.test_mixtures import Mixture, group_of
from tests.integration.test_weight_sync import DEADLINE_S, SETTINGS
from tests.models import build_tiny_mixture
from tests.reference.forced_experts import forced_logprobs, own_experts
from tests.unit.learner.kit import packed_logprobs

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL_CACHE = SETTINGS.model_copy(
    update={"kv_cache_bytes": 14 * 2**14, "max_model_tokens": 320, "max_num_seqs": 8, "max_num_batched_tokens": 48}
)
"""14 blocks of 32 tokens: eight completions do not fit, and a prompt takes several steps."""


class Recorded(Mixture):
    """A policy that replays what its engine records."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(path, kind, "staged", "float32")
        self.policy = Policy(path, dtype="float32", routing_replay=True)

    def new_engine(self, path: Path) -> RolloutEngine:
        return recording(path)

    @property
    def model(self) -> Any:
        """transformers' own, with the policy's weights."""
        model = AutoModelForCausalLM.from_pretrained(self.policy.path, dtype=torch.float32)
        model.load_state_dict({name: weight.detach() for name, weight in self.policy.model.named_parameters()})
        return model


def recording(path: Path, settings: Any = SETTINGS) -> RolloutEngine:
    spec = EngineSpec(model_path=str(path), dtype="float32", settings=settings, routing_replay=True)
    return RolloutEngine("rollout-0", spec, deadline_s=DEADLINE_S)


def asked(number: int, text: str, **sampling: Any) -> GroupRequest:
    prompt = Prompt(prompt_id=f"{number}", messages=(ChatMessage(role="user", content=text),), answer="42")
    given = {"num_completions": 4, "max_tokens": 48, "seed": number, **sampling}
    return GroupRequest(group_id=number, prompt=prompt, sampling=Sampling(**given))


def texts(count: int, length: int = 60) -> list[str]:
    """Questions that begin alike, over more than a block of the cache, and end apart."""
    rng = np.random.default_rng(0)
    begin = "What is the sum of all of these numbers, and of no other one? "
    return [begin + "".join(rng.choice(list("0123456789 +-"), int(rng.integers(1, length)))) for _ in range(count)]


def recorded(made: GroupCompletions, completion: Completion) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """[P + T] tokens and [P + T - 1] rows, in order of the experts' number."""
    assert made.prompt_routed_experts is not None and completion.routed_experts is not None
    tokens = np.concatenate([made.prompt_token_ids, completion.token_ids])
    rows = np.concatenate([made.prompt_routed_experts, completion.routed_experts[: completion.num_tokens - 1]])
    assert len(rows) == len(tokens) - 1, "no token goes without"
    return tokens, np.sort(rows.astype(np.int64), axis=-1)


def check_is_own(model: Any, made: GroupCompletions) -> None:
    """Every completion's rows are what the model itself chooses for its tokens."""
    for completion in made.completions:
        tokens, rows = recorded(made, completion)
        own = own_experts(model, tokens)[:-1]
        assert (rows != own).any(-1).mean() <= 1e-3, "but where two experts are as likely, to the last bit"
        assert (rows[1:] != own[:-1]).any(-1).mean() > 0.3, "rows that are shifted by one would be seen"


def micro(batch: Batch) -> list[Microbatch]:
    return pack(batch.samples, tokens_per_microbatch=150)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with as_an_engines(SETTINGS):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["qwen3_moe", "mixtral"])
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorded]:
    pair = Recorded(tmp_path_factory.mktemp("model"), request.param)
    await pair.engine.start()
    await pair.meet()
    yield pair
    pair.sender.close()
    await pair.engine.shutdown()


async def test_at_equal_weights_replay_is_the_identity(pair: Recorded) -> None:
    made = await pair.engine.generate(asked(pair.version + 1, texts(1)[0]))
    check_is_own(pair.model, made)
    batch = make_batch([group_of_record(made)])
    free = Policy(pair.policy.path, dtype="float32")
    with torch.no_grad():
        replayed = packed_logprobs(pair.policy, micro(batch), batch.num_tokens)
        own = packed_logprobs(free, micro(batch), batch.num_tokens)
    torch.testing.assert_close(replayed, own, atol=1e-5, rtol=0)
    np.testing.assert_allclose(replayed, batch.rollout_logprobs, atol=1e-4)


async def test_a_learner_that_would_choose_others_takes_the_captured_ones(pair: Recorded) -> None:
    made = await pair.engine.generate(asked(pair.version + 2, texts(2)[1], num_completions=2, max_tokens=24))
    batch = make_batch([group_of_record(made)])
    moved = Policy(pair.policy.path, dtype="float32", routing_replay=True)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if "gate.weight" in name:
                parameter.add_(torch.randn_like(parameter), alpha=float(parameter.std()))
    model = AutoModelForCausalLM.from_pretrained(moved.path, dtype=torch.float32)
    model.load_state_dict({name: weight.detach() for name, weight in moved.model.named_parameters()})
    found = packed_logprobs(moved, pack(batch.samples, tokens_per_microbatch=10_000), batch.num_tokens)
    assert moved.replayed is not None
    tokens, pairs, differing = moved.replayed.counts().tolist()
    assert tokens == moved.replayed.experts.shape[0] and differing > 0.2 * pairs  # type: ignore[union-attr]
    parts = []
    for completion in made.completions:
        whole, rows = recorded(made, completion)
        parts.append(forced_logprobs(model, whole, rows)[-completion.num_tokens :])
    expected = torch.cat(parts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found.sum().backward()
    expected.sum().backward()
    true = dict(model.named_parameters())
    for name, parameter in moved.named_parameters():
        assert parameter.grad is not None and true[name].grad is not None
        torch.testing.assert_close(parameter.grad, true[name].grad, atol=1e-3, rtol=1e-4, msg=name)


async def test_what_a_request_chose_is_the_same_alone_and_among_others(pair: Recorded) -> None:
    questions = [asked(100 + place, text, num_completions=1, temperature=0.0) for place, text in enumerate(texts(8))]
    together = await asyncio.gather(*(pair.engine.generate(question) for question in questions))
    for question, among in zip(questions, together, strict=True):
        alone = await pair.engine.generate(replace(question, group_id=question.group_id + 100))
        (one,), (other,) = alone.completions, among.completions
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        np.testing.assert_array_equal(recorded(alone, one)[1], recorded(among, other)[1])
        check_is_own(pair.model, among)


async def test_an_episodes_turns_and_what_was_said_between_them_are_recorded(pair: Recorded) -> None:
    sampling = Sampling(num_completions=1, max_tokens=16, seed=5)
    request = EpisodeRequest(
        group_id=300, index=0, prompt=asked(300, texts(1)[0]).prompt, sampling=sampling, environment_seed=0
    )
    session = await pair.engine.open_episode(request)
    said: list[ChatMessage] = []
    for number in range(3):
        turn = await pair.engine.turn(session, said)
        said += [turn.message, ChatMessage(role="user", content=f"That is wrong, {number} times. Try again!")]
    record = await pair.engine.close_episode(session)
    prompt, rows = record.prompt_token_ids, record.prompt_routed_experts
    assert rows is not None and len(rows) == len(prompt)
    wholes: list[tuple[NDArray[np.int32], NDArray[Any]]] = []
    parents = [(0, len(prompt)), *((branch.parent, branch.fork) for branch in record.completion.branches)]
    for (parent, fork), path in zip(parents, record.completion.paths, strict=True):
        before, routed = wholes[parent] if wholes else (prompt, rows)
        assert path.routed_experts is not None
        wholes.append((
            np.concatenate([before[:fork], path.token_ids]), np.concatenate([routed[:fork], path.routed_experts])
        ))  # fmt: skip
    assert sum(len(path.turns) for path in record.completion.paths) == 3
    for tokens, routed in wholes:
        assert len(routed) >= len(tokens) - 1
        own = own_experts(pair.model, tokens)[: len(tokens) - 1]
        assert (np.sort(routed.astype(np.int64), axis=-1)[: len(own)] != own).any(-1).mean() <= 1e-3


async def test_a_completion_that_new_weights_cut_off_keeps_what_it_was_sampled_from(
    pair: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (pair.engine, pair.engine._weights):
        monkeypatch.setattr(part, "_settings", SETTINGS.model_copy(update={"on_weights": "abort"}))
    old = copy.deepcopy(pair.model)
    question = asked(400, texts(1)[0], max_tokens=300)
    running = asyncio.create_task(pair.engine.generate(question))
    while pair.engine.stats().num_running == 0:
        await asyncio.sleep(0.01)
    pair.perturb()
    await pair.sync()
    made = await running
    crossed = [each for each in made.completions if each.oldest_version < each.newest_version]
    assert crossed
    for completion in crossed:
        tokens, rows = recorded(made, completion)
        cut = len(made.prompt_token_ids) + completion.version_spans[0].end - 1
        assert (rows[:cut] != own_experts(old, tokens)[:cut]).any(-1).mean() <= 1e-3
        later, own = rows[cut:], own_experts(pair.model, tokens)[cut:-1]
        assert (later != own).any(-1).mean() <= 2e-3


async def test_two_updates_of_learner_and_engine(pair: Recorded) -> None:
    settings = LearnerSettings.model_validate({"routing_replay": True, "optimizer": {"learning_rate": 1e-3}})
    learner = Learner(pair.policy, settings, num_updates=2, max_completion_tokens=48)
    learner.policy_version = pair.version
    for number in range(2):
        made = [
            await pair.engine.generate(asked(500 + 10 * number + place, text)) for place, text in enumerate(texts(3))
        ]
        result = learner.update([group_of_record(each) for each in made], pair.version + 1)
        assert result.metrics["routing_unknown"] == 0.0
        assert result.metrics["routing_differs"] <= 1e-3, "the engine has the learner's weights"
        assert result.metrics["grad_norm"] > 0 and result.metrics["kl_rollout_fresh"] < 1e-6
        await pair.sync()


def group_of_record(made: GroupCompletions) -> Any:
    return replace(group_of(made), group_id=made.group_id, prompt_routed_experts=made.prompt_routed_experts)


async def test_prompts_in_parts_and_completions_that_are_pushed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build_tiny_mixture(tmp_path, "qwen3_moe")
    arguments = engine_process.engine_arguments
    monkeypatch.setattr(
        engine_process, "engine_arguments", lambda spec: {**arguments(spec), "enable_chunked_prefill": True}
    )
    engine = recording(path, SMALL_CACHE)
    await engine.start()
    try:
        wanted = [
            asked(place, text, num_completions=2, max_tokens=160, seed=None) for place, text in enumerate(texts(6))
        ]
        made = await asyncio.gather(*(engine.generate(question) for question in wanted))
        assert engine.stats().preemptions > 0
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for each in made:
            assert len(each.prompt_token_ids) > 48, "it takes two steps"
            check_is_own(model, each)
    finally:
        await engine.shutdown()
