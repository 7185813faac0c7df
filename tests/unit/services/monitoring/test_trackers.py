"""Experiment trackers get every finite figure; one whose package is missing is refused before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.evaluation import Evaluation
from services.monitoring.trackers import Tracking, check_trackers
from services.schema.errors import RecipeError


class Lines:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, figures: Mapping[str, float], update: int) -> None:
        self.lines.append((update, dict(figures)))

    def close(self) -> None:
        self.closed = True


def test_every_finite_figure_goes_to_every_tracker() -> None:
    first, second = Lines(), Lines()
    tracking = Tracking([first, second])
    row = {"update": 3, "time_s": 9.0, "loss": 0.5, "entropy": float("nan"), "samples": 4, "warnings": ["x"]}
    tracking.on_update(row, [])
    evaluation = Evaluation(
        policy_version=3,
        accuracy=0.5,
        reward_mean=0.25,
        completion_tokens_mean=7.0,
        truncated_share=0.0,
        num_errors=0,
        groups=(),
    )
    tracking.on_evaluation(evaluation)
    tracking.close()
    assert first.lines == second.lines and first.closed and second.closed
    assert first.lines[0] == (3, {"loss": 0.5, "samples": 4.0})
    assert first.lines[1][1]["evaluation/accuracy"] == 0.5


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"observe\.trackers: mlflow is not installed here: pip install mlflow"):
        check_trackers(["mlflow"])
    check_trackers([])
