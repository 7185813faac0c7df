"""What turns are credited with: hand-computed numbers, the loop reference, and what must always hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.learner.objective.advantage import ADVANTAGES, AdvantageName
from rayzero.learner.objective.credit import CreditName, turn_returns
from rayzero.services.schema.config.learner import LearnerSettings
from tests.reference.objectives import turn_credits

Episode = tuple[list[float | None], float]
NAMES: tuple[AdvantageName, ...] = ("std_normalised", "mean_centred", "leave_one_out", "batch_normalised")


def returns(episodes: list[Episode], name: CreditName, discount: float = 1.0) -> list[list[float]]:
    """Of each episode's turns."""
    said = np.array([np.nan if each is None else each for turns, _ in episodes for each in turns])
    rows = np.array([row for row, (turns, _) in enumerate(episodes) for _ in turns])
    found = turn_returns(said, rows, np.array([reward for _, reward in episodes]), name, discount)
    return [found[rows == row].tolist() for row in range(len(episodes))]


@pytest.mark.parametrize(
    ("name", "discount", "expected"),
    [
        # .2, nothing, .5 are said of the turns of an episode worth 1: .3 are left for the last, .8 in all.
        ("discounted", 1.0, [1.0, 0.8, 0.8]),
        # .2 + .5 * (0 + .5 * .8); .5 * .8; .8.
        ("discounted", 0.5, [0.4, 0.4, 0.8]),
        # Reached .2, .2, .5: .2, 0 and .3 were added, and .5 of the reward are left for the last.
        ("progress", 1.0, [1.0, 0.8, 0.8]),
        ("progress", 0.5, [0.4, 0.4, 0.8]),
    ],
)
def test_hand_computed(name: CreditName, discount: float, expected: list[float]) -> None:
    assert returns([([0.2, None, 0.5], 1.0)], name, discount)[0] == pytest.approx(expected)


def test_progress_that_is_lost_is_taken_off() -> None:
    assert returns([([0.5, 0.2, 0.2], 0.2)], "progress")[0] == pytest.approx([0.2, -0.3, 0.0])
    assert returns([([0.5, 0.2, 0.2], 0.9)], "discounted")[0] == pytest.approx([0.9, 0.4, 0.2])


turn = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]))
episode = st.tuples(st.lists(turn, min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 1.0]))
groups_of_episodes = st.lists(st.lists(episode, min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("credit", ["discounted", "progress"])
@settings(max_examples=40, deadline=None)
@given(groups=groups_of_episodes, discount=st.sampled_from([1.0, 0.9, 0.5]))
def test_agrees_with_the_loops(
    groups: list[list[Episode]], discount: float, credit: CreditName, name: AdvantageName
) -> None:
    flat = [each for group in groups for each in group]
    found = returns(flat, credit, discount)
    owners = np.array([g for g, group in enumerate(groups) for turns, _ in group for _ in turns])
    advantages = ADVANTAGES[name](np.array([value for each in found for value in each]), owners)
    expected = [
        value for group in turn_credits(groups, credit, discount, name) for each in group for value in each
    ]  # fmt: skip
    assert advantages.tolist() == pytest.approx(expected, abs=1e-6)


@given(groups=groups_of_episodes)
@settings(max_examples=40, deadline=None)
def test_undiscounted_the_first_turn_has_the_episodes_reward(groups: list[list[Episode]]) -> None:
    episodes = [each for group in groups for each in group]
    names: tuple[CreditName, ...] = ("discounted", "progress")
    for name in names:
        firsts = [each[0] for each in returns(episodes, name)]
        assert firsts == pytest.approx([reward for _, reward in episodes])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": {"name": "gspo"}}, "loss gspo gives all tokens of an episode one"),
        ({"loss": {"name": "grpo", "ratio": "sequence"}}, "choose a loss with a ratio a token"),
        ({"loss": {"name": "rloo"}}, "loss rloo"),
        ({"advantage": "component_normalised"}, "advantage: component_normalised has not one"),
        ({"rejection": [{"name": "off_policy_mask", "limit": 0.5}]}, "off_policy_mask asks for the sign"),
        ({"credit": {"name": "discounted", "discount": 1.5}}, "less_than_equal|less than or equal to 1"),
    ],
)
def test_what_contradicts_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LearnerSettings.model_validate({"credit": {"name": "discounted"}, **changes})
    if "credit" not in changes:
        LearnerSettings.model_validate(changes)
