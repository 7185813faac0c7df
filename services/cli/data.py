"""`rayzero data check FILE` and `rayzero new NAME --data FILE`. Part of services/cli/app.py; nothing heavy is imported
before one runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayzero.services.cli.options import AsJson
from rayzero.services.schema.errors import UsageError

if TYPE_CHECKING:
    from rayzero.services.data.checking.report import DataReport
    from rayzero.services.schema.messages import Prompt

data = typer.Typer(no_args_is_help=True, help="Files of prompts: what is in them, and the recipe lines that read them.")

DataFile = Annotated[str, typer.Argument(help="A file, a directory or a pattern.", metavar="FILE")]
Format = Annotated[str | None, typer.Option("--format", help="The published format; by default told by the columns.")]


PromptColumn = Annotated[str | None, typer.Option("--prompt", help="The column of prompts, if not called so.")]
AnswerColumn = Annotated[str | None, typer.Option("--answer", help="The column of answers, if not called so.")]

OwnReward = Annotated[
    str | None,
    typer.Option("--reward", help="Your own reward, module:function: judges all rows, which need no answer then."),
]


@data.command(epilog="Example: rayzero data check train.parquet --held-out test.parquet")
def check(
    file: DataFile,
    format: Format = None,
    prompt: PromptColumn = None,
    answer: AnswerColumn = None,
    reward: OwnReward = None,
    held_out: Annotated[str | None, typer.Option(help="A file that must ask nothing that FILE asks.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Rows to grade with their own reference solution.")] = 50,
    rows: Annotated[int | None, typer.Option(min=1, help="Read only the first so many rows.")] = None,
    json: AsJson = False,
) -> None:
    """Read every row as a run would, say what is found, and print the recipe lines. Exit 1: a fault was found."""
    from dataclasses import asdict
    from json import dumps

    from rayzero.services.data.checking.check import check_file

    names = named(format, prompt, answer)
    report = check_file(
        file,
        format,
        held_out=held_out,
        sample=sample,
        max_rows=rows,
        names=names,
        own_reward=reward,
        try_on=trial(reward),
    )
    if json:
        typer.echo(dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        print_report(report)
    raise typer.Exit(1 if report.faults else 0)


def named(format: str | None, prompt: str | None, answer: str | None) -> dict[str, str]:
    """The columns that were named. Raises UsageError beside a format, which has columns of its own."""
    names = {option: name for option, name in (("prompt", prompt), ("answer", answer)) if name is not None}
    if names and format is not None:
        raise UsageError(f"--format {format} says which column is which: leave out --{next(iter(names))}, or --format")
    return names


def trial(reward: str | None) -> Callable[[Sequence[Prompt]], None] | None:
    """Calls a reward of the user's own for prompts, and says what it gives; None without one."""
    from rayzero.services.run.reward_check import try_reward

    return None if reward is None else lambda prompts: try_reward(reward, prompts, partial(typer.echo, err=True))


def print_report(report: DataReport) -> None:
    """The report's lines, on whatever terminal there is."""
    for line in report.lines():
        typer.echo(line.encode("utf-8", "backslashreplace").decode())


def new(
    name: Annotated[str, typer.Argument(help="The run's name, and the directory that is made.")],
    data: Annotated[str, typer.Option("--data", help="The prompts to train on.", metavar="FILE")],
    format: Format = None,
    prompt: PromptColumn = None,
    answer: AnswerColumn = None,
    reward: OwnReward = None,
    model: Annotated[str, typer.Option(help="What `model.path` takes.")] = "smollm2-135m-instruct",
) -> None:
    """Write NAME/recipe.yaml for a file of prompts: what `rayzero check` passes and `rayzero train` runs."""
    from rayzero.services.cli.new_recipe import write_recipe

    path = write_recipe(Path(name), data, format, model, named(format, prompt, answer), reward, trial(reward))
    typer.echo(f"{path} is written. Next:\n  rayzero check {path}\n  rayzero train {path}")
