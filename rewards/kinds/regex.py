"""A pattern decides: the answer matches it. Patterns come from data rows, so they run where a loop can be killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rayzero.rewards.base import Case
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.kinds.pooled import BadPromptError, NoAnswerError, PooledReward
from rayzero.rewards.kinds.stated_answer import stated_answer
from rayzero.services.schema.config.reward_components import RegexComponent

MAX_PATTERN_CHARS = 10_000


class RegexReward(PooledReward):
    """1 where the answer matches the prompt's pattern, or one of its patterns; else 0."""

    def __init__(self, settings: RegexComponent, pool: ChildPool) -> None:
        super().__init__(pool)
        self.settings = settings

    def item(self, case: Case) -> list[Any]:
        """Patterns and answer."""
        patterns = case.prompt.answer
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if (
            not isinstance(patterns, list | tuple)
            or not patterns
            or not all(isinstance(p, str) and p for p in patterns)
        ):
            raise BadPromptError("the gold answer must be a pattern or a list of patterns")
        if sum(map(len, patterns)) > MAX_PATTERN_CHARS:
            raise BadPromptError(f"the patterns are longer than {MAX_PATTERN_CHARS} characters")
        found = stated_answer(case, self.settings.answer_from)
        if found.text is None:
            raise NoAnswerError(found.problem)
        return [list(patterns), found.text]


def matcher(match: str) -> Callable[[list[Any]], list[Any]]:
    """For a child: matches (patterns, answer); `match` is `full` or `search`."""

    def judge(item: list[Any]) -> list[Any]:
        patterns, answer = item
        for pattern in patterns:
            try:
                compiled = re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                return [False, "", f"{pattern[:80]!r} is no pattern: {error}"]
            if (compiled.fullmatch if match == "full" else compiled.search)(answer):
                return [True, f"{pattern[:80]!r} matches", ""]
        return [False, f"{answer[:80]!r} matches no pattern", ""]

    return judge
