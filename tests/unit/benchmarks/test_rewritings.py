"""Gold answers written otherwise mean the same, and rayzero's verifier says so."""

from __future__ import annotations

import pytest

from benchmarks.rewritings import rewritings
from rayzero.rewards.math.verify import verify_answer

GOLDS = (
    "12345", "-7", "0.25", r"\frac{3}{4}", r"-\frac{7}{8}", "(1,2)", "1, 2, 5", r"[0,\infty)", r"5\text{ cm}",
    "x^2+3x-4", r"2\sqrt{3}", r"30^\circ", r"12\%", r"\begin{pmatrix}1\\2\end{pmatrix}", r"x \le 3", "$x^{2}$",
    r"\text{Monday}", r"\{1,2\}", r"4\cdot 10^{5}", r"\pm 2",
)  # fmt: skip


@pytest.mark.parametrize("gold", GOLDS)
def test_no_rewriting_is_taken_for_another_answer(gold: str) -> None:
    written = list(rewritings(gold))
    assert len(written) >= 3
    assert [each for each in written if not verify_answer(each[1], gold).correct] == []


def test_no_text_comes_twice_and_none_is_the_gold_answer() -> None:
    texts = [text for _, text in rewritings("12345")]
    assert len(set(texts)) == len(texts) and "12345" not in texts
    assert {"12,345", r"12{,}345", "12345.0", "x = 12345", "$12345$"} <= set(texts)


def test_what_might_change_the_meaning_is_left_alone() -> None:
    assert "5" not in [text for _, text in rewritings(r"5\text{ apples}")]
    assert not any(kind == "list" for kind, _ in rewritings("3, 3"))
    assert not any(kind == "list" for kind, _ in rewritings("(1, 2)"))
    assert not any(kind in ("spaces", "products") for kind, _ in rewritings("the 2x case - no"))
