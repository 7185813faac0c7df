"""Groups -> the rows of one batch, with all that a micro-batch must not decide for itself.

    Group (messages) -> TrainingSample rows + flat [N] arrays over all sampled tokens -> learner/batch/batching.py

Groups and tokens are counted here, over the whole batch, so that no split into
micro-batches or ranks can change a denominator. Of an episode the sampled tokens count, those of all its branches: what
its environment said is context, as the prompt is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.batch.nodes import EpisodeNode, nodes_of
from rayzero.learner.batch.turns import BatchTurns, turns_of
from rayzero.services.schema.messages import Completion, Group, Verdict

MIXED = -1
"""The version of a token that no one version would have sampled with that probability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """One rollout to train on. `start` is where its tokens begin in the batch's flat arrays."""

    row: int
    """Its place in the batch: index of every [S] array."""
    group: int
    """Which group of the batch it is of, counted from 0."""
    prompt_token_ids: NDArray[np.int32]
    token_ids: NDArray[np.int32]
    """[T] those that are trained: sampled ones, of the main completion and then of each branch."""
    start: int
    nodes: tuple[EpisodeNode, ...] = ()
    """Of an episode: where they lie among what is fed. None: they follow the prompt, and each other."""
    prompt_routed_experts: NDArray[Any] | None = None
    """See `Group`."""
    routed_experts: NDArray[Any] | None = None
    """See `Completion`; of an episode its nodes have it."""

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """S samples with N sampled tokens in all. Error verdicts are not among them: they have left their groups."""

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
    """[S] sampled tokens of each."""
    truncated: NDArray[np.bool_]
    """[S] cut off by a limit of tokens."""
    rollout_logprobs: NDArray[np.float32]
    """[N]"""
    token_versions: NDArray[np.int64]
    """[N] policy version each token was sampled from; `MIXED` where keys and values of older ones had part in it."""
    turns: BatchTurns
    """Which of its episode's turns each token is of."""

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

    Raises ValueError when a completion's log-probabilities or marks do not match its tokens, or a prompt is empty.
    """
    kept = [(index, group, rollout) for index, group in enumerate(groups) for rollout in group.judged]
    completions = [rollout.completion for _, _, rollout in kept]
    lengths = np.array([completion.num_sampled for completion in completions], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scores, weights = _parts([rollout.verdict for _, _, rollout in kept])
    samples = tuple(
        _sample(row, index, group, rollout.completion, int(starts[row]))
        for row, (index, group, rollout) in enumerate(kept)
    )
    paths = [path for completion in completions for path in completion.paths]
    versions = [_versions(path, each, stale_cache) for each in completions for path in each.paths]
    return Batch(
        samples=samples,
        rewards=np.array([rollout.verdict.reward for _, _, rollout in kept], dtype=np.float64),
        part_scores=scores,
        part_weights=weights,
        groups=np.array([index for index, _, _ in kept], dtype=np.int64),
        lengths=lengths,
        truncated=np.array([completion.is_truncated for completion in completions], dtype=bool),
        rollout_logprobs=_joined([_sampled(path, path.rollout_logprobs) for path in paths]).astype(np.float32),
        token_versions=_joined([_sampled(*each) for each in zip(paths, versions, strict=True)]).astype(np.int64),
        turns=turns_of(completions),
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
    nodes: tuple[EpisodeNode, ...] = ()
    try:
        for path in completion.paths:
            _check(path)
        if completion.is_sampled is not None or completion.branches:
            nodes = nodes_of(len(group.prompt_token_ids), completion)
    except ValueError as error:
        raise ValueError(f"group {group.group_id}: {error}") from None
    return TrainingSample(
        row=row,
        group=index,
        prompt_token_ids=group.prompt_token_ids,
        token_ids=_joined([_sampled(path, path.token_ids) for path in completion.paths])
        if nodes
        else completion.token_ids,
        start=start,
        nodes=nodes,
        prompt_routed_experts=group.prompt_routed_experts,
        routed_experts=completion.routed_experts,
    )


def _check(path: Completion) -> None:
    """What an environment said has no log-probability, what was sampled has one: else marks and tokens are shifted, and
    a loss would train on words that are not the policy's."""
    logprobs, sampled = path.rollout_logprobs, path.is_sampled
    if len(logprobs) != path.num_tokens:
        raise ValueError(f"{path.num_tokens} tokens, but {len(logprobs)} log-probabilities")
    if sampled is None:
        return
    if len(sampled) != path.num_tokens:
        raise ValueError(f"{path.num_tokens} tokens, but {len(sampled)} marks of whether each was sampled")
    if (leaked := np.flatnonzero(np.isnan(logprobs) & sampled)).size:
        raise ValueError(f"token {leaked[0]} of a path is marked as sampled and has no log-probability")
    if (leaked := np.flatnonzero(np.isfinite(logprobs) & ~sampled)).size:
        raise ValueError(f"token {leaked[0]} of a path has a log-probability and is not marked as sampled")


def _sampled(path: Completion, values: NDArray[Any]) -> NDArray[Any]:
    """Of a path's [T] those of its sampled tokens."""
    return values if path.is_sampled is None else values[path.is_sampled]


def _versions(path: Completion, completion: Completion, stale_cache: bool) -> NDArray[np.int64]:
    """[T] of a path of a completion."""
    oldest = completion.oldest_version
    versions = np.full(path.num_tokens, oldest, dtype=np.int64)
    for span in path.version_spans:
        # Later weights went on with the keys of the first ones, also in a turn, or a branch, that is theirs alone.
        mixed = stale_cache and span.policy_version != oldest
        versions[span.start : span.end] = MIXED if mixed else span.policy_version
    return versions


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0)
