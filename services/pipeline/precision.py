"""What a pipeline's `dtype: auto` is: one for all stages, chosen when it begins and kept in its pipeline.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rayzero.services.pipeline.directory import PipelineDirectory
from rayzero.services.pipeline.loading import LoadedPipeline
from rayzero.services.run import precision
from rayzero.services.schema.config.model import AUTO

FORMER_DEFAULT = "bfloat16"
"""Of a pipeline.yaml that names no dtype: it was written before there was `auto`."""


def settled(
    loaded: LoadedPipeline,
    directory: PipelineDirectory | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LoadedPipeline:
    """The pipeline and the recipes of its stages with `auto` resolved; any other is left as it is.

    What the run in `directory` computes in, where there is one: it goes on as it began, on whatever machine. Else what
    each stage would choose, float32 where they differ.

    Raises:
        RecipeError: it depends on the cluster, and the cluster does not answer.
    """
    pipeline = loaded.pipeline
    if pipeline.dtype != AUTO:
        return loaded
    kept = None if directory is None else directory.content()
    if kept is not None:
        began = {"model": {"dtype": kept.get("dtype", FORMER_DEFAULT)}}
        recipes = {name: precision.settled(recipe, kept=began) for name, recipe in loaded.recipes.items()}
    else:
        recipes = {name: precision.settled(recipe) for name, recipe in loaded.recipes.items()}
    found = {recipe.model.dtype for recipe in recipes.values()}
    dtype: Any = found.pop() if len(found) == 1 else "float32"
    say(f"computes in {dtype}" + (", as the run began" if kept is not None else "") + " (dtype: auto)")
    return replace(
        loaded,
        content={**loaded.content, "dtype": dtype},
        graph=replace(loaded.graph, pipeline=pipeline.model_copy(update={"dtype": dtype})),
        recipes={name: precision.with_dtype(recipe, dtype) for name, recipe in recipes.items()},
    )
