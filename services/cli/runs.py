"""The commands on runs, live and finished. Part of services/cli/app.py; nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rayzero.services.cli.options import (
    RUNS,
    TOKEN_ENV,
    AsJson,
    NamesRun,
    Overrides,
    Run,
    RunName,
    RunOption,
    Runs,
    TokenEnv,
)

commands = typer.Typer()
runs_commands = typer.Typer(no_args_is_help=True, help="Runs on disk, side by side.")
commands.add_typer(runs_commands, name="runs")


@commands.command(cls=NamesRun, epilog="Example: rayzero status --watch    rayzero status runs/demo --json")
def status(
    run: Run = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until the run ends.")] = False,
    json: AsJson = False,
    runs: Runs = RUNS,
    token_env: TokenEnv = TOKEN_ENV,
) -> None:
    """A live run at a glance: update, workers, queues, who waits for whom. Of one that has ended its health, what to
    do, and its first update beside the last. Exit 3: it does not answer, or has ended."""
    from rayzero.services.cli.client import find_directory, find_run
    from rayzero.services.cli.status import show_ended
    from rayzero.services.cli.status import status as show
    from rayzero.services.schema.errors import RunUnreachable
    from rayzero.services.store.run_directory import RunDirectory

    try:
        found = find_run(run, runs, token_env)
    except RunUnreachable:
        if run is not None and show_ended(RunDirectory(find_directory(run, runs)), as_json=json):
            raise typer.Exit(RunUnreachable.exit_code) from None
        raise
    show(found, watch, as_json=json)


@commands.command(epilog="Example: rayzero scale rollout=3 reward=4 --wait 300")
def scale(
    changes: Annotated[list[str], typer.Argument(help="rollout=3, reward=4 or both.", metavar="ROLE=NUMBER...")],
    run: RunOption = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until they serve; 0: answer at once.")] = 0.0,
    json: AsJson = False,
    runs: Runs = RUNS,
    token_env: TokenEnv = TOKEN_ENV,
) -> None:
    """Change how many workers a live run has. A worker that leaves finishes its groups first."""
    from rayzero.services.cli.changes import scale as ask
    from rayzero.services.cli.client import find_run

    ask(changes, find_run(run, runs, token_env), wait, as_json=json)


@commands.command(cls=NamesRun, epilog="Example: rayzero pause runs/demo")
def pause(run: Run = None, json: AsJson = False, runs: Runs = RUNS, token_env: TokenEnv = TOKEN_ENV) -> None:
    """Finish what is in hand and begin nothing more; returns when nothing moves."""
    from rayzero.services.cli.changes import change
    from rayzero.services.cli.client import find_run

    change(
        "pause",
        find_run(run, runs, token_env),
        json,
        say=lambda answer: "it is paused; rayzero resume goes on",
        waits_for="it finishes what is in hand",
    )


@commands.command(cls=NamesRun, epilog="Example: rayzero resume runs/demo")
def resume(run: Run = None, json: AsJson = False, runs: Runs = RUNS, token_env: TokenEnv = TOKEN_ENV) -> None:
    """Go on after a pause. A run that has ended goes on with `rayzero train` and its recipe."""
    from rayzero.services.cli.changes import change
    from rayzero.services.cli.client import find_run

    change("resume", find_run(run, runs, token_env), json, say=lambda answer: "it goes on")


@commands.command(epilog="Example: rayzero drain rollout-1 --deadline 60")
def drain(
    worker: Annotated[str, typer.Argument(help="A worker's name, as `rayzero status` shows it.")],
    run: RunOption = None,
    deadline: Annotated[float | None, typer.Option(min=0, help="Seconds; then its groups are handed over.")] = None,
    json: AsJson = False,
    runs: Runs = RUNS,
    token_env: TokenEnv = TOKEN_ENV,
) -> None:
    """Replace a worker once it has finished its groups; returns when it has left."""
    from rayzero.services.cli.changes import change
    from rayzero.services.cli.client import find_run

    body: dict[str, Any] = {"worker": worker, "deadline_s": deadline}
    change(
        "drain",
        find_run(run, runs, token_env),
        json,
        body,
        say=lambda answer: f"{answer['drained']} has left, a new one comes",
        waits_for=f"{worker} finishes its groups",
    )


@commands.command(cls=NamesRun, epilog="Example: rayzero checkpoint runs/demo")
def checkpoint(run: Run = None, json: AsJson = False, runs: Runs = RUNS, token_env: TokenEnv = TOKEN_ENV) -> None:
    """Save now, between two updates; returns when it is saved."""
    from rayzero.services.cli.changes import change
    from rayzero.services.cli.client import find_run

    change(
        "checkpoint",
        find_run(run, runs, token_env),
        json,
        say=lambda answer: f"saved at update {answer['version']}",
        waits_for="it saves when the update under way is done",
    )


@commands.command(cls=NamesRun, epilog="Example: rayzero stop runs/demo --wait 600")
def stop(
    run: Run = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end; 0: answer at once.")] = 0.0,
    json: AsJson = False,
    runs: Runs = RUNS,
    token_env: TokenEnv = TOKEN_ENV,
) -> None:
    """Finish the update in hand, save, end. The same `rayzero train` continues it."""
    from rayzero.services.cli.changes import stop as ask
    from rayzero.services.cli.client import find_run

    ask(find_run(run, runs, token_env), wait, as_json=json)


@commands.command(epilog="Example: rayzero samples runs/demo --status wrong --sort longest --format html")
def samples(
    run: RunName,
    version: Annotated[int | None, typer.Option(help="Of this update alone.")] = None,
    kind: Annotated[Literal["", "train", "evaluation", "dropped"], typer.Option(help="Of these alone.")] = "",
    status: Annotated[Literal["", "correct", "wrong", "error"], typer.Option(help="Groups with such a verdict.")] = "",
    source: Annotated[str, typer.Option(help="Of this data source alone.")] = "",
    prompt_id: Annotated[str, typer.Option("--prompt", help="Of this prompt alone.")] = "",
    max_reward: Annotated[float | None, typer.Option(help="Groups with a reward of at most that.")] = None,
    sort: Annotated[
        Literal["newest", "oldest", "spread", "longest", "lowest", "highest", "kl", "unlikely"],
        typer.Option(help="spread: rewards disagree most; kl: sampler and learner do; unlikely: least likely tokens."),
    ] = "newest",
    group: Annotated[str | None, typer.Option(help="One group, by the key that the table shows.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Groups.")] = 5,
    format: Annotated[
        Literal["table", "brief", "jsonl", "html"],
        typer.Option(help="brief: prompts, gold answers and counts; html: one self-contained file."),
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    runs: Runs = RUNS,
) -> None:
    """What the model wrote and what it was given for it, live or finished run."""
    from rayzero.services.cli.samples import samples as show
    from rayzero.services.observe.browse.rollout_index import Filter

    wanted = Filter(
        kind=kind, version=version, status=status, source=source, prompt_id=prompt_id, max_reward=max_reward
    )
    show(run, runs, wanted, sort, limit, format, out, group)


@commands.command(epilog="Example: rayzero regrade runs/demo --files 10")
def regrade(
    run: RunName,
    files: Annotated[int | None, typer.Option(min=1, help="Only the newest so many rollout files.")] = None,
    json: AsJson = False,
    runs: Runs = RUNS,
) -> None:
    """Judge a run's rollouts again with today's reward code. Exit 1: verdicts come out otherwise."""
    from rayzero.services.cli.regrade import regrade as judge

    raise typer.Exit(judge(run, runs, files, as_json=json))


@commands.command(
    epilog="Example: rayzero submit deploy/recipes/demo.yaml seed=1 --address http://127.0.0.1:8265 --runs /shared/runs"
)
def submit(
    recipe: Annotated[Path, typer.Argument(help="A recipe below the current directory.", metavar="RECIPE")],
    overrides: Overrides = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="URL of Ray's dashboard.")
    ] = "http://127.0.0.1:8265",
    runs: Annotated[Path, typer.Option(help="Where run directories are; every node must see it.")] = RUNS,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the log, and exit as the job does.")] = False,
    name: Annotated[str | None, typer.Option(help="The job's id; by default the recipe's name and the time.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Pass this environment variable on. Ray shows a job's variables to every user who can see the job."
        ),
    ] = None,
    head: Annotated[bool, typer.Option(help="Keep the driver on the node with the resource `head`.")] = False,
    json: AsJson = False,
) -> None:
    """Train on a running Ray: what `ray job submit` does, with all that such a job needs. The same again resumes it."""
    from rayzero.services.cli.submit import plan_job
    from rayzero.services.cli.submit import submit as send

    job = plan_job(recipe, overrides or [], runs, name, env or [], head)
    raise typer.Exit(send(job, address, wait, as_json=json))


@commands.command(epilog="Example: rayzero doctor --address auto --recipe my.yaml --runs /shared/runs")
def doctor(
    recipe: Annotated[Path | None, typer.Option(help="Whose model every node must have.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray: look at each of its nodes too.")] = None,
    runs: Runs = RUNS,
    prometheus: Annotated[str | None, typer.Option(help="URL of a Prometheus that should scrape the run.")] = None,
    json: AsJson = False,
) -> None:
    """What goes wrong in practice, looked at before it does. Exit 1: something will not work."""
    from rayzero.services.cli.doctor import doctor as look

    raise typer.Exit(look(recipe, address, runs.resolve(), prometheus, as_json=json))


@runs_commands.command("ls", epilog="Example: rayzero runs ls --runs /shared/runs")
def ls(runs: Runs = RUNS, json: AsJson = False) -> None:
    """Every run: state, updates, reward, held-out accuracy."""
    from rayzero.services.cli.run_list import list_runs

    list_runs(runs, as_json=json)


@runs_commands.command("compare", epilog="Example: rayzero runs compare demo demo-2 --html compared.html")
def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two runs or more.")],
    runs: Runs = RUNS,
    json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with their curves over each other.")] = None,
) -> None:
    """What their recipes set differently, and what came of it."""
    from rayzero.services.cli.compare import compare_runs

    compare_runs(names, runs, as_json=json, html=html)


@runs_commands.command("prune", epilog="Example: rayzero runs prune --older-than 30 --keep 5")
def prune(
    runs: Runs = RUNS,
    keep: Annotated[int | None, typer.Option(min=0, help="The newest so many stay.")] = None,
    older_than: Annotated[float | None, typer.Option(min=0, help="Days since anything changed in it.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Stopped runs, too, which could go on.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them. Without it they are shown.")] = False,
    json: AsJson = False,
) -> None:
    """Remove old runs, first shown. Never a live one."""
    from rayzero.services.cli.prune import prune as remove

    remove(runs, keep, older_than, unfinished, yes, as_json=json)


@commands.command(epilog="Example: rayzero logs runs/demo rollout-0 -f")
def logs(
    run: RunName,
    actor: Annotated[str | None, typer.Argument(help="driver, learner, rollout-0, or a role: reward.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Of each log, the last so many first.")] = 20,
    runs: Runs = RUNS,
) -> None:
    """What a run's actors logged."""
    from rayzero.services.cli.logs import logs as show

    show(run, runs, actor, lines, follow)


@commands.command(epilog="Example: rayzero export runs/demo ./my-model --dtype bfloat16")
def export(
    run: RunName,
    out: Annotated[Path, typer.Argument(help="A directory that is not there yet.")],
    update: Annotated[int | None, typer.Option(min=0, help="Of this checkpoint; by default the last.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The highest held-out accuracy, which flatters it.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter alone, in PEFT's format.")] = False,
    dtype: Annotated[
        Literal["", "bfloat16", "float16", "float32"], typer.Option(help="Of the weights; by default as they are.")
    ] = "",
    runs: Runs = RUNS,
) -> None:
    """A run's model by itself, with a model card: for from_pretrained, vLLM or the hub."""
    from rayzero.services.cli.export import export as write

    write(run, runs, out, update, best, adapter, dtype)
