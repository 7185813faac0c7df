"""The report of a pipeline: tables, files, and a pipeline that is half done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rayzero.services.loop.estimate import estimate
from rayzero.services.pipeline.charts import smoothed
from rayzero.services.pipeline.report import collect, table_rows, write_report


def figures(accuracy: list[float], **more: list[float]) -> dict[str, Any]:
    named = {"accuracy": accuracy, "length": [10.0, 12.0], **more}
    return {**{name: estimate(values).to_dict() for name, values in named.items()}, "num_errors": 0}


def row(stage: str, kind: str, state: str = "done", **found: Any) -> dict[str, Any]:
    return {"stage": stage, "kind": kind, "state": state, "seconds": 3.0, "figures": found, "directory": "x"}


STAGES = [
    row("zero", "grpo", curves={"update": [1, 2, 3], "accuracy": [0.1, 0.2, 0.4], "length": [9.0, 9.5, 11.0]}),
    row(
        "measured",
        "eval",
        results={
            "base": {"sums": figures([0.0, 0.5], format=[1.0, 0.0]), "talk": figures([1.0, 1.0])},
            "zero": {"sums": figures([0.5, 1.0], format=[1.0, 1.0]), "talk": figures([1.0, 0.0])},
        },
    ),
    row("later", "sft", state="waiting"),
]


def test_one_table_a_source_one_row_a_model() -> None:
    head, base, zero = table_rows(collect(STAGES), "sums")
    assert head == ["model", "accuracy", "format", "length"]
    assert base[:2] == ["base", "25.0% ± 49.0"] and zero[1] == "75.0% ± 49.0"
    assert zero[2] == "100.0% ± 0.0" and zero[3] == "11.00 ± 1.96"


def test_all_files_are_written_and_stand_alone(tmp_path: Path) -> None:
    write_report(tmp_path, "r1", "shows <much>", collect(STAGES))
    page = (tmp_path / "report.html").read_text()
    assert "shows &lt;much&gt;" in page and "<svg" in page and "http-equiv" not in page
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "| zero | 75.0% ± 49.0 | 100.0% ± 0.0 | 11.00 ± 1.96 |" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["results"]["zero"]["sums"]["accuracy"]["mean"] == 0.75


def test_a_pipeline_without_results_has_a_report_too(tmp_path: Path) -> None:
    write_report(tmp_path, "r1", "", collect([row("cold", "sft", state="unfinished")]))
    assert "| cold | sft | unfinished | 3.0 |" in (tmp_path / "report.md").read_text()


def test_curves_are_means_of_what_came_before() -> None:
    assert smoothed([1.0, 2.0, None, 4.0], width=2) == [1.0, 1.5, 2.0, 4.0]
