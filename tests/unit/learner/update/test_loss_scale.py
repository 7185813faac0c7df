"""float16: gradients that it could not hold are there, an overflow is computed again, other precisions are as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayzero.learner.update.loss_scale import BEGINS_AT, LARGEST, STEPS_TO_DOUBLE, LossScale
from rayzero.services.schema.errors import RunHalted
from tests.unit.learner.kit import gradient, make_learner, some_groups, weights
from tests.unit.learner.update.test_sft import examples, trainer


def test_it_halves_to_one_and_doubles_after_so_many_steps() -> None:
    scale = LossScale(torch.float16)
    assert float(scale.of(torch.tensor(1.0))) == BEGINS_AT
    while scale.halve():
        pass
    assert scale.value == 1.0
    for _ in range(STEPS_TO_DOUBLE):
        scale.grow()
    assert scale.value == 2.0
    resumed = LossScale(torch.float16)
    resumed.load_state_dict(scale.state_dict())
    assert resumed.state_dict() == scale.state_dict()
    scale.value = LARGEST
    for _ in range(STEPS_TO_DOUBLE):
        scale.grow()
    assert scale.value == LARGEST


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_precisions_are_not_scaled(dtype: torch.dtype) -> None:
    scale, loss = LossScale(dtype), torch.tensor(3.0)
    scale.grow()
    assert scale.of(loss) is loss and not scale.halve() and scale.value == 1.0


def test_the_gradient_is_that_of_float32(tiny_model: Path) -> None:
    exact, half, short = (
        gradient(make_learner(tiny_model, dtype), some_groups()) for dtype in ("float32", "float16", "bfloat16")
    )
    assert (half - exact).norm() < 0.01 * exact.norm()
    assert (half - exact).norm() < 0.5 * (short - exact).norm()


def test_gradients_below_its_range_are_there(tiny_model: Path) -> None:
    """All of them under 6e-8, as with a mean over very many tokens."""
    found = []
    for dtype in ("float32", "float16"):
        learner = make_learner(tiny_model, dtype)
        whole = learner._token_weights
        learner._token_weights = lambda batch, rows, of=whole: 1e-7 * of(batch, rows)  # type: ignore[method-assign,misc]
        found.append(gradient(learner, some_groups()))
    exact, half = found
    assert 0 < float(exact.abs().max()) < 6e-8
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_what_overflows_is_computed_again_at_half_the_scale(tiny_model: Path) -> None:
    plain, high = (make_learner(tiny_model, "float16", optimizer={"learning_rate": 1e-3}) for _ in range(2))
    high.optimizer.loss_scale.value = 2.0**30
    expected, found = plain.update(some_groups(), 1), high.update(some_groups(), 1)
    assert high.optimizer.loss_scale.value < 2.0**30
    assert found.metrics["grad_norm"] == pytest.approx(expected.metrics["grad_norm"], rel=0.01)
    assert found.metrics["fed_tokens"] == expected.metrics["fed_tokens"]
    torch.testing.assert_close(weights(high), weights(plain), rtol=1e-2, atol=1e-3)


def test_a_gradient_that_is_not_finite_halts_the_run_as_ever(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, "float16")
    before = weights(learner)
    with torch.no_grad():
        next(iter(dict(learner.policy.named_parameters()).values())).fill_(torch.inf)
    with pytest.raises(RunHalted, match=r"is nan|is inf"):
        learner.update(some_groups(), 1)
    assert learner.optimizer.loss_scale.value == 1.0 and before.isfinite().all()


def test_a_supervised_step_is_that_of_float32(tiny_model: Path) -> None:
    norms = []
    for dtype in ("float32", "float16"):
        learner = make_learner(tiny_model, dtype)
        learner.optimizer.loss_scale.value *= 2.0**14 if dtype == "float16" else 1.0
        norms.append(trainer(learner).step(examples(), 0)["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=0.01)
