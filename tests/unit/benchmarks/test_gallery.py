"""The gallery: what is kept of a run, and that the pages in the repository are those drawn from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.gallery import keep, next_directory, recipes_of, results_of, rollouts_page, run
from benchmarks.gallery_page import write_pages
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import RunDirectory
from rayzero.services.sweep.grid import Combination
from rayzero.services.sweep.members import Member
from tests.fakes import make_group, make_recipe
from tests.source_tree import ROOT
from tests.unit.benchmarks.test_learning import without_words

RECIPES = recipes_of(ROOT)
RESULTS = results_of(ROOT, RECIPES)


def test_every_recipe_has_its_page_and_all_are_those_drawn_from_the_results() -> None:
    drawn = write_pages(ROOT, RECIPES, RESULTS)
    there = {file for file in (ROOT / "docs/gallery").iterdir() if file.is_file()}
    assert there == set(drawn), "make gallery; remove what no recipe has"
    stale = [file.name for file, text in drawn.items() if file.read_text(encoding="utf-8") != text]
    assert stale == [], "make gallery"


def test_every_result_is_of_a_recipe_and_has_its_rollouts() -> None:
    kept = {file.stem for file in (ROOT / "docs/results").glob("*.json") if not file.stem.startswith("learning_")}
    assert kept == set(RESULTS)
    assert {file.stem for file in (ROOT / "docs/gallery/rollouts").glob("*.html")} == kept


@pytest.mark.parametrize("name", list(RESULTS))
def test_a_result_is_of_the_recipe_as_it_is_and_of_its_own_seed(name: str) -> None:
    assert without_words(RESULTS[name]["recipe"]) == without_words(RECIPES[name]), f"make gallery RECIPE={name}"
    assert [member["values"] for member in RESULTS[name]["members"]] == [{"seed": str(RECIPES[name]["seed"])}]


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gallery dmeo: there is no such recipe; there are: .*demo"):
        run("dmeo", None, ROOT)


@pytest.fixture
def finished(tmp_path: Path) -> Member:
    directory = tmp_path / "run"
    (directory / "rollouts").mkdir(parents=True)
    rows = [
        {"update": u, "train_accuracy": 0.1 * u, "completion_tokens_mean": 9.0, "reward_mean": 0.1 * u} for u in (1, 2)
    ]
    evaluations = [{"update": u, "accuracy": 0.2 + 0.1 * u, "completion_tokens_mean": 8.0} for u in (0, 2)]
    for name, lines in (("metrics.jsonl", rows), ("evaluations.jsonl", evaluations)):
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "summary.json").write_text(json.dumps({"updates": 2, "seconds": 60.0, "state": "finished"}))
    (directory / "recipe.yaml").write_text("name: demo\nmodel: {dtype: float32}\ntraining: {num_updates: 2}\n")
    recipe = ROOT / "deploy/recipes/demo.yaml"
    combination = Combination(values=(("seed", "0"),), fixed=())
    return Member(combination=combination, recipe=recipe, is_pipeline=False, directory=directory)


def test_what_a_run_showed_is_kept_and_drawn(finished: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gallery.rollouts_page", lambda directory: f"rollouts of {directory.path.name}")
    keep("demo", RECIPES["demo"], finished, tmp_path)
    (kept,) = results_of(tmp_path, {"demo": None})["demo"]["members"]
    assert kept["figures"]["before accuracy"] == pytest.approx(0.2)
    assert kept["figures"]["after accuracy"] == pytest.approx(0.4)
    assert kept["training"][""]["accuracy"] == pytest.approx([0.1, 0.2])
    assert (tmp_path / "docs/gallery/rollouts/demo.html").read_text() == "rollouts of run"
    pages = write_pages(tmp_path, {"demo": RECIPES["demo"]}, results_of(tmp_path, {"demo": None}))
    page = pages[tmp_path / "docs/gallery/demo.md"]
    assert "rollouts/demo.html" in page
    assert "| wall time | 1.0 minutes |" in page
    assert tmp_path / "docs/gallery/demo.svg" in pages


def test_rollouts_are_of_the_same_prompts_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    directory.release()
    for version in (0, 4, 8):
        lines = [line for number in range(5) for line in rollout_lines(make_group(-number, rewards=(0.0,) * 6))]
        append_lines(directory.rollouts / f"evaluation_{version:06}.jsonl", lines)
    parts = re.findall(r'data-part="(\w+)">(.*?)</script>', rollouts_page(directory), re.DOTALL)
    listed = [group for name, text in parts if name == "summaries" for group in json.loads(text)]
    groups = [group for name, text in parts if name == "groups" for group in json.loads(text)]
    wanted = [f"evaluation_00000{version}:{number}" for version in (0, 8) for number in (-1, 0)]
    assert sorted(group["key"] for group in listed) == wanted
    assert [len(group["rollouts"]) for group in groups] == [4] * 4


def test_a_run_goes_beside_the_finished_ones(tmp_path: Path) -> None:
    assert next_directory(tmp_path, "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert next_directory(tmp_path, "demo") == tmp_path / "demo", "a run that was interrupted goes on"
    (tmp_path / "demo/summary.json").write_text("{}")
    assert next_directory(tmp_path, "demo") == tmp_path / "demo-2"
