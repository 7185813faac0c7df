"""What a recipe must not ask of a mixture of experts: what learner or engines compute for dense models alone."""

from __future__ import annotations

from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError


def check_mixture(recipe: Recipe, shape: ModelShape) -> None:
    """Refuse what is not computed for experts. Dense models pass.

    Raises:
        RecipeError: names the key, why, and the fix.
    """
    if recipe.learner.routing_replay:
        _check_replay(recipe, shape)
    if not shape.num_experts:
        return
    what = f"the model is a mixture of {shape.num_experts} experts"
    if recipe.learner.lora is not None:
        raise RecipeError(f"learner.lora: {what}, and adapters are made for dense models: leave it out")
    if recipe.rollout.quantization is not None:
        raise RecipeError(
            f"rollout.quantization: {what}, whose quantized weights have not been held against the learner's: leave it "
            "out"
        )


def _check_replay(recipe: Recipe, shape: ModelShape) -> None:
    key = "learner.routing_replay"
    if not shape.num_experts:
        raise RecipeError(f"{key}: the model is no mixture of experts, there is no routing to replay: leave it out")
    if recipe.learner.compute.compile:
        raise RecipeError(f"{key}: a compiled layer does not take what is replayed: leave learner.compute.compile out")
    if recipe.rollout.engine_device == "cuda" and not recipe.rollout.prefix_caching:
        raise RecipeError(
            f"{key}: vLLM records routing beside its prefix cache alone: set rollout.prefix_caching: true"
        )
