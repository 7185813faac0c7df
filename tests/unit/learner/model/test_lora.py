"""Adapters: only they move, merging is what the policy computes, checkpoints are ordinary models, resumes are exact."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft  # noqa: F401  # its own import warns of deprecations

from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import Ranks, shard_like
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.errors import RecipeError
from tests.unit.learner.kit import LENIENT, some_groups

RECIPE = {"lora": {"rank": 2, "alpha": 8}, "watch": LENIENT, "optimizer": {"learning_rate": 1e-2}}


def lora_learner(model: Path, dtype: str = "float32") -> Learner:
    settings = LearnerSettings.model_validate(RECIPE)
    policy = Policy(model, dtype=dtype, lora=settings.lora)
    return Learner(policy, settings, num_updates=10, max_completion_tokens=16)


def test_it_starts_as_the_base_model_and_only_adapters_move(tiny_model: Path) -> None:
    base = dict(Policy(tiny_model, dtype="float32").named_weights())
    learner = lora_learner(tiny_model)
    for name, weight in learner.policy.named_weights():
        assert torch.equal(weight, base[name])
    assert all(".lora_" in name for name, _ in learner.policy.named_parameters())
    learner.update(some_groups(), 1)
    learner.update(some_groups(), 2)
    moved = {name for name, weight in learner.policy.named_weights() if not torch.equal(weight, base[name])}
    assert moved == {name for name in base if "_proj" in name}


def test_the_saved_model_is_merged(tiny_model: Path, tmp_path: Path) -> None:
    learner = lora_learner(tiny_model)
    for version in (1, 2):
        learner.update(some_groups(), version)
    save_learner(learner, tmp_path)
    group = some_groups()[0]
    prompt, ids = group.prompt_token_ids, group.rollouts[0].completion.token_ids
    plain = Learner(Policy(tmp_path, dtype="float32"), LearnerSettings(), num_updates=1, max_completion_tokens=16)
    np.testing.assert_allclose(plain.score(prompt, ids), learner.score(prompt, ids), rtol=1e-4, atol=1e-5)


def test_the_adapters_alone_are_saved_as_peft_loads_them(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learner = lora_learner(tiny_model)
    for version in (1, 2):
        learner.update(some_groups(), version)
    save_learner(learner, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    expected = dict(learner.policy.named_weights())
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


def test_resume_is_bit_exact(tiny_model: Path, tmp_path: Path) -> None:
    straight, interrupted = (lora_learner(tiny_model, "bfloat16") for _ in range(2))
    for update in range(3):
        straight.update(some_groups(update), update + 1)
    interrupted.update(some_groups(0), 1)
    save_learner(interrupted, tmp_path)
    resumed = lora_learner(tiny_model, "bfloat16")
    load_learner(resumed, tmp_path)
    for update in (1, 2):
        resumed.update(some_groups(update), update + 1)
    for (name, one), (_, other) in zip(resumed.policy.named_weights(), straight.policy.named_weights(), strict=True):
        assert torch.equal(one, other), name


def test_a_sync_sends_the_adapters_alone(tiny_model: Path) -> None:
    policy = lora_learner(tiny_model, "bfloat16").policy
    assert policy.adapter_scaling == 4.0
    sent = dict(policy.sent_weights())
    assert {name.rpartition(".")[2] for name in sent} == {"lora_A", "lora_B"}
    assert {name.rpartition(".")[0] for name in sent} == {name for name, _ in policy.named_weights() if "_proj" in name}
    assert sum(factor.numel() for factor in sent.values()) == sum(p.numel() for _, p in policy.named_parameters())
    assert {factor.dtype for factor in sent.values()} == {torch.bfloat16}
    plain = Policy(tiny_model)
    assert plain.adapter_scaling is None
    assert [name for name, _ in plain.sent_weights()] == [name for name, _ in plain.named_weights()]


def test_sharded_fp32_parameters_give_the_same_weights_as_one_rank(tiny_model: Path, tmp_path: Path) -> None:
    """Rounded before they are merged: what is sent, merged and saved does not depend on the number of ranks."""
    lora = LearnerSettings.model_validate(RECIPE).lora
    one = Policy(tiny_model, dtype="bfloat16", lora=lora)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        ranks = Ranks(0, 1, init_device_mesh("cpu", (1,)))
        sharded = Policy(tiny_model, dtype="bfloat16", lora=lora, ranks=ranks)
        with torch.no_grad():
            for (_, parameter), (_, shard) in zip(one.named_parameters(), sharded.named_parameters(), strict=True):
                values = torch.randn(parameter.shape)
                shard.copy_(shard_like(values, shard))
                parameter.copy_(values)
        for kind in (Policy.named_weights, Policy.sent_weights):
            for (name, mine), (other, theirs) in zip(kind(one), kind(sharded), strict=True):
                assert name == other and torch.equal(mine, theirs), name
    finally:
        dist.destroy_process_group()


def test_a_target_that_no_layer_has_is_named(tiny_model: Path) -> None:
    settings = LearnerSettings.model_validate({"lora": {"target_modules": ["nowhere_proj"]}})
    with pytest.raises(RecipeError, match=r"learner\.lora\.target_modules.*nowhere_proj"):
        Policy(tiny_model, lora=settings.lora)
