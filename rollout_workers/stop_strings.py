"""Ends completions at the recipe's stop strings (`rollout.sampling.stop`).

The engine knows tokens alone: it samples on, and what comes after a stop string is cut off here. Tokens that are kept
have the log-probabilities that they were sampled with, so that a completion which was cut is as good to train on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rayzero.rollout_workers.completions import text_of
from rayzero.services.schema.messages import Completion


def cut_at_stop(made: Completion, stop: Sequence[str], tokenizer: Any) -> Completion:
    """A completion up to the token that first completes one of the stop strings; as it is where none occurs."""
    if not any(text in made.text for text in stop):
        return made

    def is_stopped(count: int) -> bool:
        shown = text_of(made.token_ids[:count], tokenizer, "length")
        return any(text in shown for text in stop)

    # Once a stop string is there, more tokens do not take it away.
    count = bisect_left(range(made.num_tokens + 1), True, key=is_stopped)
    if count > made.num_tokens:  # it lies across what the end of a text hides
        return made
    spans = [replace(span, end=min(span.end, count)) for span in made.version_spans if span.start < count]
    return replace(
        made,
        text=text_of(made.token_ids[:count], tokenizer, "length"),
        token_ids=made.token_ids[:count],
        rollout_logprobs=made.rollout_logprobs[:count],
        version_spans=tuple(spans) or made.version_spans[:1],
        finish_reason="stop",
    )
