"""`rayzero bench gallery [RECIPE]`: a page a recipe in docs/gallery, drawn from docs/results.

    recipe ─► its run, seed 0 ─► docs/results/RECIPE.json, docs/gallery/rollouts/RECIPE.html
    docs/results ─► docs/gallery/*.md, *.svg

The recipe's own seed is the only one: a run that is made anew replaces what was there, whatever it showed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gallery_page import write_pages
from benchmarks.results import write_results
from rayzero.services.bench.checkout import ROOT
from rayzero.services.cli.page_data import page_data
from rayzero.services.observe.browse.page import file_page
from rayzero.services.observe.browse.rollout_index import Filter, RolloutIndex
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.browse.rollout_view import show_group
from rayzero.services.observe.run_health import examine
from rayzero.services.pipeline.loading import is_pipeline
from rayzero.services.schema.config.loader import read_document
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory, write_atomically
from rayzero.services.sweep.grid import Combination
from rayzero.services.sweep.members import Member

NUM_PROMPTS = 2
"""Held-out prompts whose rollouts are kept."""
NUM_COMPLETIONS = 4
"""Completions of each that are kept."""
TRAINING = {"update": "update", "accuracy": "train_accuracy", "length": "completion_tokens_mean"}
"""Columns of metrics.jsonl that the curve of the training batches shows."""


def run(name: str | None, out: Path | None, root: Path = ROOT) -> int:
    """Train `name` where its run is not finished, keep what it showed, and draw all pages; the exit code.

    Raises:
        UsageError: there is no such recipe, or it needs GPUs.
    """
    console = terminal()
    recipes = recipes_of(root)
    if name is not None:
        if name not in recipes:
            raise UsageError(f"rayzero bench gallery {name}: there is no such recipe; there are: {', '.join(recipes)}")
        member = _member(root, name, out or next_directory(Path("runs/gallery"), name))
        if not member.is_done:
            with contextlib.suppress(KeyboardInterrupt):  # the run has it, too, and saves
                subprocess.run(member.command, check=False)
            if not member.is_done:
                console.print(f"{member.directory} is not finished: the same command goes on there", markup=False)
                return 1
        keep(name, recipes[name], member, root)
    files = write_pages(root, recipes, results_of(root, recipes))
    for file, text in files.items():
        write_atomically(file, text)
    console.print(f"docs/gallery: {len(recipes)} recipes", markup=False)
    return 0


def recipes_of(root: Path = ROOT) -> dict[str, Mapping[str, Any]]:
    """The shipped recipes by name, as their files say them."""
    return {file.stem: read_document(file)[0] for file in sorted((root / "deploy/recipes").glob("*.yaml"))}


def results_of(root: Path, recipes: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of each recipe's run."""
    files = {name: root / f"docs/results/{name}.json" for name in recipes}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def keep(name: str, recipe: Mapping[str, Any], member: Member, root: Path) -> None:
    """What a finished run showed, into docs/results, and some of its rollouts into docs/gallery/rollouts."""
    shown = member.shown()
    directory = _rollouts_of(member)
    rows, evaluations = (read_lines(directory.file(file)) for file in ("metrics.jsonl", "evaluations.jsonl"))
    health = examine(rows, evaluations).plain()
    training = {part: [row.get(column) for row in rows] for part, column in TRAINING.items()}
    found = {
        "name": f"seed={member.combination.values[0][1]}",
        "values": dict(member.combination.values),
        "seconds": round(shown.seconds, 1),
        "load": round(os.getloadavg()[2], 1),
        "figures": shown.figures,
        "curves": shown.curves,
        "training": {} if member.is_pipeline else {"": training},
        "findings": health["findings"],
    }
    settled = directory.recipe() or {}
    dtype = str((settled.get("model") or {}).get("dtype", "auto"))
    file = root / f"docs/results/{name}.json"
    write_results(file, name, f"make gallery RECIPE={name}", dtype, recipe, [found])
    html = root / f"docs/gallery/rollouts/{name}.html"
    html.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(html, rollouts_page(directory))


def rollouts_page(directory: RunDirectory) -> str:
    """The first held-out prompts at the start and at the end, as one HTML file."""
    index, tokens = RolloutIndex(directory.path), TokenTexts(directory)
    wanted = Filter(kind="evaluation")
    try:
        index.refresh()
        every, _ = index.groups(wanted, "oldest", 10**6, 0)
        versions = sorted({each["version"] for each in every})
        first = [each["prompt_id"] for each in every if each["version"] == versions[0]][:NUM_PROMPTS]
        summaries = [
            each for each in every if each["prompt_id"] in first and each["version"] in (versions[0], versions[-1])
        ]
        groups = {each["key"]: show_group(index, tokens, each["key"]) for each in summaries}
    finally:
        index.close()
    for part in (*summaries, *groups.values()):
        part["rollouts"] = part["rollouts"][:NUM_COMPLETIONS]
    return file_page(page_data(directory, wanted, "oldest", summaries, groups))


def next_directory(folder: Path, name: str) -> Path:
    """Where a run of it is under way, or may begin: beside those that are finished."""
    for number in itertools.count(1):
        directory = folder / (name if number == 1 else f"{name}-{number}")
        if not (directory / "summary.json").is_file() and not (directory / "report.json").is_file():
            return directory
    raise AssertionError("a count has no end")


def _member(root: Path, name: str, directory: Path) -> Member:
    recipe = root / "deploy/recipes" / f"{name}.yaml"
    seed = str(read_document(recipe)[0].get("seed", 0))
    return Member(
        combination=Combination(values=(("seed", seed),), fixed=()),
        recipe=recipe.resolve(),
        is_pipeline=is_pipeline(recipe),
        directory=directory.resolve(),
    )


def _rollouts_of(member: Member) -> RunDirectory:
    """The run itself; of a pipeline its last RL stage."""
    if not member.is_pipeline:
        return RunDirectory(member.directory)
    files = sorted(member.directory.rglob("evaluations.jsonl"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UsageError(f"{member.directory} holds no stage with held-out prompts: nothing of it can be shown")
    return RunDirectory(files[-1].parent)
