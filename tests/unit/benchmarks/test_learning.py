"""What the shipped recipes learn: the manual's tables are those of the results in the repository."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.learning import CLAIMS, keep_picture, parts_of, results_file, run, table, with_table
from rayzero.services.schema.config.loader import read_document
from rayzero.services.schema.errors import RayzeroError, UsageError

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/benchmarks.md"
RESULTS: dict[str, Any] = {
    "name": "zero", "command": "rayzero bench learning zero", "date": "2026-01-02", "machine": "m", "dtype": "float32",
    "members": [
        {
            "values": {"seed": str(seed)}, "seconds": 300.0,
            "figures": {"pretrain greedy": 0.02, "pretrain length": 23.0, "zero greedy": 0.9 + 0.04 * seed},
        }
        for seed in (0, 1)
    ],
}  # fmt: skip
MADE = [name for name in CLAIMS if results_file(name, ROOT).is_file()]


def test_a_row_is_a_model_and_only_what_was_measured_has_a_column() -> None:
    lines = table(RESULTS).splitlines()
    assert "float32; seeds 0, 1 took 5, 5 minutes" in lines[0]
    assert lines[2:] == [
        "|  | greedy, % | tokens |",
        "|---|---:|---:|",
        "| pretrain | 2.0 ± 0.0 (2.0, 2.0) | 23.0 ± 0.0 (23.0, 23.0) |",
        "| zero | 92.0 ± 25.4 (90.0, 94.0) | – |",
    ]


def test_a_page_without_a_place_for_it_is_refused() -> None:
    mark = "<!-- learning: zero -->\n"
    assert with_table(f"a\n{mark}old{mark}b", RESULTS) == f"a\n{mark}{table(RESULTS)}{mark}b"
    with pytest.raises(RayzeroError, match="learning: zero"):
        with_table("a", RESULTS)


def test_it_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/benchmarks.md").write_text("no place\n", encoding="utf-8")
    with pytest.raises(RayzeroError, match="learning: demo"):
        run("demo", tmp_path / "runs", 1, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_picture_is_kept_in_few_colours(tmp_path: Path) -> None:
    """A figure that was kept as it was drawn took 270 kB of every clone."""
    drawn, kept = tmp_path / "drawn.png", tmp_path / "kept.png"
    noise = random.Random(0).randbytes(64 * 64 * 4)
    Image.frombytes("RGBA", (64, 64), noise).save(drawn)
    keep_picture(drawn, kept)
    with Image.open(kept) as image:
        assert image.size == (64, 64) and len(image.getcolors() or ()) in range(1, 129)
    assert kept.stat().st_size < drawn.stat().st_size / 2


def test_what_nothing_is_claimed_of_is_refused() -> None:
    with pytest.raises(UsageError, match="there are: zero, r1, demo"):
        run("everything", None, 1)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_has_its_place_in_the_manual(name: str) -> None:
    assert parts_of(PAGE.read_text(encoding="utf-8"), name)


def test_what_is_claimed_of_r1_is_among_what_its_pipeline_measures() -> None:
    results = json.loads((ROOT / "docs/results/r1_tiny_cpu.json").read_text(encoding="utf-8"))
    head = table(results | {"name": "r1"}).splitlines()[2]
    columns = (
        "sums: greedy, %",
        "sums: T = 1, %",
        "sums: pass@16, %",
        "sums: in English where worked out, %",
        "sums: tokens",
    )
    assert head == "|  | " + " | ".join((*columns, "talk: T = 1, %")) + " |"


def test_an_answer_given_at_once_says_nothing_about_languages() -> None:
    member = {"values": {"seed": "0"}, "seconds": 60.0}
    # Four in ten are worked out, half of their words are English: .6 + .4 × .5 of the mean is no mixture's.
    figures = {"base sums accuracy": 0.2, "base sums language": 0.8, "base sums format": 0.4}
    lines = table(RESULTS | {"name": "r1", "members": [member | {"figures": figures}]}).splitlines()
    assert lines[-1] == "| base | 20.0 | 50.0 |"


@pytest.mark.parametrize("name", MADE)
def test_the_manual_says_what_the_results_say(name: str) -> None:
    results = json.loads(results_file(name, ROOT).read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, results) == page, f"rayzero bench learning {name} makes table and figure anew"
    assert [member["values"]["seed"] for member in results["members"]] == ["0", "1", "2"]


@pytest.mark.parametrize("name", MADE)
def test_the_results_are_of_the_recipe_as_it_is(name: str) -> None:
    results = json.loads(results_file(name, ROOT).read_text(encoding="utf-8"))
    now, _ = read_document(ROOT / "deploy/recipes" / CLAIMS[name].recipe)
    assert without_words(results["recipe"]) == without_words(now), "measure it again"


def without_words(value: Any) -> Any:
    """Plain data without descriptions: these may change."""
    if isinstance(value, dict):
        return {key: without_words(inner) for key, inner in value.items() if key != "description"}
    return [without_words(inner) for inner in value] if isinstance(value, list) else value
