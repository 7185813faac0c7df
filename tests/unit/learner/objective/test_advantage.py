"""Advantages: hand-computed numbers, the loop reference, and the edges."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.learner.objective.advantage import ADVANTAGES, AdvantageName, component_normalised
from tests.reference.objectives import batch_advantages, gdpo_advantages

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
        # .75 / .25, -.25 / .25; 1 / 2, -1 / 2.
        ("mean_normalised", [3.0, -1.0, -1.0, -1.0, 0.5, -0.5]),
        # Batch mean 5/6, squares 11/6 - 25/36 = 41/36, std 1.0671873.
        ("batch_normalised", [0.1561738, -0.7808688, -0.7808688, -0.7808688, 2.0302590, 0.1561738]),
        # Mean-centred values above: mean 0, squares (.75 + 2) / 6, std .6770032.
        ("centred_batch_normalised", [1.1078234, -0.3692745, -0.3692745, -0.3692745, 1.4770979, -1.4770979]),
    ],
)
def test_hand_computed(name: AdvantageName, expected: list[float]) -> None:
    assert compute(name, [[1, 0, 0, 0], [3, 1]]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["std_normalised", "mean_centred", "leave_one_out", "mean_normalised"])
def test_nothing_to_compare_gives_zero(name: AdvantageName) -> None:
    assert compute(name, [[0.7], [1, 1, 1], [0.1 + 0.2, 0.3], [NAN, 5], [NAN, NAN]]) == [0.0] * 10


def test_every_name_that_a_recipe_may_give_is_computed() -> None:
    assert {*ADVANTAGES, "component_normalised"} == set(get_args(AdvantageName))


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


def of_parts(groups: list[list[dict[str, tuple[float, float]]]]) -> list[float]:
    rows = [parts for group in groups for parts in group]
    names = sorted({name for parts in rows for name in parts})
    table = np.array([[parts.get(name, (0.0, NAN)) for name in names] for parts in rows]).reshape(len(rows), -1, 2)
    index = np.array([g for g, group in enumerate(groups) for _ in group], dtype=np.int64)
    return component_normalised(table[:, :, 1], table[:, :, 0], index).tolist()


@pytest.mark.parametrize("name", ["centred_batch_normalised", "component_normalised"])
def test_rounding_is_no_advantage(name: str) -> None:
    """Of equal rewards beside others: the mean over the batch is 0 but for rounding, and so are their advantages."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = np.repeat([0, 1, 2], 3)
        rewards = np.concatenate([rng.uniform(size=6), [0.3, 0.3, 0.3]])
        if name == "component_normalised":
            found = component_normalised(rewards[:, None], np.ones((9, 1)), groups)
        else:
            found = ADVANTAGES["centred_batch_normalised"](rewards, groups)
        assert not found[6:].any() and found[:6].all()


def test_components_are_normalised_each_by_itself() -> None:
    """Equal sums of different components are kept apart: that is what GDPO is for."""
    # accuracy 1 0 0, format 0 1 0 with weights 1 and .5: stds sqrt(2)/3, so 1.4142 and -.7071 each; sums 1.0607, 0,
    # -1.0607, whose std is .8660.
    group = [{"a": (1.0, 1.0), "f": (0.5, 0.0)}, {"a": (1.0, 0.0), "f": (0.5, 1.0)}, {"a": (1.0, 0.0), "f": (0.5, 0.0)}]
    assert of_parts([group]) == pytest.approx([1.2247449, 0.0, -1.2247449])
    assert compute("std_normalised", [[1.0, 0.5, 0.0]]) == pytest.approx([1.2247449, 0.0, -1.2247449])
    equal = [{"a": (1.0, 1.0), "f": (1.0, 0.0)}, {"a": (1.0, 0.0), "f": (1.0, 1.0)}, {"a": (1.0, 1.0), "f": (1.0, 0.0)}]
    assert compute("std_normalised", [[1.0, 1.0, 1.0]]) == [0.0, 0.0, 0.0]
    assert of_parts([equal]) == [0.0, 0.0, 0.0], "with equal weights they cancel"
    heavier = [{**parts, "f": (0.5, parts["f"][1])} for parts in equal]
    assert of_parts([heavier]) == pytest.approx([0.7071068, -1.4142136, 0.7071068])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_components_agree_with_the_loops(data: st.DataObject) -> None:
    """Components that do not apply, error verdicts (no component at all), and weights that differ by source."""
    score = st.sampled_from([0.0, 0.25, 1.0])
    parts = st.fixed_dictionaries({}, optional={"a": score, "f": score, "l": score})
    weights = st.fixed_dictionaries({name: st.sampled_from([1.0, 0.2, -0.5]) for name in "afl"})
    groups = []
    for _ in range(data.draw(st.integers(1, 3))):
        own = data.draw(weights)
        drawn = data.draw(st.lists(parts, min_size=1, max_size=5))
        groups.append([{name: (own[name], value) for name, value in each.items()} for each in drawn])
    if not any(each for group in groups for each in group):
        groups[0][0] = {"a": (1.0, 1.0)}
    expected = [value for group in gdpo_advantages(groups) for value in group]
    assert of_parts(groups) == pytest.approx(expected, abs=1e-6)
