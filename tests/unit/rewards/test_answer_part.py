"""Which part of a completion is its answer."""

from __future__ import annotations

import pytest

from rayzero.rewards.answer_part import answer_part


@pytest.mark.parametrize(
    ("text", "part", "prefilled_part"),
    [
        ("a", "a", None),
        ("", "", None),
        ("<think>a", None, None),
        ("<think>a</think>b", "b", "b"),
        ("a</think>b", "b", "b"),
        ("a</think>b</think>c", "c", "c"),
        ("a</think>b<think>c", "b", "b"),
        ("</think>", "", ""),
        (" \n<think>a", None, None),
        ("a<think>b", "a", None),
    ],
)
def test_the_answer_follows_the_last_thought(text: str, part: str | None, prefilled_part: str | None) -> None:
    assert answer_part(text) == part
    assert answer_part(text, prefilled=True) == prefilled_part
