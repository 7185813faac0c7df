"""A stage's own recipe: the pipeline's `recipe`, the stage's laid over it, and what its kind says by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.pipeline import (
    REFERENCE,
    DistillStage,
    EvalStage,
    OnPolicyDistillStage,
    Pipeline,
    RejectionSampleStage,
    RewardModelStage,
    SftStage,
    Stage,
)
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.section_classes import KeyPath
from rayzero.services.schema.errors import RecipeError

OWN_KEYS = {
    "name": "it is made of the pipeline's and the stage's",
    "seed": "give the pipeline's `seed`",
    "description": "give the stage's `description`",
    "model": "give the stage's `model` and the pipeline's `dtype`",
    "cold_start": "add a stage of kind sft before this one",
}
READ_BY_SUPERVISED = (
    "rollout.prompt_template", "rollout.max_model_tokens", "rollout.device", "rollout.tensor_parallel_size",
    "rollout.sampling.max_tokens", "learner.lora", "learner.compute", "deadlines", "cluster",
)  # fmt: skip
READ_BY_REWARD_MODEL = ("rollout.device", "rollout.tensor_parallel_size", "deadlines", "cluster")
INSTEAD = {
    "training": "give the stage's own keys, such as `num_updates`",
    "data": "give the stage's own `data` or `pairs`",
    "checkpoint": "give the stage's `checkpoint_every_updates`",
    "learner.optimizer": "give the stage's `optimizer` or `learning_rate`",
}
NO_TRAINING = {"num_updates": 1, "groups_per_update": 1, "group_size": 2}
NO_REWARD = {"rubrics": {"default": {"accuracy": {"kind": "math"}}}}

S = TypeVar("S", bound=Section)


def stage_recipe(pipeline: Pipeline, name: str, origins: Mapping[KeyPath, str], default_origin: str) -> Recipe:
    """The recipe of one stage; `stage:NAME` stands in it wherever another stage's artefact will be.

    Raises:
        RecipeError: every problem, with its stage, its key, its file and line, and a fix.
    """
    stage = pipeline.stages[name]
    for place, keys in ((("recipe",), pipeline.recipe), (("stages", name, "recipe"), stage.recipe)):
        for key in OWN_KEYS.keys() & keys.keys():
            where = origins.get((*place, key), default_origin)
            raise RecipeError(f"{where}: {'.'.join(place)}.{key}: not here: {OWN_KEYS[key]}")
    if isinstance(stage, SftStage | DistillStage | RewardModelStage):
        _refuse_unread(stage, name, origins, default_origin)
    try:
        return validate_recipe(recipe_content(pipeline, name), _origins(name, origins), default_origin)
    except RecipeError as error:
        raise RecipeError("\n".join(f"stage {name}: {line}" for line in str(error).splitlines())) from None


def recipe_content(pipeline: Pipeline, name: str) -> dict[str, Any]:
    """The same as plain data, not validated yet."""
    stage = pipeline.stages[name]
    content = merged(pipeline.recipe, stage.recipe)
    content |= {
        "name": f"{pipeline.name}.{name}"[:63],
        "description": stage.description,
        "seed": pipeline.seed,
        "model": {"path": _model_of(stage), "dtype": pipeline.dtype},
    }
    if isinstance(stage, SftStage | DistillStage | RewardModelStage):
        return _supervised(stage, content)
    if isinstance(stage, OnPolicyDistillStage):
        kl = {"beta": 1.0, "estimator": "k2", **content.get("learner", {}).get("kl", {}), "reference": stage.teacher}
        content["learner"] = {**content.get("learner", {}), "advantage": "none", "kl": kl}
    if isinstance(stage, EvalStage | RejectionSampleStage):
        content["training"] = {**NO_TRAINING, **content.get("training", {})}
    return content


def resolved(section: S, artefacts: Mapping[str, Path]) -> S:
    """A section in which every `stage:NAME` has become the path of what that stage wrote."""

    def replace(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(REFERENCE):
            return str(artefacts[value.removeprefix(REFERENCE)])
        if isinstance(value, Mapping):
            return {key: replace(inner) for key, inner in value.items()}
        return [replace(inner) for inner in value] if isinstance(value, list | tuple) else value

    return type(section).model_validate(replace(section.model_dump(mode="json")))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, null removes a key, anything else replaces. A mapping with another `kind` or
    `name` is another thing, and replaces too."""
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(known, Mapping) and _is_same_variant(known, value):
            result[key] = merged(known, value)
        else:
            result[key] = value
    return result


def _is_same_variant(known: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return all(known.get(tag) in (value.get(tag), None) or tag not in value for tag in ("kind", "name"))


def _refuse_unread(
    stage: SftStage | DistillStage | RewardModelStage, name: str, origins: Mapping[KeyPath, str], default_origin: str
) -> None:
    """What the pipeline shares need not be for every stage; what is written for this one shall do something."""
    read = READ_BY_REWARD_MODEL if isinstance(stage, RewardModelStage) else READ_BY_SUPERVISED
    for path in _leaves(stage.recipe):
        key = ".".join(path)
        if any(f"{key}.".startswith(f"{each}.") for each in read):
            continue
        fix = next((text for each, text in INSTEAD.items() if f"{key}.".startswith(f"{each}.")), "leave it out")
        where = origins.get(("stages", name, "recipe", *path), default_origin)
        raise RecipeError(f"{where}: stages.{name}.recipe.{key}: no stage of kind {stage.kind} reads it: {fix}")


def _leaves(content: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        elif value is not None:  # null takes away what the pipeline shares
            yield (*path, key)


def _supervised(stage: SftStage | DistillStage | RewardModelStage, content: Mapping[str, Any]) -> dict[str, Any]:
    """Sections that these stages read; what the pipeline shares about prompts and rewards is not for them."""
    read = ("name", "description", "seed", "model", "rollout", "learner", "checkpoint", "deadlines", "cluster")
    kept: dict[str, Any] = {key: content[key] for key in read if key in content}
    # A KL term would load a reference that no supervised step reads.
    learner = {key: value for key, value in kept.get("learner", {}).items() if key in ("lora", "compute")}
    kept |= {"training": {**NO_TRAINING, "num_updates": stage.num_updates}, "reward": NO_REWARD}
    if isinstance(stage, RewardModelStage):
        sources = [stage.pairs.model_dump(mode="json")]
        kept["learner"] = {}
    else:
        sources = [source.model_dump(mode="json") for source in stage.data]
        kept["learner"] = {**learner, "optimizer": stage.optimizer.model_dump(mode="json")}
    return {**kept, "data": {"train": [{**source, "name": "default"} for source in sources]}}


def _model_of(stage: Stage) -> str:
    return stage.models[0] if isinstance(stage, EvalStage) else stage.model


def _origins(name: str, origins: Mapping[KeyPath, str]) -> dict[KeyPath, str]:
    """Where each key of the stage's recipe was written: in the pipeline's, or in the stage's own."""
    found: dict[KeyPath, str] = {}
    for place in (("recipe",), ("stages", name, "recipe"), ("stages", name)):
        depth = len(place)
        own = {key[depth:]: where for key, where in origins.items() if key[:depth] == place and len(key) > depth}
        found |= {key: where for key, where in own.items() if key[0] != "recipe"}
    return found
