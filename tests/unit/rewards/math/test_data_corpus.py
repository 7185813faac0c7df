"""Hand-built samples of how data sets write gold answers and models answer them, with the settings that each needs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.verify import MathVerdict, verify

CORPUS = Path(__file__).parents[3] / "corpus" / "math_data.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
KINDS = sorted({case["kind"] for case in CASES})


def judged(case: dict[str, Any]) -> MathVerdict:
    completion = case.get("completion", f"\\boxed{{{case.get('answer')}}}")
    rules = Rules(fallbacks=(case["fallback"],) if "fallback" in case else ())
    return verify(completion, case["gold"], rules, prefilled=case.get("prefilled", False))


def status(verdict: MathVerdict) -> str:
    return "error" if verdict.is_bad_gold else "correct" if verdict.correct else "wrong"


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_judged_as_labelled(kind: str) -> None:
    wrong = [case for case in CASES if case["kind"] == kind and status(judged(case)) != case["expected"]]
    assert wrong == []


def test_the_corpus_has_near_misses_of_every_kind() -> None:
    assert len(CASES) >= 300
    labels = Counter((case["kind"], case["expected"]) for case in CASES)
    assert [kind for kind in KINDS if not (labels[kind, "wrong"] or labels[kind, "error"])] == []


def test_a_bad_gold_answer_is_named() -> None:
    assert verify(r"\boxed{4}", r"\boxed{4} and then \boxed{5}").reason == (
        "the gold answer boxes both 4 and 5: keep one of them"
    )
    assert verify("4", " ").reason == "the gold answer is empty"
