"""What can be refused is refused here, before any actor starts: model, prompts, devices, ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rayzero.services.data.copied_golds import check_golds
from rayzero.services.data.prompts import load_demonstrations, load_prompts
from rayzero.services.data.stream import PromptMix, PromptStream
from rayzero.services.fleet.gpu_bundles import reward_gpus
from rayzero.services.loop.curriculum import Curriculum
from rayzero.services.observe.api.guard import check_api
from rayzero.services.observe.monitoring.trackers import check_trackers
from rayzero.services.planning.memory_plan import DEFAULT_GPU_BYTES, MemoryPlan, plan_memory
from rayzero.services.planning.mixture import check_mixture
from rayzero.services.planning.model_shape import DTYPE_BYTES, ModelShape, read_shape
from rayzero.services.planning.models import resolve_model
from rayzero.services.planning.nvidia_smi import gpu_memory_bytes, gpu_names
from rayzero.services.planning.prompt_tokenizer import open_tokenizer
from rayzero.services.run.answer_check import check_answers
from rayzero.services.run.environment_check import check_environment
from rayzero.services.run.loss_check import check_loss
from rayzero.services.run.notes import slow_here
from rayzero.services.run.other_models import check_other_models
from rayzero.services.run.prompt_check import check_prompts
from rayzero.services.run.prompt_length import fit_prompts
from rayzero.services.run.reward_check import check_custom_rewards
from rayzero.services.run.reward_memory import plan_rewards
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.devices import Device
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.interfaces import PromptSource
from rayzero.services.schema.messages import Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """A recipe whose inputs are there."""

    model_path: Path
    shape: ModelShape
    device: Device
    """What learner and engines compute on."""
    train_prompts: PromptSource
    eval_prompts: tuple[Prompt, ...]
    demonstrations: tuple[tuple[Prompt, str], ...]


def prepare(recipe: Recipe, say: Callable[[str], None] = lambda text: None, *, trained: bool = True) -> PreparedRun:
    """Resolve the model (a built-in one is made once, and cached) and read all prompts; engines alone can do with
    models that are not `trained`.

    Raises:
        RecipeError: an input is missing, broken or impossible; names the key or the line, and the fix.
    """
    check_observation(recipe)
    num_gpus = gpus_there(recipe)
    check_devices(recipe, num_gpus)
    train, held_out = load_prompts(recipe.data, recipe.evaluation.num_prompts, recipe.reward.has_rubric)
    check_golds((*train.sample(), *held_out), recipe.reward)
    check_answers(recipe, (*train.sample(), *held_out), say)
    for sentence in (*train.unread, *slow_here(recipe)):
        say(sentence)
    demonstrations = load_demonstrations(recipe.cold_start) if recipe.cold_start is not None else ()
    model_path = resolve_model(recipe.model.path, say=say)
    shape = read_shape(model_path, trained=trained)
    check_lengths(recipe, shape, trained=trained)
    if trained:
        check_other_models(recipe, shape)
        check_loss(recipe)
    check_memory(recipe, shape, num_gpus)
    tokenizer = open_tokenizer(model_path)
    if tokenizer is not None:
        train, held_out = fit_prompts(recipe, train, held_out, tokenizer, say)
    elif recipe.data.max_prompt_tokens is not None:
        raise RecipeError(
            "data.max_prompt_tokens: it takes the model's tokenizer.json, which is not there: leave it out"
        )
    check_prompts(recipe, train, held_out, model_path, shape, say)
    if trained:
        check_custom_rewards(recipe, train, say)
    check_environment(recipe, train, say)
    return PreparedRun(
        model_path=model_path,
        shape=shape,
        device=compute_device(recipe, num_gpus),
        train_prompts=prompt_source(recipe, train),
        eval_prompts=held_out,
        demonstrations=demonstrations,
    )


def prompt_source(recipe: Recipe, prompts: PromptMix) -> PromptSource:
    """Where a run's next prompt comes from."""
    stream = PromptStream(prompts, seed=recipe.seed, shuffle=recipe.data.shuffle)
    if recipe.data.curriculum is None:
        return stream
    return Curriculum(stream, len(prompts), recipe.data.curriculum)


def check_observation(recipe: Recipe) -> None:
    """An API that would stand open, or a tracker that is not installed, is refused.

    Raises:
        RecipeError: names the key and the fix.
    """
    check_api(recipe.observe.api)
    check_trackers(recipe.observe.trackers)


def gpus_there(recipe: Recipe) -> int:
    """GPUs that decide what `rollout.device: auto` is: this machine's, or those of the cluster that the recipe names.

    Raises:
        RecipeError: it depends on the cluster, and the cluster does not answer.
    """
    address, rollout = recipe.cluster.address, recipe.rollout
    if address is None or rollout.device != "auto" or rollout.engine_device == "cuda":
        return count_gpus()
    from rayzero.services.fleet.placement_groups import cluster_gpus  # Ray, half a second of imports

    return cluster_gpus(address)


def compute_device(recipe: Recipe, num_gpus: int) -> Device:
    """What learner and engines compute on where there are `num_gpus`.

    `auto` is what vLLM was built for, and a driver's machine without a GPU says nothing about it: an engine for GPUs is
    never moved to CPUs. One for CPUs, installed where the driver is, leaves a cluster's GPUs to the engines there.
    """
    rollout = recipe.rollout
    if rollout.device != "auto":
        return rollout.device
    leaves_gpus = recipe.cluster.address is None or num_gpus == 0
    return "cpu" if rollout.engine_device == "cpu" and rollout.tensor_parallel_size == 1 and leaves_gpus else "cuda"


def on_device(recipe: Recipe, device: Device) -> Recipe:
    """The recipe with `auto` resolved, so that every actor, whatever is installed where it runs, does the same."""
    return recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update={"device": device})})


def check_devices(recipe: Recipe, num_gpus: int) -> None:
    """A local run that asks for more GPUs than the machine has is refused now, not when an actor stays pending."""
    if recipe.cluster.address is not None:
        return
    wanted, rewards = gpus_wanted(recipe, num_gpus), reward_gpus(recipe)
    if wanted <= num_gpus:
        return
    parts = [f"{rewards} for {recipe.reward.num_workers} reward workers"] if rewards else []
    fixes = ["reward.num_gpus_per_worker: 0"] if rewards else []
    if wanted > rewards:
        engines = f"{recipe.rollout.num_workers} engines of {recipe.rollout.tensor_parallel_size}"
        parts = [f"learner {recipe.cluster.learner_gpus}", engines, *parts]
        fixes.append("rollout.device: cpu")
    raise RecipeError(
        f"the recipe asks for {wanted} GPUs ({', '.join(parts)}), and this machine has {num_gpus}: lower "
        "rollout.num_workers, cluster.learner_gpus or "
        f"rollout.tensor_parallel_size, set {' or '.join(fixes)}, or name a Ray cluster in cluster.address"
    )


def gpus_wanted(recipe: Recipe, num_gpus: int) -> int:
    """GPUs that the recipe's actors ask for on a machine (or cluster) with `num_gpus`."""
    rewards = reward_gpus(recipe)
    if compute_device(recipe, num_gpus) == "cpu":
        return rewards
    if recipe.cluster.shares_gpu:
        return recipe.cluster.learner_gpus + rewards
    return recipe.cluster.learner_gpus + recipe.rollout.num_workers * recipe.rollout.tensor_parallel_size + rewards


def check_memory(
    recipe: Recipe, shape: ModelShape, num_gpus: int, reward_shapes: Mapping[str, ModelShape] | None = None
) -> MemoryPlan | None:
    """The memory plan of a recipe whose actors ask for GPUs; none where everything computes on CPUs.

    `reward_shapes`: of reward models that are not there yet, by their path.

    Raises:
        RecipeError: it cannot fit; says what lies where, and what would help.
    """
    if not gpus_wanted(recipe, num_gpus):
        return None
    gpu_bytes = gpu_memory(recipe)
    if compute_device(recipe, num_gpus) == "cuda":
        plan = plan_memory(recipe, shape, gpu_bytes)
    else:
        plan = MemoryPlan(gpus=(), host_bytes=0, activation_checkpointing=False, offload_optimizer=False)
    plan = replace(plan, gpus=(*plan.gpus, *plan_rewards(recipe, gpu_bytes, reward_shapes or {})))
    plan.check()
    return plan


def gpu_memory(recipe: Recipe) -> int:
    """Bytes of one GPU: as the recipe says, else as nvidia-smi does, of the smallest here; else an H100's."""
    if recipe.cluster.gpu_memory_bytes is not None:
        return recipe.cluster.gpu_memory_bytes
    return min(gpu_memory_bytes(), default=DEFAULT_GPU_BYTES)


def check_lengths(recipe: Recipe, shape: ModelShape, *, trained: bool = True) -> None:
    """Limits of the engines and the precision that the model, its KV cache or, where it is `trained`, the learner
    cannot hold.

    Raises:
        RecipeError: names the key, the limit and the fix.
    """
    rollout = recipe.rollout
    if shape.overflows and recipe.model.dtype == "float16":
        raise RecipeError(
            "model.dtype: the model's activations leave the range of float16, and its engine refuses it: bfloat16 or "
            "float32"
        )
    if trained:
        check_windows(recipe, shape)
        check_mixture(recipe, shape)
    if rollout.max_model_tokens > shape.max_positions:
        raise RecipeError(
            f"rollout.max_model_tokens: {rollout.max_model_tokens} is more than the model's "
            f"{shape.max_positions} positions: lower it"
        )
    needed = rollout.max_model_tokens * shape.kv_bytes_per_token(recipe.model.dtype)
    if needed > rollout.kv_cache_bytes:
        raise RecipeError(
            f"rollout.kv_cache_bytes: {rollout.kv_cache_bytes} cannot hold one completion of "
            f"rollout.max_model_tokens = {rollout.max_model_tokens} tokens "
            f"({shape.kv_bytes_per_token(recipe.model.dtype)} bytes a token in {recipe.model.dtype}, "
            f"{DTYPE_BYTES[recipe.model.dtype]} bytes a value): give it at least {needed}"
        )


def check_windows(recipe: Recipe, shape: ModelShape) -> None:
    """Lengths at which the learner would compute other log-probabilities than the model's own, or its reference's.

    Raises:
        RecipeError: names the key, the limit and the fix.
    """
    tokens = recipe.rollout.max_model_tokens
    shapes, reference = {"model": shape}, recipe.learner.kl.reference
    if reference is not None and (Path(reference) / "config.json").is_file():
        shapes["reference"] = read_shape(Path(reference), trained=False)
    for whose, each in shapes.items():
        limits = {
            "its sliding window, and the learner attends to all": each.sliding_window,
            "its short rotary embedding (longrope), and learner and engines change it at different lengths":
            each.short_rotary,
        }  # fmt: skip
        for what, limit in limits.items():
            if limit is not None and tokens > limit:
                raise RecipeError(
                    f"rollout.max_model_tokens: {tokens} is more than the {whose}'s {limit} tokens of {what}: lower it "
                    f"to {limit}, or choose another {whose}"
                )


def count_gpus() -> int:
    """NVIDIA GPUs of this machine, as nvidia-smi lists them; 0 where there is none."""
    return len(gpu_names())
