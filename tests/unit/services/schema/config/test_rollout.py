"""What a rollout section means where it leaves something open."""

from __future__ import annotations

import pytest

from rayzero.services.schema.config.rollout import RolloutSettings


@pytest.mark.parametrize(
    ("loading", "gpus", "in_pause"),
    [
        ("auto", 1, False),
        ("auto", 2, True),
        ("staged", 2, False),
        ("streamed", 1, True),
        ("streamed", 2, True),
    ],
)
def test_engines_of_several_gpus_load_in_their_pause_unless_the_recipe_says_otherwise(
    loading: str, gpus: int, in_pause: bool
) -> None:
    rollout = RolloutSettings.model_validate(
        {"device": "cuda", "weight_loading": loading, "tensor_parallel_size": gpus}
    )
    assert rollout.loads_in_pause == in_pause


def test_other_ways_to_load_are_refused() -> None:
    with pytest.raises(ValueError, match="weight_loading"):
        RolloutSettings.model_validate({"weight_loading": "later"})
