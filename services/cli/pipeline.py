"""`rayzero pipeline …`: run, resume, status, graph, check, report."""

from __future__ import annotations

import json as json_lib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rayzero.services.cli.options import AsJson, Quiet, StageOverrides
from rayzero.services.schema.terminal import terminal

if TYPE_CHECKING:
    from rayzero.services.pipeline.pipeline_run import PipelineRun

pipeline = typer.Typer(no_args_is_help=True, help="Several stages as one resumable job, e.g. DeepSeek-R1's recipe.")

EXAMPLE = "deploy/recipes/r1_tiny_cpu.yaml"
PipelineFile = Annotated[Path, typer.Argument(help=f"A pipeline, e.g. {EXAMPLE}", metavar="PIPELINE")]
RunDir = Annotated[Path | None, typer.Option(help="The run directory; by default runs/<name>, with the seed if any.")]
Until = Annotated[str | None, typer.Option(help="Only this stage and what it needs.")]


@pipeline.command(epilog=f"Example: rayzero pipeline run {EXAMPLE}")
def run(
    pipeline: PipelineFile,
    overrides: StageOverrides = None,
    run_dir: RunDir = None,
    until: Until = None,
    quiet: Quiet = False,
) -> None:
    """Run all stages that are not done. The same command goes on after an interruption, inside the stage."""
    _run(pipeline, overrides or [], run_dir, until, quiet)


@pipeline.command(epilog="Example: rayzero pipeline resume runs/r1-tiny")
def resume(
    run: Annotated[Path, typer.Argument(help="A pipeline's run directory.", metavar="RUN")],
    until: Until = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a run as it was started, from the recipe that it keeps."""
    _run(run / "pipeline.yaml", [], run, until, quiet)


@pipeline.command(epilog="Example: rayzero pipeline status runs/r1-tiny")
def status(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline, or its run directory.", metavar="PIPELINE|RUN")],
    overrides: StageOverrides = None,
    run_dir: RunDir = None,
    json: AsJson = False,
) -> None:
    """Which stages are done, which would run, and why. Starts nothing."""
    given = pipeline / "pipeline.yaml" if pipeline.is_dir() else pipeline
    attempt = _attempt(given, overrides or [], pipeline if pipeline.is_dir() else run_dir)
    rows = attempt.summary()
    if json:
        typer.echo(json_lib.dumps(rows, indent=2))
        return
    table = Table(title=str(attempt.directory.path))
    for column in ("stage", "kind", "state", "seconds", "figures"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in ("stage", "kind", "state", "seconds", "figures")))
    terminal().print(table)


@pipeline.command(epilog=f"Example: rayzero pipeline graph {EXAMPLE} --mermaid")
def graph(
    pipeline: PipelineFile,
    overrides: StageOverrides = None,
    mermaid: Annotated[bool, typer.Option(help="As a Mermaid diagram.")] = False,
) -> None:
    """What each stage reads, in the order in which they run."""
    from rayzero.services.pipeline.loading import load_pipeline

    loaded = load_pipeline(pipeline, overrides or [])
    if mermaid:
        typer.echo("flowchart LR")
    for name in loaded.graph.order:
        stage = loaded.pipeline.stages[name]
        if mermaid:
            typer.echo(f'  {name}["{name}<br/>{stage.kind}"]')
            for each in loaded.graph.inputs[name]:
                typer.echo(f"  {each} --> {name}")
        else:
            typer.echo(f"{name:<22} {stage.kind:<18} ◄ {', '.join(loaded.graph.inputs[name]) or '–'}")


@pipeline.command(epilog="Example: rayzero pipeline check deploy/recipes/r1_qwen_gpu.yaml")
def check(pipeline: PipelineFile, overrides: StageOverrides = None, json: AsJson = False) -> None:
    """Validate a pipeline and print what each stage takes, in memory and time. Starts and fetches nothing."""
    from rayzero.services.pipeline.loading import load_pipeline
    from rayzero.services.pipeline.plan import check_pipeline

    check_pipeline(load_pipeline(pipeline, overrides or []), terminal(), as_json=json)


@pipeline.command(epilog="Example: rayzero pipeline report runs/r1-tiny runs/r1-tiny-seed1 runs/r1-tiny-seed2")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of one pipeline with several seeds.")],
) -> None:
    """The results of several seeds together: means over seeds and their spread, written to report-seeds.md."""
    from rayzero.services.pipeline.seeds import report_seeds

    report_seeds(runs, terminal())


def _run(path: Path, overrides: Sequence[str], run_dir: Path | None, until: str | None, quiet: bool) -> None:
    from rayzero.services.observe.run_terminal import run_console
    from rayzero.services.pipeline.job import run_pipeline
    from rayzero.services.pipeline.loading import load_pipeline
    from rayzero.services.schema.errors import UsageError

    loaded = load_pipeline(path, overrides)
    if until is not None and until not in loaded.pipeline.stages:
        raise UsageError(f"--until {until}: no such stage; there are: {', '.join(loaded.graph.order)}")
    run_pipeline(loaded, run_dir, until, run_console(quiet))


def _attempt(path: Path, overrides: Sequence[str], run_dir: Path | None) -> PipelineRun:
    from rayzero.services.pipeline.job import attempt_at
    from rayzero.services.pipeline.loading import load_pipeline

    return attempt_at(load_pipeline(path, overrides), run_dir, terminal())


def _cell(value: object) -> str:
    if isinstance(value, dict):
        plain = {key: item for key, item in value.items() if not isinstance(item, dict | list)}
        return ", ".join(
            f"{key} {item:.3g}" if isinstance(item, float) else f"{key} {item}" for key, item in plain.items()
        )
    return "–" if value is None else str(value)
