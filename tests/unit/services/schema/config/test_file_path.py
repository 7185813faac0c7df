"""Paths that no file can have are refused with their key, in a recipe as on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning.models import describe_model, local_model
from rayzero.services.schema.config.file_path import possible
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.errors import RecipeError
from tests.fakes import make_recipe

IMPOSSIBLE = [
    ("a" * 300, r"300 bytes are too long"),
    ("a/" * 3000, r"\d+ bytes are too long"),
    ("é" * 200, r"400 bytes are too long"),
    ("a\x00b", r"NUL"),
    ("~nosuchuser/x", r"~nosuchuser is no user's home here: write the whole path"),
    ("a\ud83d", r"half a character"),
]


@pytest.mark.parametrize(("path", "sentence"), IMPOSSIBLE)
def test_it_is_a_sentence(path: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        possible(path)
    for ask in (describe_model, local_model):
        with pytest.raises(RecipeError, match=f"model.path: .*{sentence}"):
            ask(path)


@pytest.mark.parametrize("path", ["x", "org/name@main", "data/*.jsonl", "~/x", "a b/é", "/"])
def test_what_may_be_a_file_passes(path: str) -> None:
    assert possible(path) == path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "huggingface"])
@pytest.mark.parametrize(("path", "sentence"), IMPOSSIBLE)
def test_every_source_names_its_key(kind: str, path: str, sentence: str) -> None:
    content: dict[str, Any] = make_recipe().model_dump(mode="json")
    content["data"]["train"] = [{"kind": kind, "path": path}]
    with pytest.raises(RecipeError, match=rf"(?s)data\.train\.0.*path: .*{sentence}"):
        validate_recipe(content, {}, default_origin="x.yaml")


@pytest.mark.parametrize("words", [["audit"], ["generate"], ["data", "check"], ["samples"]])
def test_a_command_says_it_too(words: list[str], tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "rayzero", *words, "a" * 5000, *(["hi"] if words == ["generate"] else [])]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.startswith("error: ")
