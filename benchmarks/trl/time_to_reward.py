"""`rayzero bench time-to-reward`: a task trained by rayzero and by TRL's GRPOTrainer, and what the same accuracy cost.

A seed after the other: rayzero's training (or a finished run of it), then TRL's in a process of its own, with the same
model, prompts in the same order, rendering, group size, schedule, rewards and held-out prompts. TRL ends when it holds
the highest level that rayzero held, with its last update, or at its limit: its ratios are then bounds.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.trl.process import settings_of, train_with_trl, trl_curve
from benchmarks.trl.reward_curve import Curve, read_run
from benchmarks.trl.reward_plot import draw
from benchmarks.trl.reward_report import SeedRun, notes, summarise, table_rows, target_of
from rayzero.services.bench.table import machine
from rayzero.services.pipeline.report import markdown
from rayzero.services.planning.models import resolve_model
from rayzero.services.run.precision import settled
from rayzero.services.run.preflight import count_gpus, gpus_wanted
from rayzero.services.schema.config.loader import load_recipe, validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RayzeroError, RecipeError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.run_directory import RunDirectory, write_atomically, write_json

INTERRUPTED = 130
NO_TRL = "TRL is not installed (scripts/setup compare): its half is left out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command was asked for besides the recipe."""

    seeds: Sequence[int] = (0, 1, 2)
    """Unused with `runs`, which have their own."""
    runs: Sequence[Path] = ()
    """Finished run directories, a seed each, instead of rayzero's trainings."""
    levels: Sequence[float] = (0.4, 0.5, 0.6, 0.65)
    """Accuracies, as shares."""
    trl_minutes: float = 12.0
    """TRL's limit a seed, in minutes of training."""
    trl_as_installed: bool = False
    """TRL without the allocator that rayzero's processes have."""
    out: Path = Path("runs/time-to-reward")
    """Where everything is kept; what is finished there is not trained again."""
    plot: Path | None = None
    as_json: bool = False


def run(recipe: Path, overrides: Sequence[str], options: Options) -> dict[str, Any]:
    """Train what is not trained yet, compare, print, write and return the figures.

    Raises:
        RecipeError: the recipe asks for what TRL does not do in the same way, or the runs do not fit together.
        RayzeroError: a training failed.
    """
    say = terminal(stderr=options.as_json)
    wanted = _given_runs(options) or _wanted_runs(recipe, overrides, options)
    check_comparable(wanted[0][0])
    with_trl = find_spec("trl") is not None
    if not with_trl:
        say.print(NO_TRL, style="yellow")
    trials: list[SeedRun] = []
    settings: dict[str, Any] = {"micro_batch": 0, "text": NO_TRL}
    for made_with, place in wanted:
        _, ours = read_run(place or _train(recipe, overrides, made_with, options, say))
        theirs = None
        if with_trl:
            rows = _train_trl(made_with, ours, settings["micro_batch"], options, say)
            settings, theirs = settings_of(rows), trl_curve(rows)
        trials.append(SeedRun(seed=made_with.seed, ours=ours, theirs=theirs))
    figures = summarise(wanted[0][0], trials, options.levels, settings["text"])
    _publish(trials, figures, options)
    return figures


def stop_level(ours: Curve, levels: Sequence[float]) -> float:
    """The highest accuracy at which both sides will be compared: TRL has nothing to show beyond it."""
    return max([target_of(ours), *(level for level in levels if ours.reach(level) is not None)])


def check_comparable(recipe: Recipe) -> None:
    """TRL can be asked for the same, or the comparison is refused.

    Raises:
        RecipeError: names the key.
    """
    learner, training = recipe.learner, recipe.training
    loss = learner.loss
    unlike = {
        "learner.loss": loss.name != "grpo" or loss.ratio != "token",
        "learner.advantage": learner.advantage_name != "std_normalised",
        "learner.kl.beta": learner.kl.beta != 0,
        "learner.entropy_coefficient": learner.entropy_coefficient != 0,
        "learner.inner_epochs or minibatches": learner.steps_per_update != 1,
        "learner.lora": learner.lora is not None,
        "cold_start": recipe.cold_start is not None,
        "data.curriculum": recipe.data.curriculum is not None,
        "training.skip_uniform_groups": training.skip_uniform_groups,
    }
    for key, is_unlike in unlike.items():
        if is_unlike:
            raise RecipeError(
                f"time-to-reward compares plain GRPO, one step an update, without a KL term: {key} is otherwise in "
                f"the recipe {recipe.name}; leave it out"
            )
    if not learner.steps_without_gradient:
        raise RecipeError(
            f"time-to-reward: TRL's optimizer goes on from its momentum where a batch gives no gradient, the recipe "
            f"{recipe.name} does not: add learner.steps_without_gradient=true"
        )
    if gpus_wanted(recipe, count_gpus()):
        raise RecipeError(
            "time-to-reward compares on CPUs, where TRL generates with transformers; on GPUs it would want its vLLM "
            "mode: set rollout.device: cpu"
        )


def check_same(first: Recipe, other: Recipe, place: Path) -> None:
    """The seeds of one comparison differ in nothing else.

    Raises:
        RecipeError: names the section.
    """
    for section in Recipe.model_fields:
        if section not in ("seed", "observe", "name") and getattr(first, section) != getattr(other, section):
            raise RecipeError(
                f"{place}: its recipe differs from the first run's in `{section}`: compare like with like"
            )


def _given_runs(options: Options) -> list[tuple[Recipe, Path | None]]:
    found: list[tuple[Recipe, Path | None]] = []
    for place in options.runs:
        made_with, _ = read_run(place)
        if found:
            check_same(found[0][0], made_with, place)
        if made_with.seed in [recipe.seed for recipe, _ in found]:
            raise RecipeError(f"--runs {place}: another run has seed {made_with.seed}, too: give one run a seed")
        found.append((made_with, place))
    return found


def _wanted_runs(recipe: Path, overrides: Sequence[str], options: Options) -> list[tuple[Recipe, Path | None]]:
    """Recipes by seed, and the runs of them that are finished in `out`."""
    found: list[tuple[Recipe, Path | None]] = []
    for seed in options.seeds:
        wanted = settled(load_recipe(recipe, [*overrides, f"seed={seed}"]))
        found.append((wanted, _finished_run(wanted, options.out)))
    return found


def _finished_run(wanted: Recipe, out: Path) -> Path | None:
    for file in sorted(out.glob("*/recipe.yaml")):
        directory = RunDirectory(file.parent)
        if not directory.is_finished():
            continue
        made_with = validate_recipe(directory.recipe() or {}, {}, default_origin=str(file))
        if all(getattr(made_with, name) == getattr(wanted, name) for name in Recipe.model_fields if name != "observe"):
            return directory.path
    return None


def _train(recipe: Path, overrides: Sequence[str], wanted: Recipe, options: Options, say: Console) -> Path:
    """rayzero's training, from the beginning: a resumed run has no clock to compare."""
    from rayzero.services.run.run import train

    say.rule(f"rayzero, seed {wanted.seed}", align="left")
    with contextlib.redirect_stdout(sys.stderr if options.as_json else sys.stdout):
        code = train(recipe, [*overrides, f"seed={wanted.seed}"], options.out, None, fresh=True)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    place = _finished_run(wanted, options.out)
    if code != 0 or place is None:
        raise RayzeroError(f"rayzero's training with seed {wanted.seed} ended with exit code {code}")
    return place


def _train_trl(recipe: Recipe, ours: Curve, micro_batch: int, options: Options, say: Console) -> list[dict[str, Any]]:
    say.rule(f"TRL, seed {recipe.seed}", align="left")
    spec = {
        "recipe": recipe.model_dump(mode="json"),
        "model": str(resolve_model(recipe.model.path, say=say.print)),
        "stop_at": stop_level(ours, options.levels),
        "limit_s": 60.0 * options.trl_minutes,
        "micro_batch": micro_batch,
        "as_installed": options.trl_as_installed,
    }
    kind = "_as_installed" if options.trl_as_installed else ""
    out = options.out.resolve() / f"trl_{recipe.name}_seed_{recipe.seed}{kind}.jsonl"
    return train_with_trl(spec, out, lambda text: say.print(text, style="dim", soft_wrap=True))


def _publish(trials: Sequence[SeedRun], figures: Mapping[str, Any], options: Options) -> None:
    """Print; write time_to_reward.json, time_to_reward.md and the drawing."""
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {"machine": machine(), **figures}
    write_json(options.out / "time_to_reward.json", figures)
    rows, said = table_rows(figures), notes(trials, figures)
    text = [*markdown(rows), "", *(f"- {note}" for note in said)]
    write_atomically(options.out / "time_to_reward.md", "\n".join(text) + "\n")
    if options.plot is not None:
        sides = {"rayzero": [t.ours for t in trials], "TRL": [t.theirs for t in trials if t.theirs is not None]}
        draw(sides, f"{figures['recipe']}, {figures['model']}, {figures['machine']}", options.plot)
    if options.as_json:
        print(json.dumps(figures, indent=2))
        return
    console = terminal()
    console.print(f"[dim]{machine()}[/dim]")
    table = Table(title="seconds and samples to the same held-out accuracy")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    for note in said:
        console.print(note, style="dim")
