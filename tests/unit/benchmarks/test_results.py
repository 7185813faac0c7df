"""What is kept of a recipe's runs."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.results import write_results


def test_runs_are_kept_with_what_they_were_measured_on(tmp_path: Path) -> None:
    file = tmp_path / "results/a.json"
    written = write_results(file, "a", "make a", "float32", {"name": "a"}, [{"seconds": 1.0}])
    assert json.loads(file.read_text()) == written
    assert written["machine"] and written["rayzero"] and written["date"].startswith("20")
    assert written["members"] == [{"seconds": 1.0}]
