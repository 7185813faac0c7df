"""Completions end at stop strings: by the token that completes one, with what belongs to the tokens before."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rayzero.rollout_workers.stop_strings import cut_at_stop
from rayzero.services.schema.messages import Completion, VersionSpan
from tests.models import character_tokenizer

TOKENIZER = character_tokenizer()


def completion(text: str, *ends: int) -> Completion:
    token_ids = np.asarray(TOKENIZER.encode(text), dtype=np.int32)
    bounds = [0, *ends, len(token_ids)]
    return Completion(
        text=text,
        token_ids=token_ids,
        rollout_logprobs=-np.arange(len(token_ids), dtype=np.float32),
        version_spans=tuple(
            VersionSpan(start=start, end=end, policy_version=version)
            for version, (start, end) in enumerate(pairwise(bounds))
        ),
        finish_reason="length",
    )


@pytest.mark.parametrize("stop", [("=2",), ("9", "=2"), ("2", "2;"), ("x", "=2", "3")])
def test_it_ends_with_the_token_that_completes_the_first(stop: tuple[str, ...]) -> None:
    cut = cut_at_stop(completion("1+1=2,1+2=3", 2, 7), stop, TOKENIZER)
    assert (cut.text, cut.finish_reason, cut.num_tokens) == ("1+1=2", "stop", 5)
    assert cut.rollout_logprobs.tolist() == [0, -1, -2, -3, -4]
    assert [(span.start, span.end) for span in cut.version_spans] == [(0, 2), (2, 5)]


def test_without_one_nothing_changes() -> None:
    made = completion("1+1=2")
    assert cut_at_stop(made, ("3",), TOKENIZER) is made
    assert cut_at_stop(made, (), TOKENIZER) is made
