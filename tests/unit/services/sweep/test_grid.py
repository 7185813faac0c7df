"""What a sweep varies, as the command line says it."""

from __future__ import annotations

import pytest

from rayzero.services.schema.errors import UsageError
from rayzero.services.sweep.grid import combinations


def test_every_combination_has_its_own_name_and_directory() -> None:
    found = combinations(["seed=0,1", "learner.optimizer.learning_rate=1e-5,2e-5", "training.num_updates=9"])
    assert found[0].overrides == [
        "training.num_updates=9", "seed=0", "learner.optimizer.learning_rate=1e-5",
    ]  # fmt: skip
    assert len({each.folder for each in found}) == len({each.name for each in found}) == 4
    assert found[0].folder == "seed-0_learning_rate-1e-5"
    assert [each.setting for each in found] == ["learning_rate=1e-5", "learning_rate=2e-5"] * 2


def test_a_list_or_a_mapping_is_one_value() -> None:
    found = combinations(["learner.optimizer.betas=[0.9,0.95],[0.9,0.98]", "learner.loss={name: grpo, ratio: token}"])
    assert [each.values for each in found] == [
        (("learner.optimizer.betas", "[0.9,0.95]"),), (("learner.optimizer.betas", "[0.9,0.98]"),),
    ]  # fmt: skip
    assert found[0].fixed == ("learner.loss={name: grpo, ratio: token}",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0"], "nothing varies"),
        (["seed"], "key=value,value"),
        (["seed=0,,1"], "key=value,value"),
        (["=0,1"], "key=value,value"),
        (["seed=0,1,0"], "stands there twice"),
        (["seed=0,1", "seed=2"], "seed is given twice"),
        (["seed=2", "seed=0,1"], "seed is given twice"),
        (["name=a b,a_b"], "the same directory"),
    ],
)
def test_what_makes_no_sweep_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        combinations(arguments)
