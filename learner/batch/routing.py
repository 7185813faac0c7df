"""The experts that engines sent a micro-batch's tokens to, laid as the tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.batch.pieces import Piece

UNKNOWN = -1
"""In place of the experts of a token for which none are recorded."""


def laid_experts(bundles: Sequence[Sequence[Piece]], shared: Sequence[int]) -> NDArray[np.int16] | None:
    """[T, L, K] of the tokens that `lay_out` feeds, `UNKNOWN` where nothing is recorded; None: nothing is of any.

    `shared`: the tokens of each bundle's prompt that another one lays.

    Raises ValueError where completions were recorded with other numbers of layers or experts.
    """
    runs: list[tuple[int, NDArray[Any] | None]] = []
    for bundle, num_shared in zip(bundles, shared, strict=True):
        length = max(piece.prompt_length for piece in bundle) - num_shared
        recorded = bundle[0].sample.prompt_routed_experts
        runs.append((length, None if recorded is None else recorded[num_shared:]))
        runs += [(len(node.token_ids), node.routed_experts) for piece in bundle for node in piece.nodes]
    shapes = {rows.shape[1:] for _, rows in runs if rows is not None and len(rows)}
    if not shapes:
        return None
    if len(shapes) > 1:
        raise ValueError(f"experts are recorded in {len(shapes)} shapes of (layers, experts a token): {sorted(shapes)}")
    laid = np.full((sum(length for length, _ in runs), *shapes.pop()), UNKNOWN, np.int16)
    at = 0
    for length, rows in runs:
        if rows is not None and len(rows):
            laid[at : at + min(length, len(rows))] = rows[:length]
        at += length
    return laid
