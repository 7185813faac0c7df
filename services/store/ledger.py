"""The audit of a run directory: every group trained on once or dropped with its reason, none lost, none doubled.

Three accounts must agree: the ledger (each group's admission and end), the recorded rollouts of every update, and the
metrics' list of updates.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.retention import removed_through
from rayzero.services.store.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What became of a run's groups."""

    updates: int
    finished: bool
    admitted: int
    trained: int
    dropped: dict[str, int]
    """By reason."""
    in_flight: int
    """Admitted and not ended: as many as the buffer holds, none in a finished run."""
    problems: tuple[str, ...]
    """Every group that was lost, doubled, or trained on without a record; empty when all is well."""

    @property
    def is_sound(self) -> bool:
        """Nothing lost, nothing doubled."""
        return not self.problems


def audit(path: Path) -> Audit:
    """Check a run directory.

    Raises:
        UsageError: there is no run in it.
    """
    directory = RunDirectory(path)
    content = directory.recipe()
    if content is None:
        raise UsageError(f"{path} is not a run directory: it has no recipe.yaml")
    recipe = validate_recipe(content, {}, default_origin=str(directory.file("recipe.yaml")))
    rows = read_lines(directory.file("ledger.jsonl"))
    updates = [row["update"] for row in read_lines(directory.file("metrics.jsonl"))]
    fates = _fates(rows)
    open_ = [group_id for group_id, events in fates.items() if events == ["admitted"]]
    finished = directory.is_finished()
    problems = [
        *_of_groups(fates),
        *_of_updates(updates, rows, recipe, finished),
        *_of_rollouts(directory, updates, rows),
        *_of_open_groups(open_, recipe, finished),
    ]
    ends = Counter(row["event"] for row in rows)
    return Audit(
        updates=len(updates),
        finished=finished,
        admitted=ends["admitted"],
        trained=ends["trained"],
        dropped=dict(Counter(_reason(row) for row in rows if row["event"] == "dropped")),
        in_flight=len(open_),
        problems=tuple(problems),
    )


def report(path: Path, as_json: bool) -> int:
    """`rayzero audit RUN`: print the audit; 0 when nothing was lost or doubled."""
    found = audit(path)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_audit(terminal(), found)
    return 0 if found.is_sound else 1


def print_audit(console: Console, found: Audit) -> None:
    """As a table, problems below it."""
    table = Table(title="groups", show_header=False)
    for name, number in (
        ("admitted", found.admitted),
        ("trained on", found.trained),
        *((f"dropped: {reason}", number) for reason, number in sorted(found.dropped.items())),
        ("in flight", found.in_flight),
    ):
        table.add_row(name, str(number))
    console.print(table)
    for problem in found.problems[:50]:
        console.print(problem, style="red", soft_wrap=True, markup=False)
    verdict = "[red]NOT SOUND[/red]" if found.problems else "[green]nothing lost, nothing doubled[/green]"
    console.print(f"{found.updates} updates, {'finished' if found.finished else 'not finished'}: {verdict}")


def _reason(row: dict[str, Any]) -> str:
    """Of a drop. Ledgers of before details had a field of their own have them behind the reason."""
    return DropReason.read(row["reason"]).value


def _fates(rows: list[dict[str, Any]]) -> dict[int, list[str]]:
    fates: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        fates[row["group_id"]].append(row["event"])
    return dict(fates)


def _of_groups(fates: dict[int, list[str]]) -> list[str]:
    """Each group is admitted once, and then ends at most once."""
    sound = (["admitted"], ["admitted", "trained"], ["admitted", "dropped"])
    problems = [f"group {group_id}: {', '.join(events)}" for group_id, events in fates.items() if events not in sound]
    missing = set(range(max(fates, default=-1) + 1)) - set(fates)
    return problems + [f"group {group_id}: never admitted, though later ones were" for group_id in sorted(missing)]


def _of_updates(updates: list[int], rows: list[dict[str, Any]], recipe: Recipe, finished: bool) -> list[str]:
    """Versions 1, 2, 3 … once each, of as many groups as the recipe says."""
    problems = []
    last = recipe.training.num_updates if finished else len(updates)
    if updates != list(range(1, last + 1)):
        problems.append(f"metrics.jsonl holds updates {updates}, expected 1 to {last}")
    made_of = Counter(row["version"] for row in rows if row["event"] == "trained")
    problems += [
        f"update {version} was made of {number} groups instead of {recipe.training.groups_per_update}"
        for version, number in sorted(made_of.items())
        if number != recipe.training.groups_per_update
    ]
    # The ledger is written first: a run that was killed in between has one update more in it.
    unknown = set(made_of) - set(updates) - {len(updates) + 1 if not finished else 0}
    return problems + [f"update {version} is in the ledger and not in the metrics" for version in sorted(unknown)]


def _of_rollouts(directory: RunDirectory, updates: list[int], rows: list[dict[str, Any]]) -> list[str]:
    """The recorded rollouts of an update are those of the groups that the ledger says it was made of."""
    trained: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        if row["event"] == "trained":
            trained[row["version"]].add(row["group_id"])
    problems = []
    gone = removed_through(directory.rollouts)
    for update in updates:
        if update <= gone and not (directory.rollouts / f"update_{update:06d}.jsonl").is_file():
            continue  # as the recipe's observe.retention says
        recorded = {line["group_id"] for line in read_lines(directory.rollouts / f"update_{update:06d}.jsonl")}
        if recorded != trained[update]:
            difference = sorted(recorded ^ trained[update])
            problems.append(f"update {update}: ledger and recorded rollouts differ in groups {difference}")
    return problems


def _of_open_groups(open_: list[int], recipe: Recipe, finished: bool) -> list[str]:
    """No more groups are open than the buffer holds, and none when the run is over."""
    room = 0 if finished else recipe.training.max_live_groups
    if len(open_) <= room:
        return []
    return [f"groups {open_} were admitted and never ended; a run {'that is over' * finished} holds at most {room}"]
