"""Samples -> packed micro-batches: no padding, a group's prompt laid once, followed by its completions.

    prompt tokens | completion 1 | completion 2 | ... | next group's prompt | ...
    position ids    0 .. P-1      P ..           P ..

Positions restart after the prompt for each completion, which sees the prompt and itself (learner/model/attention.py). A
completion's last token predicts nothing, so it is never fed. A branch of an episode goes on from its fork and sees what
it shares; what leads to no sampled token is not fed. What prompts of a micro-batch have in common at their start is
laid once, with the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.batch.nodes import PROMPT
from rayzero.learner.batch.pieces import Piece, pieces_of
from rayzero.learner.batch.prefixes import shared_prefixes
from rayzero.learner.batch.routing import laid_experts
from rayzero.learner.batch.samples import TrainingSample
from rayzero.learner.batch.tree import Range, Tree, first_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Microbatch:
    """T fed tokens which predict n sampled tokens, of whole rollouts unless it is `partial`."""

    token_ids: NDArray[np.int64]
    """[T]"""
    position_ids: NDArray[np.int64]
    """[T]"""
    trees: tuple[Tree, ...]
    """They cover [0, T) in order."""
    predictors: NDArray[np.int64]
    """[n] index into T of the token whose hidden state predicts each sampled token."""
    targets: NDArray[np.int64]
    """[n] the sampled tokens."""
    batch_tokens: NDArray[np.int64]
    """[n] index of each into the batch's flat [N] arrays."""
    rows: NDArray[np.int64]
    """[s] the samples it holds."""
    token_samples: NDArray[np.int64]
    """[n] index into `rows`: which sample each sampled token is of."""
    partial: bool = False
    """Some sampled tokens of a rollout are in another micro-batch: a loss over the whole of it needs both."""
    routed_experts: NDArray[np.int16] | None = None
    """[T, L, K] see `laid_experts`."""

    @property
    def num_tokens(self) -> int:
        """T, what the forward pass is fed."""
        return len(self.token_ids)


def pack(
    samples: Iterable[TrainingSample],
    *,
    tokens_per_microbatch: int,
    share_prompts: bool = True,
    pair_cost: float = 0.0,
    multiple_of: int = 1,
) -> list[Microbatch]:
    """Deal samples to micro-batches of at most `tokens_per_microbatch` fed tokens, balanced by cost.

    The cost of a tree is its tokens plus `pair_cost` a (query, key) pair; its whole prompt counts, also where another
    one lays its beginning. A group too long for one micro-batch is split, its prompt laid again in each part, and so is
    an episode, with what its branches share; a single path longer than the budget gets a micro-batch of its own. The
    number of micro-batches is a multiple of `multiple_of` (learner ranks), the last ones empty where there is too
    little. Samples without tokens are in none.
    """
    bundles = _bundles(samples, tokens_per_microbatch, share_prompts)
    costs = [_cost(bundle, pair_cost) for bundle in bundles]
    total = sum(_fed(bundle) for bundle in bundles)
    num_bins = _round_up(max(1, -(-total // tokens_per_microbatch)) if bundles else 0, multiple_of)
    bins: list[list[Sequence[Piece]]] = [[] for _ in range(num_bins)]
    bin_costs, bin_tokens = [0.0] * num_bins, [0] * num_bins
    # Longest first: the small ones then fill the gaps, within a few per cent of an even split.
    for index in sorted(range(len(bundles)), key=lambda i: (-costs[i], i)):
        fed = _fed(bundles[index])
        fitting = [b for b in range(len(bins)) if not bins[b] or bin_tokens[b] + fed <= tokens_per_microbatch]
        if not fitting:
            for _ in range(multiple_of):
                bins.append([])
                bin_costs.append(0.0)
                bin_tokens.append(0)
            fitting = [len(bins) - multiple_of]
        target = min(fitting, key=lambda b: (bin_costs[b], b))
        bins[target].append(bundles[index])
        bin_costs[target] += costs[index]
        bin_tokens[target] += fed
    filled = [bin_ for bin_ in bins if bin_]
    filled += [[] for _ in range(_round_up(len(filled), multiple_of) - len(filled))]
    return [lay_out(bundles_of_bin, share_prompts=share_prompts) for bundles_of_bin in filled]


def lay_out(bundles: Sequence[Sequence[Piece]], *, share_prompts: bool = True) -> Microbatch:
    """One packed micro-batch of the given bundles; the pieces of a bundle have one prompt, laid once."""
    bundles, shared = _in_order(bundles) if share_prompts else (bundles, [0] * len(bundles))
    tokens: list[NDArray[np.generic]] = []
    positions: list[NDArray[np.int64]] = []
    predictors: list[NDArray[np.int64]] = []
    batch_tokens: list[NDArray[np.int64]] = []
    trees: list[Tree] = []
    path: tuple[Range, ...] = ()
    at = 0
    for bundle, num_shared in zip(bundles, shared, strict=True):
        prompt = _prompt(bundle)
        prefix, own = first_of(path, num_shared), (at, len(prompt) - num_shared)
        path = (*prefix, own)
        laid = np.concatenate([np.arange(start, start + length) for start, length in path])
        tokens.append(prompt[num_shared:])
        positions.append(np.arange(num_shared, len(prompt)))
        at += own[1]
        lengths: list[int] = []
        forks: list[tuple[int, int]] = []
        for piece in bundle:
            before = len(lengths)
            begins: dict[int, int] = {}  # where a token of the path would lie, less its place in the path
            for number, node in enumerate(piece.nodes):
                fed = len(node.token_ids)
                tokens.append(node.token_ids)
                positions.append(np.arange(node.fork, node.fork + fed))
                # The last token before the fork predicts a path's first; then each token its successor.
                predictor = at + node.targets - 1
                last = node.fork - 1
                predictor[node.targets == 0] = laid[last] if node.parent == PROMPT else begins[node.parent] + last
                predictors.append(predictor)
                first = piece.sample.start + node.first
                batch_tokens.append(np.arange(first, first + len(node.targets)))
                begins[number] = at - node.fork
                lengths.append(fed)
                forks.append((0 if node.parent == PROMPT else before + node.parent + 1, node.fork))
                at += fed
        nested = any(fork != (0, len(prompt)) for fork in forks)
        trees.append(Tree(*own, tuple(lengths), tuple(forks) if nested else (), prefix))
    flat = [piece for bundle in bundles for piece in bundle]
    return Microbatch(
        token_ids=_joined(tokens),
        position_ids=_joined(positions),
        trees=tuple(trees),
        predictors=_joined(predictors),
        targets=_joined([piece.targets for piece in flat]),
        batch_tokens=_joined(batch_tokens),
        rows=np.array([piece.sample.row for piece in flat], dtype=np.int64),
        token_samples=np.repeat(np.arange(len(flat)), [piece.num_tokens for piece in flat]).astype(np.int64),
        partial=any(piece.num_tokens < piece.sample.num_tokens for piece in flat),
        routed_experts=laid_experts(bundles, shared),
    )


def _bundles(samples: Iterable[TrainingSample], budget: int, share_prompts: bool) -> list[list[Piece]]:
    """Pieces of one group, in parts that fit the budget; without sharing, one each."""
    bundles: list[list[Piece]] = []
    open_bundle: dict[int, list[Piece]] = {}
    for sample in samples:
        for piece in pieces_of(sample, budget):
            bundle = open_bundle.get(sample.group) if share_prompts else None
            if bundle is None or _fed([*bundle, piece]) > budget:
                bundle = []
                bundles.append(bundle)
                open_bundle[sample.group] = bundle
            bundle.append(piece)
    return bundles


def _in_order(bundles: Sequence[Sequence[Piece]]) -> tuple[list[Sequence[Piece]], list[int]]:
    """The bundles as `shared_prefixes` orders their prompts, and how many tokens of its prompt each does not lay."""
    order = shared_prefixes([_prompt(bundle) for bundle in bundles])
    return [bundles[number] for number, _ in order], [num_shared for _, num_shared in order]


def _prompt(bundle: Sequence[Piece]) -> NDArray[np.int32]:
    return bundle[0].sample.prompt_token_ids[: _prompt_length(bundle)]


def _prompt_length(bundle: Sequence[Piece]) -> int:
    return max(piece.prompt_length for piece in bundle)


def _fed(bundle: Sequence[Piece]) -> int:
    return _prompt_length(bundle) + sum(piece.num_fed for piece in bundle)


def _cost(bundle: Sequence[Piece], pair_cost: float) -> float:
    prompt = _prompt_length(bundle)
    pairs = prompt * prompt / 2 + sum(piece.num_pairs for piece in bundle)
    return prompt + sum(piece.num_fed for piece in bundle) + pair_cost * pairs


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _joined(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros(0, dtype=np.int64)
