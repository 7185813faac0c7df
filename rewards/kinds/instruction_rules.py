"""What each kind of instruction asks of a text: the 25 checks of IFEval (arXiv:2311.07911), as rules of our own.

Words are runs of letters and digits, sentences end at . ! ?; paragraphs are parted by `***` where their number is
asked for, and by empty lines where their first words are. All checks are linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rayzero.rewards.kinds.format import is_blank
from rayzero.rewards.kinds.json_schema import json_text, strict_json
from rayzero.rewards.kinds.language import LanguageReward, count_languages
from rayzero.rewards.kinds.prose import prose
from rayzero.services.schema.languages import language_code

Arguments = Mapping[str, Any]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?。！？]+")
_BULLET = re.compile(r"^[ \t]*(?:[*+-]|•)[ \t]+\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*([^*\n]+)\*\*|(?<!\*)\*([^*\n]+)\*(?!\*)")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^<>\n]+>>")
_CHOICES = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "at least": lambda found, wanted: found >= wanted,
    "less than": lambda found, wanted: found < wanted,
    "at most": lambda found, wanted: found <= wanted,
    "more than": lambda found, wanted: found > wanted,
    "exactly": lambda found, wanted: found == wanted,
    "around": lambda found, wanted: abs(found - wanted) <= max(round(wanted * 0.1), 1),
}


class BadInstructionError(ValueError):
    """An instruction that no rule knows, or that lacks an argument; the message names it."""


def follows(text: str, name: str, arguments: Arguments) -> bool:
    """Does the text do what the instruction asks? Raises BadInstructionError."""
    rule = RULES.get(name)
    if rule is None:
        raise BadInstructionError(f"unknown instruction {name!r}; known: {', '.join(RULES)}")
    try:
        return bool(text.strip()) and rule(text, arguments)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInstructionError(f"instruction {name!r}: {type(error).__name__} {error}") from None


def _related(found: int, wanted: Any, relation: Any) -> bool:
    compare = _RELATIONS.get(str(relation or "at least"))
    if compare is None:
        raise ValueError(f"unknown relation {relation!r}; known: {', '.join(_RELATIONS)}")
    return compare(found, int(wanted))


def num_words(text: str) -> int:
    """Runs of letters and digits; `don't` and `well-known` are one each."""
    return len(_WORD.findall(text))


def num_sentences(text: str) -> int:
    """Stretches with a word in them up to their end mark; points within numbers and after initials end none."""
    text = re.sub(r"(?<=\d)\.(?=\d)|\b(?:Mr|Mrs|Ms|Dr|Prof|St|e\.g|i\.e|etc|vs)\.|\b[A-Z]\.(?= [A-Z])", " ", text)
    return sum(_WORD.search(piece) is not None for piece in _SENTENCE_END.split(text))


def _occurrences(text: str, keyword: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(keyword)}(?!\w)", text, re.IGNORECASE))


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) and each for each in value):
        raise ValueError("a list of texts is expected")
    return list(value)


def _phrase(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text is expected")
    return value.strip()


def _letters(text: str, arguments: Arguments) -> bool:
    letter = _phrase(arguments["letter"]).lower()
    return _related(text.lower().count(letter), arguments["let_frequency"], arguments.get("let_relation"))


def _language(text: str, arguments: Arguments) -> bool:
    target = language_code(str(arguments["language"]))
    words = count_languages(prose(text), target)
    hits = sum(words[script] for script in LanguageReward.scripts_of(target))
    return hits > 0.5 * words.total()


def _paragraphs(text: str, arguments: Arguments) -> bool:
    parts = re.split(r"\s?(?:\*\*\*|\* \* \*)\s?", text)
    inner = parts[(1 if is_blank(parts[0]) else 0) : (-1 if len(parts) > 1 and is_blank(parts[-1]) else None)]
    return not any(map(is_blank, inner)) and len(inner) == int(arguments["num_paragraphs"])


def _first_word(text: str, arguments: Arguments) -> bool:
    parts = [part for part in re.split(r"\n\s*\n", text) if not is_blank(part)]
    nth = int(arguments["nth_paragraph"])
    if len(parts) != int(arguments["num_paragraphs"]) or not 1 <= nth <= len(parts):
        return False
    first = _WORD.search(parts[nth - 1])
    return first is not None and first[0].lower() == _phrase(arguments["first_word"]).lower()


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = _phrase(arguments["postscript_marker"]).lower()
    pattern = {"p.p.s": r"p\.? ?p\.? ?s\.?", "p.s.": r"p\.? ?s\.?"}.get(marker, re.escape(marker))
    return re.search(rf"^[ \t*_]*{pattern}[ \t:*_]*[^\s.:*_]", text, re.IGNORECASE | re.MULTILINE) is not None


def _sections(text: str, arguments: Arguments) -> bool:
    splitter = _phrase(arguments["section_spliter"])
    heads = re.findall(rf"^[ \t#*_]*{re.escape(splitter)}[ \t]+\d+", text, re.IGNORECASE | re.MULTILINE)
    return len(heads) >= int(arguments["num_sections"])


def _is_json(text: str, arguments: Arguments) -> bool:
    try:
        strict_json(json_text(text) or "")
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, arguments: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    inner = [part for index, part in enumerate(parts) if part or 0 < index < len(parts) - 1]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _quoted(text: str, arguments: Arguments) -> bool:
    text = text.strip()
    return len(text) > 2 and text[0] == text[-1] == '"'


def _capital_words(text: str, arguments: Arguments) -> bool:
    number = sum(word.isupper() for word in _WORD.findall(text))
    return _related(number, arguments["capital_frequency"], arguments.get("capital_relation"))


def _starts_with(text: str, phrase: Any) -> bool:
    return text.strip().lower().startswith(_phrase(phrase).lower())


def _ends_with(text: str, phrase: Any) -> bool:
    return text.strip().strip('"').lower().endswith(_phrase(phrase).lower())


RULES: Mapping[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": lambda text, a: all(_occurrences(text, word) for word in _texts(a["keywords"])),
    "keywords:frequency": lambda text, a: _related(
        _occurrences(text, _phrase(a["keyword"])), a["frequency"], a.get("relation")
    ),
    "keywords:forbidden_words": lambda text, a: not any(_occurrences(text, w) for w in _texts(a["forbidden_words"])),
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, a: _related(
        num_sentences(text), a["num_sentences"], a.get("relation")
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, a: _related(num_words(text), a["num_words"], a.get("relation")),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, a: (
        len(_PLACEHOLDER.findall(text)) >= int(a["num_placeholders"])
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, a: len(_BULLET.findall(text)) == int(a["num_bullets"]),
    "detectable_format:constrained_response": lambda text, a: (
        any(option in text for option in _texts(a["options"]))
        if a.get("options")
        else any(choice in text.lower() for choice in _CHOICES)
    ),
    "detectable_format:number_highlighted_sections": lambda text, a: (
        sum(bool("".join(pair).strip()) for pair in _HIGHLIGHT.findall(text)) >= int(a["num_highlights"])
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text, a: any(match[2:-2].strip() for match in _TITLE.findall(text)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, a: _starts_with(text, a["prompt_to_repeat"]),
    "startend:end_checker": lambda text, a: _ends_with(text, a["end_phrase"]),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, a: text.isupper() and _language(text.lower(), {"language": "en"}),
    "change_case:english_lowercase": lambda text, a: text.islower() and _language(text, {"language": "en"}),
    "punctuation:no_comma": lambda text, a: not re.search("[,，、]", text),
}
"""By the names that IFEval's data has."""
