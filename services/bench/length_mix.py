"""The groups that `rayzero bench learner` trains on: fixed, ragged, and printed with every figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayzero.services.schema.messages import Completion, Group, Prompt, Rollout, Verdict, VerdictStatus, VersionSpan


@dataclass(frozen=True, slots=True)
class LengthMix:
    """Log-normal completions after uniform prompts."""

    name: str
    num_groups: int
    group_size: int
    prompt_tokens: tuple[int, int]
    """Shortest and longest prompt."""
    median_tokens: float
    """Median completion."""
    sigma: float
    """Of the completion's logarithm."""
    max_tokens: int
    """Longest completion."""
    seed: int = 0
    common_tokens: int = 0
    """Of every prompt, its first."""

    def __str__(self) -> str:
        low, high = self.prompt_tokens
        common = f" ({self.common_tokens} in common)" if self.common_tokens else ""
        return (
            f"{self.num_groups} × {self.group_size}, prompts {low}–{high}{common}, completions log-normal (median "
            f"{self.median_tokens:g}, σ {self.sigma:g}, at most {self.max_tokens}), seed {self.seed}"
        )


MIXES = {
    mix.name: mix
    for mix in (
        LengthMix("ragged", 8, 8, (40, 100), 40.0, 0.8, 192),
        LengthMix("demo", 8, 8, (83, 84), 9.0, 0.3, 24, common_tokens=29),
        LengthMix("long", 16, 8, (100, 300), 700.0, 0.6, 2048),
    )
}


def make_groups(mix: LengthMix, vocab_size: int, *, neutral_share: float = 0.0) -> list[Group]:
    """The mix's groups, of random tokens. The first `neutral_share` of them have equal rewards."""
    rng = np.random.default_rng(mix.seed)
    common = rng.integers(0, vocab_size, mix.common_tokens)
    groups = []
    for number in range(mix.num_groups):
        prompt = rng.integers(0, vocab_size, rng.integers(mix.prompt_tokens[0], mix.prompt_tokens[1] + 1))
        prompt[: len(common)] = common
        drawn = rng.lognormal(np.log(mix.median_tokens), mix.sigma, mix.group_size)
        lengths = np.clip(drawn.round(), 2, mix.max_tokens).astype(int)
        neutral = number < neutral_share * mix.num_groups
        groups.append(
            Group(
                group_id=number,
                prompt=Prompt(prompt_id=str(number), messages=(), answer=None),
                prompt_token_ids=prompt.astype(np.int32),
                rollouts=tuple(
                    _rollout(rng, int(length), vocab_size, reward=0.0 if neutral else float(row % 2))
                    for row, length in enumerate(lengths)
                ),
            )
        )
    return groups


def num_real_tokens(groups: list[Group]) -> int:
    """Prompt and completion tokens of every sample, none of them padding: what every column counts."""
    return sum(
        len(group.prompt_token_ids) + rollout.completion.num_tokens for group in groups for rollout in group.rollouts
    )


def _rollout(rng: np.random.Generator, length: int, vocab_size: int, reward: float) -> Rollout:
    completion = Completion(
        text="",
        token_ids=rng.integers(0, vocab_size, length).astype(np.int32),
        rollout_logprobs=np.full(length, -np.log(vocab_size), dtype=np.float32),
        version_spans=(VersionSpan(start=0, end=length, policy_version=0),),
        finish_reason="stop",
    )
    status = VerdictStatus.CORRECT if reward else VerdictStatus.WRONG
    return Rollout(
        completion=completion, verdict=Verdict(reward=reward, components={}, status=status, reason="", seconds=0.0)
    )
