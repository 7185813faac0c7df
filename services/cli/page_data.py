"""What the page of runs on disk holds: what the API would have answered about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rayzero.services.cli.client import live_run
from rayzero.services.observe.api import views
from rayzero.services.observe.browse.rollout_index import Filter, Sort
from rayzero.services.observe.run_health import examine
from rayzero.services.store.api_file import ADDRESS_FILE
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory

PHASES = {
    "finished": "finished",
    "live": "running",
    "stopped": "stopped; the same command goes on",
    "failed": "ended with an error",
    "unknown": "not running",
    "killed": "killed",
}
Summaries = Sequence[Mapping[str, Any]]


def page_data(
    directory: RunDirectory,
    wanted: Filter,
    sort: Sort,
    summaries: Summaries,
    groups: Mapping[str, Any],
    others: Sequence[RunDirectory] = (),
) -> dict[str, Any]:
    """Of `directory`, with these groups in the order and under the filters that were asked for; the curves of `others`
    lie over its own."""
    curves = curves_of(directory)
    kept = {name: sorted({str(summary[name]) for summary in summaries}) for name in ("kind", "source", "worker")}
    return {
        "status": status_of(directory, curves),
        "query": {"sort": sort, **dataclasses.asdict(wanted)},
        "rows": curves,
        "others": [curves_of(each) for each in others],
        "choices": {
            **kept,
            "version": sorted({summary["version"] for summary in summaries}),
            "finish_reason": sorted({r["finish_reason"] for s in summaries for r in s["rollouts"]}),
            "num_rollouts": sum(len(summary["rollouts"]) for summary in summaries),
            "num_groups": len(summaries),
        },
        "summaries": summaries,
        "groups": groups,
    }


def status_of(directory: RunDirectory, curves: Mapping[str, Any]) -> dict[str, Any]:
    """The run at a glance, with its health."""
    recipe, rows, evaluations = directory.recipe() or {}, curves["rows"], curves["evaluations"]
    last, end = rows[-1] if rows else {}, end_of(directory)
    return {
        "run": recipe.get("name", directory.path.name),
        "description": recipe.get("description", ""),
        "phase": _phase(directory, end["ended"]),
        "update": last.get("update", 0),
        "num_updates": recipe["training"]["num_updates"],
        "figures": last,
        "accuracies": {row["update"]: row["accuracy"] for row in evaluations},
        "greedy_accuracies": {row["update"]: row["greedy_accuracy"] for row in evaluations if "greedy_accuracy" in row},
        "tokens_per_s": views.tokens_per_s(rows),
        "seconds_left": None,
        "events": [],
        "health": examine(rows, evaluations, end).plain(),
    }


def end_of(directory: RunDirectory) -> dict[str, Any]:
    """`ended`, in one word, and the `error` that a run ended with."""
    end = directory.end()
    if directory.is_finished():
        return {"ended": "finished"}
    if directory.is_in_use() or live_run(directory.file(ADDRESS_FILE)) is not None:
        return {"ended": "live"}
    ended = "killed" if end.get("ended") == "running" else end.get("ended")
    return {"ended": ended if isinstance(ended, str) and ended in PHASES else "unknown", "error": end.get("error", "")}


def curves_of(directory: RunDirectory) -> dict[str, Any]:
    """A run's name and its rows."""
    rows, evaluations = (read_lines(directory.file(name)) for name in ("metrics.jsonl", "evaluations.jsonl"))
    return {"run": directory.path.name, "rows": rows, "evaluations": evaluations}


def _phase(directory: RunDirectory, ended: str) -> str:
    """How it ended, and of one that broke off what the same command does."""
    if ended not in ("failed", "killed"):
        return PHASES[ended]
    goes_on = "goes on from the last checkpoint" if directory.has_checkpoint() else "begins anew: it had no checkpoint"
    return f"{PHASES[ended]}; the same command {goes_on}"
