"""Instructions: what rows may hold, and that hostile text takes linear time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rayzero.rewards.kinds.instruction_rules import RULES, BadInstructionError, follows, num_sentences, num_words
from rayzero.rewards.kinds.instructions import instructions_of

ARGUMENTS: dict[str, Any] = {
    "keywords": ["a"], "keyword": "a", "frequency": 1, "forbidden_words": ["b"], "letter": "a", "let_frequency": 1,
    "language": "en", "num_sentences": 1, "num_paragraphs": 1, "num_words": 1, "nth_paragraph": 1, "first_word": "a",
    "num_placeholders": 1, "postscript_marker": "P.S.", "num_bullets": 1, "num_highlights": 1, "num_sections": 1,
    "section_spliter": "Section", "prompt_to_repeat": "a", "end_phrase": "a", "capital_frequency": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_is_linear(name: str) -> None:
    for piece in ("-", "a ", ".", "* ", "\n", "[", "<", "***", "P.S. ", "a.", "中", " "):
        start = time.process_time()
        follows(piece * (60_000 // len(piece)) + "x", name, ARGUMENTS)
        assert time.process_time() - start < 1.5, piece


def test_counts_by_hand() -> None:
    assert num_words("Don't re-read 3.5 well-known books.") == 6
    assert num_sentences("Dr. No paid 3.50. Why? He was J. R. Ewing!") == 3


def test_both_forms_of_a_row() -> None:
    wanted = [("punctuation:no_comma", {}), ("length_constraints:number_words", {"num_words": 3})]
    arguments = [None, {"num_words": 3, "relation": None}]
    names = [name for name, _ in wanted]
    assert instructions_of({"instruction_id_list": names, "kwargs": arguments}) == wanted
    assert instructions_of([{"id": name, **each} for name, each in wanted]) == wanted
    with pytest.raises(BadInstructionError, match="one length"):
        instructions_of({"instruction_id_list": names, "kwargs": []})
    with pytest.raises(BadInstructionError, match="unknown instruction"):
        follows("x", "no:rule", {})


@pytest.mark.parametrize(
    ("name", "arguments", "right", "wrong"),
    [
        ("length_constraints:number_words", {"num_words": 20, "relation": "around"}, "a " * 22, "a " * 23),
        (
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "around"},
            "One is. Two is.",
            "One is.",
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n* * *\nb", "a * b"),
        ("detectable_format:constrained_response", {"options": ["red", "blue"]}, "It is blue.", "It is green."),
    ],
)
def test_what_other_data_ask_in_the_same_names(name: str, arguments: dict[str, object], right: str, wrong: str) -> None:
    assert follows(right, name, arguments) and not follows(wrong, name, arguments)
