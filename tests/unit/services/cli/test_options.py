"""What commands share: the demo's recipe is where they look for it, in a checkout and in a wheel."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayzero.services.cli.app import app
from rayzero.services.cli.options import DEMO
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.source_tree import ROOT


def test_the_demos_recipe_comes_with_the_package() -> None:
    assert load_recipe(DEMO).name == "demo"
    assert DEMO.resolve() == ROOT / "deploy/recipes/demo.yaml", "there is one file, not a copy"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "recipes/*.yaml" in settings["tool"]["setuptools"]["package-data"]["rayzero"]


@pytest.mark.parametrize("command", ["status", "pause", "resume", "checkpoint", "stop"])
@pytest.mark.parametrize("words", [["--run", "demo"], ["--run=demo"]])
def test_where_the_run_is_the_argument_the_refusal_of_an_option_says_so(command: str, words: list[str]) -> None:
    refused = CliRunner().invoke(app, [command, *words])
    assert isinstance(refused.exception, UsageError)
    assert "has no --run" in str(refused.exception) and str(refused.exception).endswith(f" {command} RUN")
    assert "Where run directories are" in CliRunner().invoke(app, [command, "--help"]).output


def test_audit_and_replay_take_a_name_too(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs" / "demo")
    directory.prepare(make_recipe())
    directory.release()
    for run in (["demo", "--runs", str(tmp_path / "runs")], [str(directory.path)]):
        found = CliRunner().invoke(app, ["audit", *run, "--json"])
        assert json.loads(found.output)["updates"] == 0, found.output
    for command in ("audit", "replay"):
        refused = CliRunner().invoke(app, [command, "another", "--runs", str(tmp_path / "runs")])
        assert "runs there: demo" in str(refused.exception)
