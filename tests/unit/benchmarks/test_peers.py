"""Graders beside each other: made-up checkouts, a grader that hangs, and pairs of published gold answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.math_corpus import CorpusCase
from rayzero.services.schema.errors import RecipeError

PRM800K = "prm800k/prm800k/grading/grader.py"
CASES = [
    CorpusCase(kind="right", completion=r"\boxed{\frac{1}{2}}", gold="0.5", correct=True),
    CorpusCase(kind="same", completion=r"\boxed{3}", gold="3", correct=True),
    CorpusCase(kind="other", completion=r"\boxed{4}", gold="3", correct=False),
]


def checkout(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_graders_that_are_there_are_compared_and_others_say_why_not(tmp_path: Path) -> None:
    checkout(
        tmp_path, "prm800k/prm800k/grading/grader.py", "def grade_answer(given, gold):\n    return given == gold\n"
    )
    checkout(
        tmp_path,
        "verl/verl/utils/reward_score/math_reward.py",
        "print('loaded')\ndef compute_score(text, gold):\n    return 1.0 if 'frac' not in text else {}[text]\n",
    )
    found = peers.compare(CASES, tmp_path)
    assert list(found) == list(peers.NAMES)
    ours, theirs, verl = (found[name] for name in ("rayzero", "prm800k", "verl"))
    assert ours["right_percent"] == 100 and ours["verdicts_per_s"] > 0
    assert (theirs["false_positives"], theirs["false_negatives"], theirs["hangs"]) == (0, 1, 0)
    assert (verl["false_positives"], verl["false_negatives"], verl["raised"]) == (1, 1, 1)
    assert "open-instruct" in found["open-instruct"]["missing"]


def test_a_grader_that_hangs_is_killed_and_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LIMIT_S", 0.3)
    text = "import time\ndef grade_answer(given, gold):\n    time.sleep(60 * (given == '4'))\n    return True\n"
    checkout(tmp_path, PRM800K, text)
    monkeypatch.setattr(peers, "NAMES", ("prm800k",))
    found = peers.compare([CASES[2], CASES[1]], tmp_path)["prm800k"]
    assert (found["hangs"], found["right_percent"], found["worst_s"]) == (1, 100, 0.3)


def test_pairs_are_made_from_published_gold_answers(tmp_path: Path) -> None:
    file = tmp_path / "golds.jsonl"
    rows = [{"answer": r"\frac{3}{4}"}, {"answer": 12345}, {"completion": "So 5.", "answer": "5", "expected": "wrong"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cases = peers.published(file, 1000)
    kinds = {case.kind: case.correct for case in cases}
    assert kinds["as it stands"] and kinds["fraction"] and kinds["thousands"]
    assert not kinds["changed in one place"] and not kinds["as labelled"]
    assert peers.published(file, 5) == cases[:5]
    file.write_text('{"question": "?"}\n')
    with pytest.raises(RecipeError, match=r"golds\.jsonl:1: `answer` must be a gold answer"):
        peers.published(file, 5)


@pytest.mark.parametrize(
    ("mutant", "gold"), [("-0", "0"), (r"(3,\infty]", r"(3,\infty)"), ("50", r"50\%"), ("y+x", "x+y")]
)
def test_changes_that_may_change_no_meaning_are_left_out(mutant: str, gold: str) -> None:
    assert peers._same(mutant, gold)
    assert not peers._same("4", "3")
