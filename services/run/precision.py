"""What `model.dtype: auto` is: chosen once, before a run or a pipeline begins, and written into its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from rayzero.services.planning.machine import has_bfloat16
from rayzero.services.run.preflight import compute_device, gpus_there
from rayzero.services.schema.config.model import AUTO
from rayzero.services.schema.config.recipe import Recipe

Precision = Literal["bfloat16", "float16", "float32"]


def settled(
    recipe: Recipe,
    say: Callable[[str], None] = lambda text: None,
    kept: Mapping[str, Any] | None = None,
    num_gpus: int | None = None,
) -> Recipe:
    """The recipe with `auto` resolved, and said in a sentence; any other is left as it is.

    `kept`: the recipe of the run that goes on, which stays as it began, on whatever machine. `num_gpus`: of the machine
    that it is for, where that is not this one.

    Raises:
        RecipeError: it depends on the cluster, and the cluster does not answer.
    """
    if recipe.model.dtype != AUTO:
        return recipe
    began = (kept or {}).get("model", {}).get("dtype")
    if began in get_args(Precision):
        say(f"computes in {began}, as the run began (model.dtype: auto)")
        return with_dtype(recipe, began)
    dtype, why = choice(recipe, gpus_there(recipe) if num_gpus is None else num_gpus)
    say(f"computes in {dtype}: {why} (model.dtype: auto)")
    return with_dtype(recipe, dtype)


def choice(recipe: Recipe, num_gpus: int) -> tuple[Precision, str]:
    """What `auto` is where there are so many GPUs, and why."""
    if compute_device(recipe, num_gpus) == "cuda":
        return "bfloat16", "on GPUs"
    whose = "this machine's CPU" if recipe.cluster.address is None else "this machine's CPU, as the cluster's may,"
    if has_bfloat16():
        return "bfloat16", f"{whose} has instructions for it"
    return "float32", f"{whose} has no instructions for bfloat16"


def with_dtype(recipe: Recipe, dtype: Precision) -> Recipe:
    """The recipe, computing in `dtype`."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})})
