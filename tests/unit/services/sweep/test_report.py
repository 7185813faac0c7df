"""A sweep's table and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayzero.services.sweep.report import cell, draw, table_rows


def member(setting: str, accuracy: float) -> dict[str, Any]:
    curve = {"update": [0, 5], "accuracy": [0.1, accuracy], "length": [10.0, None]}
    figures = {"after accuracy": accuracy, "after length": 20.0}
    return {"name": setting, "setting": setting, "figures": figures, "curves": {"": curve}, "seconds": 60.0}


def test_seeds_are_a_mean_with_students_interval_and_each_seeds_figure() -> None:
    assert cell("after accuracy", [0.8, 0.9]) == "85.0 ± 63.5 (80.0, 90.0)"
    assert cell("after length", [20.0]) == "20.0"
    assert cell("after pass@8", []) == "–"


def test_a_row_is_a_figure_and_a_column_a_setting() -> None:
    rows = table_rows([member("a", 0.5), member("b", 0.7), member("a", 0.6)])
    assert rows[0] == ["", "a (2 runs)", "b (1 runs)"]
    assert [row[0] for row in rows[1:]] == ["after accuracy", "after length", "seconds"]
    assert rows[1][1].startswith("55.0 ±") and rows[1][2] == "70.0"


def test_both_curves_are_drawn(tmp_path: Path) -> None:
    draw([member("a", 0.5), member("a", 0.6)], tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
