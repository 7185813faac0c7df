from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from rayzero.rewards.code.spec import parse
from rayzero.rewards.kinds.instructions import instructions_of
from rayzero.services.data.formats.problem import RowFault
from rayzero.services.data.formats.registry import FORMATS, recognized
from rayzero.services.data.prompts import load_prompts
from rayzero.services.schema.config.data import DataSettings, FormatName
from tests.published_rows import ROWS, acecode_v2, rows_of

PARQUET = ("verl", "prime", "dapo", "open_r1", "open_instruct")
SINGLE = {"verl": "math", "dapo": "math"}
WRONG: tuple[Any, ...] = (None, 7, [], {}, "", "{broken")


def written(path: Path, name: str) -> dict[str, Any]:
    rows = rows_of(name)
    if name in PARQUET:
        parquet.write_table(pa.Table.from_pylist(rows), path / "rows.parquet", row_group_size=7)
        return {"kind": "parquet", "path": str(path / "rows.parquet"), "format": name}
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(path / "rows.jsonl"), "format": name}


def data(source: dict[str, Any]) -> DataSettings:
    """Four of its prompts are held out: a tenth of so few is less than an evaluation asks for."""
    return DataSettings.model_validate({"train": [source], "num_held_out": 4})


def test_the_names_are_those_of_the_recipe() -> None:
    assert set(FORMATS) == set(typing.get_args(FormatName)) == set(ROWS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognized_by_its_columns(name: str) -> None:
    found = recognized(rows_of(name))
    assert found is not None and found.name == name
    assert recognized([{"prompt": "2+2?", "answer": "4"}]) is None


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_becomes_a_prompt_that_its_reward_can_judge(tmp_path: Path, name: str) -> None:
    train, held_out = load_prompts(data(written(tmp_path, name)), num_held_out=4)
    prompts = [*train, *held_out]
    assert len(prompts) == 24
    for prompt in prompts:
        assert prompt.messages[-1].role == "user" and len(prompt.messages[-1].content) > 8
        if prompt.source == "code":
            assert len(parse(prompt.answer).tests) >= 1
        elif prompt.source == "instructions":
            assert instructions_of(prompt.answer) == [
                ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"})
            ]
        else:
            assert prompt.source == "math" and prompt.answer
    tasks = {prompt.source for prompt in prompts}
    mixed = {"prime": {"math", "code"}, "open_instruct": {"math", "code", "instructions"}}
    assert tasks == mixed.get(name, {SINGLE.get(name, "code")})


@pytest.mark.parametrize("name", FORMATS)
def test_heavy_columns_do_not_travel_with_the_prompt(tmp_path: Path, name: str) -> None:
    train, _ = load_prompts(data(written(tmp_path, name)), num_held_out=4)
    assert not {column for prompt in train for column in prompt.columns} & FORMATS[name].reads


@pytest.mark.parametrize("name", FORMATS)
def test_no_row_of_wrong_types_gets_through_or_raises_anything_else(name: str) -> None:
    """Each column in turn is missing, null, a number, empty, or text that is no JSON."""
    for column in FORMATS[name].marks:
        top = column.partition(".")[0]
        for wrong in WRONG:
            row = {**ROWS[name](1), top: wrong}
            if name == "verl" and wrong == "{broken":
                continue
            try:
                problem = FORMATS[name].read(row)
            except RowFault as fault:
                assert fault.kind and str(fault)
            else:
                assert problem.answer not in (None, "", [], {})
        row = {key: value for key, value in ROWS[name](1).items() if key != top}
        if top in FORMATS[name].reads and (name, top) not in {("kodcode", "solution"), ("apps", "solutions"),
                ("taco", "solutions"), ("leetcode_dataset", "completion"), ("leetcode_dataset", "query"),
                ("acecoder", "inferences"), ("mbpp", "code"), ("code_contests", "private_tests")}:  # fmt: skip
            with pytest.raises(RowFault, match="missing"):
                FORMATS[name].read(row)


def test_the_second_release_of_acecode_is_read_as_the_first(tmp_path: Path) -> None:
    rows = [acecode_v2(n) for n in range(1, 25)]
    found = recognized(rows)
    assert found is FORMATS["acecoder"]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    source = {"kind": "parquet", "path": str(tmp_path / "rows.parquet"), "format": "acecoder"}
    prompts = [prompt for part in load_prompts(data(source), num_held_out=4) for prompt in part]
    assert len(prompts) == 24 and {prompt.source for prompt in prompts} == {"code"}
    assert all(len(parse(prompt.answer).tests) == 4 and "tests" not in prompt.columns for prompt in prompts)
    for wrong, kind in (({}, "missing"), ({"tests": []}, "is empty"), ({"tests": ["", 7]}, "must be text")):
        row = {key: value for key, value in rows[0].items() if key != "tests"} | wrong
        with pytest.raises(RowFault, match=kind):
            FORMATS["acecoder"].read(row)


def test_what_mbpp_sets_up_is_a_part_of_each_test() -> None:
    """`root = Node(1)` names a class of the program, which a prelude cannot."""
    row = ROWS["mbpp"](3) | {"test_setup_code": "root = Node(1)", "test_imports": ["import math"]}
    spec = FORMATS["mbpp"].read(row).answer
    assert spec["prelude"] == "import math"
    assert spec["tests"] == [f"root = Node(1)\n{test}" for test in row["test_list"]]
