"""The command line: `rayzero …`, or `python -m rayzero …` as a Ray job's entry point.

Nothing heavy is imported before a command runs: `--help` answers in a fraction of a second.
Exit codes: 0 done, 1 failed, 2 refused (a recipe, arguments, an extra that is not installed), 3 the run does not
answer, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rayzero.services.cli.bench import bench
from rayzero.services.cli.data import data, new
from rayzero.services.cli.environments import environments
from rayzero.services.cli.options import RUNS, AsJson, Overrides, Quiet, RecipeFile, RunName, Runs
from rayzero.services.cli.pipeline import pipeline
from rayzero.services.cli.runs import commands
from rayzero.services.schema.errors import NotInstalled, RayzeroError, UsageError
from rayzero.services.schema.printable import printable, take_any_text
from rayzero.services.schema.reports import send_no_reports

app = typer.Typer(
    name="rayzero",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

FIRST_STEPS = """\
rayzero trains language models with GRPO on verifiable rewards. Three commands to begin with:

  rayzero new mine --data rows.jsonl    write a recipe for a file of questions and answers
  rayzero check mine/recipe.yaml        hold it against this machine, before anything starts
  rayzero train mine/recipe.yaml        train; the same command goes on after an interruption

No data yet: the quickstart trains a small model on two CPU cores (make demo in a checkout).
rayzero --help lists all commands; rayzero --install-completion completes them on Tab."""

sandbox = typer.Typer(no_args_is_help=True, help="The sandbox that runs model-written programs.")
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")
app.add_typer(sandbox, name="sandbox")
app.add_typer(pipeline, name="pipeline")
app.add_typer(environments, name="env")


@app.command(epilog="Example: rayzero train deploy/recipes/demo.yaml seed=1 training.num_updates=20")
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Exactly this run directory.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run directories are made.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Never continue an unfinished run.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train. The same command continues a run that was interrupted."""
    from rayzero.services.run.run import train as run

    raise typer.Exit(run(recipe, overrides or [], runs_root=runs, explicit=run_dir, fresh=fresh, quiet=quiet))


@app.command(epilog="Example: rayzero check deploy/recipes/demo.yaml rollout.num_workers=4")
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Plan for so many GPUs, not for this machine's.")] = None,
    json: AsJson = False,
) -> None:
    """Validate a recipe, or a pipeline, and print the plan. Starts nothing."""
    from rayzero.services.pipeline.loading import is_pipeline
    from rayzero.services.run.plan import check as run

    if is_pipeline(recipe):
        from rayzero.services.cli.pipeline import check as check_pipeline

        check_pipeline(recipe, overrides, json)
    else:
        run(recipe, overrides or [], as_json=json, gpus=gpus)


@app.command(
    epilog="Example: rayzero sweep deploy/recipes/demo.yaml seed=0,1,2 learner.optimizer.learning_rate=1e-5,2e-5"
)
def sweep(
    recipe: Annotated[Path, typer.Argument(help="A recipe or a pipeline.", metavar="RECIPE")],
    grid: Annotated[
        list[str],
        typer.Argument(
            help="What varies, e.g. seed=0,1,2; a key with one value is the same for all.", metavar="KEY=A,B..."
        ),
    ],
    jobs: Annotated[int, typer.Option(min=1, help="How many run side by side.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The sweep's directory; by default runs/<name>-sweep.")] = None,
) -> None:
    """Train every combination; one table and one figure. The same command goes on where it was interrupted.

    Seeds of one setting are shown as a mean with its interval. Exit 1: a member failed; the others are shown.
    """
    from rayzero.services.schema.terminal import terminal
    from rayzero.services.sweep.sweep import run

    raise typer.Exit(run(recipe, grid, out, jobs, terminal()))


@app.command(epilog="Example: rayzero replay runs/demo --updates 5")
def replay(
    run: RunName,
    updates: Annotated[int | None, typer.Option(min=1, help="Only the first so many updates.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest relative difference that passes.")] = 1e-3,
    json: AsJson = False,
    runs: Runs = RUNS,
) -> None:
    """Run a recorded run's updates again from its rollouts, without engines, and compare the metrics."""
    from rayzero.services.cli.client import find_directory
    from rayzero.services.run.replay import replay as start

    raise typer.Exit(start(find_directory(run, runs), updates, tolerance, as_json=json))


@app.command(epilog="Example: rayzero audit runs/demo")
def audit(
    run: RunName,
    json: AsJson = False,
    runs: Runs = RUNS,
) -> None:
    """Check that a run trained on every group once or dropped it with a reason. Exit 1: one was lost or doubled."""
    from rayzero.services.cli.client import find_directory
    from rayzero.services.store.ledger import report

    raise typer.Exit(report(find_directory(run, runs), as_json=json))


@app.command(epilog="Example: rayzero chaos deploy/recipes/tiny_addition.yaml --minutes 10 --seed 1")
def chaos(
    recipe: RecipeFile,
    overrides: Overrides = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long, from the first update on.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the choice of victims and moments.")] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="Ray nodes that may be killed, besides the head.")] = 2,
    json: AsJson = False,
) -> None:
    """Train while every kind of process is killed in every phase, then audit. Exit 1: a group was lost or doubled."""
    from rayzero.services.chaos.storm import run

    raise typer.Exit(run(recipe, overrides or [], minutes, seed, nodes, as_json=json))


@app.command(epilog="Example: rayzero recipe learner.watch    rayzero recipe > deploy/recipes/README.md")
def recipe(
    section: Annotated[str | None, typer.Argument(help="One section, e.g. learner.watch; by default all.")] = None,
) -> None:
    """Print the reference of every key that a recipe, or a section of it, can have, as Markdown."""
    from rayzero.services.cli import recipe_reference

    typer.echo(recipe_reference.markdown() if section is None else recipe_reference.section(section), nl=False)


@app.command(epilog="Example: rayzero dashboards --deploy deploy")
def dashboards(
    deploy: Annotated[Path, typer.Option(help="A checkout's deploy folder.")] = Path("deploy"),
) -> None:
    """Write the Grafana dashboards, and with the alerts also as Kubernetes takes them."""
    from rayzero.services.observe.monitoring.dashboards import write_dashboards, write_kubernetes

    alerts = deploy / "prometheus" / "alerts.yml"
    if not alerts.is_file():
        raise UsageError(f"--deploy {deploy}: there is no {alerts}; name the deploy folder of a checkout")
    kubernetes = write_kubernetes(alerts, deploy / "kuberay" / "monitoring")
    for file in (*write_dashboards(deploy / "grafana" / "dashboards"), *kubernetes):
        typer.echo(file)


@app.command(epilog="Example: rayzero eval runs/demo/model --recipe deploy/recipes/demo.yaml evaluation.temperature=0")
def eval(
    model: Annotated[str, typer.Argument(help="A model directory or a name that model.path takes.")],
    recipe: Annotated[Path, typer.Option(help="Whose held-out prompts, rewards and sampling to use.")],
    overrides: Overrides = None,
    json: AsJson = False,
) -> None:
    """Measure a model on a recipe's held-out prompts."""
    from rayzero.services.run.inference import evaluate as run

    run(model, recipe, overrides or [], as_json=json)


@app.command(epilog='Example: rayzero generate runs/demo/model "What comes after 41?" -n 4')
def generate(
    model: Annotated[str, typer.Argument(help="A model directory or a name that model.path takes.")],
    prompt: Annotated[str, typer.Argument(help="The user's message.")],
    num_completions: Annotated[int, typer.Option("-n", "--num", min=1, help="How many completions.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the most likely tokens.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=1e-9, max=1.0, help="The likeliest tokens of this probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="So many of the likeliest tokens; 0: all.")] = 0,
    min_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="At least this share of the likeliest's.")] = 0.0,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends a completion; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same completions again.")] = None,
) -> None:
    """Sample completions of one prompt from a model."""
    from rayzero.services.run.inference import generate as run
    from rayzero.services.schema.messages import Sampling

    run(
        model,
        prompt,
        Sampling(
            num_completions=num_completions,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            stop=tuple(text for text in stop or () if text),
            seed=seed,
        ),
    )


@sandbox.command("doctor", epilog="Example: rayzero sandbox doctor --json")
def sandbox_doctor(json: AsJson = False) -> None:
    """What this machine can isolate: every promise of the sandbox attacked with a live probe. Exit 1: not all hold."""
    from json import dumps

    from rayzero.rewards.sandbox.doctor import examine

    report = examine()
    typer.echo(dumps(report.to_dict(), indent=2) if json else report.format())
    raise typer.Exit(0 if report.is_sound else 1)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Train language models with GRPO on verifiable rewards: an actor-learner service on Ray."""
    if version:
        from rayzero.services.schema.version import version as of_rayzero

        typer.echo(of_rayzero())
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(FIRST_STEPS)


@app.command(epilog="Example: rayzero grade --reward math --in cases.jsonl --out verdicts.jsonl")
def grade(
    reward: Annotated[
        str,
        typer.Option(
            help="math, code, format, language, exact, choice, json_schema, regex, instructions, sql, or a function of "
            "your own, module:function, called with one line at a time."
        ),
    ],
    in_path: Annotated[str, typer.Option("--in", help="Cases, one JSON object a line; - is standard input.")],
    out_path: Annotated[str, typer.Option("--out", help="Verdicts, one a line; - is standard output.")] = "-",
    workers: Annotated[int | None, typer.Option(help="Cases graded at a time; by default one a CPU.")] = None,
    checker: Annotated[
        list[str] | None, typer.Option(help="module:function that lines may name as their custom checker; repeatable.")
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            help="Where math answers stand without a box: answer_line, answer_tags, final_answer, hashes, last_number; "
            "again for several."
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Where a line's answer is, e.g. reward_model.ground_truth.")
    ] = None,
    completion: Annotated[
        str | None, typer.Option(help="Where its completion is, e.g. choices.0.message.content.")
    ] = None,
    line_id: Annotated[str | None, typer.Option("--id", help="Where its id is, e.g. extra_info.index.")] = None,
) -> None:
    """Grade completions in a file. Starts no Ray."""
    from rayzero.rewards.grading.case_lines import LineForm
    from rayzero.rewards.grading.grade import run

    paths = {"answer": answer, "completion": completion, "id": line_id}
    form = LineForm({key: path for key, path in paths.items() if path}, tuple(fallback or ()))
    raise typer.Exit(run(reward, in_path, out_path, workers, form=form, checkers=checker or ()))


app.command(epilog="Example: rayzero new sums --data train.jsonl")(new)
app.add_typer(commands)


def hush_packages() -> None:
    """No SyntaxWarning of an installed package, which Python gives once, when it first compiles it: a user's own code
    still has its own."""
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=".*(?:site|dist)-packages.*")


def main() -> None:
    """Run a command; an error of ours, or an extra that is missing, is one message and an exit code, no traceback."""
    take_any_text()
    send_no_reports()  # before a command imports what would send them
    hush_packages()
    try:
        app()
    except RayzeroError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        from rayzero.services.schema.extras import explain

        if (sentence := explain(error)) is None:
            raise
        _fail(sentence, NotInstalled.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"{error.filename or 'standard output'} cannot be written: {error.strerror}", 1)
        if error.errno == errno.ENAMETOOLONG or (error.filename and str(error.filename) in " ".join(sys.argv)):
            # What the command line names: a file that cannot be read, a directory that cannot be written.
            _fail(f"{str(error.filename)[:200]}: {error.strerror}", UsageError.exit_code)
        raise


def _fail(message: str, exit_code: int) -> NoReturn:
    with suppress(OSError):  # the terminal is gone: the exit code says it alone
        typer.secho(f"error: {printable(message)}", fg=typer.colors.RED, err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
