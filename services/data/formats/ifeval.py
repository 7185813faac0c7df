"""Instructions as open-instruct's data spells them, in IFEval's names: what the reward `instructions` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import kind_of
from rayzero.services.data.formats.problem import RowFault

_NAMES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "verify_keywords": ("keywords:existence", {"keyword_list": "keywords"}),
    "verify_keyword_frequency": ("keywords:frequency", {"word": "keyword", "N": "frequency"}),
    "validate_forbidden_words": ("keywords:forbidden_words", {"forbidden_words": "forbidden_words"}),
    "verify_letter_frequency": ("keywords:letter_frequency", {"letter": "letter", "N": "let_frequency"}),
    "validate_response_language": ("language:response_language", {"language": "language"}),
    "verify_paragraph_count": ("length_constraints:number_paragraphs", {"N": "num_paragraphs"}),
    "validate_word_constraint": (
        "length_constraints:number_words",
        {"N": "num_words", "quantifier": "relation"},
    ),
    "verify_sentence_constraint": (
        "length_constraints:number_sentences",
        {"N": "num_sentences", "quantifier": "relation"},
    ),
    "validate_paragraphs": (
        "length_constraints:nth_paragraph_first_word",
        {"N": "num_paragraphs", "first_word": "first_word", "i": "nth_paragraph"},
    ),
    "verify_postscript": ("detectable_content:postscript", {"postscript_marker": "postscript_marker"}),
    "validate_placeholders": ("detectable_content:number_placeholders", {"N": "num_placeholders"}),
    "verify_bullet_points": ("detectable_format:number_bullet_lists", {"N": "num_bullets"}),
    "validate_title": ("detectable_format:title", {}),
    "validate_choice": ("detectable_format:constrained_response", {"options": "options"}),
    "validate_highlighted_sections": ("detectable_format:number_highlighted_sections", {"N": "num_highlights"}),
    "validate_sections": (
        "detectable_format:multiple_sections",
        {"N": "num_sections", "section_splitter": "section_spliter"},
    ),
    "validate_json_format": ("detectable_format:json_format", {}),
    "validate_repeat_prompt": ("combination:repeat_prompt", {"original_prompt": "prompt_to_repeat"}),
    "validate_two_responses": ("combination:two_responses", {}),
    "validate_uppercase": ("change_case:english_capital", {}),
    "validate_lowercase": ("change_case:english_lowercase", {}),
    "validate_frequency_capital_words": (
        "change_case:capital_word_frequency",
        {"N": "capital_frequency", "quantifier": "capital_relation"},
    ),
    "validate_end": ("startend:end_checker", {"end_phrase": "end_phrase"}),
    "validate_quotation": ("startend:quotation", {}),
    "validate_no_commas": ("punctuation:no_comma", {}),
}
"""open-instruct's function -> IFEval's name, and its arguments -> IFEval's."""
_EXACT = {"keywords:frequency": "relation", "keywords:letter_frequency": "let_relation"}
"""Counts that open-instruct wants to be exact, where IFEval names a relation."""


def instruction_of(given: Any) -> list[dict[str, Any]]:
    """The instructions in one part of a ground truth, as `{id, …}`. Raises RowFault."""
    if not isinstance(given, Mapping):
        raise RowFault("wrong type", f"an instruction must be an object, not {kind_of(given)}")
    if "func_name" in given:
        return [_of_function(given)]
    names = given.get("instruction_id") or given.get("instruction_id_list")
    if not isinstance(names, list):
        names = [names]
    arguments = given.get("kwargs") or [None] * len(names)
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise RowFault("broken tests", f"{len(names)} instructions and other arguments: kwargs must be a list as long")
    found = []
    for name, own in zip(names, arguments, strict=True):
        if not isinstance(name, str):
            raise RowFault("missing column", "an instruction has neither `func_name` nor `instruction_id`")
        found.append({"id": name, **{key: value for key, value in (own or {}).items() if value is not None}})
    return found


def _of_function(given: Mapping[str, Any]) -> dict[str, Any]:
    function = given["func_name"]
    if function not in _NAMES:
        raise RowFault("unsupported", f"no rule is known for the instruction {function!r}")
    name, spellings = _NAMES[function]
    missing = [theirs for theirs in spellings if given.get(theirs) is None]
    if missing:
        raise RowFault("null", f"the instruction {function!r} lacks {', '.join(missing)}")
    exact = {_EXACT[name]: "exactly"} if name in _EXACT else {}
    return {"id": name, **{ours: given[theirs] for theirs, ours in spellings.items()}, **exact}
