"""Samples -> packed micro-batches: no padding, a group's prompt laid once, followed by its completions.

    prompt tokens | completion 1 | completion 2 | ... | next group's prompt | ...
    position ids    0 .. P-1      P ..           P ..

Positions restart after the prompt for each completion, which sees the prompt and itself (learner/model/attention.py). A
completion's last token predicts nothing, so it is never fed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.batch.samples import TrainingSample


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt with its completions at `start` of a micro-batch; lengths count the tokens that are fed."""

    start: int
    prompt_length: int
    completion_lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Length of the whole tree."""
        return self.prompt_length + sum(self.completion_lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class Microbatch:
    """T fed tokens which predict n completion tokens of whole completions."""

    token_ids: NDArray[np.int64]
    """[T]"""
    position_ids: NDArray[np.int64]
    """[T]"""
    trees: tuple[Tree, ...]
    """They cover [0, T) in order."""
    predictors: NDArray[np.int64]
    """[n] index into T of the token whose hidden state predicts each completion token."""
    targets: NDArray[np.int64]
    """[n] the completion tokens."""
    batch_tokens: NDArray[np.int64]
    """[n] index of each into the batch's flat [N] arrays."""
    rows: NDArray[np.int64]
    """[s] the samples it holds."""
    token_samples: NDArray[np.int64]
    """[n] index into `rows`: which sample each completion token is of."""

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

    The cost of a tree is its tokens plus `pair_cost` a (query, key) pair. A group too long for one micro-batch is
    split, its prompt laid again in each part; a single completion longer than the budget gets one of its own. The
    number of micro-batches is a multiple of `multiple_of` (learner ranks), the last ones empty where there is too
    little. Samples without tokens are in none.
    """
    bundles = _bundles(samples, tokens_per_microbatch, share_prompts)
    costs = [_cost(bundle, pair_cost) for bundle in bundles]
    total = sum(_fed(bundle) for bundle in bundles)
    num_bins = _round_up(max(1, -(-total // tokens_per_microbatch)) if bundles else 0, multiple_of)
    bins: list[list[Sequence[TrainingSample]]] = [[] for _ in range(num_bins)]
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
    return [lay_out(bundles_of_bin) for bundles_of_bin in filled]


def lay_out(bundles: Sequence[Sequence[TrainingSample]]) -> Microbatch:
    """One packed micro-batch of the given bundles; the samples of a bundle have one prompt, laid once."""
    tokens: list[NDArray[np.generic]] = []
    positions: list[NDArray[np.int64]] = []
    predictors: list[NDArray[np.int64]] = []
    trees: list[Tree] = []
    at = 0
    for bundle in bundles:
        prompt = bundle[0].prompt_token_ids
        start, length = at, len(prompt)
        tokens.append(prompt)
        positions.append(np.arange(length))
        at += length
        for sample in bundle:
            fed = sample.num_tokens - 1
            tokens.append(sample.token_ids[:fed])
            positions.append(np.arange(length, length + fed))
            # The prompt's last token predicts every completion's first; then each token its successor.
            predictors.append(np.concatenate([[start + length - 1], np.arange(at, at + fed)]))
            at += fed
        trees.append(Tree(start, length, tuple(sample.num_tokens - 1 for sample in bundle)))
    flat = [sample for bundle in bundles for sample in bundle]
    return Microbatch(
        token_ids=_joined(tokens),
        position_ids=_joined(positions),
        trees=tuple(trees),
        predictors=_joined(predictors),
        targets=_joined([sample.token_ids for sample in flat]),
        batch_tokens=_joined([np.arange(sample.start, sample.start + sample.num_tokens) for sample in flat]),
        rows=np.array([sample.row for sample in flat], dtype=np.int64),
        token_samples=np.repeat(np.arange(len(flat)), [sample.num_tokens for sample in flat]).astype(np.int64),
    )


def _bundles(samples: Iterable[TrainingSample], budget: int, share_prompts: bool) -> list[list[TrainingSample]]:
    """Samples of one group, in parts that fit the budget; without sharing, one sample each."""
    bundles: list[list[TrainingSample]] = []
    open_bundle: dict[int, list[TrainingSample]] = {}
    for sample in samples:
        if sample.num_tokens == 0:
            continue
        bundle = open_bundle.get(sample.group) if share_prompts else None
        if bundle is None or _fed(bundle) + sample.num_tokens - 1 > budget:
            bundle = []
            bundles.append(bundle)
            open_bundle[sample.group] = bundle
        bundle.append(sample)
    return bundles


def _fed(bundle: Sequence[TrainingSample]) -> int:
    return len(bundle[0].prompt_token_ids) + sum(sample.num_tokens - 1 for sample in bundle)


def _cost(bundle: Sequence[TrainingSample], pair_cost: float) -> float:
    prompt = len(bundle[0].prompt_token_ids)
    fed = [sample.num_tokens - 1 for sample in bundle]
    pairs = prompt * prompt / 2 + sum(length * (prompt + length / 2) for length in fed)
    return prompt + sum(fed) + pair_cost * pairs


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _joined(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros(0, dtype=np.int64)
