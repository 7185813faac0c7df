"""`rayzero pipeline check`: what every stage takes, in memory and time, from the recipe and the models' shapes alone.

Times are bounds and a rule of thumb: arithmetic at EFFICIENCY of the peak, every completion as long as it may be,
and a start for each stage. They tell hours from days; the first stage that runs tells more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.services.fleet.gpu_bundles import reward_gpus
from rayzero.services.observe.text import as_count, as_rough_time
from rayzero.services.pipeline.loading import LoadedPipeline
from rayzero.services.pipeline.precision import settled
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.models import describe_model
from rayzero.services.run.notes import notes, of_rate, slow_here
from rayzero.services.run.plan import Plan, is_device_open, make_plan
from rayzero.services.run.preflight import check_devices, check_lengths, compute_device, gpus_there, on_device
from rayzero.services.schema.config.pipeline import (
    REFERENCE,
    DistillStage,
    EvalStage,
    GrpoStage,
    OnPolicyDistillStage,
    RejectionSampleStage,
    RewardModelStage,
    SftStage,
    Stage,
)
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.training import SupervisedSettings
from rayzero.services.schema.errors import RecipeError

EFFICIENCY = 0.3
"""Share of the peak that such loops reach: 15–40 % is what others report."""
START_S = 45.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Peak arithmetic in bf16 and memory bandwidth of one device that computes."""

    name: str
    flops: float
    bytes_per_s: float


GPU = Hardware(name="H100 (989 TFLOP/s, 3.35 TB/s)", flops=989e12, bytes_per_s=3.35e12)
CPU = Hardware(name="two CPU cores (0.2 TFLOP/s, 42 GB/s)", flops=0.2e12, bytes_per_s=42e9)


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """One line of the plan."""

    stage: str
    kind: str
    num_parameters: int
    num_gpus: int
    memory_bytes: Mapping[str, int]
    """By role, of each actor."""
    sampled_tokens: int
    """At most."""
    trained_tokens: int
    """At most."""
    seconds: float
    notes: tuple[str, ...] = ()
    """What it asks for that has no effect, or another one than it seems."""


def check_pipeline(loaded: LoadedPipeline, console: Console, as_json: bool) -> None:
    """Validate and print.

    Raises:
        RecipeError: a stage asks for what its model or the machine cannot hold.
    """
    # Without engines no build says where they would run: a laptop that only looks would be asked for GPUs.
    here = {name: on_device(each, "cpu") if is_device_open(each) else each for name, each in loaded.recipes.items()}
    loaded = replace(loaded, recipes=here)
    num_gpus = gpus_there(loaded.recipes[loaded.graph.order[0]])
    loaded = settled(loaded, say=lambda text: None if as_json else console.print(text, style="dim"))
    plans = [plan_stage(loaded, name, num_gpus) for name in loaded.graph.order]
    if as_json:
        print(json.dumps([asdict(plan) for plan in plans], indent=2))
        return
    _print(loaded, plans, _machine(loaded.recipes[plans[0].stage], num_gpus), console)


def plan_stage(loaded: LoadedPipeline, name: str, num_gpus: int) -> StagePlan:
    """The arithmetic of one stage; takes nothing but numbers."""
    recipe, stage = loaded.recipes[name], loaded.pipeline.stages[name]
    names = stage.models if isinstance(stage, EvalStage) else (stage.model,)
    trained = not isinstance(stage, EvalStage | RejectionSampleStage | RewardModelStage)
    shapes = [shape_of(loaded, each, trained=trained) for each in names]
    largest = max(shapes, key=lambda shape: shape.num_parameters)
    try:
        check_devices(recipe, num_gpus)
        check_lengths(recipe, largest, trained=trained)
        plan = make_plan(recipe, largest, 1, 0, num_gpus, _reward_shapes(loaded))
    except RecipeError as error:
        raise RecipeError(f"stage {name}: {error}") from None
    trains, samples = _tokens(loaded, name)
    roles = _roles(loaded, name)
    machine = _machine(recipe, num_gpus)
    engines = recipe.rollout.num_workers * recipe.rollout.tensor_parallel_size
    seconds = START_S * len(shapes)
    seconds += sum(samples / len(shapes) / (decode_rate(shape, recipe, machine) * engines) for shape in shapes)
    seconds += trains * _train_flops(largest, recipe) / (machine.flops * EFFICIENCY)
    return StagePlan(
        stage=name,
        kind=stage.kind,
        num_parameters=largest.num_parameters,
        num_gpus=_gpus(recipe, stage, plan, roles),
        memory_bytes={actor.role: actor.memory_bytes for actor in plan.actors if actor.role in roles},
        sampled_tokens=samples,
        trained_tokens=trains,
        seconds=seconds,
        notes=_notes(recipe, stage, largest),
    )


def _notes(recipe: Recipe, stage: Stage, shape: ModelShape) -> tuple[str, ...]:
    if isinstance(stage, SupervisedSettings):
        return (*of_rate(stage.optimizer, stage.num_updates, "optimizer", "this stage's"), *slow_here(recipe))
    return notes(recipe, shape) if isinstance(stage, GrpoStage | OnPolicyDistillStage) else ()


def shape_of(loaded: LoadedPipeline, name: str, *, trained: bool = True) -> ModelShape:
    """The shape of a model by the name that stages give it. Published models are not fetched for it."""
    return describe_model(loaded.pipeline.models[loaded.graph.root_model(name)], trained=trained)


def decode_rate(shape: ModelShape, recipe: Recipe, machine: Hardware) -> float:
    """Tokens a second of one device: a step reads all weights and keys once, and computes 2 N a sequence."""
    batch = recipe.rollout.num_seqs
    context = recipe.rollout.max_model_tokens // 2
    read = shape.weight_bytes(recipe.model.dtype) + batch * context * shape.kv_bytes_per_token(recipe.model.dtype)
    step_s = max(read / machine.bytes_per_s, 2 * shape.num_matmul_parameters * batch / machine.flops)
    return batch / step_s * EFFICIENCY


def _train_flops(shape: ModelShape, recipe: Recipe) -> float:
    """A token forward and backward: 6 N; with adapters nothing is computed for the frozen weights' gradient: 4 N."""
    passes = 4 if recipe.learner.lora is not None else 6
    passes += 2 if recipe.learner.kl.beta > 0 else 0
    return passes * shape.num_matmul_parameters * recipe.learner.steps_per_update


def _tokens(loaded: LoadedPipeline, name: str) -> tuple[int, int]:
    """(trained, sampled), both at most."""
    recipe, stage = loaded.recipes[name], loaded.pipeline.stages[name]
    longest = recipe.rollout.sampling.max_tokens
    if isinstance(stage, SftStage | DistillStage):
        return stage.num_updates * stage.demonstrations_per_update * recipe.rollout.max_model_tokens, 0
    if isinstance(stage, RewardModelStage):
        return stage.num_updates * stage.pairs_per_update * 2 * recipe.rollout.max_model_tokens, 0
    if isinstance(stage, RejectionSampleStage):
        return 0, stage.num_prompts * stage.num_completions * longest
    evaluated = recipe.evaluation.num_prompts * recipe.evaluation.num_completions * longest
    greedy = 0 if recipe.evaluation.greedy == "never" else recipe.evaluation.num_prompts * longest
    if isinstance(stage, EvalStage):
        return 0, (evaluated + greedy) * len(stage.models)
    training = recipe.training
    times = 2 + (training.num_updates // recipe.evaluation.every_updates if recipe.evaluation.every_updates else 0)
    sampled = training.num_updates * training.samples_per_update * longest
    return sampled, sampled + times * evaluated + greedy * (times if recipe.evaluation.greedy == "always" else 2)


def _roles(loaded: LoadedPipeline, name: str) -> set[str]:
    stage = loaded.pipeline.stages[name]
    if isinstance(stage, SftStage | DistillStage | RewardModelStage):
        return {"learner"}
    if isinstance(stage, EvalStage | RejectionSampleStage):
        return {"rollout worker", "reward worker"}
    return {"learner", "rollout worker", "reward worker"}


def _gpus(recipe: Recipe, stage: Stage, plan: Plan, roles: set[str]) -> int:
    """GPUs of a stage; a reward model is trained on one."""
    whole = math.ceil(sum(a.count * a.num_gpus for a in plan.actors if a.role in roles - {"reward worker"}))
    if isinstance(stage, RewardModelStage):
        return min(whole, 1)
    return whole + (reward_gpus(recipe) if "reward worker" in roles else 0)


def _reward_shapes(loaded: LoadedPipeline) -> dict[str, ModelShape]:
    """Of the reward models that stages will write, by what stands for them in a recipe."""
    stages = loaded.pipeline.stages
    return {f"{REFERENCE}{name}": shape_of(loaded, name) for name in stages if stages[name].kind == "reward_model"}


def _machine(recipe: Recipe, num_gpus: int) -> Hardware:
    return CPU if recipe.cluster.address is None and compute_device(recipe, num_gpus) == "cpu" else GPU


def _print(loaded: LoadedPipeline, plans: list[StagePlan], machine: Hardware, console: Console) -> None:
    console.print(f"[bold]{escape(loaded.pipeline.name)}[/bold]  {escape(loaded.pipeline.description)}")
    # Without frames and without the stages' kinds, which `pipeline graph` tells, it fits into 80 columns.
    title = f"at most, on {machine.name} at {EFFICIENCY:.0%} of the peak"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("stage", "model", "GPUs", "learner", "engine", "sampled", "trained", "time"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for plan in plans:
        memory = [plan.memory_bytes.get(role) for role in ("learner", "rollout worker")]
        table.add_row(
            plan.stage,
            as_count(plan.num_parameters),
            str(plan.num_gpus),
            *("–" if size is None else f"{size / 2**30:.1f} GiB" for size in memory),
            as_count(plan.sampled_tokens),
            as_count(plan.trained_tokens),
            as_rough_time(plan.seconds),
        )
    console.print(table)
    console.print(f"all stages, one after another: {as_rough_time(sum(plan.seconds for plan in plans))}")
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        stages = ", ".join(plan.stage for plan in plans if note in plan.notes)
        console.print(f"note: {stages}: {note}", style="yellow", soft_wrap=True, markup=False)
