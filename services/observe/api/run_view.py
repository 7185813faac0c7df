"""What the API's routes work on: one run as seen from outside, from before its actors are up until after its end."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.loop.observers import Observer
from rayzero.services.loop.run_control import RunControl
from rayzero.services.observe.api import views
from rayzero.services.observe.api.events import EventLog
from rayzero.services.observe.browse.rollout_index import RolloutIndex
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.monitoring.meters import Meters
from rayzero.services.observe.monitoring.trackers import Tracking
from rayzero.services.observe.run_health import examine
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.messages import Group
from rayzero.services.schema.plain import plain
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory


@dataclasses.dataclass(slots=True)
class RunView:
    """An observer of the controller too: it keeps the rows that the page's curves are drawn from."""

    recipe: Recipe
    directory: RunDirectory
    meters: Meters
    events: EventLog
    index: RolloutIndex
    tokens: TokenTexts
    phase: Callable[[], str]
    """What the run is doing, in words."""
    tracking: Tracking
    control: RunControl | None = None
    """None while the actors come up, and after the run's end."""
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    started_s: float = dataclasses.field(default_factory=time.time)

    @property
    def observers(self) -> list[Observer]:
        """What observes the run."""
        return [self.meters, self.tracking, self]

    def attach(self, control: RunControl, continued: bool = False) -> None:
        """The run is up: read what it had written before, and let it be controlled. `continued`: from a checkpoint."""
        self.rows = read_lines(self.directory.file("metrics.jsonl"))
        self.evaluations = read_lines(self.directory.file("evaluations.jsonl"))
        self.control = control
        if continued:
            self.events.record("continued", from_update=control.controller.buffer.version)
        self.events.record("ready", workers=len(views.workers(control.controller)))

    def detach(self) -> None:
        """The run has ended: nothing is left to control."""
        self.control = None

    async def say_goodbye(self) -> None:
        """Let Prometheus see that the run has ended by itself: a driver that is down without that has died.

        Only where it has come at least twice, and for two of its intervals at most.
        """
        self.meters.on_end()
        deadline = time.monotonic() + self.meters.scrape_interval_s * 2
        seen = self.meters.num_scrapes
        while self.meters.num_scrapes == seen and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    def live(self) -> RunControl:
        """The run's controls.

        Raises:
            UsageError: it is still starting, or ending.
        """
        if self.control is None:
            raise UsageError(f"the run cannot be controlled now: {self.phase()}")
        return self.control

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done."""
        self.rows.append(plain(row))
        for warning in row.get("warnings", ()):
            self.events.warn(update=row["update"], text=warning)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Held-out accuracy."""
        self.evaluations.append(evaluation.row())

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Counted by the meters."""

    def status(self) -> dict[str, Any]:
        """The run at a glance."""
        training = self.recipe.training
        last = self.rows[-1] if self.rows else {}
        status: dict[str, Any] = {
            "run": self.recipe.name,
            "label": self.directory.label,
            "description": self.recipe.description,
            "directory": str(self.directory.path),
            "phase": self.phase(),
            "seconds": round(time.time() - self.started_s, 1),
            "num_updates": training.num_updates,
            "update": last.get("update", 0),
            "figures": {name: last.get(name) for name in views.SHOWN_FIGURES},
            "accuracies": {row["update"]: row["accuracy"] for row in self.evaluations},
            "greedy_accuracies": {
                row["update"]: row["greedy_accuracy"] for row in self.evaluations if "greedy_accuracy" in row
            },
            "seconds_left": TimeLeft.of(self.recipe).seconds(self.rows, self.evaluations),
            "tokens_per_s": views.tokens_per_s(self.rows),
            "events": self.events.latest(8),
        }
        if self.control is not None:
            controller = self.control.controller
            status |= {
                **views.now(controller),
                "paused": controller.paused,
                "stopping": controller.stopping,
                "workers": views.workers(controller),
                "queues": views.queues(controller),
                "weights": views.weights(controller),
                "waits": views.bottleneck(self.rows, controller),
            }
        status["health"] = examine(self.rows, self.evaluations, status).plain()
        return status

    def targets(self, address: str) -> list[dict[str, Any]]:
        """What Prometheus is to scrape, itself first: identity is in the labels, never in the metrics."""
        run = self.directory.label
        own = {"run": run, "component": "controller", "instance": "controller"}
        slots = self.control.controller.rollouts.slots if self.control is not None else []
        found = {slot.name: slot.worker.metrics_target for slot in slots if slot.worker is not None}
        workers = [
            {"targets": [target], "labels": {"run": run, "component": "rollout", "instance": name}}
            for name, target in sorted(found.items())
            if target
        ]
        return [{"targets": [address], "labels": own}, *workers]
