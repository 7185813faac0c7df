"""`rayzero bench …`. Part of services/cli.py; nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.schema.errors import RayzeroError

bench = typer.Typer(no_args_is_help=True, help="Measure this machine: the loop, the learner, the rewards, the sync.")

SMALL_MODEL = "smollm2-135m-instruct"
AsJson = Annotated[bool, typer.Option("--json", help="The figures as JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe, e.g. learner.optimizer.learning_rate=2e-5", metavar="[KEY=VALUE]..."),
]


@bench.command("loop", epilog="Example: rayzero bench loop --updates 8")
def loop(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")] = Path("deploy/recipes/demo.yaml"),
    overrides: Overrides = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates that count, after two that do not.")] = 8,
    json: AsJson = False,
) -> None:
    """A short real run, and where its time went."""
    from services.bench.loop import run

    run(recipe, overrides or [], updates, as_json=json)


@bench.command("sync", epilog="Example: rayzero bench sync --engines 2")
def sync(
    model: Annotated[str, typer.Option(help="A model directory or a name that model.path takes.")] = SMALL_MODEL,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    engines: Annotated[int, typer.Option(min=1, help="Receivers.")] = 1,
    syncs: Annotated[int, typer.Option(min=1, help="Broadcasts to measure.")] = 10,
    lora: Annotated[int | None, typer.Option(min=1, help="Adapters of this rank, in place of all weights.")] = None,
    on_weights: Annotated[
        Literal["keep_recompute", "keep_stale", "abort"],
        typer.Option(help="What new weights do to running completions; see rollout.on_weights."),
    ] = "keep_recompute",
    json: AsJson = False,
) -> None:
    """Weights from a learner to engines: in all, and while the engine is paused."""
    from services.bench.sync import run

    run(model, dtype, engines, syncs, as_json=json, lora_rank=lora, on_weights=on_weights)


@bench.command("all", epilog="Example: rayzero bench all --device cuda --shape Qwen/Qwen3-4B --out results")
def all_parts(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    shape: Annotated[str | None, typer.Option(help="A published model, e.g. Qwen/Qwen3-0.6B; or small.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this; may be given several times.")] = None,
    out: Annotated[Path, typer.Option(help="Where bench_DEVICE.json and bench_DEVICE.md are written.")] = Path("bench"),
) -> None:
    """Every part on one device, in one JSON file and one Markdown table. Parts that cannot run here say why."""
    from services.bench.all import PARTS, run

    if device not in ("cpu", "cuda"):
        raise typer.BadParameter("cpu or cuda", param_hint="--device")
    try:
        table = run("cuda" if device == "cuda" else "cpu", shape, tuple(part or PARTS), out)
    except ValueError as error:
        raise RayzeroError(str(error)) from None
    typer.echo(table.read_text(encoding="utf-8"))


@bench.command("learner", epilog="Example: rayzero bench learner --mix demo --threads 1")
def learner(
    model: Annotated[str, typer.Option(help="A model directory or a name that model.path takes.")] = SMALL_MODEL,
    mix: Annotated[
        str | None,
        typer.Option(
            help="Lengths of prompts and completions: ragged, demo or long. Default: long on a GPU, else ragged."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    trl: Annotated[bool, typer.Option(help="A column for TRL's step, where TRL is installed.")] = True,
    json: AsJson = False,
) -> None:
    """Trained tokens a second, beside the machine's own limits and beside TRL. Needs neither Ray nor vLLM."""
    from services.bench.learner import run
    from services.models import resolve_model

    run(str(resolve_model(model)), mix=mix, num_threads=threads, with_trl=trl, as_json=json)


@bench.command("time-to-reward", epilog="Example: rayzero bench time-to-reward --runs runs/demo --trl-minutes 6")
def time_to_reward(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")] = Path("deploy/recipes/demo.yaml"),
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="One training of each side a seed.")] = "0,1,2",
    runs: Annotated[list[Path] | None, typer.Option(help="A finished run directory to read instead of RECIPE.")] = None,
    levels: Annotated[str, typer.Option(help="Held-out accuracies to compare at, per cent.")] = "40,50,60,65",
    trl_minutes: Annotated[
        float, typer.Option(min=0.1, help="Most training that TRL is given a seed; the update in hand is finished.")
    ] = 12.0,
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
    from services.bench.time_to_reward import Options
    from services.bench.time_to_reward import run as compare

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
            out=out,
            plot=plot,
            as_json=json,
        )
    except ValueError:
        raise typer.BadParameter("numbers, e.g. --seeds 0,1,2 --levels 40,60") from None
    compare(recipe, overrides or [], options)


@bench.command("scale", epilog="Example: rayzero bench scale --engines 1 --engines 64 --engines 512")
def scale(
    engines: Annotated[list[int] | None, typer.Option(help="Simulated engines; may be given several times.")] = None,
    json: AsJson = False,
) -> None:
    """The control plane on actors that do nothing: cost a sample, capacity, weak scaling. No Ray, no vLLM."""
    from services.bench.scale import run

    run(engines or [1, 8, 64, 256, 512], as_json=json)


@bench.command("pipeline", epilog="Example: rayzero bench pipeline --json")
def pipeline(json: AsJson = False) -> None:
    """What scheduling gives away, with simulated engines and learner: overlap, long tails. Needs no Ray and no vLLM."""
    from services.bench.pipeline import run

    run(as_json=json)


@bench.command("rewards", epilog="Example: rayzero bench rewards --json")
def rewards(json: AsJson = False) -> None:
    """Verdicts a second, latency, what the sandbox costs, and what hanging items do to healthy ones."""
    from services.bench.rewards import run

    run(json=json)
