"""`rayzero env check` of a recipe's environment, of any kind: planted faults of agents are found, honest ones are well.
`env play`: the model's turns are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.run import environment_play, environment_trial
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from tests.episode_models import pair_tokenizer
from tests.fakes import make_recipe

LIMITS = {"turns": 4, "start_s": 10, "step_s": 2}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tokenizer alone: nothing here computes."""
    pair_tokenizer().save_pretrained(tmp_path)
    for module in (environment_trial, environment_play):
        monkeypatch.setattr(module, "resolve_model", lambda path: Path(path))
    return tmp_path


def recipe(model: Path, environment: dict[str, Any] | None) -> Recipe:
    """With this environment, and a model whose tokenizer is there."""
    content = make_recipe().model_dump(mode="json", exclude_none=True)
    content |= {"model": {"path": str(model)}, "environment": environment}
    content["rollout"] |= {"max_model_tokens": 256, "sampling": {"max_tokens": 16}}
    return Recipe.model_validate(content)


def agent(model: Path, name: str) -> Recipe:
    """One of tests/agents.py."""
    return recipe(model, {"kind": "agent", "function": f"tests.agents:{name}", "limits": LIMITS})


def found(capsys: pytest.CaptureFixture[str], tried: Recipe, row: dict[str, Any], code: int) -> dict[str, str]:
    """What was found, by name; of what is not well, where something is not."""
    assert environment_trial.check_recipe(tried, {"prompt": "play: ", **row}, as_json=True) == code
    findings = json.loads(capsys.readouterr().out)["findings"]
    return {each["name"]: each["detail"] for each in findings if each["is_well"] == (code == 0)}


def test_an_honest_agent_is_well(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = found(capsys, agent(model, "honest"), {"worth": 0.5}, 0)
    assert details["an episode of made-up turns"] == "2 turns, ended as answered; reward 0.5"
    assert list(details) == [
        "found", "an episode of made-up turns", "the same for the same seed", "two at once", "longest episode",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row", "finding", "words"),
    [
        ("hostile", {"harm": "hang"}, "an episode of made-up turns", "it hangs: it neither asked"),
        ("hostile", {"harm": "exit"}, "an episode of made-up turns", "ended with status 3"),
        ("not_at_all", {}, "an episode of made-up turns", "without asking the model"),
        ("restless", {}, "the same for the same seed", "row['seed']"),
        ("no_such", {}, "found", "no_such"),
    ],
)
def test_planted_faults_are_found(
    model: Path, capsys: pytest.CaptureFixture[str], name: str, row: dict[str, Any], finding: str, words: str
) -> None:
    assert words in found(capsys, agent(model, name), row, 1)[finding]


def test_a_recipes_class_is_tried_as_any(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = recipe(model, {"factory": "tests.fakes_episodes:Echo", "tool_parser": "text"})
    assert "made and described" in found(capsys, tried, {}, 0)
    with pytest.raises(UsageError, match="no environment: there is nothing to check"):
        environment_trial.check_recipe(recipe(model, None), {}, as_json=True)


def test_the_models_turns_are_typed(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["12", "7"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    environment_play.play_recipe(agent(model, "honest"), {"prompt": "play: ", "worth": 0.25}, None, 8, 0)
    shown = capsys.readouterr().out
    assert "go on" in shown and "answered; reward 0.25" in shown
    with pytest.raises(UsageError, match="nothing to play"):
        environment_play.play_recipe(recipe(model, None), {}, None, 8, 0)
