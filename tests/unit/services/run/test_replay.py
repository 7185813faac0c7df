"""Replayed metrics held against recorded ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rayzero.services.run.replay import compare, replay
from rayzero.services.schema.errors import UsageError

RECORDED = {"update": 4, "loss": 0.5, "grad_norm": 2.0, "entropy": 1.0, "kl_rollout": 0.0, "learning_rate": 1e-5}


def test_equal_figures_differ_by_nothing() -> None:
    assert compare(RECORDED, {**RECORDED, "wait_s": 3.0}).relative == 0.0


def test_the_figure_that_differs_most_is_named() -> None:
    difference = compare(RECORDED, {**RECORDED, "loss": 0.55, "grad_norm": 2.02})
    assert (difference.update, difference.figure) == (4, "loss")
    assert difference.relative == pytest.approx(0.1)


def test_nan_is_a_difference() -> None:
    assert compare(RECORDED, {**RECORDED, "loss": math.nan}).relative == math.inf


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        replay(tmp_path, None, 1e-3, as_json=False)
