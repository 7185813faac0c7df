"""Corrections by hand: two completions, of two tokens and of one, and the edges of a sampler's log-probability."""

from __future__ import annotations

import math

import pytest
import torch

from rayzero.learner.objective.correction import correction_weights
from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.learner import (
    GeometricRejection,
    IcePop,
    NoCorrection,
    SequenceTruncation,
    TokenTruncation,
)

LOG2 = math.log(2.0)
INF, NAN = float("inf"), float("nan")


def weights(log_ratios: list[float], settings: Section) -> list[float]:
    rollout = -torch.tensor(log_ratios, dtype=torch.float64)
    samples = torch.tensor([0, 0, 1])
    found = correction_weights(torch.zeros(3, dtype=torch.float64), rollout, samples, 2, settings)
    assert not found.requires_grad
    return [float(value) for value in found]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TokenTruncation(limit=3.0), [2.0, 3.0, 0.5]),
        (SequenceTruncation(limit=7.0), [7.0, 7.0, 0.5]),
        (IcePop(low=0.6, high=3.0), [2.0, 0.0, 0.0]),
        (GeometricRejection(low=0.4, high=2.0), [0.0, 0.0, 1.0]),
        (NoCorrection(), [1.0, 1.0, 1.0]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_by_hand(settings: Section, expected: list[float]) -> None:
    """Ratios 2, 4 and 1/2: their product is 8 in the first completion, their geometric mean 2.83."""
    assert weights([LOG2, 2 * LOG2, -LOG2], settings) == pytest.approx(expected)


def test_an_impossible_token_is_an_infinite_ratio_and_an_unknown_one_counts_nothing() -> None:
    assert weights([INF, 0.0, NAN], TokenTruncation(limit=2.0)) == [2.0, 1.0, 0.0]
    assert weights([INF, 0.0, NAN], IcePop(low=0.5, high=2.0)) == [0.0, 1.0, 0.0]
    assert weights([NAN, LOG2, 0.0], SequenceTruncation(limit=5.0)) == pytest.approx([0.0, 2.0, 1.0])
