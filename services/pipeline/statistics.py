"""pass@1, pass@k, majority@k and their confidence intervals, from judged groups. Pure numbers.

The prompts are the sample, not the completions: completions of one prompt are alike, so every interval comes from the
spread over prompts (normal approximation, 95 %).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rayzero.services.loop.estimate import estimate
from rayzero.services.loop.evaluation import accuracy_of, is_accurate, mean
from rayzero.services.schema.messages import Group, Rollout

ALL = "all"
FORMAT = "format"
"""The component that says whether an answer was worked out first, where a rubric has it."""


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
    groups: Sequence[Group],
    answer_of: Callable[[str], str | None],
    components: Sequence[str] = (),
    greedy_groups: Sequence[Group] = (),
) -> dict[str, dict[str, Any]]:
    """By source, and for all together under `all` where there are several: every figure as an estimate.

    `accuracy` is pass@1, `greedy` that of `greedy_groups`; `pass@k`, `majority@k` for the k completions of a prompt;
    `length` in tokens; `in format`: accuracy of the completions in format alone, where that is scored; then the scores
    of `components`. Verdicts that are errors count for nothing, and are counted.
    """
    sources = list(dict.fromkeys(group.prompt.source for group in groups))
    wanted: list[str | None] = [*([None] if len(sources) > 1 else []), *sources]

    def of(source: str | None, among: Sequence[Group]) -> list[Group]:
        return [group for group in among if source in (None, group.prompt.source)]

    figures = {}
    for source in wanted:
        figures[source or ALL] = _figures(of(source, groups), answer_of, components)
        if likeliest := of(source, greedy_groups):
            figures[source or ALL]["greedy"] = accuracy_of(likeliest).to_dict()
    return figures


def _figures(
    groups: Sequence[Group], answer_of: Callable[[str], str | None], components: Sequence[str]
) -> dict[str, Any]:
    judged = [group.judged for group in groups]
    kept = [rollouts for rollouts in judged if rollouts]
    k = max((len(rollouts) for rollouts in kept), default=1)
    full = [rollouts for rollouts in kept if len(rollouts) == k]
    figures: dict[str, Any] = {
        "accuracy": accuracy_of(groups).to_dict(),
        "length": estimate([mean([r.completion.num_sampled for r in rollouts]) for rollouts in kept]).to_dict(),
        "num_errors": sum(len(group.rollouts) for group in groups) - sum(len(rollouts) for rollouts in kept),
        "num_completions": k,
    }
    if k > 1:
        passes = [pass_at(k, sum(is_accurate(r) for r in rollouts), k) for rollouts in full]
        figures[f"pass@{k}"] = estimate(passes).to_dict()
        figures[f"majority@{k}"] = estimate([_majority(rollouts, answer_of) for rollouts in full]).to_dict()
    if FORMAT in components:
        formed = [[r for r in rollouts if r.verdict.components.get(FORMAT, 0.0) >= 1.0] for rollouts in kept]
        figures["in format"] = estimate(
            [mean([float(is_accurate(r)) for r in each]) for each in formed if each]
        ).to_dict()
    for name in components:
        scores = [[r.verdict.components[name] for r in rollouts if name in r.verdict.components] for rollouts in kept]
        if any(scores):
            figures[name] = estimate([mean(each) for each in scores if each]).to_dict()
    return figures


def _majority(rollouts: Sequence[Rollout], answer_of: Callable[[str], str | None]) -> float:
    answers = [answer_of(rollout.completion.text) for rollout in rollouts]
    return majority(answers, [is_accurate(rollout) for rollout in rollouts])
