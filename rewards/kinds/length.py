"""Rewards on length and repetition: three small formulas.

Lengths are sampled tokens; where only text is known, its words stand in (of Chinese, Japanese and Korean: characters).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace

from rayzero.rewards.base import Case, Context, PureReward, Score, failed, scored
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import (
    CosineLengthComponent,
    OverlongComponent,
    RepetitionComponent,
)
from rayzero.services.schema.messages import VerdictStatus

_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_EAST_ASIAN}]|[^\\s{_EAST_ASIAN}]+")


class OverlongReward(PureReward):
    """0 up to the margin, then down to −1 (DAPO, arXiv:2503.14476, equation 13)."""

    def __init__(self, settings: OverlongComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """The penalty, 0 … −1; its best is 0."""
        length = num_tokens(case)
        value = overlong_penalty(length, self.settings.max_tokens, self.settings.margin_tokens)
        return scored(value, full=0.0, reason=f"{length} of {self.settings.max_tokens} tokens")


class CosineLengthReward:
    """Right and short is best, wrong and short is worst (arXiv:2502.03373, appendix C.1)."""

    def __init__(self, settings: CosineLengthComponent) -> None:
        self.settings = settings

    async def start(self) -> None:
        """Nothing to start."""

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, from the score of the component that says what is right."""
        started = time.perf_counter()
        scores = [
            self._judge(case, decided) for case, decided in zip(cases, context.earlier[self.settings.of], strict=True)
        ]
        return [replace(score, seconds=time.perf_counter() - started) for score in scores]

    async def close(self) -> None:
        """Nothing to end."""

    def _judge(self, case: Case, decided: Score) -> Score:
        if decided.is_error:
            return failed(decided.cause or ErrorCause.UNKNOWN, f"{self.settings.of} has no score: {decided.reason}")
        if decided.value is None:
            return scored(None, reason=f"{self.settings.of} does not apply")
        length = num_tokens(case)
        correct = decided.status is VerdictStatus.CORRECT
        value = cosine_length(length, correct, self.settings)
        reason = f"{length} of {self.settings.max_tokens} tokens, {'right' if correct else 'wrong'}"
        return scored(value, full=best_cosine(self.settings), reason=reason)


class RepetitionReward(PureReward):
    """Minus the share of n-grams that occurred before (arXiv:2502.03373, appendix C.2, per completion)."""

    def __init__(self, settings: RepetitionComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """The penalty, 0 … −max_penalty; its best is 0."""
        share = repeated_share(words(case.text), self.settings.ngram_size)
        reason = f"{share:.0%} of the {self.settings.ngram_size}-grams repeat"
        return scored(0.0 - self.settings.max_penalty * share, full=0.0, reason=reason)


def overlong_penalty(length: int, max_tokens: int, margin_tokens: int) -> float:
    """0 up to L_max − L_cache, −1 beyond L_max, linear in between.

    Example: `overlong_penalty(18432, 20480, 4096) == -0.5`.
    """
    if length > max_tokens:
        return -1.0
    return min(0.0, (max_tokens - margin_tokens - length) / margin_tokens)


def cosine_length(length: int, correct: bool, settings: CosineLengthComponent) -> float:
    """From `*_short` at length 0 along half a cosine to `*_long` at L_max; `exceeded` from there on."""
    if length >= settings.max_tokens:
        return settings.exceeded
    short, long = (
        (settings.correct_short, settings.correct_long) if correct else (settings.wrong_short, settings.wrong_long)
    )
    return long + 0.5 * (short - long) * (1.0 + math.cos(math.pi * length / settings.max_tokens))


def best_cosine(settings: CosineLengthComponent) -> float:
    """The best that any length can earn."""
    values = (settings.correct_short, settings.correct_long, settings.wrong_short, settings.wrong_long)
    return max(*values, settings.exceeded)


def repeated_share(items: Sequence[str], ngram_size: int) -> float:
    """1 − distinct / all n-grams; 0 for a text shorter than one n-gram. Linear in the text."""
    num_ngrams = len(items) - ngram_size + 1
    if num_ngrams <= 0:
        return 0.0
    ranks: dict[str, int] = {}
    ids = [ranks.setdefault(item, len(ranks)) for item in items]
    return 1.0 - _distinct_windows(ids, ngram_size) / num_ngrams


def words(text: str) -> list[str]:
    """Lower-case words; of Chinese, Japanese and Korean every character is one."""
    return _WORD.findall(text.lower())


def num_tokens(case: Case) -> int:
    """Sampled tokens, or words where no tokens are known."""
    return len(words(case.text)) if case.num_tokens is None else case.num_tokens


def _distinct_windows(ids: Sequence[int], size: int) -> int:
    """Distinct runs of `size` items by a rolling hash modulo 2^61 − 1: the cost does not grow with `size`."""
    modulus, base = (1 << 61) - 1, 0x9E3779B97F4A7C15 % ((1 << 61) - 1)
    leading = pow(base, size - 1, modulus)
    value = 0
    seen: set[int] = set()
    for index, item in enumerate(ids):
        if index >= size:
            value = (value - (ids[index - size] + 1) * leading) % modulus
        value = (value * base + item + 1) % modulus
        if index >= size - 1:
            seen.add(value)
    return len(seen)
