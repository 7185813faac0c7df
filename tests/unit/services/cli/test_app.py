"""The command line: quick help, refusals with exit code 2, and nothing heavy imported before it is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayzero.services.cli.app import app, hush_packages, main
from rayzero.services.schema.errors import UsageError

RECIPE = """\
name: small
model: {{path: {model}}}
data:
  train:
    - {{kind: jsonl, path: {prompts}}}
rollout: {{max_model_tokens: 128, sampling: {{max_tokens: 64}}}}
reward: {{rubrics: {{default: {{accuracy: {{kind: math}}}}}}}}
training: {{num_updates: 2, groups_per_update: 2, group_size: 2}}
evaluation: {{num_prompts: 2}}
"""


def check(
    folder: Path, *overrides: str, model: str = "tiny-addition", lines: int = 20, broken: int | None = None
) -> str:
    """What `rayzero check` refuses a recipe with."""
    prompts = folder / "prompts.jsonl"
    rows = [f'{{"prompt": "{index}+1=", "answer": "{index + 1}"}}' for index in range(lines)]
    if broken is not None:
        rows[broken - 1] = '{"prompt": "oops"'
    if lines:
        prompts.write_text("\n".join(rows) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model, prompts=prompts))
    result = CliRunner().invoke(app, ["check", str(recipe), *overrides])
    if result.exception is None:
        return result.output
    assert isinstance(result.exception, UsageError), result.exception
    return str(result.exception)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from rayzero.services.cli.app import app; "
        "result = CliRunner().invoke(app, ['--help']); assert 'train' in result.output; "
        "print([name for name in ('torch', 'ray', 'vllm', 'transformers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_good_recipe_prints_its_plan(tmp_path: Path) -> None:
    output = check(tmp_path)
    for part in ("learner", "rollout worker", "reward worker", "2 × 2 = 4 samples", "weights broadcast"):
        assert part in output


def test_a_missing_prompts_file_is_named(tmp_path: Path) -> None:
    assert "prompts.jsonl" in check(tmp_path, lines=0)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    assert "prompts.jsonl:17" in check(tmp_path, broken=17)


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert "model.path" in check(tmp_path, model=str(model))


def test_more_gpus_than_there_are_is_refused(tmp_path: Path) -> None:
    message = check(tmp_path, "rollout.device=cuda", "rollout.num_workers=63")
    assert "asks for 64 GPUs" in message and "rollout.num_workers" in message


@pytest.mark.parametrize("arguments", [["train", "nowhere.yaml"], ["check", "nowhere.yaml"]])
def test_errors_are_one_message_and_exit_code_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "rayzero", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere.yaml cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_description_may_hold_anything_and_the_terminal_may_know_ascii_alone(tmp_path: Path) -> None:
    check(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text() + 'description: "[/foo] [red \\e]0;owned\\a \\u202e é"\n')
    command = [sys.executable, "-m", "rayzero", "check", str(recipe)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "POSIX"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert rb"[/foo] [red \x1b]0;owned \u202e \xe9" in done.stdout and b"\x1b" not in done.stdout


def test_half_a_character_in_a_recipe_is_named_with_its_line(tmp_path: Path) -> None:
    check(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text() + 'description: "\\ud83d"\n')
    result = CliRunner().invoke(app, ["check", str(recipe)])
    assert re.search(r"recipe\.yaml:\d+: description: holds half a character", str(result.exception))


def test_half_a_character_in_a_prompt_is_named_with_its_line(tmp_path: Path) -> None:
    check(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(prompts.read_text() + '{"prompt": "\\ud83d", "answer": "1"}\n')
    result = CliRunner().invoke(app, ["check", str(tmp_path / "recipe.yaml")])
    assert isinstance(result.exception, UsageError)
    assert "prompts.jsonl:21: '\\ud83d' is half a character" in str(result.exception)


def test_an_error_shows_what_a_terminal_would_obey(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise UsageError("\x1b]0;owned\x07 \ud800")

    monkeypatch.setattr("rayzero.services.cli.app.app", refuse)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert r"error: \x1b]0;owned\x07 \ud800" in capsys.readouterr().err


def test_a_full_disk_under_standard_output_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "rayzero", "recipe"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: standard output cannot be written: No space left on device" in done.stderr


def test_without_arguments_three_commands_that_exist_are_shown() -> None:
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 0
    named = re.findall(r"^  rayzero (\w+)", shown.output, re.MULTILINE)
    assert named == ["new", "check", "train"]
    assert all(CliRunner().invoke(app, [name, "--help"]).exit_code == 0 for name in named)


def test_packages_that_are_compiled_for_the_first_time_alarm_no_one(tmp_path: Path) -> None:
    spoken = {}
    for folder in ("site-packages", "mine"):
        file = tmp_path / folder / "module.py"
        file.parent.mkdir()
        file.write_text("def f(x):\n    return x is 'literal'\n")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            hush_packages()
            compile(file.read_text(), str(file), "exec")
        spoken[folder] = [str(each.message) for each in found]
    assert spoken["site-packages"] == [] and "literal" in spoken["mine"][0]
