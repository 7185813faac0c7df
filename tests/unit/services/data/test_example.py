"""Prompts beside their gold answers: a few of each source, what has no text left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rayzero.services.data.example import Example, example, first_examples
from tests.fakes import make_prompt


def test_long_texts_are_cut_in_their_middle_and_nothing_commands_the_terminal() -> None:
    assert Example("a:1", "What\ncomes  after 1?", "2").line == "a:1: What comes after 1?  →  2"
    assert Example("a:1", "x" * 160, "\x1b[2J").line == f"a:1: {'x' * 160}  →  \\x1b[2J"
    assert Example("a:1", "x" * 100 + "y" * 100, "2").line == f"a:1: {'x' * 80} … {'y' * 80}  →  2"


def test_each_source_has_its_share_and_an_answer_that_is_no_text_none() -> None:
    of = {source: [replace(make_prompt(n), source=source, answer=n) for n in range(5)] for source in "abcd"}
    assert [shown.answer for shown in first_examples(of["a"], 1)] == ["0", "1", "2"]
    assert [shown.answer for shown in first_examples([*of["a"], *of["b"]], 2)] == ["0", "0"]
    assert len(first_examples([prompt for prompts in of.values() for prompt in prompts], 4)) == 3
    assert example("a:1", replace(of["a"][0], answer=["2", 2.5])) == Example(
        "a:1", of["a"][0].messages[-1].content, "2, 2.5"
    )
    unreadable: tuple[Any, ...] = (None, {"tests": []}, [])
    for answer in unreadable:
        assert example("a:1", replace(of["a"][0], answer=answer)) is None
