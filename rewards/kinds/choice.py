"""Multiple choice: the letters that an answer names, or the texts of the options that it repeats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, PureReward, Score, failed, scored
from rayzero.rewards.kinds.exact import plain_words
from rayzero.rewards.kinds.stated_answer import stated_answer
from rayzero.rewards.math.errors import UnreadableError
from rayzero.rewards.math.reading.choice import Choice, read_choice
from rayzero.rewards.math.reading.clean import clean
from rayzero.rewards.math.reading.normalise import normalise
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import ChoiceComponent

LETTERS = "ABCDEFGHIJ"


class ChoiceReward(PureReward):
    """1 where exactly the letters of the gold answer are chosen, else 0."""

    def __init__(self, settings: ChoiceComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """1 or 0; a gold answer that names no option is an error."""
        options = self._options(case)
        gold = self._gold(case.prompt.answer, options)
        if gold is None:
            return failed(
                ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: the gold answer names no option of {LETTERS}"
            )
        found = stated_answer(case, self.settings.answer_from)
        if found.text is None:
            return scored(0.0, reason=found.problem)
        chosen = chosen_letters(found.text, options)
        if not chosen:
            return scored(0.0, reason=f"{found.text[:80]!r} names no option, or several")
        return scored(float(chosen == gold), reason=f"{chosen} is chosen, {gold} is right")

    def _options(self, case: Case) -> Sequence[str]:
        found = case.prompt.columns.get(self.settings.options_column) if self.settings.options_column else None
        if isinstance(found, str):
            try:
                found = json.loads(found)
            except ValueError:
                return ()
        if isinstance(found, dict):
            found = found.get("text", list(found.values()))
        return [str(option) for option in found][: len(LETTERS)] if isinstance(found, list | tuple) else ()

    def _gold(self, answer: Any, options: Sequence[str]) -> str | None:
        """Letters in order; an index counts from `first_index`."""
        if isinstance(answer, list | tuple) and answer:
            letters = [self._gold(each, options) for each in answer]
            return None if None in letters else "".join(sorted(set("".join(filter(None, letters)))))
        if isinstance(answer, bool):
            return None
        if isinstance(answer, int):
            index = answer - self.settings.first_index
            return LETTERS[index] if 0 <= index < (len(options) or len(LETTERS)) else None
        if not isinstance(answer, str):
            return None
        named = chosen_letters(answer, options)
        if not named or (options and LETTERS.index(named[-1]) >= len(options)):
            return None
        return named


def chosen_letters(text: str, options: Sequence[str] = ()) -> str:
    """The letters that a text chooses, sorted; "" where it names none, hedges, or contradicts itself.

    Examples: `chosen_letters("(B) 42") == "B"`, `chosen_letters("C, A") == "AC"`, `chosen_letters("A or B") == ""`.
    """
    choice = _read(text)
    same = _same_options(text, options, ignore_articles=choice is None)  # A) Rome is no article and Rome
    if choice is None:
        return same[0] if len(same) == 1 else ""
    if same and choice.letters not in same:
        return same[0] if len(same) == 1 else ""
    if choice.content and options and len(choice.letters) == 1:
        named = _same_options(choice.content, options)
        if named and choice.letters not in named:
            return ""  # B beside the text of C
    return choice.letters


def _same_options(text: str, options: Sequence[str], *, ignore_articles: bool = True) -> list[str]:
    """Letters of the options that the text repeats."""
    own = plain_words(text, ignore_articles=ignore_articles)
    pairs = zip(LETTERS, options, strict=False)
    return [letter for letter, option in pairs if plain_words(option, ignore_articles=ignore_articles) == own]


def _read(text: str) -> Choice | None:
    try:
        return read_choice(clean(normalise(text)))
    except UnreadableError:
        return None
