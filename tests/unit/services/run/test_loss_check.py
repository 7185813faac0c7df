"""A custom loss that is not there is found without importing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayzero.services.run.loss_check import check_loss, loss_label
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from tests.fakes import make_recipe

SOURCE = """
raise RuntimeError("imported")
import torch as t
from math import *
"""
PLAIN = """
raise RuntimeError("imported")
def plain(tokens): ...
class Loss: ...
named = plain
try:
    from fast import quick
except ImportError:
    def quick(tokens): ...
"""


CLIPPED = """
raise RuntimeError("imported")
def clipped(tokens, clip_low, /, clip_high=0.2, *rest, floor, ceiling=1.0): ...
def soft(tokens, clip_high=0.2): ...
def open_(tokens, **settings): ...
@wrapped
def decorated(tokens): ...
def twice(tokens): ...
twice = soft
"""


def recipe(function: str, **arguments: Any) -> Recipe:
    content = make_recipe().model_dump(mode="json")
    content["learner"]["loss"] = {"name": "custom", "function": function, "arguments": arguments}
    return validate_recipe(content, {}, default_origin="x.yaml")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_losses.py").write_text(PLAIN)
    (tmp_path / "clipped_losses.py").write_text(CLIPPED)
    (tmp_path / "star_losses.py").write_text(SOURCE)
    (tmp_path / "broken_losses.py").write_text("def f(:\n")


@pytest.mark.parametrize("name", ["plain", "Loss", "named", "quick"])
def test_what_the_source_names_passes(name: str) -> None:
    check_loss(recipe(f"plain_losses:{name}"))
    check_loss(recipe(f"star_losses:{name}"))
    check_loss(make_recipe())


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("no_losses:f", "cannot be imported: No module named 'no_losses': check its name"),
        (
            "no_package.losses:f",
            "cannot be imported: ModuleNotFoundError: No module named 'no_package': check its name",
        ),
        ("plain_losses:other", "plain_losses has no other; names there: .*Loss, .*plain"),
        ("broken_losses:f", "broken_losses.py: invalid syntax"),
    ],
)
def test_what_is_not_there_is_named(function: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=rf"learner\.loss\.function: {function} .*{sentence}"):
        check_loss(recipe(function))


@pytest.mark.parametrize("name", ["open_", "decorated", "twice"])
def test_arguments_that_may_fit_pass(name: str) -> None:
    check_loss(recipe("clipped_losses:soft", clip_high=0.3))
    check_loss(recipe("clipped_losses:soft"))
    check_loss(recipe(f"clipped_losses:{name}", anything=1))


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        ("soft", {"clip_hi": 0.3}, "unexpected keyword argument 'clip_hi'; its parameters: tokens, clip_high"),
        ("soft", {"tokens": 1}, "multiple values for argument 'tokens'"),
        ("clipped", {}, "'clip_low'; its parameters: tokens, clip_low, clip_high, rest, floor, ceiling"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_its_parameters(
    function: str, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(
        RecipeError, match=rf"learner\.loss\.arguments do not fit clipped_losses:{function}: .*{sentence}"
    ):
        check_loss(recipe(f"clipped_losses:{function}", **arguments))


def test_a_screen_names_the_function_and_its_arguments() -> None:
    assert loss_label(make_recipe()) == "grpo"
    assert loss_label(recipe("my_losses:plain", scale=2, names=["a"])) == "my_losses:plain(scale=2, names=['a'])"
