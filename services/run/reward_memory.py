"""What reward models take of the GPUs that reward workers have, counted before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rayzero.services.fleet.gpu_bundles import reward_gpus, reward_workers_per_gpu
from rayzero.services.planning.memory_plan import CONTEXT_BYTES, GpuPlan
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import RewardModelComponent
from rayzero.services.schema.errors import RecipeError

BYTES = 4
"""rewards/kinds/reward_model.py: a classifier computes in fp32."""


def plan_rewards(recipe: Recipe, gpu_bytes: int, known: Mapping[str, ModelShape]) -> tuple[GpuPlan, ...]:
    """The GPUs of the reward workers, of `gpu_bytes` each; empty where they have none.

    `known`: shapes of models that are not on this machine, by their path. A model of which nothing is known, because it
    lies elsewhere or is of another family, is left out.
    """
    if not recipe.reward.num_gpus_per_worker:
        return ()
    models = _models(recipe)
    shapes = {model.path: shape for model in models if (shape := _shape(model, known)) is not None}
    counted = [(model, shapes[model.path]) for model in models if model.path in shapes]
    workers = reward_workers_per_gpu(recipe)
    parts = {
        "reward models": workers * sum(BYTES * _body(shape) for _, shape in counted),
        # Each on a thread of its own. Without gradient only what the layer at hand needs is alive.
        "activations": workers * sum(model.tokens_per_batch * _bytes_per_token(shape) for model, shape in counted),
        "CUDA": workers * CONTEXT_BYTES,
    }
    return (GpuPlan(role="reward worker", count=reward_gpus(recipe), parts=parts, capacity=gpu_bytes),)


def _models(recipe: Recipe) -> list[RewardModelComponent]:
    """As one worker loads them: rubrics that ask for the same share one."""
    found = {
        component.model_dump_json(exclude={"weight", "gate"}): component
        for rubric in recipe.reward.rubrics.values()
        for component in rubric.values()
        if isinstance(component, RewardModelComponent)
    }
    return list(found.values())


def _shape(model: RewardModelComponent, known: Mapping[str, ModelShape]) -> ModelShape | None:
    try:
        return known.get(model.path) or read_shape(Path(model.path), trained=False)
    except RecipeError:
        return None


def _body(shape: ModelShape) -> int:
    """Parameters without the head over the vocabulary, in whose place there is one row."""
    return shape.num_parameters - (0 if shape.tied_embeddings else shape.vocab_size * shape.hidden_size)


def _bytes_per_token(shape: ModelShape) -> int:
    """The residual and its norm, queries, keys, values and what attention makes of them; gate, up and their product."""
    return BYTES * (6 * shape.hidden_size + 3 * shape.intermediate_size)
