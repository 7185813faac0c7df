"""The manual says what the code does: its reference is made from it, its links lead somewhere, its examples load."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
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


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_gives() -> None:
    assert script("reference").out_of_date() == []


def test_every_alert_is_linked_where_its_metrics_stand() -> None:
    """From a metric a reader finds when to worry, and what to do."""
    alerts, metrics = (
        Path(f"docs/reference/{name}.md").read_text(encoding="utf-8") for name in ("alerts", "prometheus")
    )
    wanted = {(name, f"alerts.md#{name.lower()}") for name in re.findall(r"^## (\w+)$", alerts, re.MULTILINE)}
    assert wanted and wanted == set(re.findall(r"\[(\w+)\]\((alerts\.md#\w+)\)", metrics))


def test_a_page_that_mkdocs_fills_leads_a_reader_of_the_repository_to_the_text() -> None:
    for page in MANUAL:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE):
            assert f"[{name}](" in text, page


def test_a_link_out_of_the_manual_is_its_label_or_its_path() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="concepts/verdicts.md"))
    text = "[rubric.py](../../rewards/rubric.py) [the rubric](../../rewards/rubric.py) [data](../data.md#jsonl)"
    assert script("manual_links").on_page_markdown(text, page=page) == (
        "`rewards/rubric.py` the rubric [data](../data.md#jsonl)"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_what_contributors_copy_and_register_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:services|rewards|learner|rollout_workers|tests|deploy)/[\w./]+)`", text)
    assert len(paths) > 30 and [path for path in paths if not (ROOT / path).exists()] == []
    names = re.findall(r"`(?:…)?([A-Z][A-Za-z_]{4,})`", text)
    folders = ("services", "rewards", "learner", "rollout_workers", "tests")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    assert names and [name for name in names if name not in code] == []


def test_one_version_is_said_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1] == version  # type: ignore[index]
    images = ["docker-compose.yml", "deploy/README.md", "docs/guides/installing.md"]
    for file in images:
        tags = re.findall(r"rayzero/(?:train|reward):([\w.]+)", (ROOT / file).read_text(encoding="utf-8"))
        assert tags and set(tags) == {version}, file


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [name for page in MANUAL if (name := str(page.relative_to(ROOT / "docs"))) not in menu]
    assert missing == []


@pytest.mark.parametrize("text", [*examples("yaml")])
def test_recipes_load(text: str) -> None:
    """A part of a recipe, or of its sections `data` and `reward`, is laid over a whole one."""
    part = yaml.safe_load(text)
    within = {"data": {key: part.pop(key) for key in ("train", "held_out") if key in part}}
    within["reward"] = {key: BASE["reward"]["rubrics"] | part.pop(key) for key in ("rubrics",) if key in part}
    Recipe.model_validate({**BASE, **part, **{section: keys for section, keys in within.items() if keys}})


@pytest.mark.parametrize("text", [*examples("json")])
def test_data_rows_are_json(text: str) -> None:
    assert all(json.loads(line) for line in text.splitlines())


@pytest.mark.parametrize("text", [*examples("python")])
def test_functions_compile(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the other modules of its page, as a reader has them; tests are called."""
    page = next(page for page in PAGES if text in page.read_text(encoding="utf-8"))
    write_examples(page, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in tmp_path.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    names: dict[str, Any] = {}
    exec(compile(text, "example", "exec"), names)
    for name, value in names.items():
        if name.startswith("test_"):
            value()


RAYZERO = re.compile(r"^ {4,8}(?:[\w.-]+/bin/)?rayzero ([a-z].*)$", re.MULTILINE)
MAKE = re.compile(r"(?:^ {4,8}|`)make ([a-z][a-z-]*)", re.MULTILINE)
QUICK = ("check", "pipeline check", "recipe", "env check", "data check")
"""Commands that the manual shows with files of the repository, or with what its page writes, and that start nothing."""
PLACES = {"RUN", "RECIPE", "NAME", "FILE", "A", "B", "PIPELINE"}


def commands() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in RAYZERO.findall(text):
            yield pytest.param(line.partition("#")[0], id=f"{page.name}: {line[:40]}")


@pytest.mark.parametrize("line", [*commands()])
def test_commands_and_their_options_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.partition("|")[0])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in options] == []
    recipes = [word for word in words if re.fullmatch(r"deploy/[\w./-]+\.yaml", word)]
    assert [recipe for recipe in recipes if not (ROOT / recipe).is_file()] == []


def shown_with_what_is_there() -> Iterator[Any]:
    """Commands that start nothing, with the page that they stand on."""
    for page in MANUAL:
        if "reference" in page.parts or page.name == "moved.md":
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in RAYZERO.findall(text):
            line = line.partition("#")[0].strip()
            if (
                line.startswith(QUICK)
                and "--address" not in line
                and ".parquet" not in line
                and not PLACES & set(line.split())
            ):
                yield pytest.param(page, line, id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize(("page", "line"), [*shown_with_what_is_there()])
def test_commands_that_start_nothing_run(page: Path, line: str, tmp_path: Path) -> None:
    """With the files that the page tells its reader to write: each block that a name precedes or begins."""
    write_examples(page, tmp_path)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    command = [sys.executable, "-m", "rayzero", *shlex.split(line)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def write_examples(page: Path, folder: Path) -> None:
    """The page's own files, as a reader has them who followed it: modules by their first line, rows, the recipe."""
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python" and (name := re.match(r"# (\w+\.py)", text)):
            (folder / name[1]).write_text(text, encoding="utf-8")
        elif language == "json" and "prompt" in text and not (folder / "train.jsonl").exists():
            rows = [json.loads(line) for line in text.splitlines()]
            many = [{**row, "prompt": f"{row['prompt']} ({number})"} for number in range(200) for row in rows]
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
        elif language == "yaml" and text.startswith("name:"):
            part = yaml.safe_load(text)
            for file in ("my.yaml", f"{part['name']}.yaml"):
                (folder / file).write_text(text, encoding="utf-8")
    if not (folder / "train.jsonl").exists():
        row = {"prompt": "What is 17 + 25?", "answer": "42"}
        lines = "".join(json.dumps({**row, "prompt": f"{row['prompt']} ({n})"}) + "\n" for n in range(200))
        (folder / "train.jsonl").write_text(lines, encoding="utf-8")


def test_the_make_targets_that_pages_name_exist() -> None:
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in MAKE.findall(page.read_text(encoding="utf-8"))}
    assert named and named - there == set()


def test_a_name_that_the_catalogue_lacks_is_found() -> None:
    assert undeclared(["update", "reward/accuracy", "rewards"], UPDATE_FIGURES) == ["rewards"]
    assert undeclared(["accuracy", "entropy"], EVALUATION_FIGURES) == ["entropy"]
