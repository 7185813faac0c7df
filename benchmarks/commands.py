"""The `rayzero bench` commands that a checkout has besides; nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rayzero.services.cli.options import DEMO, AsJson, Overrides
from rayzero.services.schema.errors import RayzeroError

commands = typer.Typer()


@commands.command("all", epilog="Example: rayzero bench all --device cuda --shape Qwen/Qwen3-4B --out results")
def all_parts(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    shape: Annotated[str | None, typer.Option(help="A published model, e.g. Qwen/Qwen3-0.6B; or small.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this; may be given several times.")] = None,
    out: Annotated[Path, typer.Option(help="Where bench_DEVICE.json and bench_DEVICE.md are written.")] = Path("bench"),
) -> None:
    """Every part on one device, in one JSON file and one Markdown table. Parts that cannot run here say why."""
    from benchmarks.all import PARTS, run

    if device not in ("cpu", "cuda"):
        raise typer.BadParameter("cpu or cuda", param_hint="--device")
    try:
        table = run("cuda" if device == "cuda" else "cpu", shape, tuple(part or PARTS), out)
    except ValueError as error:
        raise RayzeroError(str(error)) from None
    typer.echo(table.read_text(encoding="utf-8"))


@commands.command("time-to-reward", epilog="Example: rayzero bench time-to-reward --runs runs/demo --trl-minutes 6")
def time_to_reward(
    recipe: Annotated[Path, typer.Argument(help="A recipe.", show_default="the demo's")] = DEMO,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="One training of each side a seed.")] = "0,1,2",
    runs: Annotated[list[Path] | None, typer.Option(help="A finished run directory to read instead of RECIPE.")] = None,
    levels: Annotated[str, typer.Option(help="Held-out accuracies to compare at, per cent.")] = "40,50,60,65",
    trl_minutes: Annotated[
        float, typer.Option(min=0.1, help="Most training that TRL is given a seed; the update in hand is finished.")
    ] = 12.0,
    trl_as_installed: Annotated[
        bool, typer.Option(help="TRL with the C library's allocator, not with that of rayzero's processes.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where it is kept; the same command goes on from what is finished.")] = Path(
        "runs/time-to-reward"
    ),
    plot: Annotated[Path | None, typer.Option(help="Draw both sides' accuracies into this file.")] = None,
    json: AsJson = False,
) -> None:
    """Seconds and samples to the same held-out accuracy, with rayzero and with TRL's GRPOTrainer.

    --runs may be given several times, a run a seed. --json prints, and OUT/time_to_reward.json keeps:

    levels.LEVEL: LEVEL is a share, or `target`, each seed's last accuracy less 2 points
      .median_seconds, .median_samples: TRL's cost over rayzero's, as value and
        is_bound (TRL was not there yet when it ended: the ratio is larger)
      .seeds[]: rayzero and trl, each with seconds and samples (null: not reached),
        ratio_seconds and ratio_samples
    reward_gap: mean training reward on the same prompts, TRL less rayzero, with its
      standard_error and num_updates
    seeds[]: rayzero and trl, each with its evaluations as points, ended (updates,
      reached or time) and outside_s (wall seconds that are not training)
    settings, machine: in words
    """
    from benchmarks.trl.time_to_reward import Options
    from benchmarks.trl.time_to_reward import run as compare

    if runs and (overrides or seeds != "0,1,2"):
        raise typer.BadParameter(
            "they have their own recipe and seeds: leave out --seeds and KEY=VALUE", param_hint="--runs"
        )
    try:
        options = Options(
            seeds=tuple(int(seed) for seed in seeds.split(",")),
            runs=tuple(runs or ()),
            levels=tuple(float(level) / 100 for level in levels.split(",")),
            trl_minutes=trl_minutes,
            trl_as_installed=trl_as_installed,
            out=out,
            plot=plot,
            as_json=json,
        )
    except ValueError:
        raise typer.BadParameter("numbers, e.g. --seeds 0,1,2 --levels 40,60") from None
    compare(recipe, overrides or [], options)


@commands.command("learning", epilog="Example: rayzero bench learning zero")
def learning(
    name: Annotated[str, typer.Argument(help="zero (R1-Zero in small), r1 (all its stages) or demo.", metavar="NAME")],
    out: Annotated[Path | None, typer.Option(help="Where the runs go; by default runs/learning-NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds that run side by side.")] = 1,
) -> None:
    """What a shipped recipe learns: three seeds, and from them the manual's table, figure and JSON.

    Writes docs/results, docs/images and docs/benchmarks.md of the checkout. The same command goes on where it was
    interrupted.
    """
    from benchmarks.learning import run

    raise typer.Exit(run(name, out, jobs))


@commands.command("gallery", epilog="Example: rayzero bench gallery demo")
def gallery(
    name: Annotated[
        str | None, typer.Argument(help="A shipped recipe to train first, e.g. demo.", metavar="[RECIPE]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Its run directory; by default a new one in runs/gallery.")] = None,
) -> None:
    """The manual's gallery: a page a recipe, drawn from docs/results; with RECIPE its run is made anew first.

    Writes docs/gallery and docs/results of the checkout. The same command goes on where a run was interrupted. With
    --out a finished run is taken as it is.
    """
    from benchmarks.gallery import run

    raise typer.Exit(run(name, out))


@commands.command("page", epilog="Example: rayzero bench page --rollouts 20000")
def page(
    rollouts: Annotated[int, typer.Option(min=200, help="Rollouts of the run whose page is opened.")] = 100_000,
) -> None:
    """How soon the exported page of a finished run is there, in Chromium: its first paint, and its list of groups."""
    from benchmarks.page import run

    run(rollouts)


@commands.command("scale", epilog="Example: rayzero bench scale --engines 1 --engines 64 --engines 512")
def scale(
    engines: Annotated[list[int] | None, typer.Option(help="Simulated engines; may be given several times.")] = None,
    large: Annotated[
        bool,
        typer.Option(help="Groups of 16 completions of 2,048 tokens, 20 s ± 50 % each: four minutes a size."),
    ] = False,
    json: AsJson = False,
) -> None:
    """The control plane on actors that do nothing: cost a sample, capacity, weak scaling. No Ray, no vLLM."""
    from benchmarks.scale import LARGE, SHORT, run

    run(engines or ([4096] if large else [1, 8, 64, 256, 512]), as_json=json, work=LARGE if large else SHORT)


@commands.command("pipeline", epilog="Example: rayzero bench pipeline --json")
def pipeline(json: AsJson = False) -> None:
    """What scheduling gives away, with simulated engines and learner: overlap, long tails. Needs no Ray and no vLLM."""
    from benchmarks.pipeline import run

    run(as_json=json)
