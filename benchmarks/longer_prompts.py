"""Prompts longer than any that was trained on: what a run's first and last model answer to them.

finished run ─► rayzero eval, before and after ─► longer.json in its directory ─► figures of a claim
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayzero.services.schema.config.loader import read_document
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.store.run_directory import write_json
from rayzero.services.sweep.members import RUN_FIGURES

DEADLINE_S = 3600.0
"""For one model: minutes on two idle cores."""


def longer_figures(run: Path, recipe: Path, overrides: Sequence[str]) -> dict[str, float]:
    """By `before longer greedy` and the like. What was measured once stands beside the model: the last one's in the
    run's directory, the first one's above it, for every seed begins with it.

    Raises:
        RayzeroError: a model could not be measured.
    """
    first = str(read_document(recipe)[0]["model"]["path"])
    found = {
        when: _kept(folder / "longer.json", model, recipe, overrides)
        for when, folder, model in (("before", run.parent, first), ("after", run, str(run / "model")))
    }
    return {
        f"{when} longer {name}": float(figures[key])
        for key, name in RUN_FIGURES.items()
        for when, figures in found.items()
        if figures.get(key) is not None
    }


def _kept(file: Path, model: str, recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    if not file.is_file():
        write_json(file, _measured(model, recipe, overrides))
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


def _measured(model: str, recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "rayzero", "eval", model, "--recipe", str(recipe), "--json", *overrides]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=False)
        figures: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise RayzeroError(f"{' '.join(command)}: {error}") from None
    if not figures:
        raise RayzeroError(f"{' '.join(command)} ended with exit code {done.returncode}: its reason is above")
    return figures
