"""`rayzero bench learner --episodes`: forked episodes trained as trees, beside the same tokens laid out as rows.

Every layout trains the same sampled tokens. What it feeds besides is context: a row repeats all that its tokens follow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.update.learner import Learner
from rayzero.services.schema.episodes import Branch
from rayzero.services.schema.messages import (
    Completion,
    Group,
    Prompt,
    Rollout,
    Verdict,
    VerdictStatus,
    VersionSpan,
)

VARIANTS = {
    "tree": "as a tree: every token fed once",
    "prompt_shared": "a row a path, the prompt shared",
    "row_a_path": "a row a path",
    "row_a_turn": "a row a turn",
}


@dataclass(frozen=True, slots=True)
class EpisodeMix:
    """One group of episodes of equal shape, each of which forks once."""

    num_episodes: int = 8
    prompt_tokens: int = 300
    num_turns: int = 6
    sampled_tokens: int = 40
    """Of a turn."""
    observed_tokens: int = 60
    """Behind each turn."""
    fork_after: int = 3
    """Turns that both paths share."""
    seed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.num_episodes} episodes after one prompt of {self.prompt_tokens} tokens, {self.num_turns} turns of "
            f"{self.sampled_tokens} sampled and {self.observed_tokens} observed tokens, each forked after turn "
            f"{self.fork_after}, seed {self.seed}"
        )


def make_episodes(mix: EpisodeMix, vocab_size: int) -> Group:
    """The mix's group, of random tokens."""
    rng = np.random.default_rng(mix.seed)
    prompt = rng.integers(0, vocab_size, mix.prompt_tokens).astype(np.int32)
    turn = mix.sampled_tokens + mix.observed_tokens

    def path(num_turns: int) -> Completion:
        marks = np.arange(num_turns * turn) % turn < mix.sampled_tokens
        return _path(rng.integers(0, vocab_size, len(marks)).astype(np.int32), marks)

    episodes = []
    for _ in range(mix.num_episodes):
        fork = mix.prompt_tokens + mix.fork_after * turn
        branch = Branch(parent=0, fork=fork, completion=path(mix.num_turns - mix.fork_after))
        episodes.append(replace(path(mix.num_turns), branches=(branch,)))
    return _group(prompt, episodes)


def as_rows(group: Group, *, by_turn: bool) -> Group:
    """The same sampled tokens with every path, or every turn, a completion of its own that branches nowhere."""
    rows: list[Completion] = []
    for rollout in group.rollouts:
        paths: list[NDArray[np.int32]] = []
        for number, path in enumerate(rollout.completion.paths):
            above = np.zeros(0, dtype=np.int32)
            if number:
                branch = rollout.completion.branches[number - 1]
                above = paths[branch.parent][: branch.fork - len(group.prompt_token_ids)]
            paths.append(np.concatenate([above, path.token_ids]))
            own = np.concatenate([np.zeros(len(above), dtype=bool), np.asarray(path.is_sampled)])
            rows += [_path(paths[-1], marks) for marks in (_turns(own) if by_turn else [own])]
    return _group(group.prompt_token_ids, rows)


def measure_episodes(learner: Learner, mix: EpisodeMix, repeats: int) -> dict[str, dict[str, float]]:
    """Figures of each layout. They take turns, so that a machine whose speed changes changes it for all of them; one
    update of the tree warms up."""
    shared = learner.settings
    alone = shared.model_copy(update={"compute": shared.compute.model_copy(update={"share_prompts": False})})
    tree = make_episodes(mix, learner.policy.model.config.vocab_size)
    rows, turns = as_rows(tree, by_turn=False), as_rows(tree, by_turn=True)
    layouts = {"tree": (shared, tree), "prompt_shared": (shared, rows), "row_a_path": (alone, rows)}
    layouts["row_a_turn"] = (alone, turns)
    found: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "cpu_seconds": []} for name in layouts}
    fed: dict[str, float] = {}
    learner.update([tree], 1)
    for version in range(2, repeats + 2):
        for name, (settings, group) in layouts.items():
            learner.settings = settings
            wall, work = time.perf_counter(), time.process_time()
            fed[name] = learner.update([group], version).metrics["fed_tokens"]
            found[name]["seconds"].append(time.perf_counter() - wall)
            found[name]["cpu_seconds"].append(time.process_time() - work)
    return {
        name: {
            "fed_tokens": fed[name],
            "trained_tokens": float(tree.num_tokens),
            **{key: median(values) for key, values in each.items()},
            **{
                f"{key}_of_tree": median(a / b for a, b in zip(values, found["tree"][key], strict=True))
                for key, values in each.items()
            },
        }
        for name, each in found.items()
    }


def rows_of(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What is shown of them."""
    rows = [("model", f"{figures['model']}, {figures['dtype']}, {figures['computes_on']}"), ("mix", figures["mix"])]
    for name, title in VARIANTS.items():
        one = figures[name]
        rows.append((
            title,
            f"{one['seconds']:.1f} s ({one['seconds_of_tree']:.2f} of the tree's), CPU {one['cpu_seconds']:.1f} s "
            f"({one['cpu_seconds_of_tree']:.2f}), {one['fed_tokens']:,.0f} tokens fed",
        ))  # fmt: skip
    return rows


def _turns(marks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """One run of sampled tokens each, and nothing behind it."""
    edges = np.flatnonzero(np.diff(marks, prepend=False, append=False))
    turns = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        turns.append(np.arange(end) >= start)
    return turns


def _path(tokens: NDArray[np.int32], marks: NDArray[np.bool_]) -> Completion:
    """A path of those tokens that are marked, and those between."""
    return Completion(
        text="",
        token_ids=tokens[: len(marks)],
        rollout_logprobs=np.where(marks, -10.0, np.nan).astype(np.float32),
        version_spans=(VersionSpan(start=0, end=len(marks), policy_version=0),),
        finish_reason="stop",
        is_sampled=marks,
    )


def _group(prompt: NDArray[np.int32], completions: Sequence[Completion]) -> Group:
    """Rewards differ, so that each of them is trained."""
    return Group(
        group_id=0,
        prompt=Prompt(prompt_id="0", messages=(), answer=None),
        prompt_token_ids=prompt,
        rollouts=tuple(
            Rollout(
                completion=completion,
                verdict=Verdict(
                    reward=float(number % 2), components={}, status=VerdictStatus.WRONG, reason="", seconds=0.0
                ),
            )
            for number, completion in enumerate(completions)
        ),
    )
