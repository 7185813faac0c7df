"""Longer prompts: measured once a model, and a model that cannot be measured is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import CLAIMS, Claim
from benchmarks.longer_prompts import longer_figures
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.store.run_directory import write_json

RECIPES = Path(__file__).resolve().parents[3] / "deploy/recipes"


def test_what_was_measured_once_is_read_again(tmp_path: Path) -> None:
    before = {"accuracy": 0.25, "greedy_accuracy": 0.5, "completion_tokens_mean": 10.0, "num_prompts": 128}
    run = tmp_path / "seed-1"
    run.mkdir()
    write_json(tmp_path / "longer.json", before)  # every seed begins with this model
    write_json(run / "longer.json", {"accuracy": 0.75})
    assert longer_figures(run, RECIPES / "demo.yaml", ()) == {
        "before longer accuracy": 0.25, "before longer greedy": 0.5, "before longer length": 10.0,
        "after longer accuracy": 0.75,
    }  # fmt: skip


def test_a_model_that_cannot_be_measured_is_an_error_and_leaves_no_figures(tmp_path: Path) -> None:
    with pytest.raises(RayzeroError, match="ended with exit code 2: its reason is above"):
        longer_figures(tmp_path, RECIPES / "demo.yaml", ["evaluation.num_prompts=0"])
    assert not (tmp_path / "longer.json").exists()


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS.values() if claim.longer])
def test_longer_prompts_are_longer_than_those_of_the_recipe(claim: Claim) -> None:
    trained = load_recipe(RECIPES / claim.recipe)
    longer = load_recipe(RECIPES / claim.recipe, claim.longer)
    assert longer.data.train == trained.data.train
    (source,), (asked,) = trained.data.train, longer.data.held_out
    assert asked.arguments["min_number"] > source.arguments["max_number"]  # type: ignore[union-attr]
