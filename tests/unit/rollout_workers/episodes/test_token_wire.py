"""Requests for tokens: what is read, and what is refused by its field's name."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.rollout_workers.episodes.token_wire import read_tokens
from rayzero.rollout_workers.episodes.wire import FixedSampling, Refusal

SAMPLING = FixedSampling(1.0, frozenset({3, 4}))


def test_a_request_is_read() -> None:
    params = {"max_tokens": 7, "stop_token_ids": [3], "logprobs": 1, "skip_special_tokens": False, "temperature": 1}
    body = {"model": "m", "token_ids": [1, 2], "sampling_params": params, "request_id": "r", "cache_salt": "s"}
    request = read_tokens(body, SAMPLING, 10)
    assert (request.tokens.tolist(), request.max_tokens, request.request_id) == ([1, 2], 7, "r")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"token_ids": []}, "token_ids"),
        ({"token_ids": [True]}, "token_ids"),
        ({"token_ids": [10]}, "token_ids"),
        ({"stream": True}, "stream"),
        ({"output_mode": "text"}, "output_mode"),
        ({"sampling_params": 1}, "sampling_params"),
        ({"sampling_params": {"stop_token_ids": [5]}}, "sampling_params.stop_token_ids"),
        ({"sampling_params": {"logprobs": 3}}, "sampling_params.logprobs"),
        ({"sampling_params": {"max_tokens": 0}}, "sampling_params.max_tokens"),
        ({"sampling_params": {"top_k": 5}}, "sampling_params.top_k"),
        ({"sampling_params": {"unheard_of": 5}}, "sampling_params.unheard_of"),
    ],
)
def test_what_would_change_the_sampling_is_refused_by_its_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_tokens({"token_ids": [1], **change}, SAMPLING, 10)
    assert refused.value.field == field
