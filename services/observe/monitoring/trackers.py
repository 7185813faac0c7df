"""Experiment trackers behind one small protocol. None of their packages is imported before a recipe names it."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.observe import TrackerName
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Group
from rayzero.services.schema.plain import is_figure

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where figures go."""

    def log(self, figures: Mapping[str, float], update: int) -> None:
        """Take one update's figures."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoardTracker:
    """Event files in the run directory's `tensorboard/`."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        """`tensorboard` writes its files without TensorFlow or torch."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(directory / "tensorboard"))

    def log(self, figures: Mapping[str, float], update: int) -> None:
        """One event."""
        import time

        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        event = self._event(wall_time=time.time(), step=update, summary=self._summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbTracker:
    """A run at Weights & Biases. Its standard variables (WANDB_PROJECT, WANDB_NAME, WANDB_RUN_ID, …) count."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        """Continues the same run when the directory's run is continued, and no other directory's of the same name."""
        import wandb

        known = directory / "wandb_run"
        run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(8)
        if known.is_file():
            run_id = known.read_text(encoding="utf-8").strip()
        elif (directory / "wandb").is_dir():
            run_id = directory.name  # begun by a version that called it so
        known.write_text(run_id, encoding="utf-8")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "rayzero",
            name=os.environ.get("WANDB_NAME") or directory.name,
            id=run_id,
            resume="allow",
            dir=str(directory),
            config=recipe.model_dump(mode="json"),
        )
        # By the update, not by W&B's own step, which never goes back: an evaluation may end after later updates.
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def log(self, figures: Mapping[str, float], update: int) -> None:
        """One update's figures, in whatever order they come."""
        self._run.log({**figures, "update": update})

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


class MlflowTracker:
    """A run at MLflow's tracking server, in the experiment of MLFLOW_EXPERIMENT_NAME, else `rayzero`."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        """Where the server is, MLflow reads from MLFLOW_TRACKING_URI. Continues the directory's run, as W&B does."""
        import mlflow

        self._mlflow = mlflow
        if not os.environ.get("MLFLOW_EXPERIMENT_ID"):
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "rayzero")
        known = directory / "mlflow_run"
        if known.is_file():
            mlflow.start_run(run_id=known.read_text(encoding="utf-8"))
            return
        run = mlflow.start_run(run_name=directory.name)
        known.write_text(run.info.run_id, encoding="utf-8")
        mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.json")

    def log(self, figures: Mapping[str, float], update: int) -> None:
        """One step. MLflow takes no `/` at the end and few signs in names; those of a row are fine."""
        self._mlflow.log_metrics(dict(figures), step=update)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


TRACKERS: dict[TrackerName, Callable[[Recipe, Path], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse a tracker whose package is not installed, before anything starts.

    Raises:
        RecipeError: names the package to install.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(f"observe.trackers: {name} is not installed here: pip install {name}, or leave it out")


class Tracking:
    """An observer of the controller that tells every tracker of a recipe."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Made by `open_trackers`."""
        self.trackers = trackers

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """Every finite figure of the row."""
        self._log({key: value for key, value in row.items() if key not in ("update", "time_s")}, row["update"])

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Held-out accuracy and reward."""
        figures = {
            **{f"evaluation/{name}": value for name, value in evaluation.figures().items()},
            "evaluation/reward_mean": evaluation.reward_mean,
            "evaluation/completion_tokens_mean": evaluation.completion_tokens_mean,
        }
        self._log(figures, evaluation.policy_version)

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Counted in the update's row."""

    def close(self) -> None:
        """Close every tracker."""
        for tracker in self.trackers:
            self._ask(tracker, tracker.close)

    def _log(self, row: Mapping[str, Any], update: int) -> None:
        figures = {name: float(value) for name, value in row.items() if is_figure(value)}
        for tracker in self.trackers:
            self._ask(tracker, tracker.log, figures, update)

    def _ask(self, tracker: Tracker, what: Callable[..., None], *arguments: Any) -> None:
        """A server that is away costs its lines; metrics.jsonl has them, and the run goes on."""
        try:
            what(*arguments)
        except Exception as error:
            logger.warning("%s: %s: %s", type(tracker).__name__, type(error).__name__, error)


def open_trackers(recipe: Recipe, directory: Path) -> Tracking:
    """The recipe's trackers.

    Raises:
        RecipeError: one does not begin; says which, and what its package says.
    """
    trackers = []
    for name in recipe.observe.trackers:
        try:
            trackers.append(TRACKERS[name](recipe, directory))
        except Exception as error:
            raise RecipeError(f"observe.trackers: {name} does not begin: {type(error).__name__}: {error}") from None
    return Tracking(trackers)
