"""Language consistency: the share of the thought's words that are in the target language.

DeepSeek-R1 (arXiv:2501.12948, section 2.3.2) added this share to the accuracy reward against language mixing. A word is
a run of letters; in Chinese, Japanese and Korean every character is one. Only prose counts: code, formulas, variables,
units, digits, tags and URLs belong to no language.

Languages are distinguished by script; those in Latin script sentence by sentence by their small words
(latin_languages.py), and Chinese from Japanese by the kana that a Japanese sentence has. What this cannot do: tell
English from Dutch, or Russian from Bulgarian.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from rayzero.rewards.base import THINK_CLOSE, THINK_OPEN, Case, PureReward, Score, failed, scored
from rayzero.rewards.kinds.latin_languages import MAX_SENTENCE_WORDS, languages_of, sentence_ends
from rayzero.rewards.kinds.prose import prose
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.languages import LANGUAGES, language_code

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_SCRIPTS = {
    "han": f"[{_HAN}]",
    "kana": "[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]",
    "hangul": "[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]",
    "number": r"\d[\dA-Za-z_.,]*",
    "latin": "[A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ][A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ0-9_]*(?:['’-][A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ]+)*",
    "cyrillic": "[\u0400-\u052f]+",
    "greek": "[\u0370-\u03ff\u1f00-\u1fff]+",
    "arabic": "[\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u0750-\u077f]+",
    "hebrew": "[\u05b0-\u05ea]+",
    "devanagari": "[\u0900-\u0963\u0970-\u097f]+",
    "thai": "[\u0e01-\u0e4e]+",
    "other": r"[^\W\d_]",
}
_TOKEN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _SCRIPTS.items()))
_TARGETS = {
    "en": {"en"},
    "fr": {"fr"},
    "de": {"de"},
    "es": {"es"},
    "it": {"it"},
    "pt": {"pt"},
    "zh": {"han", "kanji"},
    "ja": {"kanji", "kana"},
    "ko": {"hangul"},
    "ru": {"cyrillic"},
    "ar": {"arabic"},
    "he": {"hebrew"},
    "hi": {"devanagari"},
    "th": {"thai"},
    "el": {"greek"},
}
MAX_HEADING = 8
"""Chinese characters of a sentence that needs no kana of its own."""
LATIN = frozenset(("en", "fr", "de", "es", "it", "pt"))
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"))
_FUNCTIONS |= {"log", "ln", "lg", "exp", "lim", "max", "min", "mod", "gcd", "lcm", "det"}
_OPERATORS = frozenset("=+*^<>≤≥≠≈×÷·±∈∪∩→⇒")
_WORD_FOLLOWS = re.compile(" [a-z][a-z]")
_ENGLISH_LETTERS = frozenset(("a", "A", "I"))


class LanguageReward(PureReward):
    """0 … 1. A thought without any prose scores `empty_score`."""

    def __init__(self, *, target: str = "en", target_column: str | None = None, empty_score: float = 0.5) -> None:
        self.target = language_code(target)
        self.target_column = target_column
        self.empty_score = empty_score

    @staticmethod
    def scripts_of(target: str) -> frozenset[str]:
        """The names under which `count_languages` counts the target's words."""
        return frozenset(_TARGETS[target])

    def judge(self, case: Case) -> Score:
        """The share; the reason says how many words of which script there were."""
        target = self.target
        if self.target_column is not None and self.target_column in case.prompt.columns:
            try:
                target = language_code(str(case.prompt.columns[self.target_column]))
            except ValueError as error:
                return failed(ErrorCause.BAD_PROMPT, f"column {self.target_column}: {error}")
        words = count_languages(prose(thought_of(case.text)), target)
        total = sum(words.values())
        if total == 0:
            return scored(self.empty_score, reason="no prose to judge")
        hits = sum(words[script] for script in _TARGETS[target])
        others = [f"{number} {script}" for script, number in words.most_common() if script not in _TARGETS[target]]
        besides = f" (besides {', '.join(others)})" if others else ""
        reason = f"{hits} of {total} words {LANGUAGES[target]}{besides}"
        return scored(hits / total, reason=reason)


def thought_of(text: str) -> str:
    """What lies before the last </think> and after the first <think>.

    Without </think> the thought was cut off: all of it is thought. Without <think> the prompt had opened it. A text
    without any tag is judged as a whole.
    """
    _, opened, rest = text.partition(THINK_OPEN)
    body = rest if opened else text
    before, closed, _ = body.rpartition(THINK_CLOSE)
    return before if closed else body


def count_languages(text: str, target: str) -> Counter[str]:
    """Words by language where the script leaves several (`en`, `fr`, …; `kanji` of Japanese sentences), else by script.

    Latin words of a text in which nothing tells their language count for a target in Latin script.
    """
    counts: Counter[str] = Counter()
    sentences: list[list[str]] = []
    east_asian: list[tuple[int, bool]] = []
    for sentence in _sentences(text):
        scripts = Counter(script for script, _ in sentence)
        counts.update({script: number for script, number in scripts.items() if script not in ("latin", "han")})
        if scripts["han"] or scripts["kana"]:
            east_asian.append((scripts["han"], scripts["kana"] > 0))
        if scripts["latin"]:
            sentences.append([match.group() for script, match in sentence if script == "latin"])
    counts.update(_han(east_asian))
    default = target if target in LATIN else "en"
    for words, language in zip(sentences, languages_of(sentences), strict=True):
        counts[language or default] += len(words)
    return counts


def _words(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Every word with its script."""
    for match in _TOKEN.finditer(text):
        script = match.lastgroup or "other"
        if script == "number" or (script in ("latin", "greek") and _is_symbol(match, text)):
            continue
        yield script, match


def _sentences(text: str) -> Iterator[list[tuple[str, re.Match[str]]]]:
    """The words of each sentence; a sentence that does not end is cut into pieces."""
    ends = iter([*sentence_ends(text), len(text)])
    end, sentence = next(ends), list[tuple[str, re.Match[str]]]()
    for script, match in _words(text):
        if match.start() >= end or len(sentence) >= MAX_SENTENCE_WORDS:
            yield sentence
            sentence = []
            while match.start() >= end:
                end = next(ends)
        sentence.append((script, match))
    yield sentence


def _han(sentences: list[tuple[int, bool]]) -> Counter[str]:
    """Chinese characters: `kanji` in a sentence with kana, `han` in one without.

    A short one beside a sentence with kana is a heading or a sum in Japanese: 答：五個。
    """
    counts: Counter[str] = Counter()
    for index, (number, has_kana) in enumerate(sentences):
        beside = sentences[max(0, index - 1) : index + 2]
        is_japanese = has_kana or (number <= MAX_HEADING and any(kana for _, kana in beside))
        counts["kanji" if is_japanese else "han"] += number
    return Counter({script: number for script, number in counts.items() if number})


def _is_symbol(match: re.Match[str], text: str) -> bool:
    """A variable, point, function, identifier or unit: as much part of a Chinese sentence as of an English one."""
    word = match.group()
    if len(word) == 1:
        reads_on = _WORD_FOLLOWS.match(text, match.end()) is not None
        return not (word in _ENGLISH_LETTERS and reads_on)
    if len(word) <= 4 and word.isupper():
        return True  # the points ABC of a triangle, GCD, RSA
    if word in _FUNCTIONS or not word.replace("-", "").replace("'", "").replace("’", "").isalpha():
        return True
    if len(word) > 3:
        return False
    before = text[max(0, match.start() - 2) : match.start()].rstrip(" ")[-1:]
    after = text[match.end() : match.end() + 2].lstrip(" ")[:1]
    return before.isdigit() or before in _OPERATORS or after in _OPERATORS
