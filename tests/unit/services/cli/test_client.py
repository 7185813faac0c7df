"""Which run a command means, and what it says when there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayzero.services.cli.changes import parse_targets
from rayzero.services.cli.client import RunAddress, RunClient, find_directory, find_run
from rayzero.services.cli.run_list import differences
from rayzero.services.schema.errors import RunUnreachable, UsageError
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe


def make_run(folder: Path, url: str | None) -> None:
    directory = RunDirectory(folder)
    directory.prepare(make_recipe())
    directory.release()
    if url is not None:
        (folder / "api.json").write_text(json.dumps({"url": url, "pid": 1, "token_env": "T"}))


def test_a_run_is_found_by_path_by_name_by_url_or_because_it_lives(tmp_path: Path) -> None:
    make_run(tmp_path / "old", None)
    make_run(tmp_path / "live", "http://127.0.0.1:1")
    wanted = RunAddress("http://127.0.0.1:1", "T")
    assert (
        find_run(str(tmp_path / "live"), tmp_path) == find_run("live", tmp_path) == find_run(None, tmp_path) == wanted
    )
    assert find_run("http://host:8100/", tmp_path) == RunAddress("http://host:8100")
    assert find_directory("old", tmp_path) == tmp_path / "old"


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    make_run(tmp_path / "old", None)
    with pytest.raises(RunUnreachable, match="not alive: it was stopped"):
        find_run("old", tmp_path)
    (tmp_path / "old" / "summary.json").write_text("{}")
    with pytest.raises(RunUnreachable, match="it has finished"):
        find_run("old", tmp_path)
    with pytest.raises(UsageError, match="runs there: old"):
        find_run("new", tmp_path)
    with pytest.raises(RunUnreachable, match="no run below"):
        find_run(None, tmp_path)


def test_a_run_that_was_killed_does_not_answer() -> None:
    with pytest.raises(RunUnreachable, match="cannot be reached"):
        RunClient(RunAddress("http://127.0.0.1:9")).get("/v1/status")


def test_targets_are_read_or_refused() -> None:
    assert parse_targets(["rollout=3", "reward=0"]) == {"rollout": 3, "reward": 0}
    for wrong in (["rollout"], ["rollout=-1"], ["learner=2"], ["rollout=1", "rollout=2"], ["rollout=two"]):
        with pytest.raises(UsageError, match="write it as"):
            parse_targets(wrong)


def test_differences_name_the_key_and_both_values() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}
    assert dict(differences(old, new)) == {"a.c": [2, 4], "d": [3, None], "e": [None, 5]}
