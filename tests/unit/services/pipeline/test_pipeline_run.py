"""What is run again and what is not: finished, changed, damaged, interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayzero.services.pipeline.directory import PipelineDirectory, publish
from rayzero.services.schema.errors import RayzeroError, RunDirectoryError
from tests.unit.services.pipeline.kit import PIPELINE, FakeKinds, attempt

ALL = ["cold", "reasoning", "sampled", "final", "measured"]


@pytest.fixture
def kinds() -> FakeKinds:
    return FakeKinds()


def test_everything_runs_once_in_order(tmp_path: Path, kinds: FakeKinds) -> None:
    assert attempt(tmp_path, kinds).left() == ALL
    attempt(tmp_path, kinds).run()
    assert kinds.ran == ALL
    attempt(tmp_path, kinds).run()
    assert kinds.ran == ALL
    assert {row["state"] for row in attempt(tmp_path, kinds).summary()} == {"done"}


def test_a_stage_is_given_what_it_named(tmp_path: Path, kinds: FakeKinds) -> None:
    run = attempt(tmp_path, kinds)
    run.run()
    final = kinds.contexts["final"]
    assert final.models == {"base": tmp_path / "base"}
    assert final.settings.data[0].path == str(run.artefact("sampled"))  # type: ignore[union-attr]
    assert kinds.contexts["reasoning"].recipe.model.path == str(run.artefact("cold"))
    assert set(kinds.contexts["measured"].models) == {"base", "cold", "final"}


def test_the_record_names_inputs_artefact_and_checksums(tmp_path: Path, kinds: FakeKinds) -> None:
    run = attempt(tmp_path, kinds)
    run.run()
    record = json.loads((run.stage_directory("final").path / "stage.json").read_text())
    assert record["state"] == "done" and record["attempts"] == 1 and record["figures"] == {"size": 1.0}
    assert set(record["inputs"]) == {"base", "sampled"}
    sampled = json.loads((run.stage_directory("sampled").path / "stage.json").read_text())
    assert record["inputs"]["sampled"]["digest"] == sampled["artefact"]["digest"]
    assert (run.stage_directory("final").path / "recipe.yaml").is_file()


def test_changing_a_stage_runs_it_and_what_depends_on_it_alone(tmp_path: Path, kinds: FakeKinds) -> None:
    attempt(tmp_path, kinds).run()
    kinds.ran.clear()
    changed = attempt(tmp_path, kinds, "stages.sampled.num_completions=4")
    assert [row["state"] for row in changed.summary()] == ["done", "done", "changed", "changed", "changed"]
    changed.run()
    assert kinds.ran == ["sampled", "final", "measured"]


def test_going_back_to_old_settings_finds_the_old_results(tmp_path: Path, kinds: FakeKinds) -> None:
    attempt(tmp_path, kinds).run()
    attempt(tmp_path, kinds, "stages.final.num_updates=9").run()
    kinds.ran.clear()
    attempt(tmp_path, kinds).run()
    assert kinds.ran == []


@pytest.mark.parametrize(
    "change", ["stages.cold.description=x", "recipe.deadlines.group_s=700", "recipe.cluster.num_cpus=3"]
)
def test_what_only_decides_how_it_computes_changes_nothing(tmp_path: Path, kinds: FakeKinds, change: str) -> None:
    attempt(tmp_path, kinds).run()
    assert attempt(tmp_path, kinds, change).left() == []


def test_another_seed_or_base_changes_everything(tmp_path: Path, kinds: FakeKinds) -> None:
    attempt(tmp_path, kinds).run()
    assert attempt(tmp_path, kinds, "seed=1").left() == ALL
    made = attempt(tmp_path, kinds)
    (tmp_path / "base" / "config.json").write_text('{"other": 1}')
    from rayzero.services.pipeline.fingerprints import fingerprints

    made.fingerprints = fingerprints(made.graph, made.recipes)
    assert made.left() == ALL


def test_a_changed_data_file_changes_its_readers(tmp_path: Path, kinds: FakeKinds) -> None:
    data = tmp_path / "demos.jsonl"
    data.write_text("{}\n")
    text = PIPELINE.replace('{kind: jsonl, path: "stage:sampled"}', f"{{kind: jsonl, path: {data}}}")
    attempt(tmp_path, kinds, text=text).run()
    data.write_text('{"a": 1}\n')
    assert attempt(tmp_path, kinds, text=text).left() == ["final", "measured"]


def test_a_failure_names_the_stage_and_keeps_what_is_done(tmp_path: Path, kinds: FakeKinds) -> None:
    kinds.fails = {"sampled"}
    with pytest.raises(RayzeroError, match="stage sampled: out of luck"):
        attempt(tmp_path, kinds).run()
    assert attempt(tmp_path, kinds).left() == ["sampled", "final", "measured"]
    assert attempt(tmp_path, kinds).state_of("sampled") == "unfinished"
    kinds.fails, kinds.ran = set(), []
    again = attempt(tmp_path, kinds)
    again.run()
    assert kinds.ran == ["sampled", "final", "measured"]
    assert again.stage_directory("sampled").record()["attempts"] == 2


def test_a_damaged_artefact_is_made_again(tmp_path: Path, kinds: FakeKinds) -> None:
    run = attempt(tmp_path, kinds)
    run.run()
    (run.artefact("final") / "weights").write_text("flipped")
    assert attempt(tmp_path, kinds).left() == ["final", "measured"]


def test_until_runs_a_stage_and_what_it_needs(tmp_path: Path, kinds: FakeKinds) -> None:
    attempt(tmp_path, kinds).run(until="reasoning")
    assert kinds.ran == ["cold", "reasoning"]


def test_two_processes_never_work_in_one_directory(tmp_path: Path) -> None:
    first, second = PipelineDirectory(tmp_path / "run"), PipelineDirectory(tmp_path / "run")
    first.prepare({"name": "x"})
    with pytest.raises(RunDirectoryError, match="in use"):
        second.prepare({"name": "x"})
    first.release()
    second.prepare({"name": "x"})
    second.release()


def test_a_published_directory_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "model", broken)
    assert not (tmp_path / "model").exists()
    publish(tmp_path / "model", lambda directory: (directory / "a").touch())
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["a"]
