"""The reference: what it scores, what it costs, what a checkpoint holds of it; that it is compiled as the policy is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import ONE_RANK, Ranks
from rayzero.learner.model.reference import AdapterCopy, OtherModel, WeightCopy
from rayzero.learner.update.checkpoint import load_learner, read_state, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import ComputeSettings, LearnerSettings
from tests.unit.learner.kit import LENIENT, build_model, some_groups

LORA: dict[str, Any] = {"lora": {"rank": 2, "alpha": 8}}


@pytest.fixture(params=["one rank", "sharded"])
def ranks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ranks]:
    if request.param == "one rank":
        yield ONE_RANK
        return
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        yield Ranks(0, 1, init_device_mesh("cpu", (1,)))
    finally:
        dist.destroy_process_group()


def learner_of(model: Path, ranks: Ranks = ONE_RANK, **settings: Any) -> Learner:
    content = {"watch": LENIENT, "optimizer": {"learning_rate": 1e-2}, "kl": {"beta": 0.1}} | settings
    made = LearnerSettings.model_validate(content)
    policy = Policy(
        model, dtype="bfloat16", lora=made.lora, compute=made.compute, ranks=ranks, reference_path=made.kl.reference
    )
    return Learner(policy, made, num_updates=10, max_completion_tokens=16)


def microbatch() -> Microbatch:
    (packed,) = pack(make_batch(some_groups()).samples, tokens_per_microbatch=1000)
    return packed


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in policy.named_weights()}


@torch.no_grad()
def scores(policy: Policy) -> Tensor:
    return policy.logprobs(microbatch())[0]


@pytest.mark.parametrize("lora", [{}, LORA])
def test_it_is_the_policy_of_then(tiny_model: Path, ranks: Ranks, lora: dict[str, Any]) -> None:
    learner = learner_of(tiny_model, ranks, **lora)
    policy = learner.policy
    at_first = scores(policy)
    for version in (1, 2):
        learner.update(some_groups(version), version)
    trained, now = weights(policy), scores(policy)
    assert not torch.equal(now, at_first)
    assert torch.equal(policy.reference_logprobs(microbatch()), at_first)
    policy.keep_reference()
    learner.update(some_groups(3), 3)
    assert torch.equal(policy.reference_logprobs(microbatch()), now)
    assert not torch.equal(scores(policy), now), "the reference's weights are not left in the policy"
    assert any(not torch.equal(weight, trained[name]) for name, weight in policy.named_weights())


def test_scoring_leaves_the_policy_as_it_is(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, **LORA)
    for version in (1, 2):
        learner.update(some_groups(version), version)
    before = weights(learner.policy)
    learner.policy.reference_logprobs(microbatch())
    assert all(torch.equal(weight, before[name]) for name, weight in learner.policy.named_weights())


def test_of_adapters_no_second_model_is_held_and_none_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_model, **LORA)
    assert isinstance(learner.policy._reference, AdapterCopy)
    save_learner(learner, tmp_path)
    saved = read_state(tmp_path)["reference"]
    assert set(saved) == {name for name, _ in learner.policy.named_parameters()}


@pytest.mark.parametrize("lora", [{}, LORA])
def test_a_resume_is_bit_exact_after_a_renewal(tiny_model: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    kl = {"beta": 0.1, "refresh_every_updates": 2}
    straight, interrupted = (learner_of(tiny_model, kl=kl, **lora) for _ in range(2))
    for learner in (straight, interrupted):
        for update in range(3):
            learner.update(some_groups(update), update + 1)
    save_learner(interrupted, tmp_path)
    resumed = learner_of(tiny_model, kl=kl, **lora)
    load_learner(resumed, tmp_path)
    for file in (tmp_path / "state").iterdir():
        file.write_bytes(bytes(file.stat().st_size))  # what was read from it is in memory of its own
    for learner in (straight, resumed):
        learner.update(some_groups(3), 4)
    assert torch.equal(
        resumed.policy.reference_logprobs(microbatch()), straight.policy.reference_logprobs(microbatch())
    )
    for (name, one), (_, other) in zip(resumed.policy.named_weights(), straight.policy.named_weights(), strict=True):
        assert torch.equal(one, other), name


def layers_compiled(scorer: Any) -> list[bool]:
    """Of a model's layers, in order; nothing else is compiled on its own."""
    assert scorer._compiled_call_impl is None and scorer.model._compiled_call_impl is None
    return [layer._compiled_call_impl is not None for layer in scorer.model.model.layers]


@pytest.mark.parametrize("chosen", [True, False])
def test_the_reference_is_compiled_as_the_policy_is(tiny_model: Path, ranks: Ranks, chosen: bool) -> None:
    policy = Policy(tiny_model, compute=ComputeSettings(compile=chosen), ranks=ranks)
    policy.keep_reference()
    assert isinstance(policy._reference, WeightCopy)
    assert layers_compiled(policy._scorer) == layers_compiled(policy._reference.scorer) == [chosen] * 2


@pytest.mark.parametrize("chosen", [True, False])
def test_a_reference_from_disk_is_compiled_too(tiny_model: Path, tmp_path: Path, ranks: Ranks, chosen: bool) -> None:
    other = build_model(tmp_path / "other", "llama", seed=5)
    policy = Policy(tiny_model, compute=ComputeSettings(compile=chosen), ranks=ranks, reference_path=other)
    policy.keep_reference()
    assert isinstance(policy._reference, OtherModel)
    assert layers_compiled(policy._reference.scorer) == [chosen] * 2


@pytest.mark.parametrize(("device", "compiled"), [("cpu", False), ("cuda", True)])
def test_unless_the_recipe_says_so_gpus_compile(tiny_model: Path, ranks: Ranks, device: str, compiled: bool) -> None:
    policy = Policy(tiny_model, ranks=ranks)
    policy.device = torch.device(device)
    assert layers_compiled(policy._compiled(policy._scorer)) == [compiled] * 2
