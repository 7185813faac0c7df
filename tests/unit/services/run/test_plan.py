"""`rayzero check`: mistakes, each ended with one sentence and its remedy; and a machine where nothing is installed."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayzero.services.cli.options import DEMO
from rayzero.services.run import plan
from rayzero.services.run.plan import check
from rayzero.services.schema.config import rollout
from rayzero.services.schema.errors import RecipeError
from tests.models import character_tokenizer

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}Q: "
ROWS = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(12)]
REWARDS = """
def fine(completions, **_):
    return [1.0] * len(completions)
def one(completions, **_):
    return [1.0]
"""
SOURCE = """
import decimal
def rows(bad=False):
    for number in range(12):
        yield {"prompt": f"{number}+2=", "answer": decimal.Decimal(number) if bad else str(number)}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory as far as it is looked at before anything loads it."""
    directory = tmp_path_factory.mktemp("model")
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(directory)
    config = {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": len(tokenizer), "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "tie_word_embeddings": True,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return directory


@pytest.fixture
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, data, a recipe, and a user's own modules under names that rayzero has, too."""
    monkeypatch.chdir(tmp_path)
    for file in model.iterdir():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "held.jsonl").write_text(json.dumps({"prompt": "9-1=", "answer": "8"}) + "\n")
    (tmp_path / "rewards.py").write_text("")
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "my_source.py").write_text(SOURCE)
    recipe = {
        "name": "mini",
        "model": {"path": "model", "dtype": "float32"},
        "data": {
            "train": [{"kind": "jsonl", "path": "train.jsonl"}],
            "held_out": [{"kind": "jsonl", "path": "held.jsonl"}],
        },
        "rollout": {"max_model_tokens": 64, "sampling": {"max_tokens": 8}, "kv_cache_bytes": 2**26, "device": "cpu"},
        "reward": {"rubrics": {"default": {"r": {"kind": "custom", "function": "my_rewards:fine"}}}},
        "training": {"num_updates": 2, "groups_per_update": 2, "group_size": 2},
        "evaluation": {"num_prompts": 1},
    }
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def set_in(file: str, **values: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file of the model."""

    def change(place: Path) -> None:
        path = place / "model" / file
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **values}))

    return change


def without_system_role(place: Path) -> None:
    for file in ("chat_template.jinja",):
        (place / "model" / file).write_text(NO_SYSTEM)


def append(name: str, line: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        with (place / name).open("a") as file:
            file.write(line + "\n")

    return change


def nothing(place: Path) -> None:
    """The override is the mistake."""


FROM_FUNCTION = "data.train=[{kind: function, function: 'my_source:rows', arguments: {bad: true}}]"


@pytest.mark.parametrize(
    ("change", "override", "sentence"),
    [
        (nothing, FROM_FUNCTION, r"row 1: column 'answer' holds a Decimal, which JSON cannot: .* give it as text"),
        (append("train.jsonl", '{"prompt": "x", "answer": ["1", NaN]}'), "", r"train.jsonl:13: .*(nan|NaN)"),
        (append("held.jsonl", json.dumps({"prompt": "1" * 90, "answer": "1"})), "evaluation.num_prompts=2",
         r"data.held_out: prompt held_out/2 has 1\d\d tokens, and rollout.max_model_tokens is 64: raise it, drop"),
        (append("train.jsonl", '{"prompt": "x", "answer": "1", "ds": "gsm8k"}'),
         "reward.rubrics={math: {r: {kind: custom, function: 'my_rewards:fine'}}}",
         r"source 'default' has no rubric"),
        (lambda place: (place / "train.jsonl").write_text('{"prompt": "x", "answer": "1", "ds": "gsm8k"}\n'),
         "source", r"train.jsonl:1: no rubric for source 'gsm8k': add it, or `default`"),
        (without_system_role, "data.train.0.system_prompt=Be brief.",
         r"data.train.0: prompt train/1 \(roles: system, user\): .* refuses it: System role not supported"),
        (without_system_role, "data.held_out.0.system_prompt=Be brief.", r"data.held_out: prompt held_out/1 \(roles"),
        (nothing, "reward.rubrics.default.r.function=my_rewards:one",
         r"reward.rubrics.default.r: .* one number or None for each of the 2 completions; it returned 1 of"),
        (set_in("config.json", vocab_size=90), "", r"has \d+ tokens, and the model's embedding 90 .*resize_token"),
        (set_in("generation_config.json", do_sample=False, temperature=0.6, top_p=0.9), "",
         r"generation_config.json sets temperature, top_p without do_sample: true, .* add do_sample: true"),
        (set_in("generation_config.json", num_return_sequences=4), "", r"sets num_return_sequences 4 .* remove it"),
        (append("train.jsonl", '{"prompt": "x", "answer"'), "", r"train.jsonl:13: not valid JSON"),
        (nothing, "reward.rubrics.default.r.function=nomodule:f", r"reward.rubrics.default.r: .*No module named"),
        (nothing, "reward.rubrics.default.r.function=my_rewards:f", r"default.r: .*has no attribute 'f'"),
        (lambda place: (place / "train.jsonl").write_text(json.dumps({"prompt": "1" * 99, "answer": "1"}) + "\n"), "",
         r"data.train.0: all of 1 prompts that were looked at are too long: prompt train/1 has 1\d\d tokens"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_sentence(
    place: Path, change: Callable[[Path], Any], override: str, sentence: str
) -> None:
    change(place)
    overrides = [override] if "=" in override else []
    if override == "source":
        overrides = [
            "data.train.0={kind: jsonl, path: train.jsonl, name: math, columns: {source: ds}}",
            "data.held_out.0.name=math",
            "reward.rubrics={math: {r: {kind: custom, function: 'my_rewards:fine'}}}",
        ]
    started = time.process_time()
    with pytest.raises(RecipeError, match=sentence):
        check(Path("mini.yaml"), overrides, as_json=True)
    assert time.process_time() - started < 5.0


def test_a_recipe_without_one_passes_beside_a_file_rewards_py(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append("train.jsonl", json.dumps({"prompt": "1" * 99, "answer": "1"}))(place)
    check(Path("mini.yaml"), [], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["train_prompts"] == 13
    assert any("data.train.0: 1 of 13 prompts are too long and will be dropped" in note for note in shown["notes"])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no engine and no GPU."""

    def find_spec(name: str, *_: Any) -> None:
        return None

    def distribution(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(rollout, "distribution", distribution)
    monkeypatch.setattr(plan, "count_gpus", lambda: 0)


@pytest.mark.usefixtures("bare")
def test_the_demo_is_planned_for_cpus_where_no_engine_says_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    plan.check(DEMO, [], as_json=True)
    assert json.loads(capsys.readouterr().out)["memory"] is None


@pytest.mark.usefixtures("bare")
def test_gpus_that_are_named_are_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    plan.check(DEMO, ["cluster.gpu_memory_bytes=85899345920"], as_json=True, gpus=2)
    assert json.loads(capsys.readouterr().out)["memory"] is not None
