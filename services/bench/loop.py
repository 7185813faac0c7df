"""`rayzero bench loop`: a short real run of a recipe, and where its time went."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rayzero.services.bench.table import show
from rayzero.services.run.run import train
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.store.json_lines import read_lines

WARM_UP_UPDATES = 2


def run(recipe: Path, overrides: Sequence[str], num_updates: int, as_json: bool) -> dict[str, Any]:
    """Train for `num_updates` updates after two that do not count; prints and returns the figures.

    Raises:
        RayzeroError: the run failed.
    """
    changes = [
        f"training.num_updates={num_updates + WARM_UP_UPDATES}",
        "evaluation.every_updates=0",
        "evaluation.num_prompts=8",
        "evaluation.greedy=never",
        "checkpoint.every_updates=0",
    ]
    with tempfile.TemporaryDirectory(prefix="rayzero-bench-") as folder:
        quiet = contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext()
        with quiet:
            code = train(recipe, [*overrides, *changes], Path(folder), Path(folder) / "run", fresh=False)
        rows = read_lines(Path(folder) / "run" / "metrics.jsonl")
    if code != 0 or len(rows) <= WARM_UP_UPDATES:
        raise RayzeroError(f"the run ended with exit code {code} after {len(rows)} updates")
    figures = summarise(rows)
    show("the loop", table_rows(figures), figures, as_json)
    return figures


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates and shares over all updates after the warm-up, from a run's metrics."""
    counted = rows[WARM_UP_UPDATES:]
    seconds = counted[-1]["time_s"] - rows[WARM_UP_UPDATES - 1]["time_s"]
    total = {
        key: sum(row[key] for row in counted)
        for key in ("samples", "completion_tokens", "trained_tokens", "wait_s", "update_s")
    }
    return {
        "num_updates": len(counted),
        "seconds_per_update": seconds / len(counted),
        "samples_per_s": total["samples"] / seconds,
        "rollout_tokens_per_s": total["completion_tokens"] / total["wait_s"],
        "learner_tokens_per_s": total["trained_tokens"] / total["update_s"],
        "sync_s": median(row["sync_s"] for row in counted),
        "sync_pause_s": median(row["sync_pause_s"] for row in counted),
        "share_generating": total["wait_s"] / seconds,
        "share_learning": total["update_s"] / seconds,
        "share_outside_both": 1 - (total["wait_s"] + total["update_s"]) / seconds,
    }


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    return [
        ("updates", f"{figures['num_updates']}"),
        ("seconds an update", f"{figures['seconds_per_update']:.2f}"),
        ("samples/s", f"{figures['samples_per_s']:.1f}"),
        ("rollout tokens/s, while generating", f"{figures['rollout_tokens_per_s']:.0f}"),
        ("learner tokens/s, prompts included, while learning", f"{figures['learner_tokens_per_s']:.0f}"),
        ("sync, update ready to acknowledged", f"{figures['sync_s'] * 1000:.0f} ms"),
        ("of it, engine paused", f"{figures['sync_pause_s'] * 1000:.0f} ms"),
        ("share of time generating and scoring", f"{figures['share_generating']:.0%}"),
        ("share of time learning", f"{figures['share_learning']:.0%}"),
        ("share of time outside both", f"{figures['share_outside_both']:.0%}"),
    ]
