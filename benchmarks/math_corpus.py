"""Scores a math verifier on a hand-labelled corpus: rayzero's own, and math-verify where it is installed.

A corpus is JSON Lines with `kind`, `answer` (the text of a box) or `completion`, `gold`, `expected` ("correct" or
"wrong") and, where the case is subtle, `note`.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayzero.rewards.math.verify import verify
from rayzero.services.schema.errors import RecipeError

CORPUS = Path(__file__).parents[1] / "tests" / "corpus" / "math.jsonl"
Verifier = Callable[[str, str], bool]
"""(completion, gold) -> correct. May raise: that counts as wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusCase:
    """One labelled case."""

    kind: str
    completion: str
    gold: str
    correct: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusScore:
    """How a verifier did. `worst_s` is the longest that one case took."""

    num_cases: int
    accuracy: float
    false_positives: tuple[CorpusCase, ...]
    false_negatives: tuple[CorpusCase, ...]
    worst_s: float


def load_corpus(path: Path) -> list[CorpusCase]:
    """Read a corpus. Raises RecipeError naming the line that is broken."""
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            completion = row["completion"] if "completion" in row else f"\\boxed{{{row['answer']}}}"
            label = {"correct": True, "wrong": False}[row["expected"]]
            cases.append(
                CorpusCase(
                    kind=row["kind"], completion=completion, gold=row["gold"], correct=label, note=row.get("note", "")
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{path}:{number}: not a corpus case ({error!r}); wanted kind, answer, gold, expected"
            ) from error
    return cases


def score(verifier: Verifier, cases: Iterable[CorpusCase]) -> CorpusScore:
    """Run a verifier over all cases, one after the other."""
    cases = list(cases)
    positives: list[CorpusCase] = []
    negatives: list[CorpusCase] = []
    worst_s = 0.0
    num_right = 0
    for case in cases:
        start = time.perf_counter()
        try:
            said = verifier(case.completion, case.gold)
        except Exception:  # a verifier that fails says nothing is right
            said = False
        worst_s = max(worst_s, time.perf_counter() - start)
        num_right += said == case.correct
        if said != case.correct:
            (positives if said else negatives).append(case)
    return CorpusScore(
        num_cases=len(cases),
        accuracy=num_right / max(len(cases), 1),
        false_positives=tuple(positives),
        false_negatives=tuple(negatives),
        worst_s=worst_s,
    )


def rayzero_verifier(completion: str, gold: str) -> bool:
    """rayzero's own, at its default settings."""
    return verify(completion, gold).correct


def math_verify_verifier() -> Verifier | None:
    """math-verify as its README uses it, gold and completion both parsed as LaTeX or expression; None if not installed.

    Its time-outs (signals) stay on, so call it from the main thread only.
    """
    if importlib.util.find_spec("math_verify") is None:
        return None
    from math_verify import parse
    from math_verify import verify as math_verify

    def verifier(completion: str, gold: str) -> bool:
        return bool(math_verify(parse(f"${gold}$"), parse(completion)))

    return verifier


def graded_texts(path: Path = CORPUS) -> list[tuple[str, str]]:
    """Completion and gold of every case."""
    return [(case.completion, case.gold) for case in load_corpus(path)]


def compare(path: Path = CORPUS) -> dict[str, Any]:
    """Accuracy, false positives and the slowest case of each verifier. Minutes, most of them math-verify's."""
    cases = load_corpus(path)
    verifiers = {"rayzero": rayzero_verifier, "math_verify": math_verify_verifier()}
    return {name: _figures(score(verifier, cases)) for name, verifier in verifiers.items() if verifier is not None}


def _figures(found: CorpusScore) -> dict[str, Any]:
    return {
        "num_cases": found.num_cases,
        "accuracy_percent": 100 * found.accuracy,
        "false_positives": len(found.false_positives),
        "false_negatives": len(found.false_negatives),
        "worst_s": found.worst_s,
    }
