from __future__ import annotations

from typing import Any

import pytest

from rayzero.rewards.kinds.instruction_rules import RULES, follows
from rayzero.services.data.formats.ifeval import _NAMES, instruction_of
from rayzero.services.data.formats.problem import RowFault

ARGUMENTS = {
    "N": 2, "quantifier": "at least", "keyword_list": ["one"], "word": "one", "forbidden_words": ["two"], "letter": "e",
    "language": "en", "first_word": "one", "i": 1, "postscript_marker": "P.S.", "options": ["one"],
    "section_splitter": "Section", "original_prompt": "one", "end_phrase": "one",
}  # fmt: skip


@pytest.mark.parametrize("function", _NAMES)
def test_every_function_is_a_rule_with_the_arguments_that_it_needs(function: str) -> None:
    (found,) = instruction_of({"func_name": function, **ARGUMENTS})
    assert found["id"] in RULES
    follows("one text", found["id"], found)  # raises where an argument is missing


def test_every_rule_has_a_function() -> None:
    assert {name for name, _ in _NAMES.values()} == set(RULES)


def test_counts_of_open_instruct_are_exact() -> None:
    (found,) = instruction_of({"func_name": "verify_keyword_frequency", "word": "a", "N": 1})
    assert follows("a b", found["id"], found) and not follows("a a", found["id"], found)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"func_name": "dance"}, "no rule is known"),
        ({"func_name": "verify_keywords"}, "lacks keyword_list"),
        ({"instruction_id": ["a", "b"], "kwargs": [{}]}, "2 instructions"),
        ({"kwargs": []}, "neither"),
        ("text", "must be an object"),
    ],
)
def test_what_cannot_be_read_is_named(given: Any, problem: str) -> None:
    with pytest.raises(RowFault, match=problem):
        instruction_of(given)


def test_several_instructions_with_their_arguments() -> None:
    given = {"instruction_id": ["punctuation:no_comma", "startend:end_checker"], "kwargs": [None, {"end_phrase": "x"}]}
    assert instruction_of(given) == [{"id": "punctuation:no_comma"}, {"id": "startend:end_checker", "end_phrase": "x"}]
