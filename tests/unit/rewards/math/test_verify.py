from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.verify import verify, verify_answer

_LATEX = r"""
    \frac \sqrt { } ( ) [ ] \left \right \{ \} , ; 1 2 0 42 99999 10^ ^ _ 9^ ! x y n e i \pi \infty + - * / = < > \le
    \approx \cup \in \text{cm} \text{or} or and % \% \$ $ ° ^\circ \sin \log_ \ln | \pm : \pmod \\ & \overline{3}
    \begin{pmatrix} \end{pmatrix} 0. .5 … \binom 三 万 或 和 分之 元 厘米 cm m/s apples ， 。 １ A (A) \boxed 3:30 PM 年
    \mathbb{R} \emptyset ± ∞ √ ² ½ ' \! \, ~ # e5 0x mod \choose \over \mathrm{ \hat{i} \sum ⟪ ⟫ ⦃
"""
_FRAGMENTS = [*_LATEX.split(), " "]
_GOLDS = [
    r"\frac12",
    "3",
    "x^2+1",
    "(1,2)",
    "A",
    r"\{1,2\}",
    "5 cm",
    "x>3",
    "no",
    "3:4",
    r"50\%",
    "y=2x+1",
    r"3\pmod 7",
]
_LATEX_LIKE = st.lists(st.sampled_from(_FRAGMENTS), max_size=40).map("".join)


@settings(max_examples=150, deadline=None)
@given(answer=_LATEX_LIKE, gold=st.sampled_from(_GOLDS) | _LATEX_LIKE)
def test_never_raises_and_never_takes_long(answer: str, gold: str) -> None:
    start = time.process_time()
    verify_answer(answer, gold)
    assert time.process_time() - start < 1.0


@settings(max_examples=60, deadline=None)
@given(completion=st.text(max_size=120), gold=st.text(max_size=60))
def test_any_text_is_judged(completion: str, gold: str) -> None:
    verify(completion, gold)
    verify(f"\\boxed{{{completion}}}", gold)


@settings(max_examples=60, deadline=None)
@given(top=st.integers(-999, 999), bottom=st.integers(1, 999), other=st.integers(-999, 999))
def test_fractions_equal_exactly_their_value(top: int, bottom: int, other: int) -> None:
    gold = f"\\frac{{{top}}}{{{bottom}}}"
    assert verify_answer(f"{top * 7}/{bottom * 7}", gold).correct
    assert verify_answer(f"\\frac{{{other}}}{{{bottom}}}", gold).correct == (top == other)


_HOSTILE = [
    "9^{9^{9^{9^9}}}", "99999999!", r"\binom{1000000000}{500000000}", "1e999999999", r"\sqrt[100000000]{2}",
    "(2^{1000000})^{1000000}", "e^{e^{e^{e^{100}}}}", r"\sin(10^{10000})", "(" * 500 + "1" + ")" * 500, "9" * 1_900,
    "{" * 900 + "1" + "}" * 900, "^".join("2" * 900), r"\cdot".join(f"(x+{i})" for i in range(200)), "1," * 900 + "1",
    "+".join(rf"\sqrt{{{i}}}" for i in range(2, 200)), "+".join(f"{i}!" for i in range(3_600, 3_800)), "½" * 1_900,
    r"\cup".join(f"({i},{i}.5)" for i in range(150)), ",".join(rf"\sqrt{{{i}}}" for i in range(40)), "5 " * 900,
    "\\" * 1_901 + "x", "\\frac" * 300 + "\\ x", "f(x)=x" + ",;(" * 500 + "⟪for all",
    "\\text{" * 300 + "}" * 300, r"\begin{pmatrix}" * 100, "x|" * 900, "=" * 1_900, " or ".join("1" * 300),
]  # fmt: skip


@pytest.mark.parametrize("hostile", _HOSTILE, ids=lambda text: text[:20])
def test_hostile_sizes_are_refused_quickly(hostile: str) -> None:
    start = time.process_time()
    assert not verify_answer(hostile, r"\sqrt{2}+x").correct
    assert not verify_answer(r"\sqrt{2}+x", hostile).correct
    assert time.process_time() - start < 2.0


def test_long_answers_are_refused_unread_but_a_long_gold_answer_may_be_repeated() -> None:
    long = "x+" * 2_000 + "1"
    assert "longer than" in verify_answer(long, "1").reason
    assert verify_answer(long, long).correct


def test_reasons_name_both_sides() -> None:
    assert verify(r"\boxed{2}", "3").reason == "2 does not equal 3"
    assert verify("2", "3").reason == "no \\boxed{} in the answer part"
    assert "refused" in verify_answer("9^{9^{9}}", "3").reason


@pytest.mark.parametrize(
    ("answer", "gold", "strict", "standard", "lenient"),
    [
        ("5", "5 cm", False, True, True),
        ("5 cm", "5", True, True, True),
        ("5", r"\$5", False, True, True),
        ("50", r"50\%", False, True, True),
        ("0.5", r"50\%", True, True, True),
        ("3.14159", "3.14", False, False, True),
        ("3.2", "3.14", False, False, False),
        ("1, 2", "(1, 2)", False, False, True),
        ("3", r"3 \pmod 7", False, False, True),
        ("3:30", "3:30 PM", False, False, True),
        ("101", "101_2", False, False, True),
        ("x=3", "3", True, True, True),
    ],
)
def test_strictness(answer: str, gold: str, strict: bool, standard: bool, lenient: bool) -> None:
    found = [
        verify_answer(answer, gold, Rules(strictness=strictness)).correct
        for strictness in ("strict", "standard", "lenient")
    ]
    assert found == [strict, standard, lenient]


def test_a_tolerance_only_where_the_recipe_asks() -> None:
    assert not verify_answer("3.14", r"\pi").correct
    assert verify_answer("3.14", r"\pi", Rules(relative_tolerance=1e-3)).correct
    assert not verify_answer("3.1", r"\pi", Rules(relative_tolerance=1e-3)).correct
    assert not verify_answer("3.14x", r"\pi x", Rules(relative_tolerance=1e-3)).correct


def test_gold_answers_may_be_whole_solutions() -> None:
    assert verify(r"\boxed{18}", "16 - 3 - 4 = 9\n9 * 2 = 18\n#### 18").correct
    assert verify(r"\boxed{18}", r"Therefore \boxed{18}.").correct
    assert not verify(r"\boxed{9}", "9\n#### 18").correct


def test_importing_costs_little_and_no_sympy() -> None:
    code = (
        "import sys; from rayzero.rewards.math.verify import verify; "
        r"assert verify(r'\boxed{\sqrt{8}}', r'2\sqrt2').correct; "
        "print(sorted({'sympy', 'torch', 'ray', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
