"""Several seeds: means over runs, and an interval that knows how few they are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from rayzero.services.pipeline.seeds import join, over_runs, report_seeds, student_95
from rayzero.services.schema.errors import UsageError


def run(folder: Path, accuracy: float) -> Path:
    folder.mkdir()
    figures = {"accuracy": {"mean": accuracy, "se": 0.1, "low": 0, "high": 1, "prompts": 9}, "num_errors": 0}
    (folder / "report.json").write_text(json.dumps({"results": {"zero": {"sums": figures}}}))
    return folder


def test_three_runs_have_students_interval() -> None:
    found = over_runs([0.4, 0.5, 0.6])
    assert found["mean"] == pytest.approx(0.5) and found["se"] == pytest.approx(0.1 / math.sqrt(3))
    assert found["high"] - 0.5 == pytest.approx(4.30 * 0.1 / math.sqrt(3))
    assert math.isnan(over_runs([0.4])["high"])


def test_student_s_t_falls_slowly_to_the_normal_s() -> None:
    # Printed tables of t at .975.
    assert student_95(2) == pytest.approx(4.303, abs=0.005)
    assert student_95(10) == pytest.approx(2.228, abs=0.005)
    assert student_95(30) == pytest.approx(2.042, abs=0.005)
    assert student_95(10**6) == pytest.approx(1.960, abs=0.001)


def test_a_figure_that_one_run_lacks_is_left_out() -> None:
    one = {"zero": {"sums": {"accuracy": {"mean": 0.5}, "format": {"mean": 1.0}}}}
    other = {"zero": {"sums": {"accuracy": {"mean": 0.7}}}}
    assert list(join([one, other])["zero"]["sums"]) == ["accuracy"]


def test_the_joint_report_is_written_beside_the_first_run(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"run{index}", 0.4 + index / 10) for index in range(3)]
    report_seeds(runs, Console(quiet=True))
    assert "| zero | 50.0% ± 24.8 |" in (runs[0] / "report-seeds.md").read_text()
    with pytest.raises(UsageError, match=r"holds no report\.json"):
        report_seeds([tmp_path], Console(quiet=True))
