"""On-policy distillation: the reference is another model, and its KL is the only teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayzero.learner.model.policy import Policy
from rayzero.learner.update.checkpoint import load_learner, read_state, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Group
from tests.unit.learner.kit import build_model, make_group, with_rollout_logprobs

SETTINGS = {
    "advantage": "none",
    "optimizer": {"learning_rate": 3e-3},
    "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("teacher"), "llama", seed=5)


def student(model: Path, teacher: Path, dtype: str = "float32") -> Learner:
    kl = {"beta": 1.0, "estimator": "k2", "reference": str(teacher)}
    settings = LearnerSettings.model_validate({**SETTINGS, "kl": kl})
    policy = Policy(model, dtype=dtype, compute=settings.compute, reference_path=teacher)
    return Learner(policy, settings, num_updates=20, max_completion_tokens=16)


def groups(learner: Learner) -> list[Group]:
    rng = np.random.default_rng(1)
    made = [make_group(rng, [6, 9, 4], [1, 0, 1], group_id=0), make_group(rng, [5, 5], [1, 1], group_id=1)]
    return [with_rollout_logprobs(group, learner.score) for group in made]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_student_moves_to_the_teacher_whatever_the_rewards_say(tiny_model: Path, teacher: Path, dtype: str) -> None:
    learner = student(tiny_model, teacher, dtype)
    batch = groups(learner)
    figures = [learner.update(batch, version).metrics for version in range(1, 16)]
    assert abs(figures[0]["kl_reference"]) > 0.05
    assert abs(figures[-1]["kl_reference"]) < 0.3 * abs(figures[0]["kl_reference"])
    assert figures[0]["advantage_abs_mean"] == 0.0


def test_the_teacher_scores_as_it_does_alone(tiny_model: Path, teacher: Path) -> None:
    learner = student(tiny_model, teacher)
    group = groups(learner)[0]
    kl = learner.update([group], 1).metrics["kl_reference"]
    alone = Learner(Policy(teacher, dtype="float32"), LearnerSettings(), num_updates=1, max_completion_tokens=16)
    before = Learner(Policy(tiny_model, dtype="float32"), LearnerSettings(), num_updates=1, max_completion_tokens=16)
    gaps = np.concatenate([
        before.score(group.prompt_token_ids, rollout.completion.token_ids)
        - alone.score(group.prompt_token_ids, rollout.completion.token_ids)
        for rollout in group.rollouts
    ])  # fmt: skip
    assert kl == pytest.approx(float(np.mean(0.5 * gaps**2)), rel=1e-4)


def test_a_teacher_on_disk_is_not_in_the_checkpoint_and_comes_back(
    tiny_model: Path, teacher: Path, tmp_path: Path
) -> None:
    learner = student(tiny_model, teacher)
    batch = groups(learner)
    learner.update(batch, 1)
    save_learner(learner, tmp_path)
    assert read_state(tmp_path)["reference"] is None
    again = student(tiny_model, teacher)
    load_learner(again, tmp_path)
    ours, theirs = (each.update(batch, 2).metrics["kl_reference"] for each in (again, learner))
    assert ours == theirs


def test_a_teacher_with_another_vocabulary_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from rayzero.learner.builtin_models.tiny_words import save_words_model

    save_words_model(tmp_path, seed=0, small=True)
    with pytest.raises(RecipeError, match=r"learner\.kl\.reference: .* has 110 tokens and the policy"):
        student(tiny_model, tmp_path)


@pytest.mark.parametrize(
    ("kl", "fault"), [({"beta": 0.0}, "never read"), ({"refresh_every_updates": 2}, "not refreshed")]
)
def test_a_reference_that_would_not_be_used_is_refused(kl: dict[str, float], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        LearnerSettings.model_validate({"kl": {"beta": 1.0, "reference": "x", **kl}})
