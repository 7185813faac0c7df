"""What groups say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.fakes import make_group

Parts = Mapping[str, tuple[float, float]]
NAN = float("nan")


@pytest.mark.parametrize(
    ("rewards", "parts", "equal_sums", "equal_parts"),
    [
        ((1.0, 1.0), (None, None), True, True),
        ((1.0, 0.0), (None, None), False, False),
        ((1.0, 1.0 + 1e-12), (None, None), True, True),
        ((1.0, 1.0), ({"a": (1.0, 1.0), "f": (1.0, 0.0)}, {"a": (1.0, 0.0), "f": (1.0, 1.0)}), True, False),
        ((1.5, 1.0), ({"a": (1.0, 1.0), "f": (0.5, 1.0)}, {"a": (1.0, 1.0)}), False, True),
        ((1.0, NAN), (None, None), True, True),
        ((NAN, NAN), (None, None), True, True),
    ],
)
def test_when_a_group_teaches_nothing(
    rewards: tuple[float, ...], parts: tuple[Parts | None, ...], equal_sums: bool, equal_parts: bool
) -> None:
    group = make_group(0, rewards=rewards)
    rollouts = tuple(
        replace(rollout, verdict=replace(rollout.verdict, parts=each))
        for rollout, each in zip(group.rollouts, parts, strict=True)
    )
    group = replace(group, rollouts=rollouts)
    assert (group.is_uniform, group.is_uniform_by_part) == (equal_sums, equal_parts)
