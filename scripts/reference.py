"""Write the manual's reference from the code: `python scripts/reference.py`; `--check` only says what is out of date.

Pages: recorded figures, Prometheus metrics, commands, the HTTP API, errors and alerts. They are
committed, so that a reader of the repository has them without a build; a test holds them to the code.
"""

from __future__ import annotations

import html
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Written from the code by scripts/reference.py: change it there. -->\n\n"


def figures() -> str:
    """What a line of metrics.jsonl and of evaluations.jsonl holds."""
    from rayzero.services.observe.figures import EVALUATION_FIGURES, UPDATE_FIGURES, table

    return f"""# Figures of a run

Each update is a line of `metrics.jsonl`, each evaluation a line of `evaluations.jsonl`. Means and shares of a batch are
over its judged completions. Trackers get the same names; Prometheus has [names of its own](prometheus.md).

## metrics.jsonl

{table(UPDATE_FIGURES)}
## evaluations.jsonl

{table(EVALUATION_FIGURES)}"""


def prometheus() -> str:
    """What `/metrics` exports."""
    from rayzero.services.observe import telemetry

    return f"""# Prometheus metrics

A run answers at `/metrics`, and at `/sd` says where the metrics of its engines are. `run`, `component` and `instance`
are labels of the target. The engines' own metrics are vLLM's. The last column says when to worry, and links the
[alerts](alerts.md) that watch the metric, with what to do; [figures.md](figures.md) has the same figures in
metrics.jsonl.

{telemetry.reference(_worries())}"""


def _worries() -> dict[str, str]:
    """By Prometheus family: what metrics.jsonl says of the same figure, and the alerts that ask for it."""
    from rayzero.services.observe import telemetry
    from rayzero.services.observe.monitoring.dashboards import FIGURES_BEHIND

    families = {metric.name: metric.family for metric in telemetry.CATALOGUE}
    said = {families[name]: figure.worry for name, figure in FIGURES_BEHIND.items()}
    said |= {families[name]: worry for name, worry in telemetry.WORRIES.items()}
    links: dict[str, list[str]] = {family: [] for family in families.values()}
    for rule in _alert_rules():
        for family, found in links.items():
            if re.search(rf"\b{family}(_bucket|_sum|_count)?\b", rule["expr"]):
                found.append(f"[{rule['alert']}](alerts.md#{rule['alert'].lower()})")
    return {family: f"{said.get(family, '')} {', '.join(found)}".strip() for family, found in links.items()}


def _alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def commands() -> str:
    """The command line, as its `--help` has it."""
    from typer.cli import app

    arguments = ["rayzero.services.cli.app", "utils", "docs", "--name", "rayzero", "--title", "Commands"]
    result = CliRunner().invoke(app, arguments)
    if result.exit_code:
        raise SystemExit(f"typer cannot document the commands: {result.output}")
    text = re.sub(r"(?m)^(Example: )(.*)$", r"\1`\2`", html.unescape(result.output))
    codes = "Exit codes: 0 done, 1 failed, 2 refused, 3 the run does not answer, 130 interrupted.\n"
    return text.replace("**Usage**:", f"{codes}\n**Usage**:", 1).rstrip() + "\n"


def api() -> str:
    """The control API, from its OpenAPI description."""
    from rayzero.services.observe.api.app import build_app

    description = build_app(_NoRun(), "127.0.0.1:8100").openapi()  # type: ignore[arg-type]
    routes = [
        f"| `{method.upper()} {path}` | {_parameters(operation, description)} | {_sentence(operation)} |"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    return "\n".join([
        "# HTTP API",
        "",
        "A run serves it where its start says; `api.json` in the run directory names the address. Elsewhere than on "
        "loopback it asks for `Authorization: Bearer …` with the value of RAYZERO_API_TOKEN. A change is a POST of "
        "JSON. `/openapi.json` has the schemas.",
        "",
        "| route | takes | |",
        "|---|---|---|",
        *routes,
        "",
    ])  # fmt: skip


class _NoRun:
    """In place of a run's view: the routes are described, never called."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a description of the API needs no {name}")


def _parameters(operation: dict[str, Any], description: dict[str, Any]) -> str:
    names = [f"`{each['name']}`" for each in operation.get("parameters", [])]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if reference := body.get("$ref", "").rpartition("/")[2]:
        names += [f"`{name}`" for name in description["components"]["schemas"][reference].get("properties", {})]
    return ", ".join(names) or "–"


def _sentence(operation: dict[str, Any]) -> str:
    return " ".join(operation.get("description", operation["summary"]).split()).replace("|", "\\|")


def errors() -> str:
    """Every error that rayzero raises on purpose, and its exit code."""
    from rayzero.services.schema import errors as module

    return "\n".join([
        "# Errors",
        "",
        "A command that fails prints one sentence, `error: …`, with what is wrong and what to do, and ends with its "
        "exit code. A traceback is a fault of rayzero: please report it.",
        "",
        "| error | exit code | when |",
        "|---|---|---|",
        *_error_rows(module.RayzeroError, ""),
        "",
        "## Why a group is dropped, why a verdict is an error",
        "",
        "`summary.json` and Prometheus count them by these words; the sentences beside them are in ledger.jsonl and in "
        "each rollout.",
        "",
        *_causes(),
        "",
    ])  # fmt: skip


def _error_rows(kind: type[Exception], above: str) -> Iterator[str]:
    text = " ".join((kind.__doc__ or "").split())
    yield f"| {above}`{kind.__name__}` | {getattr(kind, 'exit_code', 1)} | {text} |"
    for below in sorted(kind.__subclasses__(), key=lambda each: each.__name__):
        if below.__module__.startswith("rayzero.services.schema"):
            yield from _error_rows(below, above + "· ")


def _causes() -> Iterator[str]:
    from rayzero.services.schema.causes import DropReason, ErrorCause

    for title, kind in (("dropped", DropReason), ("error", ErrorCause)):
        yield f"- {title}: " + ", ".join(f"`{member.value}`" for member in kind)


def alerts() -> str:
    """Every alert with what it means and what to do."""
    parts = ["# Alerts and runbooks", "", "From `deploy/prometheus/alerts.yml`. First look: `rayzero status`.", ""]
    for rule in _alert_rules():
        notes = {name: " ".join(text.split()) for name, text in rule["annotations"].items()}
        summary = re.sub(r"\{\{[^}]*labels\.(\w+)[^}]*\}\}", r"*\1*", notes["summary"])
        parts += [
            f"## {rule['alert']}",
            "",
            f"*{rule['labels']['severity']}, after {rule.get('for', '0s')}.* {re.sub(r'{{[^}]*}}', '…', summary)}",
            "",
            f"**What to do.** {re.sub(r'{{[^}]*labels.(worker)[^}]*}}', 'WORKER', notes['runbook'])}",
            "",
            "```promql",
            " ".join(rule["expr"].split()),
            "```",
            "",
        ]
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "figures.md": figures,
    "prometheus.md": prometheus,
    "commands.md": commands,
    "api.md": api,
    "errors.md": errors,
    "alerts.md": alerts,
}


def pages() -> dict[Path, str]:
    """The text of every page, by its file. What the code prints on the way is not part of it."""
    with redirect_stdout(io.StringIO()):
        return {FOLDER / name: MADE + make() for name, make in PAGES.items()}


def out_of_date() -> list[str]:
    """Files whose text is another."""
    return [
        str(file.relative_to(ROOT)) for file, text in pages().items() if not file.is_file() or file.read_text() != text
    ]


def main() -> int:
    """Write the pages, or say which are out of date."""
    if "--check" in sys.argv:
        stale = out_of_date()
        print("\n".join(f"{name} is out of date: python scripts/reference.py" for name in stale) or "up to date")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, text in pages().items():
        file.write_text(text)
        print(file.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
