"""Experiment trackers get every finite figure; one whose package is missing is refused before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.observe.monitoring.trackers import TRACKERS, Tracking, check_trackers, open_trackers
from rayzero.services.schema.config.observe import ObserveSettings
from rayzero.services.schema.errors import RecipeError
from tests.fakes import make_recipe

OBSERVED = ObserveSettings(trackers=["tensorboard"])


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


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for updates in ((1, 2), (3,)):  # a run that was continued
        tracking = open_trackers(make_recipe().model_copy(update={"observe": OBSERVED}), tmp_path)
        for update in updates:
            tracking.on_update({"update": update, "time_s": 9.0, "loss": 0.5 * update, "reward/format": 1}, [])
        tracking.close()
    found = [
        (event.step, value.tag, value.tensor.float_val[0])
        for file in sorted((tmp_path / "tensorboard").iterdir())
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    wanted = [(update, tag) for update in (1, 2, 3) for tag in ("loss", "reward/format")]
    assert sorted(found) == [(update, tag, 0.5 * update if tag == "loss" else 1.0) for update, tag in wanted]


class Away(Lines):
    """A tracker whose server is down."""

    def log(self, figures: Mapping[str, float], update: int) -> None:
        raise ConnectionError("no route")

    def close(self) -> None:
        raise ConnectionError("no route")


def test_a_tracker_that_fails_costs_its_lines_alone(caplog: pytest.LogCaptureFixture) -> None:
    other = Lines()
    tracking = Tracking([Away(), other])
    tracking.on_update({"update": 1, "loss": 0.5}, [])
    tracking.close()
    assert other.lines == [(1, {"loss": 0.5})] and other.closed
    assert "Away: ConnectionError: no route" in caplog.text


def test_a_tracker_that_does_not_begin_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(recipe: object, directory: Path) -> Lines:
        raise ConnectionError("no route")

    monkeypatch.setitem(TRACKERS, "tensorboard", fail)
    with pytest.raises(RecipeError, match="tensorboard does not begin: ConnectionError: no route"):
        open_trackers(make_recipe().model_copy(update={"observe": OBSERVED}), tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"observe\.trackers: mlflow is not installed here: pip install mlflow"):
        check_trackers(["mlflow"])
    check_trackers([])


class FakeWandb(ModuleType):
    """Holds what `init` was given, and what was logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.metrics: list[tuple[str, str | None]] = []

    def init(self, **given: Any) -> FakeWandb:
        self.begun.append(given)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, float]) -> None:
        self.logged.append(row)


def test_wandb_runs_of_one_name_stay_apart_and_late_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for place in ("alice", "bob", "alice"):
        (tmp_path / place / "mini").mkdir(parents=True, exist_ok=True)
        tracker = TRACKERS["wandb"](make_recipe(), tmp_path / place / "mini")
    first, other, again = (given["id"] for given in wandb.begun)
    assert first == again != other
    assert (wandb.begun[0]["project"], wandb.begun[0]["name"]) == ("rayzero", "mini")
    tracker.log({"loss": 1.0}, 7)
    tracker.log({"evaluation/accuracy": 0.5}, 5)
    assert wandb.logged == [{"loss": 1.0, "update": 7}, {"evaluation/accuracy": 0.5, "update": 5}]
    assert ("*", "update") in wandb.metrics
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    monkeypatch.setenv("WANDB_NAME", "second try")
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    (tmp_path / "new").mkdir()
    TRACKERS["wandb"](make_recipe(), tmp_path / "new")
    assert [wandb.begun[-1][key] for key in ("project", "name", "id")] == ["ours", "second try", "abc"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["rayzero"]),
        ({"MLFLOW_EXPERIMENT_NAME": "ours"}, ["ours"]),
        ({"MLFLOW_EXPERIMENT_NAME": ""}, ["rayzero"]),
        ({"MLFLOW_EXPERIMENT_ID": "7"}, []),
    ],
)
def test_mlflows_own_variables_count(
    variables: dict[str, str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    mlflow: Any = ModuleType("mlflow")
    mlflow.set_experiment = begun.append
    mlflow.start_run = lambda **given: SimpleNamespace(info=SimpleNamespace(run_id="1"))
    mlflow.log_dict = lambda *given: None
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    TRACKERS["mlflow"](make_recipe(), tmp_path)
    assert begun == expected
