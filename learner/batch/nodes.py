"""An episode as nodes of a tree: what of its tokens is fed, where each run of them forks, and which are trained.

    Completion (main and branches) -> EpisodeNode … -> those that a micro-batch feeds, cut to what it needs of them

Every sampled token is trained once, in the node whose own it is; for the nodes below it is context, as all observed
tokens are. What leads to no sampled token is not fed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.messages import Completion

PROMPT = -1
"""The parent of a node that continues the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeNode:
    """L tokens of one path of a rollout, of which m are trained."""

    parent: int
    """`PROMPT`, or the node before this one whose path it continues."""
    fork: int
    """Tokens of that path which it shares, counted from the prompt's first; the last of them is the parent's own."""
    token_ids: NDArray[np.int32]
    """[L] what follows the fork."""
    targets: NDArray[np.int64]
    """[m] which of them are trained, in order. One at 0 is predicted by the last token before the fork; one at L, that
    nothing of the node need be fed behind its predictor."""
    first: int
    """Index of the first of them among the rollout's sampled tokens."""
    routed_experts: NDArray[Any] | None = None
    """See `Completion.routed_experts`; it may know of more tokens than L."""


def nodes_of(prompt_length: int, completion: Completion) -> tuple[EpisodeNode, ...]:
    """The nodes of a rollout: its main completion and its branches, in their order.

    Raises ValueError where a branch does not fit its parent, or the marks of what was sampled do not fit the tokens.
    """
    nodes = [_node(completion, PROMPT, prompt_length, 0)]
    for number, branch in enumerate(completion.branches, start=1):
        parent, fork = branch.parent, branch.fork
        if branch.completion.branches:
            raise ValueError(f"branch {number} has branches of its own: they belong to the episode's main completion")
        if not 0 <= parent < number:
            raise ValueError(f"branch {number} has branch {parent} for a parent, which does not stand before it")
        if not 1 <= fork <= nodes[parent].fork + len(nodes[parent].token_ids):
            path = nodes[parent].fork + len(nodes[parent].token_ids)
            raise ValueError(f"branch {number} forks after {fork} tokens of a path that has {path}: from 1 to {path}")
        # What it shares may end in an ancestor of its parent: that one it continues.
        while parent != PROMPT and fork <= nodes[parent].fork:
            parent = nodes[parent].parent
        first = nodes[-1].first + len(nodes[-1].targets)
        nodes.append(_node(branch.completion, parent, fork, first))
    return tuple(nodes)


def needed(nodes: Sequence[EpisodeNode], trained: Collection[int]) -> tuple[tuple[EpisodeNode, ...], int]:
    """The nodes that must be fed to train those numbered `trained`, and how many tokens of the prompt.

    Each is cut behind the last token that predicts a trained one or that another node continues; those that are context
    alone train nothing.
    """
    lengths, prompt_length = _needs(nodes, trained)
    places: dict[int, int] = {PROMPT: PROMPT}
    kept: list[EpisodeNode] = []
    for number, length in enumerate(lengths):
        if length is None:
            continue
        node = nodes[number]
        places[number] = len(kept)
        targets = node.targets if number in trained else node.targets[:0]
        kept.append(
            replace(node, parent=places[node.parent], token_ids=node.token_ids[:length], targets=targets)
        )  # fmt: skip
    return tuple(kept), prompt_length


def split(nodes: Sequence[EpisodeNode], budget: int) -> list[list[int]]:
    """The numbers of nodes that train something, in parts that each feed at most `budget` tokens, prompt included.

    A node that needs more by itself raises the budget to what it needs: its ancestors would be laid again for those
    that fit beside it.
    """
    training = [number for number, node in enumerate(nodes) if len(node.targets)]
    budget = max([budget, *(_fed(nodes, [number]) for number in training)])
    parts: list[list[int]] = []
    for number in training:
        if parts and _fed(nodes, [*parts[-1], number]) <= budget:
            parts[-1].append(number)
        else:
            parts.append([number])
    return parts


def _fed(nodes: Sequence[EpisodeNode], trained: Collection[int]) -> int:
    lengths, prompt_length = _needs(nodes, trained)
    return prompt_length + sum(length or 0 for length in lengths)


def _needs(nodes: Sequence[EpisodeNode], trained: Collection[int]) -> tuple[list[int | None], int]:
    """Tokens of each node that are fed, None where it has no part; and of the prompt."""
    lengths: list[int | None] = [None] * len(nodes)
    prompt_length = 0
    for number in range(len(nodes) - 1, -1, -1):  # children stand behind their parents
        node = nodes[number]
        if number in trained and len(node.targets):
            lengths[number] = max(lengths[number] or 0, int(node.targets[-1]))
        if lengths[number] is None:
            continue
        if node.parent == PROMPT:
            prompt_length = max(prompt_length, node.fork)
        else:
            shared = node.fork - nodes[node.parent].fork
            lengths[node.parent] = max(lengths[node.parent] or 0, shared)
    return lengths, prompt_length


def _node(completion: Completion, parent: int, fork: int, first: int) -> EpisodeNode:
    sampled = completion.is_sampled
    if sampled is None:
        targets = np.arange(completion.num_tokens)
    elif len(sampled) == completion.num_tokens:
        targets = np.flatnonzero(sampled)
    else:
        raise ValueError(f"{completion.num_tokens} tokens, but {len(sampled)} marks of whether each was sampled")
    return EpisodeNode(
        parent=parent,
        fork=fork,
        token_ids=completion.token_ids,
        targets=targets,
        first=first,
        routed_experts=completion.routed_experts,
    )
