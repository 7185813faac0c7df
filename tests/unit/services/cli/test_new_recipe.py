from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayzero.services.cli.app import app
from rayzero.services.schema.errors import UsageError
from tests.published_rows import Row, rows_of


def written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def new(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["new", *arguments], catch_exceptions=True)
    if isinstance(result.exception, UsageError):
        return f"refused: {result.exception}"
    assert result.exit_code == 0, result.exception
    return result.output


@pytest.mark.parametrize("name", ["verl", "prime", "livecodebench", "open_instruct"])
def test_the_recipe_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "rows.jsonl", rows_of(name))
    assert "sums/recipe.yaml is written" in new("sums", "--data", "rows.jsonl")
    assert "learning_rate: 2.0e-05  # usual for 135 M parameters" in Path("sums/recipe.yaml").read_text()
    monkeypatch.chdir(tmp_path / "sums")  # the data are found from anywhere
    checked = CliRunner().invoke(app, ["check", "recipe.yaml", "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["held_out_prompts"] == 4


def test_a_prompt_longer_than_the_model_is_left_out(tmp_path: Path) -> None:
    long = [{"prompt": "x" * 90_000, "answer": "1"}]
    data = written(tmp_path / "rows.jsonl", [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(30)] + long)
    new(str(tmp_path / "long"), "--data", data)
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "long" / "recipe.yaml"), "--json"])
    assert checked.exit_code == 0, checked.output
    notes = json.loads(checked.stdout)["notes"]
    assert any("have more than 7680 tokens and are left out" in note for note in notes), notes


def test_rows_without_answers_are_for_a_reward_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "rows.jsonl", [{"question": f"Greet {name}.", "who": name} for name in "abcdefghij"])
    named = "tests.unit.rewards.functions:greets"
    assert "no column is known as the answer (columns there: question, who)" in new("own", "--data", "rows.jsonl")
    for wrong, said in (("tests.unit.rewards.functions:nothere", "nothere"), ("greets", "--reward greets: ")):
        assert said in new("own", "--data", "rows.jsonl", "--reward", wrong) and not Path("own").exists()
    assert "recipe.yaml is written" in new("own", "--data", "rows.jsonl", "--reward", named)
    recipe = yaml.safe_load(Path("own/recipe.yaml").read_text())
    assert recipe["data"]["train"][0]["columns"] == {"prompt": "question", "answer": None}
    assert recipe["reward"]["rubrics"]["default"] == {"accuracy": {"kind": "custom", "function": named}}
    checked = CliRunner().invoke(app, ["check", "own/recipe.yaml", "--json"])
    assert checked.exit_code == 0, checked.output
    told = "greets gives 1 to the prompt's own text, 0 to a short text, 0 to no text"
    assert any(told in note for note in json.loads(checked.stdout)["notes"])
    mapped = "data.train.0.columns={prompt: question, answer: who}"
    checked = CliRunner().invoke(app, ["check", "own/recipe.yaml", mapped], catch_exceptions=True)
    assert "missing 1 required positional argument: 'who'" in str(checked.exception)
    assert "a column that data.train[].columns maps comes as `prompts` or `answer`" in str(checked.exception)


def test_nothing_is_written_over_and_bad_rows_are_named(tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", [{"prompt": "1?", "answer": "1"}, {"prompt": "2?", "answer": None}])
    assert "rows.jsonl:2: column 'answer' is null" in new(str(tmp_path / "a"), "--data", data)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").touch()
    assert "is there already" in new(str(tmp_path / "b"), "--data", data)
    good = written(tmp_path / "rows.jsonl", rows_of("verl"))
    assert "name" in new(str(tmp_path / "no name"), "--data", good) and not (tmp_path / "no name").exists()
