"""What a fork server does once so that no child has to: first calls fill tables and let the interpreter specialise its
code.

A fork of a warm process works at full speed from its first item; a fork of a cold one takes twice as long for its first
hundred. Costs nothing where no child is ever replaced: the fork server begins when it first kills one, between
requests.
"""

from __future__ import annotations

from collections.abc import Iterator

NUM_PASSES = 4
"""The interpreter specialises code that it has run a few times."""

PAIRS = (
    ("42", "42.0"),
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac{22}{7}", "22/7"),
    ("3\\frac12", "3.5"),
    ("1,234,567", "1234567"),
    ("-1.5\\times10^{-3}", "-0.0015"),
    ("50\\%", "0.5"),
    ("\\$12.50", "12.5"),
    ("30^\\circ", "30"),
    ("12\\text{ cm}", "12"),
    ("5\\text{ km}", "5000\\text{ m}"),
    ("101_2", "5"),
    ("\\frac{\\pi}{4}", "0.25\\pi"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("\\sqrt[3]{x^2}", "x^{2/3}"),
    ("x=3", "3"),
    ("x = 3 \\text{ or } x = -1", "-1, 3"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\\frac{x^2-1}{x-1}", "x+1"),
    ("y = 2x + 1", "2x - y + 1 = 0"),
    ("\\sin^2 x", "1-\\cos^2 x"),
    ("e^{2x}", "(e^x)^2"),
    ("\\ln 8", "3\\ln 2"),
    ("a(b+c)", "ab+ac"),
    ("(1, 2)", "(1,2)"),
    ("(1, 2)", "(2,1)"),
    ("\\{1, 2, 3\\}", "\\{3,2,1\\}"),
    ("1, 2", "2, 1"),
    ("(-\\infty, 3]", "x \\le 3"),
    ("(1,2)\\cup(3,4)", "(3,4)\\cup(1,2)"),
    ("x > 3", "(3,\\infty)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
    ("\\text{(B)}", "B"),
    ("Option A", "A"),
    ("\\text{Paris}", "paris"),
    ("no solution", "\\emptyset"),
    ("三分之一", "1/3"),
    ("３．５", "3.5"),
    ("3+4i", "4i+3"),
    ("\\binom{5}{2}", "10"),
    ("5!", "120"),
    ("12:30", "12:30"),
    ("7", "8"),
    ("\\frac{1}{3}", "0.33"),
    ("x+1", "x+2"),
    ("hello there", "hello"),
)


def math_steps() -> Iterator[None]:
    """One comparison a step."""
    from rayzero.rewards.math.verify import verify

    for _ in range(NUM_PASSES):
        for answer, gold in PAIRS:
            verify(f"<think>\n</think>\nThe answer is $\\boxed{{{answer}}}$.", gold)
            yield
