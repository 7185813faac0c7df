"""`rayzero new`: a recipe for a file of prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rayzero.services.data.checking.check import TRIED_ON, inspect
from rayzero.services.data.checking.proposal import as_yaml, propose
from rayzero.services.data.checking.report import DataReport
from rayzero.services.observe.text import as_count
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.models import describe_model
from rayzero.services.planning.usual_rate import usual_rate
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.config.model import AUTO
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.messages import Prompt

MAX_HELD_OUT = 128
CHARACTERS_A_TOKEN = 3
COMPLETION_TOKENS = {"code": 768, "math": 512}
COMPLETIONS_AT_A_TIME = 8
"""Of the longest, where one alone fills the default of `kv_cache_bytes`."""
HARMLESS = ("duplicate prompt",)
"""Faults that a run takes as they are."""
HEAD = """\
# Made by `rayzero new` from {data}: {rows:,} rows, {format}.
# `rayzero check {path}` says what it will do, `rayzero recipe` what else it can say.
"""


def write_recipe(
    directory: Path,
    data: str,
    format_name: str | None,
    model: str,
    names: Mapping[str, str] = MappingProxyType({}),
    own_reward: str | None = None,
    try_on: Callable[[Sequence[Prompt]], None] | None = None,
) -> Path:
    """Make `directory` with a recipe that trains `model` on `data`. `names`, `own_reward`: as in `propose`,
    `try_on` as in `check_file`.

    Raises:
        UsageError: the directory holds something, the name is none for a run, or the file has rows that no run takes.
    """
    path = directory / "recipe.yaml"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already: give another name, or remove it")
    absolute = str(Path(data).expanduser().absolute())
    proposal = propose(data, format_name, absolute, names, own_reward)
    inspection = inspect(proposal, data, None)
    report = inspection.report
    worst = {kind: group for kind, group in report.faults.items() if kind not in HARMLESS}
    if worst:
        kind, group = next(iter(worst.items()))
        raise UsageError(
            f"{group.first[0]}: {group.example} ({kind}: {group.count:,}): mend or remove such rows; "
            f"rayzero data check {data} lists them all"
        )
    if try_on is not None:
        try_on(inspection.first_prompts(TRIED_ON))
    shape = describe_model(model)
    recipe = _recipe(directory.name, model, proposal.recipe(report.tasks), report, shape)
    directory.mkdir(parents=True, exist_ok=True)
    head = HEAD.format(data=data, path=path, rows=report.rows, format=report.format or "columns mapped by name")
    path.write_text(head + _with_the_rate_explained(as_yaml(recipe), shape), encoding="utf-8")
    try:
        load_recipe(path, [])
    except UsageError:
        path.unlink()
        directory.rmdir()
        raise
    return path


def _recipe(name: str, model: str, lines: dict[str, Any], report: DataReport, shape: ModelShape) -> dict[str, Any]:
    longest = report.lengths.longest if report.lengths is not None else 0
    completion = max((COMPLETION_TOKENS.get(task, 256) for task in report.tasks), default=256)
    prompt = max(256, -(-longest // CHARACTERS_A_TOKEN // 256) * 256)
    window = min(prompt + completion, shape.max_positions)
    rollout = {"sampling": {"max_tokens": min(completion, window // 2)}, "max_model_tokens": window}
    if prompt + completion > window:  # no recipe has room for the longest: left out, and counted
        lines["data"]["max_prompt_tokens"] = window - min(completion, window // 2)
    cache = window * shape.kv_bytes_per_token("float32")  # which auto may be
    if cache > RolloutSettings().kv_cache_bytes:
        rollout["kv_cache_bytes"] = COMPLETIONS_AT_A_TIME * cache
    held_out = max(1, min(MAX_HELD_OUT, report.usable // 5))
    lines["data"]["num_held_out"] = held_out
    return {
        "name": name,
        "description": f"{model} on {Path(report.path).name}",
        "seed": 0,
        "model": {"path": model, "dtype": AUTO},
        **lines,
        "rollout": rollout,
        "learner": {"loss": {"name": "grpo"}, "optimizer": {"learning_rate": usual_rate(shape.num_parameters)}},
        "training": {"num_updates": 100, "groups_per_update": 8, "group_size": 8, "max_staleness": 0},
        "evaluation": {"every_updates": 20, "num_prompts": held_out},
    }


def _with_the_rate_explained(text: str, shape: ModelShape) -> str:
    why = f"# usual for {as_count(shape.num_parameters)} parameters; ten times as much with learner.lora"
    return re.sub(r"(?m)^( +learning_rate: \S+)$", rf"\1  {why}", text)
