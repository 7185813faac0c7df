"""Runs held beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.cli.compare import compare_runs, differences, settings_that_differ
from rayzero.services.cli.run_list import list_runs
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.unit.services.observe.test_run_health import held_out, rows


def test_differences_name_every_dotted_key_with_both_values() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}
    assert dict(differences(old, new)) == {"a.c": [2, 4], "d": [3, None], "e": [None, 5]}


def test_a_setting_of_which_one_in_three_runs_has_another_value_is_named_with_all_three() -> None:
    recipes = [{"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}, {"a": {"b": 7}, "c": 2}]
    assert settings_that_differ(recipes) == {"a.b": [1, 1, 7]}


def test_three_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("one", "two", "three")):
        directory = RunDirectory(tmp_path / name)
        directory.prepare(make_recipe(num_updates=40 + number))
        timed = [row | {"time_s": 10.0 * row["update"]} for row in rows(entropy=0.1 * number)]
        append_lines(directory.file("metrics.jsonl"), timed, replace=True)
        append_lines(directory.file("evaluations.jsonl"), held_out(0.2, 0.5), replace=True)
        directory.release()
    compare_runs(["one", "two", "three"], tmp_path, as_json=True, html=None)
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["training.num_updates"] == [40, 41, 42]
    assert found["figures"]["entropy"] == pytest.approx([0.0, 0.1, 0.2])
    assert found["figures"]["held-out accuracy, last"] == [0.5, 0.5, 0.5]
    compare_runs(["one", "two"], tmp_path, as_json=False, html=None)
    assert "settings that differ" in capsys.readouterr().out


def test_figures_that_are_none_hide_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run directory may be another's, with whatever they wrote into it."""
    broken: tuple[Any, ...] = ("x", None, [1], {"a": 1}, 10**400, -(10**400), True, float("nan"), float("inf"), 1e308)
    for name, values in (("whole", (0.5, 0.25)), ("broken", broken)):
        directory = RunDirectory(tmp_path / name)
        directory.prepare(make_recipe())
        names = ("update", "reward_mean", "time_s", "accuracy", "greedy_accuracy", "entropy")
        lines = "".join(json.dumps(dict.fromkeys(names, value)) + "\n" for value in values)
        for file in ("metrics.jsonl", "evaluations.jsonl"):
            directory.file(file).write_text("{}\n[]\nnull\n" + lines)
        directory.release()
    list_runs(tmp_path, as_json=False)
    list_runs(tmp_path, as_json=True)
    found = {row["run"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert found["whole"]["accuracy_best"] == 0.5 and found["broken"]["accuracy_best"] == 1e308
    compare_runs(["whole", "broken"], tmp_path, as_json=False, html=None)
    compare_runs(["whole", "broken"], tmp_path, as_json=True, html=None)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["entropy"] == [0.375, 1e308]


def test_one_run_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name two runs or more"):
        compare_runs(["one"], tmp_path, as_json=False, html=None)
