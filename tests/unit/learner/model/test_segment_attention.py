"""Nested trees through every way of computing attention, against one dense mask; poison; rows of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rayzero.learner.batch import prefixes
from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model import attention, segment_attention
from rayzero.learner.model.policy import Policy
from tests.unit.learner.episodes import episode_group, own_model, random_episode, row_by_row
from tests.unit.learner.kit import beginning_alike, packed_logprobs
from tests.unit.learner.model.test_policy import slow_varlen

CPU = torch.device("cpu")
WAYS = [(512, 256), (40, 3), (0, 256), (0, 2)]
"""(longest tree of the dense path, most queries of a segment)"""


def nested(seed: int, prompt_length: int = 7) -> Microbatch:
    rng = np.random.default_rng(seed)
    groups = [episode_group(rng, [0.0] * 3, group_id=n, prompt_length=prompt_length + n) for n in range(3)]
    groups = beginning_alike(rng, groups) if seed % 2 else groups
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "MIN_SHARED", 1)
        (microbatch,) = pack(make_batch(groups).samples, tokens_per_microbatch=10**6)
    return microbatch


def masked(q: Tensor, k: Tensor, v: Tensor, scale: float, microbatch: Microbatch) -> Tensor:
    """Attention by its definition: one mask over the micro-batch."""
    visible = torch.zeros(len(q), len(q), dtype=torch.bool)
    for tree in microbatch.trees:
        for segment in (tree.prompt, *tree.completions):
            own = range(segment.start, segment.start + segment.length)
            for at in own:
                visible[at, segment.start : at + 1] = True
                for start, length in segment.context:
                    visible[at, start : start + length] = True
    keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, keys) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~visible, -torch.inf).softmax(-1), values)


def some_qkv(num_tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(num_tokens, heads, 16, generator=generator, dtype=torch.float64).requires_grad_()
        for heads in (4, 2, 2)
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), way=st.sampled_from(WAYS), prompt_length=st.integers(1, 40))
def test_every_way_on_cpu_is_attention_under_one_mask(seed: int, way: tuple[int, int], prompt_length: int) -> None:
    microbatch = nested(seed, prompt_length)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_DENSE_TOKENS", way[0])
        patch.setattr(segment_attention, "_QUERIES", way[1])
        layout = attention.build_layout(microbatch.trees, CPU)
    for packed in (True, False):
        q, k, v = some_qkv(microbatch.num_tokens)
        if packed:
            query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = attention.tree_attention(torch.nn.Module(), query, key, value, None, scaling=0.3, layout=layout)[0][0]
        else:
            out = masked(q, k, v, 0.3, microbatch)
        torch.autograd.backward(out, torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
        results.append([out, q.grad, k.grad, v.grad])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_varlen_layout_is_attention_under_one_mask(seed: int) -> None:
    """The CUDA path with its kernel's definition in place of the kernel."""
    from torch.nn.attention import varlen

    microbatch = nested(seed)
    q, k, v = (x.detach() for x in some_qkv(microbatch.num_tokens))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "varlen_attn", slow_varlen)
        found = attention._varlen_attention(q, k, v, 0.3, attention._varlen(microbatch.trees, CPU))
    torch.testing.assert_close(found, masked(q, k, v, 0.3, microbatch))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alike", [False, True])
def test_log_probabilities_are_those_of_one_path_a_row(
    any_model: Path, way: tuple[int, int], alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "MIN_SHARED", 2)
    monkeypatch.setattr(attention, "_DENSE_TOKENS", way[0])
    monkeypatch.setattr(segment_attention, "_QUERIES", way[1])
    rng = np.random.default_rng(way)
    groups = [episode_group(rng, [0.0] * 4, group_id=n, prompt_length=3 + 5 * n, max_branches=6) for n in range(3)]
    groups = beginning_alike(rng, groups) if alike else groups
    policy, batch = Policy(any_model, dtype="float32", temperature=0.7), make_batch(groups)
    with torch.no_grad():
        expected, _ = row_by_row(own_model(any_model), groups, 0.7)
        microbatches = pack(batch.samples, tokens_per_microbatch=way[1] or 10**6)
        found = packed_logprobs(policy, microbatches, batch.num_tokens)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_poison_in_one_branch_reaches_only_what_continues_it(
    tiny_model: Path, way: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_DENSE_TOKENS", way[0])
    monkeypatch.setattr(segment_attention, "_QUERIES", way[1])
    policy, poisonings = Policy(tiny_model, dtype="float32"), 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        episodes = [random_episode(rng, 5, max_branches=6) for _ in range(3)]
        group = episode_group(rng, [0.0] * 3, episodes=episodes)
        (microbatch,) = pack(make_batch([group]).samples, tokens_per_microbatch=10**6)
        with torch.no_grad():
            before = policy.logprobs(microbatch)[0]
        for number, victim in enumerate(microbatch.trees[0].completions):
            if not victim.length:
                continue
            tokens = microbatch.token_ids.copy()
            own = slice(victim.start, victim.start + victim.length)
            tokens[own] = (tokens[own] + 17) % 61
            with torch.no_grad():
                after = policy.logprobs(replace(microbatch, token_ids=tokens))[0]
            reached = _seeing(microbatch, number)
            assert torch.equal(before[~reached], after[~reached])
            assert not reached.any() or not torch.equal(before[reached], after[reached])
            poisonings += 1
    assert poisonings > 8


def _seeing(microbatch: Microbatch, number: int) -> Tensor:
    """[n] whether the predictor of each sampled token sees a token of that completion."""
    completions = microbatch.trees[0].completions
    victim = completions[number]
    reached = torch.zeros(microbatch.num_tokens, dtype=torch.bool)
    reached[victim.start : victim.start + victim.length] = True
    for segment in completions:
        if any(start == victim.start for start, _ in segment.context):
            reached[segment.start : segment.start + segment.length] = True
    return reached[microbatch.predictors]
