"""Completions that new weights cut off are carried on from where they were, with the prefix as part of the prompt.

The tokens that there are stay as they were sampled, with the log-probabilities and the version of the weights that
sampled them; keys and values of the prefix are computed anew by the weights that carry on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rayzero.rollout_workers.completions import spread_seed, text_of
from rayzero.rollout_workers.routed_experts import joined as routing_joined
from rayzero.services.schema.messages import Completion

Resume = Callable[[int, Completion], Awaitable[Completion | None]]
"""What follows on a prefix, given the completion's place in its group; None: it is not wanted any more."""


async def carry_on(completions: Sequence[Completion], resume: Resume, tokenizer: Any) -> tuple[Completion, ...]:
    """Every completion to its own end, side by side, however often it is cut off on the way."""

    async def to_its_end(index: int, made: Completion) -> Completion:
        while made.finish_reason == "abort" and (rest := await resume(index, made)) is not None:
            made = joined(made, rest, tokenizer)
        return made

    return tuple(await asyncio.gather(*(to_its_end(index, made) for index, made in enumerate(completions))))


def joined(made: Completion, rest: Completion, tokenizer: Any) -> Completion:
    """One completion of two parts, the second sampled after the first."""
    if made.num_tokens == 0 or rest.num_tokens == 0:
        kept = made if rest.num_tokens == 0 else rest
        return replace(kept, finish_reason=rest.finish_reason)
    token_ids = np.concatenate([made.token_ids, rest.token_ids])
    later = (
        replace(span, start=span.start + made.num_tokens, end=span.end + made.num_tokens) for span in rest.version_spans
    )
    return Completion(
        text=text_of(token_ids, tokenizer, rest.finish_reason),
        token_ids=token_ids,
        rollout_logprobs=np.concatenate([made.rollout_logprobs, rest.rollout_logprobs]),
        version_spans=(*made.version_spans, *later),
        finish_reason=rest.finish_reason,
        routed_experts=routing_joined(made.routed_experts, rest.routed_experts),
    )


def seed_after(seed: int | None, index: int, num_tokens: int) -> int | None:
    """Another seed than the prefix was sampled with: the same one would draw the same random numbers again."""
    return None if seed is None else spread_seed(spread_seed(seed) + index * 2**20 + num_tokens)
