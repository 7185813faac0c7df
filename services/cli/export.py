"""`rayzero export RUN OUT`: a run's model by itself, with a model card.

A checkpoint is a Hugging Face directory (adapters merged in) and what a resume needs beside it, which is left out here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayzero.services.cli.client import find_directory
from rayzero.services.loop.evaluation import best_version
from rayzero.services.observe.text import with_interval
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.extras import require
from rayzero.services.store.checkpoints import MANIFEST, checkpoints_in, find_damage, version_of
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory

ADAPTER = "adapter"
LEFT_OUT = ("state", MANIFEST, ADAPTER)
"""What only a resume reads, and the adapters that the weights hold already."""


def export(run: str, runs: Path, out: Path, update: int | None, best: bool, adapter: bool, dtype: str) -> None:
    """Write `out`: all of it, or nothing.

    Raises:
        UsageError: no such run or checkpoint, it is damaged, or `out` is there already.
    """
    directory = RunDirectory(find_directory(run, runs))
    checkpoint = choose_checkpoint(directory, update, best)
    if problem := find_damage(checkpoint):
        raise UsageError(f"{checkpoint} is damaged ({problem}): choose another with --update")
    source = checkpoint / ADAPTER if adapter else checkpoint
    if not source.is_dir():
        raise UsageError(f"{checkpoint} has no adapter: the run trained all weights, or is older; leave --adapter out")
    if out.exists():
        raise UsageError(f"{out} is there already: name a directory that is not")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in LEFT_OUT:
                shutil.copyfile(file, temporary / file.name)
        if dtype:
            require("torch")
            from rayzero.learner.model.precision import convert

            convert(temporary, dtype)
        (temporary / "README.md").write_text(model_card(directory, version_of(checkpoint), adapter), encoding="utf-8")
        temporary.rename(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(
        f"{out}: {'the adapter' if adapter else 'the model'} of {directory.path.name}, update {version_of(checkpoint)}"
    )


def choose_checkpoint(directory: RunDirectory, update: int | None, best: bool) -> Path:
    """The last, the one of an update, or the best by held-out accuracy of those that were kept.

    Raises:
        UsageError: there is none such; names those that there are.
    """
    kept = {version_of(path): path for path in checkpoints_in(directory.checkpoints)}
    if not kept:
        raise UsageError(f"{directory.path} has no checkpoint yet: `rayzero checkpoint` asks a live run for one")
    if best:
        rows = read_lines(directory.file("evaluations.jsonl"))
        update = best_version({row["update"]: row["accuracy"] for row in rows if row["update"] in kept})
        if update is None:
            raise UsageError(f"no checkpoint of {directory.path} was evaluated: leave --best out")
    if update is None:
        update = max(kept)
    if update not in kept:
        raise UsageError(f"{directory.path} keeps no checkpoint of update {update}; there are {sorted(kept)}")
    return kept[update]


def model_card(directory: RunDirectory, update: int, adapter: bool) -> str:
    """What a reader of the model wants to know of its training, as Markdown that the hub understands."""
    recipe = directory.recipe() or {}
    base = str(_at(recipe, "model", "path") or "unknown")
    rows = {row["update"]: row for row in read_lines(directory.file("evaluations.jsonl"))}
    head = {
        "library_name": "peft" if adapter else "transformers",
        "tags": ["rayzero", "grpo", "reinforcement-learning"],
    }
    if not Path(base).exists():
        head["base_model"] = base
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {recipe.get('name', directory.path.name)}", "", str(recipe.get("description") or ""), ""]
    what = "A LoRA adapter for" if adapter else "Trained from"
    lines += [f"{what} `{base}` by {update} updates of {_at(recipe, 'learner', 'loss', 'name')} with rayzero.", ""]
    table = {
        "prompts × completions an update": " × ".join(
            str(_at(recipe, "training", key)) for key in ("groups_per_update", "group_size")
        ),
        "learning rate": _at(recipe, "learner", "optimizer", "learning_rate"),
        "KL weight": _at(recipe, "learner", "kl", "beta"),
        "seed": recipe.get("seed"),
        "data": ", ".join(
            str(_at(source, "name") or _at(source, "kind")) for source in _at(recipe, "data", "train") or ()
        ),
        **_accuracies("before", rows.get(0)),
        **_accuracies(f"at update {update}", rows.get(update)),
    }
    lines += [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in table.items() if value is not None),
        "",
    ]
    if update in rows:
        lines += ["± is half of a 95 % interval, over prompts.", ""]
        if len(rows) > 1 and rows[update]["accuracy"] >= max(row["accuracy"] for row in rows.values()):
            lines += [f"The highest of {len(rows)} evaluations on the same prompts, which flatters it.", ""]
    return "\n".join(lines)


def _accuracies(when: str, row: Mapping[str, Any] | None) -> dict[str, str]:
    """By name, as a table has them: as sampled, and greedy where that was measured."""
    kinds = {"as sampled": ("accuracy", "standard_error"), "greedy": ("greedy_accuracy", "greedy_standard_error")}
    named = {}
    for kind, (mean, error) in kinds.items():
        if row is not None and row.get(mean) is not None:
            named[f"held-out accuracy {when}, {kind}"] = with_interval(row[mean], row.get(error), ".1%")
    return named


def _at(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content
