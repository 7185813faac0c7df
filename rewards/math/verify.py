"""The way in: does a completion's final answer equal the gold answer?

Pure and deterministic: no threads, no signals, no clock, and nothing of the text is ever evaluated as code. Sizes are
bounded before anything is computed, so a case costs milliseconds; run it in a killable process all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rayzero.rewards.math.compare import Comparison
from rayzero.rewards.math.errors import BadGoldError, TooLargeError, UnreadableError
from rayzero.rewards.math.reading.choice import Choice, is_choice, read_choice
from rayzero.rewards.math.reading.clean import clean
from rayzero.rewards.math.reading.extract import extract
from rayzero.rewards.math.reading.formula_text import is_unevaluated, same_formula
from rayzero.rewards.math.reading.gold import gold_answers
from rayzero.rewards.math.reading.normalise import normalise
from rayzero.rewards.math.reading.quantifiers import without_quantifier
from rayzero.rewards.math.reading.read import Style, read
from rayzero.rewards.math.reading.symbols import DECIMAL_COMMA
from rayzero.rewards.math.reading.text import numbered_statements, same_words
from rayzero.rewards.math.reading.thousands import joined_thousands, split_thousands
from rayzero.rewards.math.reading.vectors import with_plain_units_marked
from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.values.answer import Answer, Items, Words
from rayzero.rewards.math.worked_out import is_worked_out

_DEFAULTS = Rules()
_SHOWN_CHARS = 80
_WITH_BASE = re.compile(r"^\(?([0-9A-F]+)\)? *_ *(?:\d+|\{[^{}]*\}|⟪[^⟪⟫]*⟫)$")


@dataclass(frozen=True, slots=True)
class MathVerdict:
    """`reason` is one line for people, e.g. `"2 does not equal 3"`."""

    correct: bool
    reason: str
    is_bad_gold: bool = False
    """The gold answer is empty, or says two things: no verdict on the completion."""


def verify(completion: str, gold: str, settings: Rules = _DEFAULTS, *, prefilled: bool = False) -> MathVerdict:
    r"""Judge a completion by its last box after the last </think>: `verify(r"\boxed{0.5}", r"\frac12").correct`.

    `prefilled`: the prompt already ended in <think>. Never raises for any two strings.
    """
    try:
        wanted = _gold_answer(gold, settings)
    except BadGoldError as error:
        return MathVerdict(False, str(error), is_bad_gold=True)
    found = extract(completion, settings.fallbacks, prefilled=prefilled)
    if found.answer is None:
        return MathVerdict(False, found.problem or "no answer")
    verdict = _compare(found.answer, wanted, settings)
    if not verdict.correct and found.boxes:
        last = _compare(found.boxes[-1], wanted, settings)
        return last if last.correct else verdict
    return verdict


def verify_answer(answer: str, gold: str, settings: Rules = _DEFAULTS) -> MathVerdict:
    """Compare an answer's text with the gold answer's. `verify_answer("50%", "1/2").correct` is True."""
    try:
        return _compare(answer, _gold_answer(gold, settings), settings)
    except BadGoldError as error:
        return MathVerdict(False, str(error), is_bad_gold=True)


def _gold_answer(gold: str, settings: Rules) -> str:
    """The one answer in a gold text. Raises BadGoldError for none, and for several that differ."""
    found = gold_answers(gold)
    for other in found[:-1]:
        if not _compare(other, found[-1], settings).correct:
            raise BadGoldError(f"the gold answer boxes both {_short(other)} and {_short(found[-1])}: keep one of them")
    return found[-1]


def _compare(answer: str, gold: str, settings: Rules) -> MathVerdict:
    if not answer.strip():
        return MathVerdict(False, "the answer is empty")
    if len(answer) > max(settings.max_answer_chars, len(gold)):
        return MathVerdict(False, f"the answer is longer than {settings.max_answer_chars} characters")
    if _collapsed(answer) == _collapsed(gold):
        return MathVerdict(True, f"{_short(answer)} is literally the gold answer")
    try:
        read_answer, read_gold = normalise(answer), normalise(gold)
        correct = _equal(read_answer, read_gold, settings)
        if correct and settings.worked_out and not _is_worked_out(read_answer, read_gold, settings):
            return MathVerdict(False, f"{_short(answer)} equals {_short(gold)}, but is not worked out")
    except TooLargeError as error:
        return MathVerdict(False, f"{_short(answer)} is refused: {error}")
    except UnreadableError as error:
        return MathVerdict(False, f"{_short(answer)} cannot be read: {error}")
    except RecursionError:
        return MathVerdict(False, f"{_short(answer)} is refused: nested too deeply")
    return MathVerdict(correct, f"{_short(answer)} {'equals' if correct else 'does not equal'} {_short(gold)}")


def _equal(answer: str, gold: str, settings: Rules, *, content: bool = False) -> bool:
    """Words, then multiple choice, then every reading of the answer against the gold answer's.

    `content`: what stands beside a choice's letter is compared, which is no choice again.
    """
    plain, plain_gold = clean(answer), clean(gold)
    if not plain:
        return False
    if _visible(answer) == _visible(gold):
        return True
    if same_words(plain, plain_gold) and _is_words(read(gold)):
        return True
    if "①" <= plain_gold[:1] <= "⑳" and numbered_statements(plain_gold) == numbered_statements(plain):
        return True
    choice = None if content else is_choice(plain_gold)
    if choice is not None:
        chosen = _same_choice(answer, choice, settings)
        if chosen is not None:
            return chosen
    comparison = Comparison(settings)
    (answer, domain), (gold, gold_domain) = _mathematics(plain, plain_gold)
    if domain and gold_domain and domain != gold_domain:
        return False
    if settings.strictness == "lenient" and (based := _WITH_BASE.match(gold)) and answer == based[1]:
        return True
    if any(comparison.same(one, other) for one, other in _readings(answer, gold)):
        return True
    if not same_formula(answer, gold):
        return False
    return is_unevaluated(gold) or (isinstance(read(gold), Words) and isinstance(read(answer), Words))


def _is_worked_out(answer: str, gold: str, settings: Rules) -> bool:
    """In the reading that makes it equal; what is equal as text alone needs no working out."""
    comparison = Comparison(settings)
    (answer, _), (gold, _) = _mathematics(clean(answer), clean(gold))
    equal = [pair for pair in _readings(answer, gold) if comparison.same(*pair)]
    return not equal or any(is_worked_out(*pair) for pair in equal)


def _mathematics(answer: str, gold: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Both without their quantifiers, which stand beside them; units of the gold answer are marked in the other."""
    return without_quantifier(with_plain_units_marked(answer, gold)), without_quantifier(gold)


def _same_choice(answer: str, gold: Choice, settings: Rules) -> bool | None:
    """None where the answer names no choice, and the gold answer may be mathematics after all."""
    chosen = read_choice(clean(answer))
    if chosen is None:
        if gold.content:
            return _equal(answer, gold.content, settings, content=True)
        return False if len(gold.letters) > 1 and re.search(r"\bor\b|或", answer) else None
    if chosen.letters != gold.letters:
        return False
    if gold.content and chosen.content:
        return _equal(chosen.content, gold.content, settings, content=True)
    return True


def _readings(answer: str, gold: str) -> Iterator[tuple[Answer, Answer]]:
    """Pairs to compare: the gold answer has one reading, the answer may have several."""
    gold = gold.replace(DECIMAL_COMMA, ".")
    gold_answer = read(joined_thousands(gold, only_certain=True))
    with_point, answer = answer.replace(DECIMAL_COMMA, "."), answer.replace(DECIMAL_COMMA, ",")
    texts = dict.fromkeys(
        (joined_thousands(answer, only_certain=True), joined_thousands(answer), split_thousands(answer), with_point)
    )
    for text in texts:
        yield read(text), gold_answer
    if re.search(r"\d[A-Za-z]\b", answer):
        yield read(joined_thousands(answer), Style(attached_units=True)), gold_answer
    elif re.search(r"\d[A-Za-z]$", gold) and not re.fullmatch(r"[\d.,]*", answer):
        yield read(joined_thousands(answer)), read(joined_thousands(gold), Style(attached_units=True))


def _collapsed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _is_words(answer: Answer) -> bool:
    """Words, or a list of nothing else."""
    return isinstance(answer, Words) or (
        isinstance(answer, Items) and answer.brackets == "" and all(isinstance(item, Words) for item in answer.items)
    )


def _visible(text: str) -> str:
    """What a reader sees: without the marks of text."""
    return _collapsed(re.sub("[⟪⟫]", " ", text))


def _short(text: str) -> str:
    text = _collapsed(text)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
