"""A pipeline as a job: its directory, its one Ray, its stages, its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from rayzero.services.pipeline.context import StageKind
from rayzero.services.pipeline.directory import PipelineDirectory
from rayzero.services.pipeline.fingerprints import fingerprints
from rayzero.services.pipeline.kinds import KINDS
from rayzero.services.pipeline.loading import LoadedPipeline, check_servers, check_tokenizers
from rayzero.services.pipeline.pipeline_run import PipelineRun
from rayzero.services.pipeline.precision import settled
from rayzero.services.pipeline.report import collect, print_report, write_report
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.config.pipeline import Pipeline
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.extras import require_engines


def run_pipeline(loaded: LoadedPipeline, run_dir: Path | None, until: str | None, console: Console) -> None:
    """Run what is not done, on one Ray, and write the report.

    Raises:
        RayzeroError: a stage failed, or the pipeline is refused; names the stage.
    """
    directory = directory_of(loaded.pipeline, run_dir)
    loaded = settled(loaded, directory, say=lambda text: console.print(text, style="dim"))
    attempt = attempt_at(loaded, run_dir, console)
    pipeline = loaded.pipeline
    console.print(f"[bold]{escape(pipeline.name)}[/bold]  {escape(pipeline.description)}")
    console.print(f"run directory: {attempt.directory.path}", style="dim", soft_wrap=True, markup=False)
    attempt.directory.prepare(dict(loaded.content))
    try:
        check_tokenizers(loaded)
        left = attempt.left(until)
        check_servers(loaded, left)
        if left:
            whole = whole_recipe({name: loaded.recipes[name] for name in left})
            require_engines(whole.cluster)
            session = RaySession(whole)
            try:
                session.start()
                attempt.run(until)
            except KeyboardInterrupt:
                console.print("interrupted; the same command goes on inside the stage", style="yellow")
                raise
            finally:
                session.stop()
        report = collect(attempt.summary())
        write_report(attempt.directory.path, pipeline.name, pipeline.description, report)
        print_report(console, attempt.directory.path / "report.html", report)
    finally:
        attempt.directory.release()


def attempt_at(
    loaded: LoadedPipeline, run_dir: Path | None, console: Console, kinds: Mapping[str, StageKind] = KINDS
) -> PipelineRun:
    """The pipeline in its directory; nothing is started or written."""
    directory = directory_of(loaded.pipeline, run_dir)
    loaded = settled(loaded, directory)
    return PipelineRun(
        graph=loaded.graph,
        recipes=loaded.recipes,
        fingerprints=fingerprints(loaded.graph, loaded.recipes),
        directory=directory,
        kinds=kinds,
        console=console,
    )


def directory_of(pipeline: Pipeline, run_dir: Path | None) -> PipelineDirectory:
    """Where a pipeline goes: by its name, and its seed if any, unless the user says where."""
    default = Path("runs") / (pipeline.name + (f"-seed{pipeline.seed}" if pipeline.seed else ""))
    return PipelineDirectory(run_dir or default)


def whole_recipe(recipes: Mapping[str, Recipe]) -> Recipe:
    """A recipe whose Ray has room and named resources for the actors of each of these."""
    first = max(recipes.values(), key=lambda recipe: recipe.rollout.max_workers)
    resources = {
        role: {name: amount for recipe in recipes.values() for name, amount in getattr(recipe.cluster, role).items()}
        for role in ("rollout_resources", "reward_resources", "learner_resources")
    }
    return first.model_copy(update={"cluster": first.cluster.model_copy(update=resources)})
