"""Rejection sampling: what is left out, and why; the best of k; each text once."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from rayzero.services.pipeline.completion_filter import Sieve, fault
from rayzero.services.schema.config.pipeline import CompletionFilter


def candidate(**changes: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "1+1="}],
        "completion": "<think> one plus one is two</think>\\boxed{2}",
        "status": "correct",
        "reward": 1.0,
        "components": {"accuracy": 1.0, "language": 1.0},
        "num_tokens": 10,
        "index": 0,
        "finish_reason": "stop",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"status": "error", "components": {}}, "no verdict"),
        ({"components": {"accuracy": 0.0, "language": 1.0}}, "wrong"),
        ({"status": "wrong", "components": {"helpful": 0.2}}, "wrong"),
        ({"finish_reason": "length"}, "cut off"),
        ({"components": {"accuracy": 1.0, "language": 0.5}}, "low language"),
        ({"completion": "```python\nx```"}, "code block"),
        ({"completion": "short\n\n" + "long " * 30}, "long paragraph"),
        ({"completion": "\n\n".join(["fifty characters " * 3] * 4)}, ""),
    ],
)
def test_what_is_left_out(changes: dict[str, Any], reason: str) -> None:
    settings = CompletionFilter(min_components={"language": 0.9}, max_paragraph_chars=100)
    if "helpful" in changes.get("components", {}):
        settings = CompletionFilter()
    assert fault(candidate(**changes), settings) == reason


@pytest.mark.parametrize(("ties", "kept"), [("sampled", [2, 0]), ("shortest", [2, 1])])
def test_the_best_of_k_by_reward_then_as_the_recipe_says(ties: Literal["sampled", "shortest"], kept: list[int]) -> None:
    """Among equals the shortest would teach short thoughts: that is asked for, or not done."""
    sieve = Sieve(CompletionFilter(max_per_prompt=2, ties=ties))
    rows = [
        candidate(completion="a", index=0, num_tokens=9),
        candidate(completion="b", index=1, num_tokens=4),
        candidate(completion="c", index=2, num_tokens=30, reward=1.2),
        candidate(completion="d", index=3, status="wrong", components={"accuracy": 0.0}),
    ]
    assert [row["index"] for row in sieve.best(rows)] == kept
    assert sieve.reasons == {"wrong": 1, "not among the best": 1}
    assert CompletionFilter().ties == "sampled"


def test_equal_texts_of_a_prompt_are_kept_once_over_all_its_groups() -> None:
    sieve = Sieve(CompletionFilter(max_per_prompt=4))
    assert len(sieve.best([candidate(index=0), candidate(index=1)])) == 1
    assert sieve.best([candidate()]) == []
    assert sieve.reasons["duplicate"] == 2
    other = candidate(messages=[{"role": "user", "content": "2+0="}])
    assert len(sieve.best([other])) == 1
