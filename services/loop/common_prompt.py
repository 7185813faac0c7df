"""One prompt for the episodes of a group, whose environments may have said different things first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.episodes import EpisodeRecord
from rayzero.services.schema.messages import Completion


def with_common_prompt(records: Sequence[EpisodeRecord]) -> tuple[NDArray[np.int32], tuple[Completion, ...]]:
    """The [P] tokens that all prompts begin with, and the completions with the rest of their own prompt before them, as
    context. Where all prompts are the same, as with an environment that goes by its seed, nothing is moved."""
    prompts = [record.prompt_token_ids for record in records]
    length = min(len(prompt) for prompt in prompts)
    stacked = np.stack([prompt[:length] for prompt in prompts])
    differs = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    common = int(differs[0]) if len(differs) else length
    completions = (
        _behind(record.prompt_token_ids[common:], record.completion, _routing(record, common)) for record in records
    )
    return prompts[0][:common], tuple(completions)


def common_routing(records: Sequence[EpisodeRecord], length: int) -> NDArray[Any] | None:
    """[R, L, K] the experts that the first `length` tokens of all prompts were sent to, as the record that knows most
    has it; None: none knows any."""
    known = (record.prompt_routed_experts for record in records)
    return max((rows[:length] for rows in known if rows is not None), key=len, default=None)


def _routing(record: EpisodeRecord, common: int) -> NDArray[Any] | None:
    """Of the tokens after the common ones: the rest of the prompt's, and the completion's where that is whole."""
    own, prompt = record.completion.routed_experts, record.prompt_routed_experts
    if prompt is None or len(prompt) < len(record.prompt_token_ids):
        return None if prompt is None else prompt[common:]
    return prompt[common:] if own is None else np.concatenate([prompt[common:], own])


def _behind(context: NDArray[np.int32], completion: Completion, routed_experts: NDArray[Any] | None) -> Completion:
    number = len(context)
    if not number:
        return completion
    sampled = np.ones(completion.num_tokens, np.bool_) if completion.is_sampled is None else completion.is_sampled
    spans = tuple(
        replace(span, start=span.start + (number if index else 0), end=span.end + number)
        for index, span in enumerate(completion.version_spans)
    )
    return replace(
        completion,
        token_ids=np.concatenate([context, completion.token_ids]).astype(np.int32),
        rollout_logprobs=np.concatenate([np.full(number, np.nan, np.float32), completion.rollout_logprobs]),
        is_sampled=np.concatenate([np.zeros(number, np.bool_), sampled]),
        version_spans=spans,
        turns=tuple(replace(turn, start=turn.start + number, end=turn.end + number) for turn in completion.turns),
        routed_experts=routed_experts,
    )
