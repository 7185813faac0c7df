"""Finished members of a sweep, without having trained any."""

from __future__ import annotations

import json
from pathlib import Path

from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory, write_json
from rayzero.services.sweep.members import Member


def recipe_file(folder: Path) -> Path:
    """The recipe that the sweep is of."""
    content = {
        "name": "small",
        "model": {"path": "fake", "dtype": "float32"},
        "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 3, "groups_per_update": 2, "group_size": 2},
        "evaluation": {"every_updates": 1, "num_prompts": 2},
    }
    path = folder / "small.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def finish(member: Member, after: float) -> None:
    """What a run leaves that came to its end."""
    directory = RunDirectory(member.directory)
    directory.path.mkdir(parents=True)
    rows = [
        {"update": update, "accuracy": accuracy, "greedy_accuracy": accuracy + 0.1, "completion_tokens_mean": 10.0}
        for update, accuracy in ((0, 0.1), (3, after))
    ]
    append_lines(directory.file("evaluations.jsonl"), rows)
    write_json(directory.file("summary.json"), {"updates": 3, "seconds": 60.0})
