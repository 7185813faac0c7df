"""Replayed routing against a forward pass that computes token by token, expert by expert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import Batch, make_batch
from rayzero.learner.model.policy import Policy
from rayzero.services.schema.config.learner import ComputeSettings
from tests.reference.forced_experts import forced_logprobs, own_experts
from tests.unit.learner.kit import build_model, make_group, packed_logprobs, with_routing

KINDS = ["mixtral", "qwen3_moe"]
LAYERS = 2


def batch_of(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    groups = [
        make_group(rng, [5, 7, 1], [1, 0, 0], group_id=0),
        make_group(rng, [9, 2], [1, 0], group_id=1, prompt_length=9),
    ]
    return make_batch([with_routing(rng, group) for group in groups])


def rows_before(batch: Batch, number: int) -> NDArray[np.uint8]:
    sample = batch.samples[number]
    assert sample.prompt_routed_experts is not None and sample.routed_experts is not None
    return np.concatenate([sample.prompt_routed_experts, sample.routed_experts])


def slow(model: torch.nn.Module, batch: Batch) -> Tensor:
    parts = []
    for number, sample in enumerate(batch.samples):
        tokens = np.concatenate([sample.prompt_token_ids, sample.token_ids])
        parts.append(forced_logprobs(model, tokens, rows_before(batch, number))[-sample.num_tokens :])
    return torch.cat(parts)


def replaying(path: Path, **compute: bool) -> Policy:
    return Policy(path, dtype="float32", compute=ComputeSettings(**compute), routing_replay=True)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_and_gradients_are_those_of_the_recorded_experts(
    kind: str, checkpointing: bool, tmp_path: Path
) -> None:
    path = build_model(tmp_path, kind)
    batch = batch_of()
    policy = replaying(path, activation_checkpointing=checkpointing)
    microbatches = pack(batch.samples, tokens_per_microbatch=24)
    assert len(microbatches) > 1
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    pull = torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(0))

    expected = slow(model, batch)
    found = packed_logprobs(policy, microbatches, batch.num_tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.dot(expected, pull).backward()
    torch.dot(found, pull).backward()
    wanted = dict(model.named_parameters())
    for name, parameter in policy.named_parameters():
        gradient, true = parameter.grad, wanted[name].grad
        assert gradient is not None and true is not None, name
        torch.testing.assert_close(gradient, true, atol=1e-5, rtol=1e-4, msg=name)
        if "gate.weight" in name:
            assert float(gradient.norm()) > 1e-4, "routers learn"


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_its_own_choice_changes_nothing(kind: str, tmp_path: Path) -> None:
    path = build_model(tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    batch = batch_of()
    samples = []
    for sample in batch.samples:
        length = len(sample.prompt_token_ids)
        rows = own_experts(model, np.concatenate([sample.prompt_token_ids, sample.token_ids])).astype(np.uint8)
        samples.append(replace(sample, prompt_routed_experts=rows[:length], routed_experts=rows[length:]))
    microbatches = pack(samples, tokens_per_microbatch=1000)
    policy, free = replaying(path), Policy(path, dtype="float32")
    with torch.no_grad():
        found = packed_logprobs(policy, microbatches, batch.num_tokens)
        own = packed_logprobs(free, microbatches, batch.num_tokens)
    torch.testing.assert_close(found, own, atol=1e-6, rtol=0)
    assert policy.replayed is not None and free.replayed is None
    num_tokens = microbatches[0].num_tokens
    assert policy.replayed.counts().tolist() == [num_tokens, LAYERS * num_tokens, 0]


def test_gates_are_left_as_they_are_where_the_model_does_not_normalise_them(tmp_path: Path) -> None:
    path = build_model(tmp_path, "qwen3_moe")
    text = (path / "config.json").read_text()
    assert '"norm_topk_prob": false' in text
    (path / "config.json").write_text(text.replace('"norm_topk_prob": false', '"norm_topk_prob": true'))
    batch = batch_of()
    microbatches = pack(batch.samples, tokens_per_microbatch=1000)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        found = packed_logprobs(replaying(path), microbatches, batch.num_tokens)
        torch.testing.assert_close(found, slow(model, batch), atol=1e-5, rtol=0)


def test_tokens_without_a_record_go_their_own_way_and_are_counted(tmp_path: Path) -> None:
    path = build_model(tmp_path, "mixtral")
    batch = batch_of()
    sample = batch.samples[0]
    assert sample.routed_experts is not None
    cut = replace(sample, routed_experts=sample.routed_experts[:1])
    (microbatch,) = pack([cut], tokens_per_microbatch=1000)
    policy = replaying(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokens = np.concatenate([sample.prompt_token_ids, sample.token_ids])
    with torch.no_grad():
        found = policy.logprobs(microbatch)[0]
        expected = forced_logprobs(model, tokens, rows_before(batch, 0)[: len(sample.prompt_token_ids) + 1])
    torch.testing.assert_close(found, expected[-sample.num_tokens :], atol=1e-5, rtol=0)
    assert policy.replayed is not None
    recorded, pairs, differing = policy.replayed.counts().tolist()
    assert (recorded, pairs) == (6, 12) and 0 < differing <= pairs
    (unrecorded,) = pack([replace(sample, prompt_routed_experts=None, routed_experts=None)], tokens_per_microbatch=1000)
    with torch.no_grad():
        policy.logprobs(unrecorded)
    assert policy.replayed.counts().tolist() == [0, 0, 0]


def test_a_layer_that_is_recomputed_is_counted_once(tmp_path: Path) -> None:
    policy = replaying(build_model(tmp_path, "mixtral"), activation_checkpointing=True)
    (microbatch,) = pack(batch_of().samples, tokens_per_microbatch=1000)
    logprobs, _ = policy.logprobs(microbatch)
    replayed = policy.replayed
    assert replayed is not None
    before = replayed.counts().tolist()
    logprobs.sum().backward()
    assert replayed.counts().tolist() == before


def test_a_reference_that_is_a_copy_takes_the_same_experts(tmp_path: Path) -> None:
    policy = replaying(build_model(tmp_path, "qwen3_moe"))
    policy.keep_reference()
    (microbatch,) = pack(batch_of().samples, tokens_per_microbatch=1000)
    with torch.no_grad():
        torch.testing.assert_close(policy.reference_logprobs(microbatch), policy.logprobs(microbatch)[0])


def test_another_model_as_reference_goes_its_own_way(tmp_path: Path) -> None:
    path, other = build_model(tmp_path / "a", "mixtral"), build_model(tmp_path / "b", "mixtral", seed=1)
    policy = Policy(path, dtype="float32", routing_replay=True, reference_path=other)
    policy.keep_reference()
    batch = batch_of()
    microbatches = pack(batch.samples, tokens_per_microbatch=1000)
    with torch.no_grad():
        found = policy.reference_logprobs(microbatches[0])
        own = packed_logprobs(Policy(other, dtype="float32"), microbatches, batch.num_tokens)
    torch.testing.assert_close(found, own[torch.from_numpy(microbatches[0].batch_tokens)])


def test_a_record_of_another_model_is_refused(tmp_path: Path) -> None:
    policy = replaying(build_model(tmp_path, "mixtral"))
    (microbatch,) = pack(batch_of().samples, tokens_per_microbatch=1000)
    assert microbatch.routed_experts is not None
    with pytest.raises(
        ValueError, match=r"recorded routing has \(layers, experts a token\) \(1, 2\), the model \(2, 2\)"
    ):
        policy.logprobs(replace(microbatch, routed_experts=microbatch.routed_experts[:, :1]))
