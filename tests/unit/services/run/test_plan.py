"""`rayzero check`: mistakes, each ended with one sentence and its remedy; and a machine where nothing is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.cli.options import DEMO
from rayzero.services.run import plan
from rayzero.services.run.plan import check
from rayzero.services.schema.config import rollout
from rayzero.services.schema.errors import RecipeError
from tests.small_recipe import NO_SYSTEM, write_model, write_place


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return write_place(tmp_path, model)


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


MISTAKES: list[tuple[Callable[[Path], Any], str, str]] = [
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
     r"data.train.0: prompt train/1 \(roles: system, user\): .* refuses it: System role not supported; put"),
    (without_system_role, "data.held_out.0.system_prompt=Be brief.", r"data.held_out: prompt held_out/1 \(roles"),
    (nothing, "reward.rubrics.default.r.function=my_rewards:one",
     r"reward.rubrics.default.r: .* one number or None for each of the 3 completions; it returned 1 of"),
    (set_in("config.json", vocab_size=90), "", r"has \d+ tokens, and the model's embedding 90 .*resize_token"),
    (set_in("generation_config.json", do_sample=False, temperature=0.6, top_p=0.9), "",
     r"generation_config.json sets temperature, top_p without do_sample: true, .* add do_sample: true"),
    (set_in("generation_config.json", num_return_sequences=4), "", r"sets num_return_sequences 4 .* remove it"),
    (append("train.jsonl", '{"prompt": "x", "answer"'), "", r"train.jsonl:13: not valid JSON"),
    (nothing, "reward.rubrics.default.r.function=nomodule:f",
     r"reward.rubrics.default.r.function: nomodule:f cannot be used: .*No module .*its name"),
    (nothing, "reward.rubrics.default.r.function=my_rewards:f", r"default.r.function: .*has no attribute 'f'"),
    (lambda place: (place / "train.jsonl").write_text(json.dumps({"prompt": "1" * 99, "answer": "1"}) + "\n"), "",
     r"data.train.0: all of 1 prompts that were looked at are too long: prompt train/1 has 1\d\d tokens"),
    (lambda place: (place / "t.csv").write_text('prompt,answer\n1+1=,2\n"2+2=,4\n'),
     "data.train=[{kind: csv, path: t.csv}]",
     r"t.csv:3: no CSV: a quoted field is never closed: close it"),
    (lambda place: (place / "t.csv").write_text("prompt,answer\n1+1=,2,2\n"), "data.train=[{kind: csv, path: t.csv}]",
     r"t.csv:2: 3 fields under 2 column names: quote a field"),
    (nothing, "data.train=[{kind: function, function: 'nomodule:rows'}]",
     r"module nomodule cannot be imported: .*: check its name; modules are looked for in "),
    (append("train.jsonl", '{"prompt": "<image>How many?", "answer": "2", "images": ["a.png"]}'), "",
     r"data.train.0: prompt train/13 has a column 'images': text alone is trained on"),
    (nothing, "data.train=&a [*a]", r"override 'data.train=&a \[\*a\]': nested without end"),
    (nothing, "data.train.0.path=/dev/zero", r"prompts file /dev/zero is no regular file: write what it gives into"),
    (nothing, "data.train.0.path=*none.jsonl", r"prompts pattern \*none.jsonl: no file has such a name"),
    (nothing, "training.num_updates=5e2", r"training.num_updates: 5e2 is text in YAML: write 500"),
    (nothing, "data.train.0.weight=0", r"^override 'data.train.0.weight=0': [^\n]* greater than 0 \(got 0\)$"),
    (nothing, "observe.on_end={command: notify.sh}", r"observe.on_end.command: must be a list, such as \[a, b\]"),
    (nothing, "learner.loss={name: custom, function: 'nomodule:f'}", r"learner.loss.function: nomodule:f cannot be"),
    (nothing, "learner.kl={beta: 0.1, reference: nowhere}", r"learner.kl.reference: there is no directory nowhere"),
    (nothing, "reward.rubrics.default.r={kind: reward_model, path: ~/nowhere}",
     r"reward.rubrics.default.r.path: there is no directory /.*/nowhere"),
    (set_in("config.json", model_type="glm4", architectures=["Glm4ForCausalLM"]), "model.dtype=float16",
     r"model.dtype: the model's activations leave the range of float16, .*: bfloat16 or float32"),
    (nothing, "text and system", r"data.train.0: prompt train/1.*template text has no place for a system message"),
    (append("asking.py", "def asks(completions, gold, **_):\n    return [1.0]"),
     "reward.rubrics.default.r.function=asking:asks",
     r"default.r: TypeError: asks\(\) missing 1 required .*'gold'; a reward is called by name, .*train/1: none"),
    (nothing, "reward.rubrics.default.r={kind: code}",
     r"reward.rubrics.default.r: train/1: the answer must be .language, tests., or tests, not str; .*all of 1"),
    (append("leaves.py", "raise SystemExit(3)"), "data.train=[{kind: function, function: 'leaves:rows'}]",
     r"leaves:rows: module leaves cannot be imported: SystemExit: 3"),
]  # fmt: skip


def overrides_of(override: str) -> list[str]:
    """What a mistake's recipe is changed by."""
    if override == "text and system":
        return ["rollout.prompt_template=text", "data.train.0.system_prompt=Be brief."]
    if override == "source":
        return [
            "data.train.0={kind: jsonl, path: train.jsonl, name: math, columns: {source: ds}}",
            "data.held_out.0.name=math",
            "reward.rubrics={math: {r: {kind: custom, function: 'my_rewards:fine'}}}",
        ]
    return [override] if override else []


@pytest.mark.parametrize(("change", "override", "sentence"), MISTAKES)
def test_a_mistake_ends_in_one_sentence(
    place: Path, change: Callable[[Path], Any], override: str, sentence: str
) -> None:
    change(place)
    overrides = overrides_of(override)
    started = time.process_time()
    with pytest.raises(RecipeError, match=sentence):
        check(Path("mini.yaml"), overrides, as_json=True)
    assert time.process_time() - started < 5.0


@pytest.mark.long
@pytest.mark.parametrize(("change", "override", "sentence"), MISTAKES)
def test_the_command_says_it_within_five_seconds(
    place: Path, change: Callable[[Path], Any], override: str, sentence: str
) -> None:
    change(place)
    command = [sys.executable, "-m", "rayzero", "check", "mini.yaml", *overrides_of(override)]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used_s = sum(os.times()[2:4]) - sum(before[2:4])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(sentence, done.stderr) and done.stderr.startswith("error: ")
    assert used_s < 5.0


@pytest.mark.usefixtures("place")
def test_a_reward_in_a_file_rewards_py_is_found() -> None:
    override = "reward.rubrics.default.r.function=rewards:fine"
    command = [sys.executable, "-m", "rayzero", "check", "mini.yaml", "--json", override]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train_prompts"] == 12


@pytest.mark.parametrize(
    "changes",
    [
        ["learner.lora={target_modules: all-linear}"],
        ["learner.lora={target_modules: q_proj}"],
        ["data.train.0.path=t*.jsonl"],
        ["data.train.0.path=*n.jsonl"],
    ],
)
@pytest.mark.usefixtures("place")
def test_what_others_write_is_understood(changes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check(Path("mini.yaml"), changes, as_json=True)
    assert json.loads(capsys.readouterr().out)["train_prompts"] == 12


def test_what_a_source_prints_is_not_what_the_check_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "print('on import')\ndef rows():\n    for n in range(12):\n        print('a row')\n"
    (place / "loud.py").write_text(source + "        yield {'prompt': f'{n}+2=', 'answer': str(n)}\n")
    check(Path("mini.yaml"), ["data.train=[{kind: function, function: 'loud:rows'}]"], as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["train_prompts"] == 12
    assert said.err.count("a row") >= 12 and "on import" in said.err


def test_a_model_without_an_end_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (place / "model" / name).is_file():
            set_in(name, eos_token=None)(place)
    check(Path("mini.yaml"), [], as_json=True)
    assert "no token that ends a text" in capsys.readouterr().out
    check(Path("mini.yaml"), ['rollout.sampling.stop=["="]'], as_json=True)
    assert "no token that ends a text" not in capsys.readouterr().out


def test_a_recipe_without_one_passes_beside_a_file_rewards_py(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append("train.jsonl", json.dumps({"prompt": "1" * 99, "answer": "1"}))(place)
    check(Path("mini.yaml"), [], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["train_prompts"] == 13
    assert any("data.train.0: 1 of 13 prompts are too long and will be dropped" in note for note in shown["notes"])
    assert [example["place"] for example in shown["examples"]] == ["train/1", "train/2", "train/3"]
    check(Path("mini.yaml"), [], as_json=False)
    first = shown["examples"][0]
    assert f"  {first['place']}: {first['prompt']}  →  {first['answer']}\n" in capsys.readouterr().out


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
