"""Tokens in, tokens out, in the form of vLLM's `/inference/v1/generate`: for clients that render by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.episodes.chat_reply import usage_of
from rayzero.rollout_workers.episodes.session import RecordedTurn
from rayzero.rollout_workers.episodes.wire import FixedSampling, Refusal, read_count

_IGNORED = frozenset({"model", "request_id", "priority", "cache_salt", "return_token_ids", "token_offsets"})
_OF_THE_REPLY = frozenset({
    "detokenize", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output", "output_kind",
    "flat_logprobs", "routed_experts_prompt_start",
})  # fmt: skip
"""Sampling parameters that change the reply's form alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRequest:
    """What a session needs to know of it."""

    tokens: NDArray[np.int32]
    """[T] the whole context."""
    max_tokens: int | None
    request_id: str


def read_tokens(body: Mapping[str, Any], sampling: FixedSampling, num_tokens: int) -> TokenRequest:
    """A request's body; `num_tokens`: of the model's vocabulary.

    Raises:
        Refusal: 400; names the field that is wrong, or that would change what is sampled.
    """
    for name, value in body.items():
        if name in {"token_ids", "sampling_params"} or name in _IGNORED or value in (None, False):
            continue
        if (name, value) != ("output_mode", "tokens"):
            raise Refusal(400, f"{name} is not supported here: leave it out", field=name)
    params = body.get("sampling_params") or {}
    if not isinstance(params, Mapping):
        raise Refusal(400, "sampling_params must be an object", field="sampling_params")
    for name, value in params.items():
        field = f"sampling_params.{name}"
        if name == "max_tokens" or name in _OF_THE_REPLY or sampling.check(name, value, field):
            continue
        if name == "stop_token_ids":
            _check_stops(value, sampling, field)
        elif name in ("logprobs", "prompt_logprobs"):
            if value not in (None, 0, *((1,) if name == "logprobs" else ())):
                raise Refusal(400, f"{field}: there are those of the sampled tokens alone", field=field)
        elif value is not None:
            raise Refusal(400, f"{field} is not known here, and may change what is sampled: leave it out", field=field)
    given = body.get("token_ids")
    if not isinstance(given, list) or not given or not all(_is_token(token, num_tokens) for token in given):
        raise Refusal(400, f"token_ids must be a list of numbers from 0 to {num_tokens - 1}", field="token_ids")
    return TokenRequest(
        tokens=np.asarray(given, dtype=np.int32),
        max_tokens=read_count(params.get("max_tokens"), "sampling_params.max_tokens"),
        request_id=str(body.get("request_id") or ""),
    )


def token_completion(request: TokenRequest, taken: RecordedTurn, reply_id: str) -> dict[str, Any]:
    """The reply, JSON-like: each sampled token by both keys that clients of vLLM's look for."""
    made = taken.completion
    tokens = [] if made is None else made.token_ids.tolist()
    logprobs = [] if made is None else made.rollout_logprobs.tolist()
    content = [
        {"token": f"token_id:{token}", "token_id": token, "logprob": logprob, "rank": None, "top_logprobs": []}
        for token, logprob in zip(tokens, logprobs, strict=True)
    ]
    spans = () if made is None else made.version_spans
    choice = {
        "index": 0,
        "finish_reason": taken.turn.finish_reason,
        "stop_reason": None,
        "token_ids": tokens,
        "logprobs": {"content": content},
        "weight_versions": [
            {"start": span.start, "end": span.end, "version": str(span.policy_version)} for span in spans
        ],
    }
    return {
        "request_id": request.request_id or reply_id,
        "choices": [choice],
        "usage": usage_of(taken),
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def _check_stops(value: Any, sampling: FixedSampling, field: str) -> None:
    """A client's own tokens that end a turn must end it anyway."""
    if value is not None and not (isinstance(value, list) and set(map(repr, value)) <= _names(sampling)):
        raise Refusal(
            400, f"{field} must be among {sorted(sampling.stop_token_ids)}, which end a turn anyway", field=field
        )


def _names(sampling: FixedSampling) -> set[str]:
    return {repr(token) for token in sampling.stop_token_ids}


def _is_token(value: Any, num_tokens: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < num_tokens
