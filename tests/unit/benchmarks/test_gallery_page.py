"""A page of the gallery: what was measured, what was not run, and a run that broke."""

from __future__ import annotations

from typing import Any

from benchmarks.gallery import recipes_of
from benchmarks.gallery_page import NOTES, drawing, index, needs_gpu, page

CPU = {"name": "a", "description": "learns to use <think>"}
GPU = {"name": "g", "description": "large", "stages": {"one": {"recipe": {"rollout": {"device": "cuda"}}}}}


def results(**changed: Any) -> dict[str, Any]:
    member = {
        "values": {"seed": "0"}, "seconds": 90.0, "load": 11.5, "findings": [],
        "figures": {"before accuracy": 0.25, "after accuracy": 0.75, "before length": 9.0, "after length": 8.5},
        "curves": {"": {"update": [0, 2], "accuracy": [0.25, 0.75], "length": [9.0, 8.5]}},
        "training": {"": {"update": [1, 2], "accuracy": [0.3, 0.7], "length": [9.1, 8.9]}},
    }  # fmt: skip
    return {
        "command": "make gallery RECIPE=a", "date": "2026-01-02", "machine": "m", "dtype": "float32",
        "rayzero": "0 (1)",
        "members": [member | changed],
    }  # fmt: skip


def test_a_run_shows_curve_figures_machine_seed_time_and_command() -> None:
    text = page("a", CPU, results(), "")
    for part in (
        "Learns to use &lt;think>.", "![a: held-out accuracy and length over updates](a.svg)",
        "| accuracy, % | 25.0 | 75.0 |",
        "| seed | 0 |", "| wall time | 1.5 minutes |", "rayzero train deploy/recipes/a.yaml", "rollouts/a.html",
        "load average 11.5",
    ):  # fmt: skip
        assert part in text, part
    assert "rollouts/a.html" not in page("a", CPU, results(), None)


def test_what_a_reader_must_know_stands_beside_the_curve() -> None:
    assert set(NOTES) <= set(recipes_of())
    assert NOTES["demo"] in page("demo", CPU, results(), None)
    assert NOTES["demo"] not in page("a", CPU, results(), None)


def test_a_pipelines_gain_is_of_all_sources_and_names_its_best_model() -> None:
    accuracies = {"base": (0.27, 0.28), "r1": (0.92, 0.66), "small": (0.48, 0.42)}
    figures = {
        f"{m} {s} accuracy": v for m, pair in accuracies.items() for s, v in zip(("all", "talk"), pair, strict=True)
    }
    found = results(figures=figures | {"base all length": 15.6, "r1 all length": 31.7, "small all length": 31.5})
    assert "27% → 92% (r1)" in index({"a": CPU}, {"a": found})
    assert "| all tokens a completion | 15.6 | 31.7 | 31.5 |" in page("a", CPU, found, None)


def test_a_gpu_recipe_says_that_it_was_not_run() -> None:
    text = page("r1_g", GPU, None, None)
    assert "Not run" in text and "svg" not in text
    assert "rayzero pipeline check deploy/recipes/r1_g.yaml" in text
    assert needs_gpu(GPU) and not needs_gpu(CPU)


def test_a_run_that_broke_is_said_and_not_drawn() -> None:
    finding = {"level": "red", "text": "the reward fell", "page": "docs/guides/debugging.md#the-reward-fell"}
    broken = results(findings=[finding])
    assert drawing("a", broken) is None
    text = page("a", CPU, broken, None)
    assert "did not end well" in text and ".svg" not in text
    assert "[what to do](../guides/debugging.md#the-reward-fell)" in text


def test_the_first_page_has_a_row_a_recipe() -> None:
    lines = index({"a": CPU, "b": CPU, "g": GPU}, {"a": results()}).splitlines()
    assert "| [a](a.md) | Learns to use &lt;think> | 25% → 75% | 2 |" in lines
    assert "| [b](b.md) | Learns to use &lt;think> | no run kept yet | – |" in lines
    assert "| [g](g.md) | Large | not run | – |" in lines
