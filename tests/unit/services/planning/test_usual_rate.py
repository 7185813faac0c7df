"""The rate falls with the model's size, and adapters take ten times as much."""

from __future__ import annotations

import pytest

from rayzero.services.planning.usual_rate import usual_rate


@pytest.mark.parametrize(
    ("num_parameters", "has_adapters", "rate"),
    [(10**6, False, 1e-3), (135 * 10**6, False, 2e-5), (135 * 10**6, True, 2e-4), (8 * 10**9, False, 1e-6)],
)
def test_the_usual_rate(num_parameters: int, has_adapters: bool, rate: float) -> None:
    assert usual_rate(num_parameters, has_adapters=has_adapters) == pytest.approx(rate)
