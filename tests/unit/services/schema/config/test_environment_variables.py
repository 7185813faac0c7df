"""Environment variables in recipes: replaced, refused where they are not set, and never where they hold a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.schema.config.test_loader import GOOD, write


def test_texts_hold_what_the_variables_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")
    monkeypatch.setenv("NUM_UPDATES", "7")
    text = GOOD.replace("prompts.jsonl", '"${DATA_ROOT}/train.jsonl"').replace(
        "num_updates: 5", "num_updates: ${NUM_UPDATES}"
    )
    recipe = load_recipe(
        write(tmp_path, text), ["description=at ${NOT_SET:-home}", "data.train.0.system_prompt=$${DATA_ROOT} $x {y}"]
    )
    source = recipe.data.train[0]
    assert source.model_dump()["path"] == "/data/train.jsonl" and recipe.training.num_updates == 7
    assert recipe.description == "at home" and source.system_prompt == "${DATA_ROOT} $x {y}"


def test_what_is_not_set_is_named_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("prompts.jsonl", "${NO_SUCH_ROOT}/train.jsonl")
    with pytest.raises(
        RecipeError, match=r"recipe\.yaml:\d+: data\.train\.0\.path: .* NO_SUCH_ROOT is not set: export"
    ):
        load_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "value"), [("OPENAI_API_KEY", "sk-1"), ("HF_TOKEN", "hf_1"), ("STORE", "https://me:pass@host/x")]
)
def test_a_secret_reaches_no_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=f"{name} looks like a secret") as refused:
        load_recipe(write(tmp_path), [f"description=${{{name}}}"])
    assert value not in str(refused.value)
