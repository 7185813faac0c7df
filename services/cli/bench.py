"""`rayzero bench …`. Part of services/cli/app.py; nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rayzero.services.bench import checkout
from rayzero.services.cli.options import DEMO, AsJson, Overrides
from rayzero.services.schema.errors import NotInstalled

bench = typer.Typer(no_args_is_help=True, help="Measure this machine: the loop, the learner, the rewards, the sync.")

SMALL_MODEL = "smollm2-135m-instruct"


@bench.command("loop", epilog="Example: rayzero bench loop --updates 8")
def loop(
    recipe: Annotated[Path, typer.Argument(help="A recipe.", show_default="the demo's")] = DEMO,
    overrides: Overrides = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates that count, after two that do not.")] = 8,
    json: AsJson = False,
) -> None:
    """A short real run, and where its time went."""
    from rayzero.services.bench.loop import run

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
    changed: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of values that differ from sync to sync: sent as deltas, by gloo, as to another machine.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Weights from a learner to engines: in all, and while the engine is paused."""
    from rayzero.services.bench.sync import run

    run(model, dtype, engines, syncs, as_json=json, lora_rank=lora, on_weights=on_weights, changed=changed)


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
    episodes: Annotated[
        bool, typer.Option(help="Episodes that fork, as trees and as rows, in place of the mix and of TRL.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    trl: Annotated[
        bool, typer.Option(help="A column for TRL's step, in a checkout and where TRL is installed.")
    ] = True,
    json: AsJson = False,
) -> None:
    """Trained tokens a second, beside the machine's own limits and beside TRL. Needs neither Ray nor vLLM."""
    from rayzero.services.bench.learner import run, run_episodes
    from rayzero.services.planning.models import resolve_model

    if episodes:
        run_episodes(str(resolve_model(model)), dtype=dtype, num_threads=threads, as_json=json)
        return
    step = checkout.find("trl.step") if trl else None
    run(
        str(resolve_model(model)),
        mix=mix,
        dtype=dtype,
        num_threads=threads,
        measure_trl=step.measure if step is not None and step.is_installed() else None,
        as_json=json,
    )


@bench.command("rewards", epilog="Example: rayzero bench rewards --peers ~/checkouts --golds olympiadbench.jsonl")
def rewards(
    peers: Annotated[
        Path | None,
        typer.Option(
            help="Compare math graders instead: a folder with checkouts of verl, open-instruct and prm800k, as far as "
            "they are to be compared. math-verify is compared where it is installed.",
        ),
    ] = None,
    peers_python: Annotated[
        str | None,
        typer.Option(help="A Python that has what they import: sympy, numpy, pylatexenc, math-verify, antlr4 4.11."),
    ] = None,
    golds: Annotated[
        Path | None,
        typer.Option(help="With --peers: JSON Lines with published gold answers in `answer`, beside the corpus."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --peers: most cases of each set.")] = 2000,
    json: AsJson = False,
) -> None:
    """Verdicts a second, latency, what the sandbox costs, and what hanging items do to healthy ones.

    With --peers: how often rayzero and other projects' graders of math are wrong, hang or raise.
    """
    from rayzero.services.bench.rewards import generated_cases, run

    if peers is not None:
        graders = checkout.find("peers")
        if graders is None:
            raise NotInstalled(checkout.NEEDED)
        graders.run(peers, peers_python, golds, limit, as_json=json)
        return
    if golds is not None or peers_python is not None:
        raise typer.BadParameter("they are for --peers DIR", param_hint="--golds, --peers-python")
    corpus = checkout.find("math_corpus")
    if corpus is None:
        run(generated_cases(), as_json=json)
    else:
        run(corpus.graded_texts(), as_json=json, measure_math=corpus.compare)


def _refuse(context: typer.Context) -> None:
    """Needs a checkout."""
    raise NotInstalled(checkout.NEEDED)


if (found := checkout.find("commands")) is not None:
    bench.add_typer(found.commands)
else:
    for name in checkout.NAMES:
        bench.command(name, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(_refuse)
