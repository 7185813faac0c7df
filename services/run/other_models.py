"""Models that a recipe names beside the one that it trains: whether they are there, and fit, before anything starts."""

from __future__ import annotations

from pathlib import Path

from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.planning.models import check_model_directory
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import RewardModelComponent
from rayzero.services.schema.errors import RecipeError


def check_other_models(recipe: Recipe, shape: ModelShape) -> None:
    """`shape`: of the model that is trained. On a cluster only what is here is looked at: its nodes may have others.

    Raises:
        RecipeError: a directory is missing or broken, or has other tokens; names the key.
    """
    reference = recipe.learner.kl.reference
    if reference is not None and _is_to_be_here(reference, recipe):
        found = _shape("learner.kl.reference", reference)
        if found.vocab_size != shape.vocab_size:
            raise RecipeError(
                f"learner.kl.reference: {reference} has {found.vocab_size} tokens and the policy {shape.vocab_size}: "
                "name a reference with the policy's tokenizer"
            )
    for source, rubric in recipe.reward.rubrics.items():
        for name, component in rubric.items():
            if isinstance(component, RewardModelComponent) and _is_to_be_here(component.path, recipe):
                _shape(f"reward.rubrics.{source}.{name}.path", component.path)


def _is_to_be_here(path: str, recipe: Recipe) -> bool:
    return recipe.cluster.address is None or Path(path).is_dir()


def _shape(key: str, path: str) -> ModelShape:
    directory = Path(path)
    if not directory.is_dir():
        raise RecipeError(f"{key}: there is no directory {path}; name one in Hugging Face format")
    try:
        check_model_directory(directory)
        return read_shape(directory, trained=False)
    except RecipeError as error:
        raise RecipeError(f"{key}: {str(error).removeprefix('model.path: ')}") from None
