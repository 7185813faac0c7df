"""Random episodes for the learner's tests, and what they come to when each path is a row of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from rayzero.services.schema.episodes import Branch, Turn
from rayzero.services.schema.messages import Completion, Group, Rollout, VersionSpan
from tests.unit.learner.kit import VOCABULARY, make_group


def a_path(rng: np.random.Generator, runs: Sequence[tuple[bool, int]], version: int = 0) -> Completion:
    """Random tokens in runs of (sampled or not, how many)."""
    sampled = np.concatenate([np.zeros(0, bool), *(np.full(length, own) for own, length in runs)])
    logprobs = np.where(sampled, -rng.exponential(1.0, len(sampled)) - 3.0, np.nan).astype(np.float32)
    return Completion(
        text="",
        token_ids=rng.integers(0, VOCABULARY, len(sampled)).astype(np.int32),
        rollout_logprobs=logprobs,
        version_spans=(VersionSpan(start=0, end=len(sampled), policy_version=version),),
        finish_reason="stop",
        is_sampled=sampled,
    )


def random_path(rng: np.random.Generator, longest: int = 5) -> Completion:
    first = bool(rng.integers(2))
    number = int(rng.integers(0, 5))
    return a_path(rng, [((turn % 2 == 0) == first, int(rng.integers(1, longest))) for turn in range(number)])


def random_episode(rng: np.random.Generator, prompt_length: int, max_branches: int = 5, longest: int = 5) -> Completion:
    """Forks anywhere, also within the prompt and within what was observed; paths may be empty, or all observed."""
    main = random_path(rng, longest)
    ends, branches = [prompt_length + main.num_tokens], []
    for number in range(int(rng.integers(0, max_branches + 1))):
        parent = int(rng.integers(0, number + 1))
        # Deep nests as well as wide ones.
        parent = number if rng.random() < 0.4 else parent
        fork = ends[parent] if rng.random() < 0.2 else int(rng.integers(1, ends[parent] + 1))
        path = random_path(rng, longest)
        ends.append(fork + path.num_tokens)
        branches.append(Branch(parent=parent, fork=fork, completion=path))
    return replace(main, branches=tuple(branches))


def episode_group(
    rng: np.random.Generator,
    rewards: Sequence[float],
    *,
    group_id: int = 0,
    prompt_length: int = 5,
    episodes: Sequence[Completion] | None = None,
    max_branches: int = 5,
) -> Group:
    """A group of episodes, or of the given ones; every fourth is a plain completion where they are random."""
    group = make_group(
        rng, [int(n) for n in rng.integers(0, 6, len(rewards))], rewards, group_id=group_id, prompt_length=prompt_length
    )
    rollouts: list[Rollout] = []
    for number, rollout in enumerate(group.rollouts):
        if episodes is not None:
            rollouts.append(replace(rollout, completion=episodes[number]))
        elif rng.random() < 0.75:
            rollouts.append(replace(rollout, completion=random_episode(rng, prompt_length, max_branches)))
        else:
            rollouts.append(rollout)
    return replace(group, rollouts=tuple(rollouts))


def with_turns(group: Group, seed: int) -> Group:
    """Each run of sampled tokens as a turn, of which the environment says something, or nothing."""
    rng = np.random.default_rng(seed)

    def turned(path: Completion) -> Completion:
        sampled = np.ones(path.num_tokens, bool) if path.is_sampled is None else path.is_sampled
        edges = np.flatnonzero(np.diff(np.concatenate([[False], sampled, [False]]).astype(int))).reshape(-1, 2)
        turns = tuple(
            Turn(start=start, end=end, finish_reason="stop", reward=float(rng.random()) if rng.random() < 0.6 else None)
            for start, end in edges.tolist()
        )
        branches = tuple(replace(branch, completion=turned(branch.completion)) for branch in path.branches)
        return replace(path, turns=turns, branches=branches)

    rollouts = tuple(replace(rollout, completion=turned(rollout.completion)) for rollout in group.rollouts)
    return replace(group, rollouts=rollouts)


def contexts(group: Group, completion: Completion) -> list[NDArray[np.int64]]:
    """The prompt, and what each path of a completion continues, whole: prompt first."""
    prompt = group.prompt_token_ids.astype(np.int64)
    paths, befores = [np.concatenate([prompt, completion.token_ids])], [prompt]
    for branch in completion.branches:
        before = paths[branch.parent][: branch.fork]
        befores.append(before)
        paths.append(np.concatenate([before, branch.completion.token_ids]))
    return befores


def sampled_rows(groups: Sequence[Group]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(tokens, places of those that are trained) of each path of each judged rollout, in the batch's order."""
    rows = []
    for group in groups:
        for rollout in group.judged:
            for path, before in zip(rollout.completion.paths, contexts(group, rollout.completion), strict=True):
                sampled = np.ones(path.num_tokens, bool) if path.is_sampled is None else path.is_sampled
                rows.append((np.concatenate([before, path.token_ids]), len(before) + np.flatnonzero(sampled)))
    return rows


def row_by_row(model: Any, groups: Sequence[Group], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(log-probabilities [N], entropies [N]) by transformers' own forward pass, one path at a time."""
    logprobs, entropies = [], []
    for tokens, places in sampled_rows(groups):
        if not len(places):
            continue
        ids = torch.from_numpy(tokens)
        scores = torch.log_softmax(model(ids[None]).logits[0] / temperature, -1)[places - 1]
        logprobs.append(scores.gather(1, ids[places, None])[:, 0])
        entropies.append(-(scores.exp() * scores).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


@cache
def own_model(path: Path, dtype: torch.dtype = torch.float64) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
