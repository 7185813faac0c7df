"""Watched figures: hand-computed numbers, what warns, what stops, and what a broken token may not spoil."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from rayzero.learner.update.stop_conditions import check, mismatch_metrics
from rayzero.services.schema.config.learner import WatchSettings
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.recent_kl import RecentKl


def test_hand_computed() -> None:
    # Learner twice, half and exactly as sure as the sampler: ratios 2, .5, 1.
    old = torch.log(torch.tensor([0.8, 0.2, 0.5]))
    rollout = torch.log(torch.tensor([0.4, 0.4, 0.5]))
    figures = mismatch_metrics(old, rollout, torch.tensor([False, False, True]))
    # k3 = r - 1 - ln r: .3068528, .1931472, 0; mean .1666667.
    assert figures["kl_rollout"] == pytest.approx(1 / 6, abs=1e-6)
    assert figures["logprob_gap_max"] == pytest.approx(math.log(2), abs=1e-6)
    assert figures["ratio_outside"] == pytest.approx(2 / 3)
    # (2 + .5 + 1)^2 / (3 (4 + .25 + 1)) = 12.25 / 15.75
    assert figures["ess"] == pytest.approx(12.25 / 15.75, abs=1e-6)
    assert figures["kl_rollout_fresh"] == pytest.approx(0.0, abs=1e-9)
    assert figures["logprob_gap_max_fresh"] == pytest.approx(0.0, abs=1e-7)


def test_broken_tokens_are_counted_and_left_out() -> None:
    old = torch.tensor([-1.0, -1.0, -1.0])
    figures = mismatch_metrics(old, torch.tensor([-1.0, -math.inf, math.nan]), torch.tensor([True, True, True]))
    assert figures["nonfinite_logprobs"] == 2
    assert figures["kl_rollout"] == 0 and figures["ess"] == 1
    assert "kl_rollout" not in mismatch_metrics(old[:0], old[:0], torch.zeros(0, dtype=torch.bool))


FINE = {"loss": 0.1, "grad_norm": 1.0, "kl_rollout_fresh": 0.0, "ess": 1.0}


@pytest.mark.parametrize(
    ("change", "dtype", "words"),
    [
        ({"loss": math.nan}, "bfloat16", "loss is nan"),
        ({"grad_norm": math.inf}, "bfloat16", "grad_norm is inf"),
        ({"kl_rollout_fresh": 0.021}, "bfloat16", "over 0.02"),
        ({"kl_rollout_fresh": 2e-4}, "float32", "over 0.0001"),
        ({"kl_rollout_fresh": math.nan}, "float32", "kl_rollout_fresh is"),
        ({"ess": 0.04}, "bfloat16", "few tokens carry"),
        ({"grad_norm": 11.0}, "bfloat16", "gradient's norm is 11"),
    ],
)
def test_stops_with_the_figures(change: dict[str, float], dtype: str, words: str) -> None:
    with pytest.raises(RunHalted, match=words) as caught:
        check(FINE | change, WatchSettings(grad_norm_stop=10.0), dtype)
    assert "figures: " in str(caught.value) and "grad_norm=" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("change", "dtype", "count"),
    [
        ({}, "bfloat16", 0),
        ({"kl_rollout_fresh": 1.4e-3}, "bfloat16", 0),
        ({"kl_rollout_fresh": 6e-3}, "bfloat16", 1),
        ({"kl_rollout_fresh": 4e-9}, "float32", 0),
        ({"kl_rollout_fresh": 2e-6}, "float32", 1),
        ({"ess": 0.2}, "float32", 1),
    ],
)
def test_warns(change: dict[str, float], dtype: str, count: int) -> None:
    assert len(check(FINE | change, WatchSettings(), dtype)) == count


def test_a_batch_without_tokens_has_nothing_to_complain_of() -> None:
    assert check({"loss": 0.0, "grad_norm": 0.0}, WatchSettings(), "float32") == []


def test_limits_of_the_recipe_come_first() -> None:
    assert WatchSettings(kl_stop=1.0).kl_limits("float32") == (1e-6, 1.0)
    assert WatchSettings(kl_stop=1e-3).kl_limits("bfloat16") == (1e-3, 1e-3)
    with pytest.raises(ValueError, match="kl_warn must not be above kl_stop"):
        WatchSettings(kl_warn=1.0, kl_stop=0.1)
    with pytest.raises(ValueError, match="ess_warn must not be below ess_stop"):
        WatchSettings(ess_warn=0.1, ess_stop=0.2)


def test_too_few_tokens_warn_but_do_not_stop() -> None:
    over = {**FINE, "kl_rollout_fresh": 0.05}
    assert len(check({**over, "fresh_tokens": 150.0}, WatchSettings(), "bfloat16")) == 1
    with pytest.raises(RunHalted):
        check({**over, "fresh_tokens": 600.0}, WatchSettings(), "bfloat16")
    recent = RecentKl()
    for _ in range(3):
        assert check({**over, "fresh_tokens": 150.0}, WatchSettings(), "bfloat16", recent)
    with pytest.raises(RunHalted, match=r"kl_rollout_fresh is 0\.05 nats a token"):
        check({**over, "fresh_tokens": 150.0}, WatchSettings(), "bfloat16", recent)
