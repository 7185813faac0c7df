"""What a stage is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rayzero.services.schema.config.pipeline import Stage
from rayzero.services.schema.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class StageContext:
    """One stage, ready to run: its settings, with every input at its place."""

    name: str
    settings: Stage
    recipe: Recipe
    """The stage's recipe; its model and every `stage:NAME` in it are paths."""
    models: Mapping[str, Path]
    """Directories of the models that the settings name."""
    directory: Path
    """Where the artefact goes."""
    work: Path
    """What a resume needs; kept between attempts."""
    console: Console

    def say(self, text: str) -> None:
        """A line about what goes on."""
        self.console.print(f"  {text}", style="dim", soft_wrap=True, markup=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageOutcome:
    """What a finished stage leaves."""

    artefact: Path
    """Below the stage's directory: a model, a dataset, a reward model or results."""
    figures: Mapping[str, Any]
    """What its report says, JSON-like."""


StageKind = Callable[[StageContext], StageOutcome]
"""Runs a stage of one kind to its end, continuing what a killed attempt left in `work`."""
