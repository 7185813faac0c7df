"""`rayzero data check` with each row's own solution: programs in the sandbox, answers by the math verifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rayzero.services.cli.app import app
from tests.published_rows import Row, rows_of

SOLUTIONS = {
    "verl": ("extra_info.answer", "So it is\n#### 1"),
    "open_r1": ("gold_standard_solution", "print(0)"),
    "apps": ("solutions", '["print(0)"]'),
    "taco": ("solutions", '["import numpy\\nprint(0)"]'),
    "code_contests": ("solutions", {"language": [3], "solution": ["print(0)"]}),
    "leetcode_dataset": ("completion", "class Solution:\n    def total(self, nums):\n        return 0"),
    "kodcode": ("solution", "def add_9(x):\n    return 0"),
    "acecoder": ("inferences", [{"pass_rate": 1.0, "completion": "def add_9(x): return 0"}]),
    "mbpp": ("code", "def add_9(x): return 0"),
}
"""By format: where the reference solution is, and one that is wrong."""


def checked(path: Path, rows: list[Row]) -> tuple[int, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(app, ["data", "check", str(path), "--json"])
    return result.exit_code, json.loads(result.output)


QUICK = ("verl", "open_r1", "leetcode_dataset", "kodcode")


FORMATS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SOLUTIONS]


@pytest.mark.parametrize("name", FORMATS)
def test_a_solution_that_fails_its_tests_is_found_among_those_that_pass(tmp_path: Path, name: str) -> None:
    rows = rows_of(name, 10)
    path, wrong = SOLUTIONS[name]
    head, _, rest = path.partition(".")
    rows[8][head] = {**rows[8][head], rest: wrong} if rest else wrong
    exit_code, report = checked(tmp_path / "rows.jsonl", rows)
    assert exit_code == 1
    assert list(report["faults"]) == ["reference fails"]
    assert report["faults"]["reference fails"]["first"] == [f"{tmp_path / 'rows.jsonl'}:9"]
    assert report["sample"] == {"with_solution": 10, "with_gold": 0, "correct": 9, "skipped": ""}
    assert report["packages"] == (["numpy"] if name == "taco" else [])


def test_gold_answers_are_graded_where_there_is_no_solution(tmp_path: Path) -> None:
    exit_code, report = checked(tmp_path / "rows.jsonl", rows_of("dapo", 10))
    assert exit_code == 0
    assert report["sample"] == {"with_solution": 0, "with_gold": 10, "correct": 10, "skipped": ""}
