"""pass@1, pass@k, majority@k and their confidence intervals, from judged groups. Pure numbers.

The prompts are the sample, not the completions: completions of one prompt are alike, so every interval comes from the
spread over prompts (normal approximation, 95 %).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.services.loop.evaluation import is_accurate, mean
from rayzero.services.schema.messages import Group, Rollout

Z95 = 1.96
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over prompts and the standard error of that mean."""

    mean: float
    standard_error: float
    num_prompts: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.mean - Z95 * self.standard_error, self.mean + Z95 * self.standard_error

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        low, high = self.interval
        return {"mean": self.mean, "se": self.standard_error, "low": low, "high": high, "prompts": self.num_prompts}


def estimate(values: Sequence[float]) -> Estimate:
    """Of one value a prompt. NaN where there are none; no error is known of a single one."""
    count = len(values)
    mean = sum(values) / count if count else math.nan
    variance = sum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else math.nan
    return Estimate(mean=mean, standard_error=math.sqrt(variance / count) if count > 1 else math.nan, num_prompts=count)


def pass_at(k: int, num_correct: int, num_completions: int) -> float:
    """Chance that at least one of k completions is right, drawn from n with c right: 1 − C(n−c, k) / C(n, k), unbiased
    (https://arxiv.org/abs/2107.03374, equation 1)."""
    if k > num_completions:
        raise ValueError(f"pass@{k} needs at least {k} completions, not {num_completions}")
    return 1.0 - math.comb(num_completions - num_correct, k) / math.comb(num_completions, k)


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """1 where the most frequent answer is right; of answers that tie, the share that is. No answer is no vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    right = {answer for answer, is_right in zip(answers, correct, strict=True) if is_right}
    return sum(answer in right for answer in winners) / len(winners)


def figures_by_source(
    groups: Sequence[Group], answer_of: Callable[[str], str | None], components: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """By source, and for all together under `all` where there are several: every figure as an estimate.

    `accuracy` is pass@1; `pass@k`, `majority@k` for the k completions of a prompt; `length` in tokens; then the scores
    of `components`. Verdicts that are errors count for nothing, and are counted.
    """
    sources = list(dict.fromkeys(group.prompt.source for group in groups))
    parts: Mapping[str, Sequence[Group]] = {
        source: [group for group in groups if group.prompt.source == source] for source in sources
    }
    if len(sources) > 1:
        parts = {ALL: groups, **parts}
    return {source: _figures(part, answer_of, components) for source, part in parts.items()}


def _figures(
    groups: Sequence[Group], answer_of: Callable[[str], str | None], components: Sequence[str]
) -> dict[str, Any]:
    judged = [group.judged for group in groups]
    kept = [rollouts for rollouts in judged if rollouts]
    k = max((len(rollouts) for rollouts in kept), default=1)
    full = [rollouts for rollouts in kept if len(rollouts) == k]
    figures: dict[str, Any] = {
        "accuracy": estimate([mean([float(is_accurate(r)) for r in rollouts]) for rollouts in kept]).to_dict(),
        "length": estimate([mean([r.completion.num_tokens for r in rollouts]) for rollouts in kept]).to_dict(),
        "num_errors": sum(len(group.rollouts) for group in groups) - sum(len(rollouts) for rollouts in kept),
        "num_completions": k,
    }
    if k > 1:
        passes = [pass_at(k, sum(is_accurate(r) for r in rollouts), k) for rollouts in full]
        figures[f"pass@{k}"] = estimate(passes).to_dict()
        figures[f"majority@{k}"] = estimate([_majority(rollouts, answer_of) for rollouts in full]).to_dict()
    for name in components:
        scores = [[r.verdict.components[name] for r in rollouts if name in r.verdict.components] for rollouts in kept]
        if any(scores):
            figures[name] = estimate([mean(each) for each in scores if each]).to_dict()
    return figures


def _majority(rollouts: Sequence[Rollout], answer_of: Callable[[str], str | None]) -> float:
    answers = [answer_of(rollout.completion.text) for rollout in rollouts]
    return majority(answers, [is_accurate(rollout) for rollout in rollouts])
