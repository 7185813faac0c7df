"""The options and arguments that several commands share, each with the one help text it has everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.import_root import IMPORT_ROOT

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

DEMO = IMPORT_ROOT / "rayzero/recipes/demo.yaml"
"""The demo's recipe, from a checkout or from a wheel."""
RecipeFile = Annotated[Path, typer.Argument(help="A recipe, e.g. deploy/recipes/demo.yaml", metavar="RECIPE")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors alone.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe, e.g. learner.optimizer.learning_rate=2e-5", metavar="[KEY=VALUE]..."),
]

StageOverrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes, e.g. stages.reasoning.recipe.training.num_updates=20", metavar="[KEY=VALUE]..."),
]

_RUN = "A run directory, its name below --runs, or its API's URL; by default the newest live."
Run = Annotated[str | None, typer.Argument(help=_RUN)]
RunOption = Annotated[str | None, typer.Option("--run", help=_RUN)]
RunName = Annotated[str, typer.Argument(help="A run directory, or its name below --runs.")]

TokenEnv = Annotated[str, typer.Option("--token-env", help="The environment variable that holds the run's token.")]
TOKEN_ENV = "RAYZERO_API_TOKEN"

Runs = Annotated[Path, typer.Option(help="Where run directories are.")]
RUNS = Path("runs")


class NamesRun(TyperCommand):
    """A command whose one argument is the run, where others, with an argument of their own, have `--run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse `--run` with the form that is right here."""
        if any(word == "--run" or word.startswith("--run=") for word in args):
            raise UsageError(f"{ctx.command_path} has no --run: the run is its argument, {ctx.command_path} RUN")
        return super().parse_args(ctx, args)
