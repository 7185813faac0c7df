"""Groups -> the rows of one batch, with all that a micro-batch must not decide for itself.

    Group (messages) -> TrainingSample rows + flat [N] arrays over all completion tokens -> learner/batch/batching.py

Groups and tokens are counted here, over the whole batch, so that no split into
micro-batches or ranks can change a denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.messages import Completion, Group, Verdict

MIXED = -1
"""The version of a token that no one version would have sampled with that probability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """One completion to train on. `start` is where its tokens begin in the batch's flat arrays."""

    row: int
    """Its place in the batch: index of every [S] array."""
    group: int
    """Which group of the batch it is of, counted from 0."""
    prompt_token_ids: NDArray[np.int32]
    token_ids: NDArray[np.int32]
    start: int

    @property
    def num_tokens(self) -> int:
        """T, tokens of the completion."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """S samples with N completion tokens in all. Error verdicts are not among them: they have left their groups."""

    samples: tuple[TrainingSample, ...]
    rewards: NDArray[np.float64]
    """[S]"""
    part_scores: NDArray[np.float64]
    """[S, K] of each rewarded component; NaN where it does not apply. Of verdicts that do not tell their parts the
    reward is the only one."""
    part_weights: NDArray[np.float64]
    """[S, K] what each score is multiplied by in the reward."""
    groups: NDArray[np.int64]
    """[S] which group each sample is of."""
    lengths: NDArray[np.int64]
    """[S] tokens of each completion."""
    truncated: NDArray[np.bool_]
    """[S] cut off by max_tokens."""
    rollout_logprobs: NDArray[np.float32]
    """[N]"""
    token_versions: NDArray[np.int64]
    """[N] policy version each token was sampled from; `MIXED` where keys and values of older ones had part in it."""

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.rollout_logprobs)

    @property
    def token_rows(self) -> NDArray[np.int64]:
        """[N] the sample each token is of."""
        return np.repeat(np.arange(len(self.samples)), self.lengths)


def make_batch(groups: Sequence[Group], *, stale_cache: bool = False) -> Batch:
    """Lay all rollouts with a verdict out as samples.

    `stale_cache`: completions went on with their keys and values when new weights came (`rollout.on_weights`).

    Raises ValueError when a completion's log-probabilities do not match its tokens, or a prompt is empty.
    """
    kept = [(index, group, rollout) for index, group in enumerate(groups) for rollout in group.judged]
    completions = [rollout.completion for _, _, rollout in kept]
    lengths = np.array([completion.num_tokens for completion in completions], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scores, weights = _parts([rollout.verdict for _, _, rollout in kept])
    samples = tuple(
        _sample(row, index, group, rollout.completion, int(starts[row]))
        for row, (index, group, rollout) in enumerate(kept)
    )
    return Batch(
        samples=samples,
        rewards=np.array([rollout.verdict.reward for _, _, rollout in kept], dtype=np.float64),
        part_scores=scores,
        part_weights=weights,
        groups=np.array([index for index, _, _ in kept], dtype=np.int64),
        lengths=lengths,
        truncated=np.array([completion.finish_reason == "length" for completion in completions], dtype=bool),
        rollout_logprobs=_joined([completion.rollout_logprobs for completion in completions]).astype(np.float32),
        token_versions=_joined([_versions(each, stale_cache) for each in completions]).astype(np.int64),
    )


def _parts(verdicts: Sequence[Verdict]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = [{"reward": (1.0, verdict.reward)} if verdict.parts is None else verdict.parts for verdict in verdicts]
    names = sorted({name for each in parts for name in each})
    table = np.array([[each.get(name, (0.0, np.nan)) for name in names] for each in parts], dtype=np.float64)
    table = table.reshape(len(parts), len(names), 2)
    return table[:, :, 1], table[:, :, 0]


def _sample(row: int, index: int, group: Group, completion: Completion, start: int) -> TrainingSample:
    if len(group.prompt_token_ids) == 0:
        raise ValueError(f"group {group.group_id}: an empty prompt cannot predict a first token")
    if len(completion.rollout_logprobs) != completion.num_tokens:
        raise ValueError(
            f"group {group.group_id}: {completion.num_tokens} tokens, but "
            f"{len(completion.rollout_logprobs)} log-probabilities"
        )
    return TrainingSample(
        row=row, group=index, prompt_token_ids=group.prompt_token_ids, token_ids=completion.token_ids, start=start
    )


def _versions(completion: Completion, stale_cache: bool) -> NDArray[np.int64]:
    versions = np.full(completion.num_tokens, completion.oldest_version, dtype=np.int64)
    for index, span in enumerate(completion.version_spans):
        versions[span.start : span.end] = MIXED if stale_cache and index > 0 else span.policy_version
    return versions


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0)
