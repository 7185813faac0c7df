"""`rayzero eval` and `rayzero generate`: the run's own engines, and for eval its rewards, without a learner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.gpu_bundles import ENGINE, REWARD
from rayzero.services.loop.evaluation import Evaluation, Evaluator
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.planning.models import resolve_model
from rayzero.services.planning.prompt_tokenizer import open_tokenizer
from rayzero.services.run.fleets import runner_of, starts
from rayzero.services.run.interrupts import ended_by_signals
from rayzero.services.run.placement import Placement
from rayzero.services.run.precision import settled
from rayzero.services.run.preflight import check_lengths, compute_device, gpus_there, prepare
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.config.loader import load_recipe, validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.extras import require_engines
from rayzero.services.schema.interfaces import RolloutWorker
from rayzero.services.schema.messages import ChatMessage, GroupRequest, Prompt, Sampling
from rayzero.services.schema.printable import encodable, printable
from rayzero.services.schema.terminal import terminal


def evaluate(model: str, recipe_path: Path, overrides: Sequence[str], as_json: bool) -> None:
    """Accuracy of a model on a recipe's held-out prompts, as sampled and greedy, with standard errors over prompts.

    Raises:
        RayzeroError: the recipe or model is refused, or an actor cannot start.
    """
    recipe = load_recipe(recipe_path, [*overrides, f"model.path={json.dumps(model)}"])
    if not recipe.evaluates:
        raise UsageError(f"evaluation.num_prompts is 0 in {recipe_path}: say evaluation.num_prompts=128, for example")
    console = terminal(stderr=as_json)
    given = load_recipe(recipe_path, [*overrides, f"model.path={json.dumps(model)}"])
    recipe = settled(given, say=lambda text: console.print(text, style="dim"))
    prepared = prepare(recipe, say=lambda text: console.print(text, style="dim"), trained=False)

    async def measure() -> Evaluation:
        async with workers(recipe, prepared.model_path, console) as runner:
            evaluator = Evaluator(runner, prepared.eval_prompts, recipe.evaluation_sampling)
            return await evaluator.run(0, recipe.greedy_at)

    result = asyncio.run(measure())
    figures = {
        "model": model,
        **result.figures(),
        "reward_mean": result.reward_mean,
        "completion_tokens_mean": result.completion_tokens_mean,
        "truncated_share": result.truncated_share,
        "num_prompts": len(result.groups),
        "num_completions": recipe.evaluation.num_completions,
        "num_errors": result.num_errors,
        "temperature": recipe.evaluation.temperature,
        "dtype": recipe.model.dtype,
    }
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        console.print(
            f"[dim]{name:>22}[/dim]  {value:.4f}" if isinstance(value, float) else f"[dim]{name:>22}[/dim]  {value}"
        )


def generate(model: str, prompt: str, sampling: Sampling) -> None:
    """Print completions of one prompt; fewer tokens than `sampling` asks for where the model has fewer positions.

    Raises:
        RayzeroError: the prompt or the model is refused, or the engine cannot start.
    """
    if encodable(prompt) != prompt:
        raise UsageError(f"the prompt is not UTF-8 text: {printable(prompt)}")
    console = terminal()
    model_path = resolve_model(model, say=lambda text: console.print(text, style="dim"))
    shape = read_shape(model_path, trained=False)
    tokenizer = open_tokenizer(model_path)
    has_turns = tokenizer is None or bool(tokenizer.chat_template)
    recipe = settled(generation_recipe(model, sampling.max_tokens, shape.max_positions, has_turns=has_turns))
    check_lengths(recipe, shape, trained=False)
    request = GroupRequest(
        group_id=0,
        prompt=Prompt(prompt_id="0", messages=(ChatMessage(role="user", content=prompt),), answer=None),
        sampling=replace(sampling, max_tokens=recipe.rollout.sampling.max_tokens),
    )

    async def sample() -> None:
        async with (
            engines_alone(recipe, model_path, console) as engines,
            engines.lease(recipe.deadlines.group_s) as slot,
        ):
            made = await slot.live_worker.generate(request)
        for index, completion in enumerate(made.completions, start=1):
            note = f"{completion.num_tokens} tokens, {completion.finish_reason}"
            console.rule(f"[dim]{index} · {note}[/dim]", align="left", style="dim")
            console.print(escape(printable(completion.text)))

    asyncio.run(sample())


def generation_recipe(model: str, max_tokens: int, max_positions: int, has_turns: bool) -> Recipe:
    """The least that an engine needs to know. No prompt is read and nothing is scored: a recipe must name both.

    A model without a chat template (`has_turns`) goes on with the prompt as it is; half of a short one's positions are
    the prompt's.
    """
    content = {
        "name": "generate",
        "model": {"path": model},
        "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
        "rollout": {
            "prompt_template": "chat" if has_turns else "text",
            "sampling": {"max_tokens": max(1, min(max_tokens, max_positions // 2))},
            "max_model_tokens": min(max(1024, 2 * max_tokens), max_positions),
        },
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 1, "groups_per_update": 1, "group_size": 2},
    }
    return validate_recipe(content, {}, default_origin="rayzero generate")


@asynccontextmanager
async def engines_alone(recipe: Recipe, model_path: Path, console: Console) -> AsyncIterator[Fleet[RolloutWorker]]:
    """Engines with the model as it is on disk; they end, and their logs with them, when the block is left."""
    async with _ray(recipe, model_path, console, (ENGINE,)) as placement:
        engines: Fleet[RolloutWorker] = Fleet("rollout", placement.rollout_worker, recipe.rollout.num_groups)
        async with _serving(console, [engines], [engines.start(recipe.rollout.num_workers)]):
            yield engines


@asynccontextmanager
async def workers(
    recipe: Recipe, model_path: Path, console: Console, logs: Path | None = None
) -> AsyncIterator[GroupRunner]:
    """Engines with the model as it is on disk, reward workers, and environment workers where the recipe has an
    environment; all ended when the block is left.

    Their logs go to `logs`, or vanish with the workers.
    """
    roles = (ENGINE, REWARD)
    async with _ray(recipe, model_path, console, roles, logs) as placement:
        runner = runner_of(recipe, placement, needs_weights=False)
        async with _serving(console, runner.fleets, starts(runner, recipe)):
            yield runner


@asynccontextmanager
async def _ray(
    recipe: Recipe, model_path: Path, console: Console, roles: tuple[str, ...], logs: Path | None = None
) -> AsyncIterator[Placement]:
    """Ray, and what places actors on it; their logs go to `logs`, else to a folder that goes with the block."""
    require_engines(recipe.cluster)
    # No learner is there to replay it, and a model that is named for an evaluation may have no experts to capture.
    recipe = recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"routing_replay": False})})
    session = RaySession(recipe)
    device = compute_device(recipe, await asyncio.to_thread(gpus_there, recipe))
    with contextlib.ExitStack() as stack:
        folder = logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rayzero-logs-")))
        folder.mkdir(parents=True, exist_ok=True)
        placement = Placement(recipe, model_path, folder, device, roles=roles)
        try:
            with Status("starting Ray", console=console):
                await asyncio.to_thread(session.start)
            yield placement
        finally:
            await asyncio.to_thread(session.stop)


@asynccontextmanager
async def _serving(
    console: Console, fleets: Sequence[Fleet[Any]], starting: Sequence[Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """Start the fleets side by side; close them when the block is left."""
    try:
        with ended_by_signals():
            with Status("starting an engine", console=console):
                await asyncio.gather(*starting)
            yield
    finally:
        await asyncio.gather(*(fleet.close() for fleet in fleets), return_exceptions=True)
