"""`rayzero check`: the recipe is valid, and this is what it will do. Starts no run and writes none;
a tokenizer that is not on this machine yet is made or fetched once."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.services.data.copied_golds import check_golds
from rayzero.services.data.example import WITH_RULES, Example, first_examples
from rayzero.services.data.prompts import load_demonstrations, load_prompts
from rayzero.services.fleet.gpu_bundles import reward_cpus, reward_workers_per_gpu
from rayzero.services.observe.text import as_size
from rayzero.services.planning.memory_plan import MemoryPlan, engine_parts, learner_parts
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.models import describe_model, tokenizer_directory
from rayzero.services.run.answer_check import check_answers
from rayzero.services.run.environment_check import check_environment
from rayzero.services.run.loss_check import check_loss, loss_label
from rayzero.services.run.notes import notes
from rayzero.services.run.other_models import check_other_models
from rayzero.services.run.precision import settled
from rayzero.services.run.preflight import (
    check_devices,
    check_lengths,
    check_memory,
    check_observation,
    compute_device,
    count_gpus,
    gpus_there,
    on_device,
)
from rayzero.services.run.prompt_check import check_prompts, with_fewer_puzzles
from rayzero.services.run.reward_check import check_custom_rewards
from rayzero.services.schema.config.environment import EpisodeSettings
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.messages import Prompt
from rayzero.services.schema.terminal import terminal

REWARD_WORKER_BYTES = 200 * 2**20
"""Of the host, children and sandbox included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedActor:
    """One line of the plan: a role, how many, and what each takes."""

    role: str
    count: int
    placed: str
    num_cpus: float
    num_gpus: float
    resources: dict[str, float]
    memory_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a recipe will do, from its settings and the model's config alone."""

    name: str
    num_parameters: int
    train_prompts: int
    held_out_prompts: int
    actors: tuple[PlannedActor, ...]
    num_updates: int
    samples_per_update: int
    max_completion_tokens_per_update: int
    sync_bytes_per_update: int
    memory_bytes: int
    epochs: float
    memory: MemoryPlan | None
    """Of the GPUs; none where everything computes on CPUs."""
    examples: tuple[Example, ...] = ()
    """Prompts beside their gold answers."""
    unread: tuple[str, ...] = ()
    """What of the prompts was not looked at, a sentence a source."""
    notes: tuple[str, ...] = ()
    """What the recipe asks for that has no effect, or another one than it seems; and what was found in the prompts."""


def check(recipe_path: Path, overrides: Sequence[str], as_json: bool, gpus: int | None = None) -> None:
    """Validate and print; for a machine of `gpus` GPUs in place of this one, where that is given.

    Raises:
        RecipeError: whatever `rayzero train` would refuse.
    """
    recipe = load_recipe(recipe_path, overrides)
    if gpus and recipe.rollout.device == "auto":
        recipe = on_device(recipe, "cuda")  # what is installed here says nothing of the other machine
    elif gpus is None and is_device_open(recipe):
        recipe = on_device(recipe, "cpu")  # else a laptop that only grades would be asked for GPUs
    num_gpus = gpus_there(recipe) if gpus is None else gpus
    seen: list[str] = []
    show = partial(terminal(stderr=as_json).print, style="dim", soft_wrap=True, markup=False)
    recipe = settled(recipe, say=seen.append, num_gpus=num_gpus)
    check_devices(recipe, num_gpus)
    check_observation(recipe)
    asked = recipe.evaluation.num_prompts
    data, unmade_held_out = with_fewer_puzzles(recipe.data)
    train, held_out = load_prompts(data, asked, recipe.reward.has_rubric)
    check_golds((*train.sample(), *held_out), recipe.reward)
    check_answers(recipe, (*train.sample(), *held_out), seen.append)
    if recipe.cold_start is not None:
        load_demonstrations(recipe.cold_start)
    shape = describe_model(recipe.model.path, say=show)
    check_lengths(recipe, shape)
    check_other_models(recipe, shape)
    check_loss(recipe)
    check_prompts(recipe, train, held_out, tokenizer_directory(recipe.model.path, show), shape, seen.append)
    check_custom_rewards(recipe, train, seen.append)
    check_environment(recipe, train, seen.append)
    num_held_out = min(asked, len(held_out) + unmade_held_out)
    plan = make_plan(recipe, shape, len(train), num_held_out, num_gpus)
    compared = (prompt for prompt in train.sample() if not _has_rules(recipe, prompt))
    shown = first_examples(compared, len(train.parts))
    plan = replace(plan, examples=shown, unread=train.unread, notes=(*plan.notes, *seen))
    if as_json:
        print(json.dumps(asdict(plan), indent=2))
    else:
        print_plan(terminal(), recipe, plan)


def _has_rules(recipe: Recipe, prompt: Prompt) -> bool:
    return any(component.kind in WITH_RULES for component in (recipe.reward.rubric_for(prompt.source) or {}).values())


def is_device_open(recipe: Recipe) -> bool:
    """No engine is installed, whose build would say it, and this machine has no GPU and no cluster."""
    is_open = recipe.rollout.device == "auto" and recipe.cluster.address is None
    return is_open and importlib.util.find_spec("vllm") is None and count_gpus() == 0


def make_plan(
    recipe: Recipe,
    shape: ModelShape,
    num_train: int,
    num_held_out: int,
    num_gpus: int,
    reward_shapes: Mapping[str, ModelShape] | None = None,
) -> Plan:
    """The arithmetic; takes nothing but numbers. `reward_shapes`: of reward models to come, by their path.

    Raises:
        RecipeError: a GPU cannot hold what the recipe puts on it.
    """
    training, rollout, lora = recipe.training, recipe.rollout, recipe.learner.lora
    memory = check_memory(recipe, shape, num_gpus, reward_shapes)
    on_gpus = memory if compute_device(recipe, num_gpus) == "cuda" else None
    actors = [_learner(recipe, shape, on_gpus), _engine(recipe, shape, on_gpus), _reward_worker(recipe, memory)]
    if recipe.environment is not None:
        actors.append(_environment_worker(recipe, recipe.environment))
    return Plan(
        name=recipe.name,
        num_parameters=shape.num_parameters,
        train_prompts=num_train,
        held_out_prompts=num_held_out,
        actors=tuple(actors),
        num_updates=training.num_updates,
        samples_per_update=training.samples_per_update,
        max_completion_tokens_per_update=training.samples_per_update * _longest(recipe),
        sync_bytes_per_update=shape.sync_bytes(recipe.model.dtype, None if lora is None else lora.rank)
        * rollout.num_workers,
        memory_bytes=sum(actor.count * actor.memory_bytes for actor in actors),
        epochs=training.num_updates * training.groups_per_update / num_train,
        memory=memory,
        notes=notes(recipe, shape),
    )


def _learner(recipe: Recipe, shape: ModelShape, plan: MemoryPlan | None) -> PlannedActor:
    compute = recipe.learner.compute
    lora = recipe.learner.lora
    memory = shape.learner_state_bytes(None if lora is None else lora.rank) + shape.activation_bytes(
        min(compute.tokens_per_microbatch, recipe.training.samples_per_update * recipe.rollout.max_model_tokens),
        bool(compute.activation_checkpointing),
    )
    if recipe.model.dtype != "float32":
        memory += shape.weight_bytes(recipe.model.dtype)
    if recipe.learner.kl.beta > 0 and (lora is None or recipe.learner.kl.reference is not None):
        memory += shape.weight_bytes(recipe.model.dtype)
    if plan is not None:
        memory = sum(learner_parts(recipe, shape, plan.activation_checkpointing, plan.offload_optimizer).values())
    shared = recipe.cluster.shares_gpu
    return PlannedActor(
        role="learner",
        count=recipe.cluster.learner_gpus if plan else 1,
        placed=_where(recipe.cluster.learner_resources),
        num_cpus=1,
        num_gpus=(0.5 if shared else 1) if plan else 0,
        resources=recipe.cluster.learner_resources,
        memory_bytes=memory,
    )


def _engine(recipe: Recipe, shape: ModelShape, plan: MemoryPlan | None) -> PlannedActor:
    rollout = recipe.rollout
    memory = 2 * shape.weight_bytes(recipe.model.dtype) + rollout.kv_cache_bytes  # weights, and a broadcast staged
    if plan is not None:
        memory = sum(engine_parts(recipe, shape).values()) * rollout.tensor_parallel_size
    shared = recipe.cluster.shares_gpu
    return PlannedActor(
        role="rollout worker",
        count=rollout.num_workers,
        placed=_where(recipe.cluster.rollout_resources),
        num_cpus=1,
        num_gpus=rollout.tensor_parallel_size * (0.5 if shared else 1) if plan else 0,
        resources=recipe.cluster.rollout_resources,
        memory_bytes=memory,
    )


def _reward_worker(recipe: Recipe, plan: MemoryPlan | None) -> PlannedActor:
    reward = recipe.reward
    on_gpu = sum(gpu.num_bytes for gpu in plan.gpus if gpu.role == "reward worker") if plan is not None else 0
    return PlannedActor(
        role="reward worker",
        count=reward.num_workers,
        placed=_where(recipe.cluster.reward_resources),
        num_cpus=reward_cpus(recipe),
        num_gpus=reward.num_gpus_per_worker,
        resources=recipe.cluster.reward_resources,
        memory_bytes=on_gpu // reward_workers_per_gpu(recipe) if on_gpu else REWARD_WORKER_BYTES,
    )


def _environment_worker(recipe: Recipe, settings: EpisodeSettings) -> PlannedActor:
    return PlannedActor(
        role="environment worker",
        count=settings.num_workers,
        placed=_where(recipe.cluster.environment_resources),
        num_cpus=0 if recipe.cluster.address is None else settings.num_cpus_per_worker,
        num_gpus=0,
        resources=recipe.cluster.environment_resources,
        memory_bytes=REWARD_WORKER_BYTES,
    )


def _longest(recipe: Recipe) -> int:
    """Tokens that one completion samples at most, in all its turns."""
    each, window = recipe.rollout.sampling.max_tokens, recipe.rollout.max_model_tokens
    if recipe.environment is None:
        return each
    limits = recipe.environment.limits
    return min(limits.turns * (limits.turn_tokens or each), limits.episode_tokens or window, window)


def _where(resources: dict[str, float]) -> str:
    return (
        "any node with " + ", ".join(f"{name}: {amount:g}" for name, amount in resources.items())
        if resources
        else "any node"
    )


def print_plan(console: Console, recipe: Recipe, plan: Plan) -> None:
    """As tables, units spelled out."""
    ray = recipe.cluster.address or f"a local Ray on this machine ({os.cpu_count()} CPUs), ended with the run"
    console.print(f"[bold]{escape(plan.name)}[/bold]  {escape(recipe.description)}")
    size = f"{plan.num_parameters / 1e6:.1f} M parameters"
    console.print(f"model  {escape(recipe.model.path)}: {size}, computed in {recipe.model.dtype}")
    console.print(f"Ray    {escape(ray)}")
    actors = Table(title="actors")
    for name in ("role", "count", "placed", "CPUs", "GPUs", "memory each (estimate)"):
        actors.add_column(name, justify="left" if name in ("role", "placed") else "right")
    for actor in plan.actors:
        actors.add_row(
            actor.role,
            str(actor.count),
            escape(actor.placed),
            f"{actor.num_cpus:g}",
            f"{actor.num_gpus:g}",
            as_size(actor.memory_bytes),
        )
    console.print(actors)
    if plan.memory is not None:
        _print_memory(console, plan.memory)
    table = Table(title="one update", show_header=False)
    training = recipe.training
    for label, value in (
        (
            "prompts × completions",
            f"{training.groups_per_update} × {training.group_size} = {plan.samples_per_update} samples",
        ),
        ("completion tokens, at most", f"{plan.max_completion_tokens_per_update:,}"),
        ("weights broadcast", as_size(plan.sync_bytes_per_update)),
        ("updates", f"{plan.num_updates} ({plan.epochs:.2f} times through {plan.train_prompts:,} training prompts)"),
        ("held-out prompts", f"{plan.held_out_prompts}"),
        (
            "loss",
            f"{loss_label(recipe)}, advantage {recipe.learner.advantage_name}, β {recipe.learner.kl.beta:g}",
        ),
        ("staleness, at most", str(training.max_staleness)),
        ("memory, all actors", as_size(plan.memory_bytes)),
    ):
        table.add_row(label, escape(value))
    console.print(table)
    if plan.examples:
        console.print("is each gold answer that of its prompt? no check can tell")
    for example in plan.examples:
        console.print(f"  {example.line}", style="dim", markup=False, soft_wrap=True)
    for sentence in plan.unread:
        console.print(sentence, markup=False)
    for note in plan.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)


def _print_memory(console: Console, memory: MemoryPlan) -> None:
    """Each kind of GPU, and what lies on it."""
    for gpu in memory.gpus:
        title = f"{gpu.role}: {gpu.count} × GPU of {as_size(gpu.capacity)}, {gpu.num_bytes / gpu.capacity:.0%} planned"
        table = Table(title=title, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, size in gpu.parts.items():
            if size:
                table.add_row(name, as_size(size))
        table.add_row("in all", as_size(gpu.num_bytes))
        console.print(table)
    chosen = [
        name
        for name, used in (
            ("activations recomputed", memory.activation_checkpointing),
            ("optimizer on the host", memory.offload_optimizer),
            ("engines load weights bucket by bucket", memory.weight_loading == "streamed"),
        )
        if used
    ]
    if memory.longest_sequence is not None:
        console.print(f"longest sequence that the learner has room for: {memory.longest_sequence:,} tokens")
    if chosen:
        console.print(f"so that it fits: {', '.join(chosen)} ({as_size(memory.host_bytes)} of the host)")
