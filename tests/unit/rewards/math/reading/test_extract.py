from __future__ import annotations

import time

import pytest

from rayzero.rewards.math.reading.extract import extract
from rayzero.services.schema.config.math import Fallback


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"<think>\boxed{1}</think>\boxed{2}", "2"),
        (r"a</think>b</think>\boxed{3}", "3"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"\boxed{3 or \boxed{4}}", r"3 or \boxed{4}"),
        (r"\boxed{ open \boxed{4}", "4"),
        (r"</think>\boxed{5}<think>\boxed{6}", "5"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{6}, so \boxed7.", "7"),
        (r"\boxed C", "C"),
        (r"\boxed{5} is boxed by \boxed as asked", "5"),
        (r"\boxed{3 or \boxed 4}", r"3 or \boxed 4"),
        (r"mention \boxed and \boxed{8}", "8"),
    ],
)
def test_the_last_box_after_the_last_thought_counts(completion: str, answer: str) -> None:
    assert extract(completion).answer == answer


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("42", "no \\boxed{} in"),
        ("", "no \\boxed{} in"),
        (r"\boxed{}", "empty"),
        (r"\boxed{1} \boxed{ }", "empty"),
        (r"\boxed{1} \boxed{2", "never closed"),
        (r"<think>\boxed{1}", "never ends"),
        (r"<think>\boxed{1}</think> it is 1", "no \\boxed{} in"),
        (r"\boxedup{1}", "no \\boxed{} in"),
        (r"\boxed{4} \boxed 42", "no braces"),
        (r"\boxed 4.2", "no braces"),
    ],
)
def test_nothing_else_earns_anything(completion: str, problem: str) -> None:
    found = extract(completion)
    assert found.answer is None
    assert problem in (found.problem or "")


def test_fallbacks_only_where_asked_and_only_without_a_box() -> None:
    assert extract("so\n#### 1,234\n").answer is None
    assert extract("so\n#### 1,234\nbye", ["hashes"]).answer == "1,234"
    assert extract("we get 3, then -4.5.", ["last_number"]).answer == "-4.5"
    assert extract("3 #### 4", ["last_number", "hashes"]).answer == "4"
    assert extract("3 then #### four", ["hashes", "last_number"]).answer == "four"
    assert extract(r"\boxed{} #### 4", ["hashes"]).answer is None


@pytest.mark.parametrize(
    "piece", ["Answer: ", "the answer is ", " ", "<answer>", "\n", "Final Answer:* ", "#### ", "the "]
)
@pytest.mark.parametrize("fallback", ["answer_line", "answer_tags", "final_answer", "hashes", "last_number"])
def test_fallbacks_take_linear_time(piece: str, fallback: Fallback) -> None:
    start = time.process_time()
    extract("The final answer is 4" + piece * (400_000 // len(piece)), [fallback])
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    "hostile", [r"\boxed{" * 100_000, "{" * 900_000, r"\boxed{1" * 20_000 + "}" * 20_000, "\\" * 900_000]
)
def test_hostile_text_takes_linear_time(hostile: str) -> None:
    start = time.process_time()
    extract(hostile)
    assert time.process_time() - start < 2.0
