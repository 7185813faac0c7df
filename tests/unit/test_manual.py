"""The manual says what the code does: its reference is made from it, its links lead somewhere, its examples load."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rayzero.services.cli.app import app
from rayzero.services.observe.figures import EVALUATION_FIGURES, UPDATE_FIGURES, undeclared
from rayzero.services.schema.config.recipe import Recipe
from tests.source_tree import ROOT

MANUAL = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *MANUAL]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#\s]+)(?:#[^)]*)?\)")

BASE: dict[str, Any] = {
    "name": "base",
    "model": {"path": "smollm2-135m-instruct"},
    "data": {"train": [{"kind": "jsonl", "path": "train.jsonl"}]},
    "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
    "training": {"num_updates": 1, "groups_per_update": 1, "group_size": 2},
}


def examples(language: str) -> Iterator[Any]:
    for page in PAGES:
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if found == language:
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


def test_the_reference_is_what_the_code_gives() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.out_of_date() == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [name for page in MANUAL if (name := str(page.relative_to(ROOT / "docs"))) not in menu]
    assert missing == []


@pytest.mark.parametrize("text", [*examples("yaml")])
def test_recipes_load(text: str) -> None:
    """A part of a recipe, or of its sections `data` and `reward`, is laid over a whole one."""
    part = yaml.safe_load(text)
    within = {"data": {key: part.pop(key) for key in ("train", "held_out") if key in part}}
    within["reward"] = {key: part.pop(key) for key in ("rubrics",) if key in part}
    Recipe.model_validate({**BASE, **part, **{section: keys for section, keys in within.items() if keys}})


@pytest.mark.parametrize("text", [*examples("json")])
def test_data_rows_are_json(text: str) -> None:
    assert all(json.loads(line) for line in text.splitlines())


@pytest.mark.parametrize("text", [*examples("python")])
def test_functions_compile(text: str) -> None:
    exec(compile(text, "example", "exec"), {})


def commands() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (?:\.venv/bin/)?rayzero ([a-z].*)$", text, re.MULTILINE):
            yield pytest.param(line.partition("#")[0], id=f"{page.name}: {line[:40]}")


@pytest.mark.parametrize("line", [*commands()])
def test_commands_and_their_options_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.partition("|")[0])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in options] == []


def test_a_name_that_the_catalogue_lacks_is_found() -> None:
    assert undeclared(["update", "reward/accuracy", "rewards"], UPDATE_FIGURES) == ["rewards"]
    assert undeclared(["accuracy", "entropy"], EVALUATION_FIGURES) == ["entropy"]
