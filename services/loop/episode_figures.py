"""Figures of a batch's episodes: turns, tool calls, why they ended, and where their time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rayzero.services.loop.evaluation import mean
from rayzero.services.schema.episodes import Turn
from rayzero.services.schema.messages import Completion, Group


def episode_figures(groups: Sequence[Group]) -> dict[str, float]:
    """As a line of metrics.jsonl has them; empty where the batch has no episode."""
    episodes = [
        rollout.completion for group in groups for rollout in group.rollouts if rollout.completion.end is not None
    ]
    if not episodes:
        return {}
    turns = [list(turns_of(episode)) for episode in episodes]
    calls = [calls_of(episode) for episode in episodes]
    number = sum(made for made, _ in calls)
    ends = Counter(str(episode.end) for episode in episodes)
    return {
        "episode_turns_mean": mean([len(each) for each in turns]),
        "episode_observed_tokens_mean": mean([observed_tokens(episode) for episode in episodes]),
        "episode_engine_s_mean": mean([sum(turn.engine_s for turn in each) for each in turns]),
        "episode_environment_s_mean": mean([environment_s(episode) for episode in episodes]),
        "episode_forks_mean": mean([len(episode.branches) for episode in episodes]),
        "tool_calls_mean": mean([made for made, _ in calls]),
        "tool_failure_share": sum(failed for _, failed in calls) / number if number else 0.0,
        **{f"episode_end/{end}": count / len(episodes) for end, count in sorted(ends.items())},
    }


def turns_of(episode: Completion) -> Iterator[Turn]:
    """All that were sampled, those of branches too."""
    yield from episode.turns
    for branch in episode.branches:
        yield from branch.completion.turns


def environment_s(episode: Completion) -> float:
    """Seconds that its environment took after turns."""
    return 0.0 if episode.outcome is None else sum(episode.outcome.environment_s)


def calls_of(episode: Completion) -> tuple[int, int]:
    """Tools that were called, and how many of these calls failed."""
    metrics = {} if episode.outcome is None else episode.outcome.metrics
    return int(metrics.get("tool_calls", 0)), int(metrics.get("tool_failures", 0))


def observed_tokens(episode: Completion) -> int:
    """Tokens that its environment said, branches left out."""
    return 0 if episode.is_sampled is None else int((~episode.is_sampled).sum())
