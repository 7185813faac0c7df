"""Runs what is not done yet, stage by stage; a killed pipeline goes on inside the stage that it was in.

fingerprints ─► done already? ─► inputs' checksums ─► the stage's kind ─► artefact ─► stage.json ─► report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rayzero.services.observe.text import as_figure
from rayzero.services.pipeline.context import StageContext, StageKind, StageOutcome
from rayzero.services.pipeline.directory import PipelineDirectory, StageDirectory
from rayzero.services.pipeline.fingerprints import digest
from rayzero.services.pipeline.graph import Graph
from rayzero.services.pipeline.recipes import resolved
from rayzero.services.planning.models import resolve_model
from rayzero.services.schema.config.pipeline import Stage
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.store.run_directory import write_atomically


@dataclass(slots=True)
class PipelineRun:
    """One attempt at a pipeline. `kinds` says how each kind of stage is run."""

    graph: Graph
    recipes: Mapping[str, Recipe]
    fingerprints: Mapping[str, str]
    directory: PipelineDirectory
    kinds: Mapping[str, StageKind]
    console: Console
    find_model: Callable[[str], Path] = resolve_model

    def run(self, until: str | None = None) -> None:
        """Run every stage that is not done (with `until`: that stage and what it needs).

        Raises:
            RayzeroError: a stage failed; names it. What was finished stays finished.
        """
        order = self._order(until)
        for number, name in enumerate(order, start=1):
            kind = self.graph.pipeline.stages[name].kind
            title = f"[bold]\\[{number}/{len(order)}] {name}[/bold] [dim]{kind}[/dim]"
            if self.state_of(name) == "done":
                self.console.print(f"{title}  done before")
                continue
            self.console.print(title)
            self._run_stage(name)

    def left(self, until: str | None = None) -> list[str]:
        """The stages that `run` would run."""
        return [name for name in self._order(until) if self.state_of(name) != "done"]

    def state_of(self, name: str) -> str:
        """`done`, `unfinished` (begun with these settings), `changed` (begun with others), or `waiting`."""
        directory = self.stage_directory(name)
        record = directory.record()
        if directory.artefact() is not None and self._same_inputs(name, record):
            return "done"
        if record:
            return "unfinished" if record["state"] != "done" else "changed"
        return "changed" if self.directory.has_others(name, self.fingerprints[name]) else "waiting"

    def summary(self) -> list[dict[str, Any]]:
        """One row a stage: name, kind, state, seconds, figures, directory."""
        rows = []
        for name in self.graph.order:
            directory = self.stage_directory(name)
            record = directory.record()
            rows.append(
                {
                    "stage": name,
                    "kind": self.graph.pipeline.stages[name].kind,
                    "state": self.state_of(name),
                    "seconds": record.get("seconds"),
                    "figures": record.get("figures", {}),
                    "directory": str(directory.path),
                }
            )
        return rows

    def stage_directory(self, name: str) -> StageDirectory:
        """Where a stage of these settings and inputs is."""
        return self.directory.stage(name, self.fingerprints[name])

    def artefact(self, name: str) -> Path:
        """What a finished stage, or a name of `models`, stands for."""
        if name in self.graph.pipeline.models:
            return self.find_model(self.graph.pipeline.models[name])
        path = self.stage_directory(name).artefact()
        if path is None:
            raise RayzeroError(f"stage {name}: what it wrote is missing or damaged: run it again")
        return path

    def _order(self, until: str | None) -> list[str]:
        wanted = self.graph.needed_for(until) if until else set(self.graph.order)
        return [name for name in self.graph.order if name in wanted]

    def _run_stage(self, name: str) -> None:
        directory = self.stage_directory(name)
        began_s = time.time()
        known = directory.record()
        inputs = {each: self.artefact(each) for each in self.graph.inputs[name]}
        record: dict[str, Any] = {
            "stage": name,
            "kind": self.graph.pipeline.stages[name].kind,
            "state": "running",
            "fingerprint": self.fingerprints[name],
            "inputs": {each: {"path": str(path), "digest": digest(path)} for each, path in inputs.items()},
            "attempts": known.get("attempts", 0) + 1,
            "seconds": known.get("seconds", 0.0),
        }
        directory.work.mkdir(parents=True, exist_ok=True)
        directory.write_record(record)
        try:
            context = self._context(name, directory, inputs)
            outcome = self.kinds[record["kind"]](context)
        except RayzeroError as error:
            raise type(error)(
                f"stage {name}: {error}\n  finished stages are kept; the same command goes on with {name}"
            ) from error
        finally:
            record["seconds"] = round(record["seconds"] + time.time() - began_s, 1)
            directory.write_record(record)
        self._finish(directory, record, outcome)

    def _finish(self, directory: StageDirectory, record: dict[str, Any], outcome: StageOutcome) -> None:
        artefact = {"path": str(outcome.artefact.relative_to(directory.path)), "digest": digest(outcome.artefact)}
        figures = dict(outcome.figures)
        directory.write_record({**record, "state": "done", "artefact": artefact, "figures": figures})
        shown = ", ".join(
            f"{key} {as_figure(value) if isinstance(value, float) else value}"
            for key, value in figures.items()
            if not isinstance(value, dict | list)
        )
        self.console.print(f"  done in {record['seconds']:.0f} s: {shown}", soft_wrap=True, markup=False)

    def _context(self, name: str, directory: StageDirectory, inputs: Mapping[str, Path]) -> StageContext:
        recipe = resolved(self.recipes[name], inputs)
        place = inputs.get(recipe.model.path)
        if place is not None:
            recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(place)})})
        kl = recipe.learner.kl
        if kl.reference is not None:
            kl = kl.model_copy(update={"reference": str(inputs[kl.reference])})
            recipe = recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"kl": kl})})
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomically(directory.path / "recipe.yaml", text)
        settings: Stage = resolved(self.graph.pipeline.stages[name], inputs)
        return StageContext(
            name=name,
            settings=settings,
            recipe=recipe,
            models={each: path for each, path in inputs.items() if path.is_dir()},
            directory=directory.path,
            work=directory.work,
            console=self.console,
        )

    def _same_inputs(self, name: str, record: Mapping[str, Any]) -> bool:
        """Whether the stage's inputs are still, byte for byte, what it read."""
        for each, noted in record["inputs"].items():
            if each in self.graph.pipeline.models:
                continue  # its content is in the fingerprint
            artefact = self.stage_directory(each).artefact()
            if artefact is None or digest(artefact) != noted["digest"]:
                return False
        return True
