"""The eval stage: every model on the same held-out prompts with the same seeds, one result file a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.math.reading.extract import extract
from rayzero.services.loop.evaluation import ACCURACY, Evaluation, Evaluator
from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.statistics import ALL, figures_by_source
from rayzero.services.run.inference import workers
from rayzero.services.run.preflight import prepare
from rayzero.services.schema.config.pipeline import EvalStage
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.messages import Group
from rayzero.services.schema.plain import is_finite
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import write_json


def run_eval(context: StageContext) -> StageOutcome:
    """Measure every model that is not measured yet.

    Raises:
        RayzeroError: a model cannot be loaded, or no verdict could be had.
    """
    settings = context.settings
    assert isinstance(settings, EvalStage)
    results: dict[str, Any] = {}
    for name in settings.models:
        file = context.work / f"{name}.json"
        if not file.is_file():
            context.say(f"measuring {name}")
            write_json(file, asyncio.run(_measure(context, name, context.models[name])))
        results[name] = json.loads(file.read_text(encoding="utf-8"))
    artefact = context.directory / "results.json"
    write_json(artefact, results)
    if unmet := unmet_expectations(settings, results):
        raise RayzeroError(f"not as expected: {'; '.join(unmet)}: see {artefact}, or change the stage's `expect`")
    return StageOutcome(artefact=artefact, figures={"results": results, **_headline(results)})


def unmet_expectations(settings: EvalStage, results: Mapping[str, Any]) -> list[str]:
    """Every figure that lies outside of its bounds, or is not there, in words."""
    found = []
    for model, figures in settings.expect.items():
        by_source = results[model]
        measured = by_source[ALL if ALL in by_source else next(iter(by_source))]
        for name, bounds in figures.items():
            value = measured[name]["mean"] if isinstance(measured.get(name), Mapping) else None
            if value is None or not is_finite(value):
                known = ", ".join(key for key, each in measured.items() if isinstance(each, Mapping))
                found.append(f"{model}: there is no {name}; there are: {known}")
            elif bounds.min is not None and value < bounds.min:
                found.append(f"{model}: {name} is {value:.3f}, less than {bounds.min:g}")
            elif bounds.max is not None and value > bounds.max:
                found.append(f"{model}: {name} is {value:.3f}, more than {bounds.max:g}")
    return found


async def _measure(context: StageContext, name: str, model: Path) -> dict[str, Any]:
    recipe = context.recipe.model_copy(update={"model": context.recipe.model.model_copy(update={"path": str(model)})})
    prompts = prepare(recipe, trained=False).eval_prompts
    async with workers(recipe, model, context.console, context.work / "logs") as runner:
        evaluator = Evaluator(runner, prompts, recipe.evaluation_sampling)
        evaluation: Evaluation = await evaluator.run(0, recipe.greedy_at)
    lines = [line for group in evaluation.groups for line in rollout_lines(group)]
    append_lines(context.work / f"{name}.rollouts.jsonl", lines, replace=True)
    names = component_names(evaluation.groups)
    return figures_by_source(evaluation.groups, answer_of, names, evaluation.greedy_groups)


def answer_of(completion: str) -> str | None:
    """What a completion votes for: its box, else all that follows its thought."""
    boxed = extract(completion).answer
    if boxed is not None:
        return boxed.strip()
    return (answer_part(completion) or "").strip() or None


def component_names(groups: tuple[Group, ...]) -> list[str]:
    """The rubrics' components, accuracy aside: it is there as pass@1."""
    names = {name for group in groups for rollout in group.rollouts for name in rollout.verdict.components}
    return sorted(names - {ACCURACY})


def _headline(results: dict[str, Any]) -> dict[str, float]:
    """One figure a model, for the status line."""
    return {
        name: by_source[ALL if ALL in by_source else next(iter(by_source))]["accuracy"]["mean"]
        for name, by_source in results.items()
    }
