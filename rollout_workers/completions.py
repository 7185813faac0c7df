"""Decodes vLLM's answer into text and tokens: `Completion` messages."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import Completion, FinishReason, VersionSpan

_TAG = re.compile(r"</?[A-Za-z][\w-]*>")
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


def completion_of(output: Any, tokenizer: Any, policy_version: int) -> Completion:
    """One of the G outputs of a request.

    `policy_version` is what an empty completion (aborted before its first token) is said to come from.

    Raises:
        WorkerError: the engine failed this completion, or gave fewer log-probabilities than tokens.
    """
    token_ids = np.asarray(output.token_ids, dtype=np.int32)
    logprobs = np.asarray(output.logprobs.logprobs if output.logprobs is not None else (), dtype=np.float32)
    if output.finish_reason not in FINISH_REASONS:
        raise WorkerError(f"the engine ended a completion with {output.finish_reason}")
    if len(logprobs) != len(token_ids):
        raise WorkerError(f"the engine gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
    spans = tuple(
        VersionSpan(start=span.start, end=span.end, policy_version=int(span.version))
        for span in output.weight_versions or ()
    )
    reason = FINISH_REASONS[output.finish_reason]
    return Completion(
        text=text_of(token_ids, tokenizer, reason),
        token_ids=token_ids,
        rollout_logprobs=logprobs,
        version_spans=spans or (VersionSpan(start=0, end=0, policy_version=policy_version),),
        finish_reason=reason,
        routed_experts=output.routed_experts,
    )


def text_of(token_ids: NDArray[np.int32], tokenizer: Any, finish_reason: FinishReason) -> str:
    """What rewards read: without the tokens that begin, end and fill a text. A tag of the answer's own is part of it,
    also where the tokenizer calls it special: `<think>` is one, in models that were made to reason."""
    special, unread = _special_tokens(tokenizer)
    tokens = token_ids.tolist()
    if finish_reason == "stop" and tokens and tokens[-1] in special:
        tokens.pop()
    text: str = tokenizer.decode([token for token in tokens if token not in unread])
    return text


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: Any) -> tuple[frozenset[int], frozenset[int]]:
    """All of them, and those that are no tags of an answer."""
    named = {getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")}
    tokens = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    unread = (number for number, token in tokens.items() if token in named or not _TAG.fullmatch(token))
    return frozenset(tokens), frozenset(unread)


def eos_token_ids(tokenizer: Any, model_path: Path) -> list[int]:
    """All tokens that end a completion: the tokenizer's, and those that the model's generation_config.json adds.

    Of that file only these are used: its sampling parameters would change the policy that is trained.
    """
    found = {tokenizer.eos_token_id}
    if (file := model_path / "generation_config.json").is_file():
        listed = json.loads(file.read_text()).get("eos_token_id")
        found |= set(listed) if isinstance(listed, list) else {listed}
    return sorted(token for token in found if token is not None)


def spread_seed(seed: int) -> int:
    """A seed far from those of neighbouring groups (splitmix64).

    The engine seeds completion i with seed + i: groups seeded 5 and 6 would share all but one of their completions.
    """
    mixed = (seed + 0x9E3779B97F4A7C15) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) >> 2
