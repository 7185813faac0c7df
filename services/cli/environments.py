"""`rayzero env check | play`: an environment tried by itself, before a run. Nothing heavy is imported before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayzero.services.cli.options import AsJson, Overrides
from rayzero.services.schema.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayzero.services.schema.config.environment import PythonEnvironment
    from rayzero.services.schema.config.recipe import Recipe

environments = typer.Typer(no_args_is_help=True, help="Environments: what a model acts in, turn by turn.")

Factory = Annotated[
    str, typer.Argument(help="`module:Class`, importable here; or a recipe with an environment.", metavar="FACTORY")
]
Row = Annotated[
    str | None,
    typer.Option(help="A row of data as JSON: its columns, prompt and answer. Of a recipe, empty: its first prompt."),
]
Parser = Annotated[str, typer.Option(help="As in a recipe; `text`: each turn goes whole to the one method.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long one step may take.")]


@environments.command(epilog="""Example: rayzero env check my_envs:Wordle --row '{"answer": "crane"}'""")
def check(
    factory: Factory,
    overrides: Overrides = None,
    row: Row = None,
    tool_parser: Parser = "auto",
    step_s: Seconds = 10.0,
    json_: AsJson = False,
) -> None:
    """Try it with made-up turns: tools, the same for a seed, two at once, step times. Exit 1: a fault was found.

    A recipe's environment may be of any kind: a class, a game, a server, an agent, a taskset.
    """
    from rayzero.services.run.environment_trial import check as run
    from rayzero.services.run.environment_trial import check_recipe

    if _is_recipe(factory):
        raise typer.Exit(check_recipe(_recipe(factory, overrides), None if row is None else _row(row), as_json=json_))
    raise typer.Exit(run(_settings(factory, tool_parser, step_s, overrides), _row(row or "{}"), as_json=json_))


@environments.command(epilog="""Example: rayzero env play my_envs:Wordle --row '{"answer": "crane"}'""")
def play(
    factory: Factory,
    overrides: Overrides = None,
    row: Row = None,
    tool_parser: Parser = "auto",
    step_s: Seconds = 60.0,
    model: Annotated[str | None, typer.Option(help="Who plays: as model.path. Empty: you, at the terminal.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one turn of the model.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the environment, and of a model's sampling.")] = 0,
) -> None:
    """Play one episode yourself, or watch a model play it. An agent, and a taskset, ask you for the model's turns."""
    from rayzero.services.run.environment_play import play as run
    from rayzero.services.run.environment_play import play_recipe

    if _is_recipe(factory):
        given = None if row is None else _row(row)
        play_recipe(_recipe(factory, overrides), given, model, max_tokens, seed)
        return
    run(_settings(factory, tool_parser, step_s, overrides), _row(row or "{}"), model, max_tokens, seed)


def _is_recipe(factory: str) -> bool:
    return factory.endswith((".yaml", ".yml"))


def _recipe(path: str, overrides: Sequence[str] | None) -> Recipe:
    from rayzero.services.schema.config.loader import load_recipe

    return load_recipe(path, overrides or ())


def _settings(factory: str, tool_parser: str, step_s: float, overrides: Sequence[str] | None) -> PythonEnvironment:
    if overrides:
        raise UsageError(f"{overrides[0]} changes a recipe, and {factory} is none: name a recipe, or leave it out")
    from pydantic import ValidationError

    from rayzero.services.schema.config.environment import PythonEnvironment

    limits = {"step_s": step_s, "start_s": max(60.0, step_s), "episode_s": max(3600.0, step_s)}
    try:
        return PythonEnvironment.model_validate({"factory": factory, "tool_parser": tool_parser, "limits": limits})
    except ValidationError as error:
        raise UsageError(f"{factory}: {error.errors()[0]['msg']}: write it as module:Class") from None


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--row is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise UsageError('--row must be an object, e.g. \'{"answer": "crane"}\'')
    return row
