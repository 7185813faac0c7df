"""A reference or a reward model that is not there, or has other tokens, is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.run.other_models import check_other_models
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from tests.fakes import make_recipe
from tests.small_recipe import write_model


def recipe(reference: Path | None = None, reward_model: Path | None = None, address: str | None = None) -> Recipe:
    content: dict[str, Any] = make_recipe().model_dump(mode="json")
    content["cluster"]["address"] = address
    if reference is not None:
        content["learner"]["kl"] = {"beta": 0.1, "reference": str(reference)}
    if reward_model is not None:
        content["reward"]["rubrics"]["default"]["judge"] = {"kind": "reward_model", "path": str(reward_model)}
    return validate_recipe(content, {}, default_origin="x.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shape(model: Path) -> ModelShape:
    return read_shape(model)


def test_what_is_there_and_fits_passes(model: Path, shape: ModelShape, tmp_path: Path) -> None:
    check_other_models(recipe(), shape)
    check_other_models(recipe(reference=model, reward_model=model), shape)
    check_other_models(recipe(reference=tmp_path / "on the nodes", address="10.0.0.1:6379"), shape)


def test_what_is_missing_or_broken_is_named(shape: ModelShape, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"learner\.kl\.reference: there is no directory .*none"):
        check_other_models(recipe(reference=tmp_path / "none"), shape)
    with pytest.raises(RecipeError, match=r"reward\.rubrics\.default\.judge\.path: there is no directory .*none"):
        check_other_models(recipe(reward_model=tmp_path / "none"), shape)
    with pytest.raises(RecipeError, match=r"^learner\.kl\.reference: .* has no config\.json"):
        check_other_models(recipe(reference=tmp_path), shape)


def test_other_tokens_are_no_reference(model: Path, shape: ModelShape, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    with pytest.raises(RecipeError, match=r"learner\.kl\.reference: .* has 7 tokens and the policy \d+"):
        check_other_models(recipe(reference=tmp_path), shape)
