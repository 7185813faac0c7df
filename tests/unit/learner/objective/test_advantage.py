"""Advantages: hand-computed numbers, the loop reference, and the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.learner.objective.advantage import ADVANTAGES, AdvantageName
from tests.reference.objectives import batch_advantages

NAN = float("nan")


def compute(name: AdvantageName, groups: list[list[float]]) -> list[float]:
    rewards = np.array([reward for group in groups for reward in group], dtype=np.float64)
    index = np.array([g for g, group in enumerate(groups) for _ in group], dtype=np.int64)
    return ADVANTAGES[name](rewards, index).tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Rewards 1, 0, 0, 0 and 3, 1. Means .25 and 2; population stds sqrt(3)/4 = .4330 and 1.
        ("std_normalised", [1.7320508, -0.5773503, -0.5773503, -0.5773503, 1.0, -1.0]),
        ("mean_centred", [0.75, -0.25, -0.25, -0.25, 1.0, -1.0]),
        # 1 - 0; 0 - 1/3; 3 - 1; 1 - 3.
        ("leave_one_out", [1.0, -1 / 3, -1 / 3, -1 / 3, 2.0, -2.0]),
        # Batch mean 5/6, squares 11/6 - 25/36 = 41/36, std 1.0671873.
        ("batch_normalised", [0.1561738, -0.7808688, -0.7808688, -0.7808688, 2.0302590, 0.1561738]),
        # Mean-centred values above: mean 0, squares (.75 + 2) / 6, std .6770032.
        ("centred_batch_normalised", [1.1078234, -0.3692745, -0.3692745, -0.3692745, 1.4770979, -1.4770979]),
    ],
)
def test_hand_computed(name: AdvantageName, expected: list[float]) -> None:
    assert compute(name, [[1, 0, 0, 0], [3, 1]]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["std_normalised", "mean_centred", "leave_one_out"])
def test_nothing_to_compare_gives_zero(name: AdvantageName) -> None:
    assert compute(name, [[0.7], [1, 1, 1], [0.1 + 0.2, 0.3], [NAN, 5], [NAN, NAN]]) == [0.0] * 10


@pytest.mark.parametrize("name", list(ADVANTAGES))
def test_an_error_verdict_leaves_its_group(name: AdvantageName) -> None:
    with_error = compute(name, [[1, NAN, 0, 0], [2, 1]])
    assert with_error[1] == 0.0
    assert with_error[:1] + with_error[2:] == compute(name, [[1, 0, 0], [2, 1]])


@pytest.mark.parametrize("name", list(ADVANTAGES))
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_agrees_with_the_loops(name: AdvantageName, data: st.DataObject) -> None:
    reward = st.sampled_from([0.0, 0.1, 1.0, 1.1, -1.0, NAN])
    groups = data.draw(st.lists(st.lists(reward, min_size=1, max_size=6), min_size=1, max_size=4))
    if all(np.isnan(reward) for group in groups for reward in group):
        groups[0][0] = 1.0
    expected = [value for group in batch_advantages(groups, name) for value in group]
    assert compute(name, groups) == pytest.approx(expected, abs=1e-9)
