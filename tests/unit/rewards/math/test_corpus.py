"""Every hand-labelled case of tests/corpus/math.jsonl is judged as labelled, and quickly."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.math_corpus import CorpusCase, load_corpus, rayzero_verifier, score
from rayzero.rewards.math.verify import verify
from rayzero.services.schema.errors import RecipeError

CORPUS = Path(__file__).parents[3] / "corpus" / "math.jsonl"
CASES = load_corpus(CORPUS)


def test_every_case_is_judged_as_labelled() -> None:
    result = score(rayzero_verifier, CASES)

    def shown(cases: tuple[CorpusCase, ...]) -> list[str]:
        return [f"[{case.kind}] {case.completion} | {case.gold}" for case in cases]

    assert shown(result.false_positives) == []
    assert shown(result.false_negatives) == []
    assert result.worst_s < 3.0


def test_the_corpus_is_broad() -> None:
    assert len(CASES) >= 400
    assert len({case.kind for case in CASES}) >= 30
    share = sum(case.correct for case in CASES) / len(CASES)
    assert 0.35 < share < 0.75


def test_gold_answers_equal_themselves() -> None:
    for gold in {case.gold for case in CASES if "####" not in case.gold}:
        assert verify(f"\\boxed{{{gold}}}", gold).correct, gold


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"kind": "a", "answer": "1", "gold": "1", "expected": "correct"}\n{"kind": 3}\n')
    with pytest.raises(RecipeError, match=r"corpus\.jsonl:2"):
        load_corpus(path)


def test_a_verifier_that_raises_counts_as_wrong() -> None:
    def broken(completion: str, gold: str) -> bool:
        raise ValueError

    cases = [CorpusCase(kind="a", completion="x", gold="x", correct=True)]
    assert score(broken, cases).false_negatives == tuple(cases)
