"""`rayzero bench learning NAME`: what a shipped recipe learns, over three seeds, as docs/benchmarks.md has it.

    sweep of the recipe ─► docs/results/learning_NAME.json ─► docs/images/learning_NAME.png, the page's table

The seeds were fixed before the first run; every run of the settings in the repository is in the file. The same command
goes on where it was interrupted, and makes table and figure again where all runs are done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks.longer_prompts import longer_figures
from benchmarks.results import write_results
from rayzero.services.bench.checkout import ROOT
from rayzero.services.pipeline.report import markdown
from rayzero.services.schema.errors import RayzeroError, UsageError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.run_directory import write_atomically
from rayzero.services.sweep.report import cell
from rayzero.services.sweep.sweep import open_sweep

SEEDS = "0,1,2"


class Claim(NamedTuple):
    """A recipe of which the manual says what it learns."""

    recipe: str
    figures: tuple[str, ...]
    """The table's columns, where they were measured: as a pipeline's report calls them."""
    longer: tuple[str, ...] = ()
    """Of a run: changes to the recipe that make its held-out prompts longer than any that was trained on."""


CLAIMS: Mapping[str, Claim] = {
    "zero": Claim("r1_zero_tiny_cpu.yaml", ("greedy", "accuracy", "pass@16", "format", "in format", "length")),
    "r1": Claim(
        "r1_tiny_cpu.yaml",
        ("sums greedy", "sums accuracy", "sums pass@16", "sums english language", "sums length", "talk accuracy"),
    ),
    "demo": Claim(
        "demo.yaml",
        ("greedy", "accuracy", "pass@8", "length", "longer greedy", "longer accuracy"),
        (
            "data.held_out=[{kind: function, function: 'rayzero.services.data.tasks.numbers:number_after', "
            "arguments: {min_number: 10000, max_number: 99999, num_prompts: 128, split: held_out}}]",
            "evaluation.num_prompts=128",
        ),
    ),
}
HEADS = {
    "greedy": "greedy, %",
    "accuracy": "T = 1, %",
    "format": "worked out, %",
    "in format": "T = 1 where worked out, %",
    "english language": "in English where worked out, %",
    "length": "tokens",
}


def run(name: str, out: Path | None, jobs: int, root: Path = ROOT) -> int:
    """Train what is not trained yet, write the results and remake the page's table; the exit code.

    Raises:
        UsageError: there is no such name.
        RayzeroError: the page has no place for the table.
    """
    if name not in CLAIMS:
        raise UsageError(f"rayzero bench learning {name}: there is no such claim; there are: {', '.join(CLAIMS)}")
    console = terminal()
    page = root / "docs/benchmarks.md"
    parts_of(page.read_text(encoding="utf-8"), name)  # before hours of training
    recipe = root / "deploy/recipes" / CLAIMS[name].recipe
    sweep = open_sweep(recipe, [f"seed={SEEDS}"], out or Path("runs") / f"learning-{name}", console)
    if code := sweep.run(jobs):
        return code
    found = json.loads((sweep.directory / "sweep.json").read_text(encoding="utf-8"))
    if changes := CLAIMS[name].longer:
        changes = (*changes, f"model.dtype={found['dtype']}")
        for member, row in zip(sweep.members, found["members"], strict=True):
            row["figures"] |= longer_figures(member.directory, recipe, changes)
    command = f"rayzero bench learning {name}"
    results = write_results(results_file(name, root), name, command, found["dtype"], found["content"], found["members"])
    keep_picture(sweep.directory / "sweep.png", root / f"docs/images/learning_{name}.png")
    write_atomically(page, with_table(page.read_text(encoding="utf-8"), results))
    console.print(f"{results_file(name, root)}, {page}", soft_wrap=True, markup=False)
    return 0


def keep_picture(drawn: Path, kept: Path) -> None:
    """A figure in few colours, for the repository: a third of the bytes, which every clone carries."""
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128).save(kept, optimize=True)


def results_file(name: str, root: Path = ROOT) -> Path:
    """Where the repository keeps the results of a claim."""
    return root / f"docs/results/learning_{name}.json"


def with_table(page: str, results: Mapping[str, Any]) -> str:
    """The page with the claim's table made anew, between its two marks.

    Raises:
        RayzeroError: the marks are not there.
    """
    above, _, below = parts_of(page, results["name"])
    return mark(results["name"]).join((above, table(results), below))


def parts_of(page: str, name: str) -> tuple[str, str, str]:
    """What stands above a claim's table, the table, and what stands below.

    Raises:
        RayzeroError: the marks are not there.
    """
    parts = page.split(mark(name))
    if len(parts) != 3:
        raise RayzeroError(
            f"docs/benchmarks.md has no place for the table: write {mark(name).strip()} above and below it"
        )
    return parts[0], parts[1], parts[2]


def mark(name: str) -> str:
    """The line above and below a claim's table."""
    return f"<!-- learning: {name} -->\n"


def table(results: Mapping[str, Any]) -> str:
    """How it was measured, and a row for every model or end of a run."""
    members = [member | {"figures": _with_english(member["figures"])} for member in results["members"]]
    names = list(dict.fromkeys(name for member in members for name in member["figures"]))
    measured = dict.fromkeys(name.partition(" ")[0] for name in names)
    wanted = [figure for figure in CLAIMS[results["name"]].figures if any(_is(name, figure) for name in names)]
    rows = [["", *(_head(figure) for figure in wanted)]]
    for who in measured:
        rows.append([who, *(cell(figure, _values(members, f"{who} {figure}")) for figure in wanted)])
    minutes = ", ".join(f"{member['seconds'] / 60:.0f}" for member in members)
    seeds = ", ".join(str(member["values"]["seed"]) for member in members)
    return (
        f"`{results['command']}`, {results['date']}, {results['machine']}, {results['dtype']}; seeds {seeds} took "
        f"{minutes} minutes. A mean over the seeds ± half of its 95 % interval (Student's t, over the seeds alone), "
        "then each seed:\n\n" + "\n".join(markdown(rows)) + "\n"
    )


def _head(figure: str) -> str:
    """A column's, with its source where there are several."""
    if figure in HEADS:
        return HEADS[figure]
    source, _, name = figure.partition(" ") if " " in figure else ("", "", figure)
    head = HEADS.get(name, f"{name}, %")
    return f"{source}: {head}" if source else head


def _with_english(figures: Mapping[str, float]) -> dict[str, float]:
    """With the share of English words in worked-out answers: one given at once has no words, and counts as English."""
    found = dict(figures)
    for name, value in figures.items():
        head, _, figure = name.rpartition(" ")
        worked_out = figures.get(f"{head} format", 0.0)
        if figure == "language" and worked_out > 0:
            found[f"{head} english language"] = (value - (1 - worked_out)) / worked_out
    return found


def _is(name: str, figure: str) -> bool:
    return name.partition(" ")[2] == figure


def _values(members: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [member["figures"][name] for member in members if name in member["figures"]]
