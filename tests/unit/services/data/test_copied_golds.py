"""A gold whose value stands in the prompt is not left to a reward that compares values."""

from __future__ import annotations

import pytest

from rayzero.services.data.copied_golds import check_golds, states_its_answer, states_its_calculation
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt


def prompt(text: str, answer: object, source: str = "default") -> Prompt:
    return Prompt(prompt_id=text[:8], messages=(ChatMessage(role="user", content=text),), answer=answer, source=source)


@pytest.mark.parametrize(
    ("text", "answer", "copied"),
    [
        ("Calculate 164 using all of these numbers: 66, 34, 98, 54, 6.", "6*(98 - 54) - 34 - 66", True),
        ("Make 24 from 1, 3, 5 and 9.", "1×3×5 + 9", True),
        ("Write 12 as a product of primes.", "$2 * 2 * 3$", True),
        ("What is 3 + 4?", "7", False),
        ("What is 0.5 as a fraction?", "1/2", False),
        ("Expand (x + 1)(x - 1).", "x**2 - 1", False),
        ("Make 24 from 1, 3, 5 and 9.", "1*3*5 + 8", False),
        ("Power", "9**9**9**9**9", False),
        ("Divide", "1 + 1/0", False),
        ("No gold", None, False),
    ],
)
def test_what_a_copied_number_equals(text: str, answer: object, copied: bool) -> None:
    assert states_its_answer(prompt(text, answer)) is copied


@pytest.mark.parametrize(
    ("text", "answer", "stated"),
    [
        ("What is 17 + 25? Put the answer in \\boxed{}.", "42", True),
        ("457+268=", "725", True),
        ("Calculate 6 × (3 + 4).", 42, True),
        ("What is 1.5 * 2?", "3", True),
        ("What is 1000 * 2?", "2,000", True),
        ("What is 17 + 25?", "43", False),
        ("Tom has 17 apples and buys 25.", "42", False),
        ("Pages 17-25: how many chapters?", "3", False),
        ("Divide 1/0", "0", False),
        ("What is (((((((((((((((((((((((((((((((((1", "1", False),
        ("What is 17 + 25?", "forty-two", False),
        ("What is 17 + 25?", None, False),
        ("What is 1 + 1?", "1e999999999", False),
        ("What is 17 + 25?", "4" * 5000, False),
    ],
)
def test_what_a_copied_calculation_equals(text: str, answer: object, stated: bool) -> None:
    assert states_its_calculation(prompt(text, answer)) is stated


def test_a_long_row_of_signs_is_soon_looked_through() -> None:
    assert not states_its_calculation(prompt("1+" * 100_000 + " (" * 100_000, "7"))
    assert not states_its_calculation(prompt("(+" * 100_000, "7"))  # a pattern of two stars took its length cubed


def test_a_source_of_puzzles_under_math_is_refused() -> None:
    puzzles = [prompt(f"Make {n + 5} from {n} and 5.", f"{n} + 5", "mine") for n in range(10, 20)]
    sums = [prompt(f"What is {n} + 5?", str(n + 5), "sums") for n in range(10, 20)]
    rubrics = {"default": {"accuracy": {"kind": "math"}}}
    with pytest.raises(RecipeError, match=r"'mine': 10 of its 10 golds .* the copied number would be rewarded"):
        check_golds([*sums, *puzzles], RewardSettings.model_validate({"rubrics": rubrics}))
    own = {**rubrics, "mine": {"accuracy": {"kind": "custom", "function": "my_rewards:uses_all_numbers"}}}
    check_golds([*sums, *puzzles], RewardSettings.model_validate({"rubrics": own}))
    check_golds(
        [*puzzles[:4], *(prompt(p.messages[0].content, p.answer, "mine") for p in sums)],
        RewardSettings.model_validate({"rubrics": rubrics}),
    )
