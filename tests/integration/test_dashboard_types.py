"""The committed dashboards against Grafana's own schema, by the TypeScript compiler."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.observe.monitoring.dashboard_panels import DASHBOARDS
from rayzero.services.observe.monitoring.dashboards import as_grafana
from tests.system import in_ci, needs

TYPES = Path("tests/grafana").resolve()
COMPILER = TYPES / "node_modules" / "typescript" / "bin" / "tsc"
COMMITTED = sorted(Path("deploy/grafana/dashboards").glob("*.json"))
Break = Callable[[dict[str, Any]], None]

pytestmark = [needs("node", "npm"), pytest.mark.timeout(180)]


def first(board: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


WRONG: dict[str, Break] = {
    "unknown_kind_of_panel": lambda board: first(board, "timeseries").update(type="timeserie"),
    "unknown_option": lambda board: first(board, "timeseries")["options"].update(legnd={}),
    "unknown_value": lambda board: first(board, "timeseries")["options"]["legend"].update(placement="below"),
    "another_kinds_option": lambda board: first(board, "timeseries")["options"].update(graphMode="area"),
    "unknown_style": lambda board: first(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(fill=25),
    "stat_option": lambda board: first(board, "stat")["options"].update(graphMode="areas"),
    "query_without_an_expression": lambda board: first(board, "stat")["targets"][0].pop("expr"),
    "unknown_variable_setting": lambda board: board["templating"]["list"][1].update(multiple=True),
    "unknown_setting": lambda board: board.update(refreshEvery="10s"),
}


def compile_all(folder: Path, boards: dict[str, Any]) -> dict[str, str]:
    """The compiler's first complaint of each board that it complains of."""
    for name in ("dashboard.ts", "tsconfig.json"):
        (folder / name).write_text((TYPES / name).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "node_modules").symlink_to(TYPES / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name, board in boards.items():
        first_line = 'import type { Dashboard } from "./dashboard.js";'
        text = f"{first_line}\nexport const board: Dashboard = {json.dumps(board)};\n"
        (folder / f"{name}.ts").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["node", str(COMPILER), "-p", "."], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if complaint := re.match(r"(\w[\w-]*)\.ts\(.*?: error (.*)", line):
            found.setdefault(complaint[1], complaint[2])
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return found


def test_dashboards_are_what_grafana_takes_and_wrong_ones_are_not(tmp_path: Path) -> None:
    if not COMPILER.is_file():
        reason = "tests/grafana/node_modules is not there: make setup installs it where npm is"
        (pytest.fail if in_ci() else pytest.skip)(reason)
    boards = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in COMMITTED}
    assert len(boards) == len(DASHBOARDS)
    for name, do in WRONG.items():
        boards[name] = copy.deepcopy(as_grafana(DASHBOARDS[0]))
        do(boards[name])
    complaints = compile_all(tmp_path, boards)
    assert complaints.keys() == WRONG.keys(), complaints
