"""Tiny models and groups for the learner's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.batch.samples import Batch
from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Completion, Group, Prompt, Rollout, Verdict, VerdictStatus, VersionSpan

VOCABULARY = 61
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def build_model(directory: Path, architecture: str, seed: int = 0) -> Path:
    """A random tiny model in Hugging Face format."""
    torch.manual_seed(seed)
    config, model = {
        "llama": (LlamaConfig(**_SIZES, tie_word_embeddings=True), LlamaForCausalLM),
        "qwen2": (Qwen2Config(**_SIZES, tie_word_embeddings=False), Qwen2ForCausalLM),
        "qwen3": (Qwen3Config(**_SIZES, head_dim=16, tie_word_embeddings=True), Qwen3ForCausalLM),
        "mixtral": (MixtralConfig(**_SIZES, num_local_experts=5), MixtralForCausalLM),
        "qwen3_moe": (
            Qwen3MoeConfig(**_SIZES, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16),
            Qwen3MoeForCausalLM,
        ),
    }[architecture]
    built = model(config)
    with torch.no_grad():
        for parameter in built.parameters():
            # transformers' initial std of 0.02 gives logits that barely differ: attention errors would not show.
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(0.1 * torch.randn_like(parameter))
    built.save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text("{}")
    return directory


def make_group(
    rng: np.random.Generator,
    lengths: Sequence[int],
    rewards: Sequence[float],
    *,
    prompt_length: int = 5,
    group_id: int = 0,
    version: int = 0,
) -> Group:
    """A group of random tokens. A NaN reward is an error verdict, 1 and above is correct."""
    rollouts = tuple(
        Rollout(completion=_completion(rng, length, version), verdict=_verdict(reward))
        for length, reward in zip(lengths, rewards, strict=True)
    )
    return Group(
        group_id=group_id,
        prompt=Prompt(prompt_id=str(group_id), messages=(), answer=None),
        prompt_token_ids=rng.integers(0, VOCABULARY, prompt_length).astype(np.int32),
        rollouts=rollouts,
    )


def _completion(rng: np.random.Generator, length: int, version: int) -> Completion:
    return Completion(
        text="",
        token_ids=rng.integers(0, VOCABULARY, length).astype(np.int32),
        rollout_logprobs=(-rng.exponential(1.0, length) - 3.0).astype(np.float32),
        version_spans=(VersionSpan(start=0, end=length, policy_version=version),),
        finish_reason="stop",
    )


def _verdict(reward: float) -> Verdict:
    status = VerdictStatus.ERROR if np.isnan(reward) else VerdictStatus.CORRECT if reward >= 1 else VerdictStatus.WRONG
    return Verdict(reward=reward, components={}, status=status, reason="", seconds=0.0)


def beginning_alike(rng: np.random.Generator, groups: Sequence[Group]) -> list[Group]:
    """The groups, their prompts as long as before; each begins, for some of its tokens or all, as others do."""
    common = rng.integers(0, VOCABULARY, max(len(group.prompt_token_ids) for group in groups)).astype(np.int32)
    alike = []
    for group in groups:
        shared = int(rng.integers(0, len(group.prompt_token_ids) + 1))
        prompt = np.concatenate([common[:shared], group.prompt_token_ids[shared:]])
        alike.append(replace(group, prompt_token_ids=prompt))
    return alike


def some_experts(rng: np.random.Generator, length: int) -> NDArray[np.uint8]:
    """[length, 2, 2] as an engine of one of these mixtures might choose, no expert twice for a token."""
    picks = [rng.permutation(5)[:2] for _ in range(2 * length)]
    return np.array(picks, dtype=np.uint8).reshape(length, 2, 2)


def with_routing(rng: np.random.Generator, group: Group) -> Group:
    """The group with experts at random for all that is fed."""
    rollouts = tuple(
        replace(
            rollout,
            completion=replace(
                rollout.completion, routed_experts=some_experts(rng, max(0, rollout.completion.num_tokens - 1))
            ),
        )
        for rollout in group.rollouts
    )
    return replace(group, rollouts=rollouts, prompt_routed_experts=some_experts(rng, len(group.prompt_token_ids)))


def with_rollout_logprobs(group: Group, score: Callable[..., NDArray[np.float32]]) -> Group:
    """The group as an engine would have sampled it that agrees with the learner."""
    rollouts = tuple(
        replace(
            rollout,
            completion=replace(
                rollout.completion, rollout_logprobs=score(group.prompt_token_ids, rollout.completion.token_ids)
            ),
        )
        for rollout in group.rollouts
    )
    return replace(group, rollouts=rollouts)


def naive_logprobs(path: Path, batch: Batch, temperature: float = 1.0, model: Any = None) -> Tensor:
    """[N] by transformers' own forward pass in fp32, or by that of a `model`."""
    model = model or AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    parts = []
    for sample in batch.samples:
        tokens = torch.from_numpy(np.concatenate([sample.prompt_token_ids, sample.token_ids]).astype(np.int64))
        logits = model(tokens[None]).logits[0] / temperature
        start = len(sample.prompt_token_ids)
        logprobs = torch.log_softmax(logits, -1)[start - 1 : -1]
        parts.append(logprobs.gather(1, tokens[start:, None])[:, 0])
    return torch.cat(parts)


def packed_logprobs(policy: Policy, microbatches: list[Microbatch], num_tokens: int) -> Tensor:
    """[N] by the policy, in the batch's order."""
    out = torch.full((num_tokens,), float("nan"))
    for microbatch in microbatches:
        out = out.index_copy(0, torch.from_numpy(microbatch.batch_tokens), policy.logprobs(microbatch)[0])
    return out


LENIENT = {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0}


def make_learner(
    model: Path, dtype: str = "float32", temperature: float = 1.0, stale_cache: bool = False, **changes: Any
) -> Learner:
    changes.setdefault("watch", LENIENT)
    changes.setdefault("optimizer", {"learning_rate": 1e-3})
    learner_settings = LearnerSettings.model_validate(changes)
    policy = Policy(model, dtype=dtype, temperature=temperature, compute=learner_settings.compute)
    return Learner(policy, learner_settings, num_updates=10, max_completion_tokens=16, stale_cache=stale_cache)


def some_groups(seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [
        make_group(rng, [5, 7, 0, 1], [1, 0, 1, 0], group_id=0),
        make_group(rng, [9, 2, 3, 1], [1, 0, 1, np.nan], group_id=1, prompt_length=9),
        make_group(rng, [4, 4], [1, 1], group_id=2, prompt_length=2),
    ]


def gradient(learner: Learner, groups: Sequence[Group]) -> torch.Tensor:
    """The gradient that an update hands to AdamW, instead of stepping."""
    caught: list[torch.Tensor] = []

    def catch(learning_rate: float, grad_norm: float) -> None:
        caught.append(torch.cat([g.flatten().clone() for g in learner.optimizer.gradients()]))
        learner.optimizer.zero_grad()

    learner.optimizer.step = catch  # type: ignore[method-assign]
    learner.update(groups, 1)
    return caught[0] if caught else torch.zeros(1)  # no completion had a verdict: no step


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for _, tensor in learner.policy.named_weights()])
