"""`rayzero runs ls`: a narrow window shows fewer columns, and none of them cut."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.cli.run_list import COLUMNS, describe, list_runs, table_of, width_of
from rayzero.services.schema.terminal import Terminal
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import END_FILE, RunDirectory
from tests.fakes import make_recipe

ROW: dict[str, Any] = {
    "run": "demo-20261201-071710",
    "state": "finished",
    "update": 200,
    "reward": 0.9289,
    "accuracy_before": 0.2969,
    "accuracy_best": 0.8867,
    "accuracy_last": 0.8851,
    "greedy_before": 0.9102,
    "greedy_last": 0.9648,
    "seconds": 1234.5,
}


def drawn(width: int, row: dict[str, Any]) -> str:
    console = Terminal(file=io.StringIO(), force_terminal=True, width=width, highlight=False, color_system=None)
    console.print(table_of([row], width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str) and max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_what_a_run_is_told_by_is_never_cut(width: int) -> None:
    text = drawn(width, ROW)
    assert "…" not in text
    for word in ("run", "state", "update", "best", "seconds", ROW["run"], "finished", "200", "0.8867", "1234"):
        assert word in text.split()
    assert ("0.9102" in text) == (width >= width_of(table_of([ROW], None)))


def test_a_long_name_is_folded_at_80_columns() -> None:
    text = drawn(80, ROW | {"run": "a-long-name-" * 10})
    assert "…" not in text and {"finished", "200", "0.8867", "1234"} <= set(text.split())


def test_a_pipe_gets_every_column_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    directory = RunDirectory(tmp_path / ("a-long-name-" * 10))
    directory.prepare(make_recipe())
    append_lines(directory.file("metrics.jsonl"), [{"update": 1, "reward_mean": 0.123456}], replace=True)
    directory.release()
    list_runs(tmp_path, as_json=False)
    head, row, best = capsys.readouterr().out.splitlines()
    assert len(head.split()) == len(row.split()) == len(COLUMNS) and directory.path.name in row and "0.1235" in row
    assert best.startswith("best: ")


@pytest.mark.parametrize(("ended", "state"), [("running", "killed"), ("failed", "failed"), ("stopped", "stopped")])
def test_a_run_is_called_what_its_status_calls_it(tmp_path: Path, ended: str, state: str) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    assert describe(directory)["state"] == "live"
    directory.release()
    assert describe(directory)["state"] == "stopped", "it does not say"
    directory.file(END_FILE).write_text(f'{{"ended": "{ended}"}}')
    assert describe(directory)["state"] == state
