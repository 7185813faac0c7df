"""Several runs of one pipeline that differ by their seed alone: means over runs, and the error of those means.

Prompts are the same in all runs; what differs is everything random in training. So the standard error here is that of a
run drawn anew, which is what a claim about a recipe needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rayzero.services.loop.estimate import estimate
from rayzero.services.pipeline.report import Report, markdown, print_report, sources, table_rows
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.run_directory import write_atomically


def report_seeds(runs: Sequence[Path], console: Console) -> None:
    """Print the joint tables and write them beside the first run's report.

    Raises:
        UsageError: a directory holds no report.
    """
    report = Report(stages=(), results=join([read_results(run) for run in runs]), curves={})
    print_report(console, runs[0] / "report-seeds.md", report)
    lines = [f"# {len(runs)} seeds", ""]
    for source in sources(report):
        lines += [f"## {source}", "", *markdown(table_rows(report, source)), ""]
    lines += [f"± is half of a 95 % interval, from the spread over {len(runs)} runs (Student's t).", ""]
    write_atomically(runs[0] / "report-seeds.md", "\n".join(lines))


def read_results(run: Path) -> dict[str, Any]:
    """By model, by source: the figures of one run."""
    try:
        results: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError):
        raise UsageError(f"{run} holds no report.json: run its pipeline to the end first") from None
    return results


STUDENT_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""By degrees of freedom: few runs say less about their own spread than 1.96 would have it."""


def student_95(freedom: int) -> float:
    """How many standard errors half of a 95 % interval takes: Student's t at .975, for `freedom` ≥ 1.

    From ten degrees on by the expansion in 1 ÷ `freedom` (Abramowitz and Stegun 26.7.5), .003 off at most.
    """
    if freedom in STUDENT_95:
        return STUDENT_95[freedom]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def join(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures that all runs have, each as a mean over runs."""
    joint: dict[str, dict[str, Any]] = {}
    for model, by_source in results[0].items():
        for source, figures in by_source.items():
            others = [each.get(model, {}).get(source, {}) for each in results]
            for name, value in figures.items():
                if isinstance(value, dict) and all(name in each for each in others):
                    means = [each[name]["mean"] for each in others]
                    joint.setdefault(model, {}).setdefault(source, {})[name] = over_runs(means)
    return joint


def over_runs(means: Sequence[float]) -> dict[str, Any]:
    """Mean over runs with Student's interval; one run has none."""
    found = estimate(means)
    half = student_95(len(means) - 1) * found.standard_error if len(means) > 1 else math.nan
    return {**found.to_dict(), "low": found.mean - half, "high": found.mean + half}
