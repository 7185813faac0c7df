"""What the page of a run on disk says of its end: also without an update, and where the run did not end well."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.cli.page_data import page_data
from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.run.end_notice import told_at_end
from rayzero.services.schema.errors import UsageError, WorkerError
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.prepare(make_recipe())
    return found


def status(directory: RunDirectory) -> dict[str, Any]:
    found: dict[str, Any] = page_data(directory, Filter(), "newest", [], {})["status"]
    return found


def attempt(directory: RunDirectory, exit_code: int | None = None, error: Exception | None = None) -> None:
    with told_at_end(make_recipe(), directory, print) as end:
        end.exit_code = exit_code
        if error is not None:
            raise error


def test_a_run_that_goes_on_is_live_also_without_its_api(directory: RunDirectory) -> None:
    assert status(directory)["phase"] == "running"
    directory.release()
    assert status(directory)["phase"] == "not running", "of before an end was written down: nothing is known"
    assert status(directory)["health"]["level"] == "green"


def test_a_run_that_failed_says_how(directory: RunDirectory) -> None:
    with pytest.raises(WorkerError):
        attempt(directory, error=WorkerError("the engine died\nits log: logs/rollout-0.log"))
    directory.release()
    found = status(directory)
    assert found["phase"].startswith("ended with an error") and found["health"]["level"] == "red"
    (finding,) = found["health"]["findings"]
    assert finding["text"] == "the run ended with an error: the engine died"
    assert finding["detail"] == "its log: logs/rollout-0.log" and finding["advice"]


def test_a_run_that_was_stopped_goes_on(directory: RunDirectory) -> None:
    attempt(directory, exit_code=130)
    directory.release()
    assert status(directory)["phase"] == "stopped; the same command goes on"
    assert status(directory)["health"]["line"] == "no update was made"


def test_a_run_that_was_killed_left_no_word(directory: RunDirectory) -> None:
    with told_at_end(make_recipe(), directory, print):
        left = directory.file("end.json").read_text()
    directory.file("end.json").write_text(left)
    directory.release()
    assert status(directory)["phase"].startswith("killed") and status(directory)["health"]["level"] == "yellow"
    assert status(directory)["phase"].endswith("begins anew: it had no checkpoint")
    (directory.checkpoints / "update_000001").mkdir()
    assert status(directory)["phase"].endswith("goes on from the last checkpoint")
    directory.file("end.json").write_text('{"ended": ["odd"]}')
    assert status(directory)["phase"] == "not running"


def test_a_run_of_evaluations_alone_shows_them(directory: RunDirectory) -> None:
    append_lines(directory.file("evaluations.jsonl"), [{"update": 0, "accuracy": 0.4}])
    directory.file("summary.json").write_text("{}")
    directory.release()
    health = status(directory)["health"]
    assert health == {"level": "green", "line": "no update was made; held-out accuracy 40%", "findings": []}


def test_a_page_needs_no_rollouts_but_a_filter_needs_a_match(
    directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    directory.release()
    out = tmp_path / "page.html"
    samples(str(directory.path), tmp_path, Filter(), "newest", 5, "html", out, None)
    data = re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)
    assert data is not None and json.loads(data[1])["choices"]["num_groups"] == 0
    with pytest.raises(UsageError, match=r"none of 0 rollouts in .*: no page was written"):
        samples(str(directory.path), tmp_path, Filter(status="wrong"), "newest", 5, "html", out, None)
