"""vLLM's answer as our messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.rollout_workers.completions import completion_of, eos_token_ids, spread_seed
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import VersionSpan
from tests.models import character_tokenizer


@dataclass
class Output:
    """The parts of vLLM's CompletionOutput that are read."""

    token_ids: list[int]
    logprobs: Any
    finish_reason: str | None = "stop"
    weight_versions: list[Any] | None = field(default_factory=list)
    routed_experts: Any = None


def flat(*values: float) -> Any:
    return SimpleNamespace(logprobs=list(values))


def test_tokens_log_probabilities_and_spans_are_kept() -> None:
    tokenizer = character_tokenizer()
    token_ids = [*tokenizer.encode("42"), tokenizer.eos_token_id]
    spans = [SimpleNamespace(version="6", start=0, end=1), SimpleNamespace(version="7", start=1, end=3)]
    completion = completion_of(Output(token_ids, flat(-0.5, -1.0, -0.25), "stop", spans), tokenizer, 7)
    assert completion.text == "42", "without special tokens"
    assert completion.token_ids.tolist() == token_ids, "with the end-of-sequence token"
    assert completion.rollout_logprobs.dtype == np.float32
    assert completion.rollout_logprobs.tolist() == [-0.5, -1.0, -0.25]
    assert completion.version_spans == (
        VersionSpan(start=0, end=1, policy_version=6),
        VersionSpan(start=1, end=3, policy_version=7),
    )
    assert (completion.oldest_version, completion.newest_version) == (6, 7)


def test_completion_aborted_before_its_first_token_has_one_empty_span() -> None:
    completion = completion_of(Output([], None, "abort", None), character_tokenizer(), 3)
    assert completion.version_spans == (VersionSpan(start=0, end=0, policy_version=3),)
    assert (completion.num_tokens, completion.text, completion.finish_reason) == (0, "", "abort")


def test_failed_or_incomplete_output_is_a_worker_error() -> None:
    with pytest.raises(WorkerError, match="ended a completion with error"):
        completion_of(Output([5], flat(-1.0), "error"), character_tokenizer(), 0)
    with pytest.raises(WorkerError, match="1 log-probabilities for 2 tokens"):
        completion_of(Output([5, 6], flat(-1.0)), character_tokenizer(), 0)


def test_all_end_of_sequence_tokens_are_found(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(eos_token_id=3)
    assert eos_token_ids(tokenizer, tmp_path) == [3]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 3], "temperature": 0.6}')
    assert eos_token_ids(tokenizer, tmp_path) == [3, 9]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert eos_token_ids(tokenizer, tmp_path) == [3, 5]
    (tmp_path / "generation_config.json").write_text("{}")
    assert eos_token_ids(SimpleNamespace(eos_token_id=None), tmp_path) == []


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_neighbouring_seeds_do_not_overlap_within_a_group(seed: int) -> None:
    here, there = spread_seed(seed), spread_seed(seed + 1)
    assert 0 <= here < 2**62, "room for seed + i within 63 bits"
    assert abs(here - there) > 2**16
    assert spread_seed(seed) == here


def test_tags_that_are_special_tokens_are_read_and_ends_are_not() -> None:
    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<think>", "</think>", "<end_of_turn>", "<|im_start|>"]}
    )
    text = "<|im_start|><think>1+1</think>2<end_of_turn>"
    token_ids = tokenizer.encode(text)
    assert len(token_ids) == 8
    read = completion_of(Output(token_ids, flat(*[-1.0] * 8), "stop", None), tokenizer, 0).text
    assert read == "<think>1+1</think>2"
