"""A miniature R1 on real actors: killed inside a stage, continued by the same command, every kind of stage run once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.store.json_lines import read_lines

pytestmark = pytest.mark.timeout(900)

PIPELINE = """\
name: mini
models: {base: tiny-words, small: tiny-words-small}
dtype: float32
recipe:
  data:
    train:
      - kind: function
        name: sums
        function: rayzero.services.data.tasks.words:word_sums
        arguments: {num_prompts: 200}
    held_out:
      - kind: function
        name: sums
        function: rayzero.services.data.tasks.words:word_sums
        arguments: {num_prompts: 8, split: held_out, seed: 1}
  rollout:
    prompt_template: text
    sampling: {max_tokens: 48}
    max_model_tokens: 64
    max_num_seqs: 64
    kv_cache_bytes: 67108864
  reward:
    rubrics:
      default: {accuracy: {kind: format}, language: {kind: language, weight: 0.0}}
  training: {num_updates: 2, groups_per_update: 2, group_size: 4}
  learner: {optimizer: {learning_rate: 1.0e-4}}
  evaluation: {every_updates: 0, num_prompts: 8}
  checkpoint: {every_updates: 1}
stages:
  cold:
    kind: sft
    data:
      - kind: function
        function: rayzero.services.data.tasks.words:cold_start_demonstrations
        arguments: {num_rows: 300}
    num_updates: 40
    demonstrations_per_update: 32
    optimizer: {learning_rate: 3.0e-3, warmup_updates: 5}
    checkpoint_every_updates: 20
  polite:
    kind: reward_model
    model: small
    pairs: {kind: function, function: "rayzero.services.data.tasks.words:harmless_pairs", arguments: {num_rows: 300}}
    num_updates: 30
    learning_rate: 3.0e-3
  reasoning:
    kind: grpo
    model: cold
    recipe:
      reward: {rubrics: {default: {polite: {kind: reward_model, path: "stage:polite", weight: 0.1}}}}
  sampled:
    kind: rejection_sample
    model: reasoning
    num_prompts: 16
    num_completions: 2
    prompts_per_shard: 8
  distilled:
    kind: distill
    model: small
    data: [{kind: jsonl, path: "stage:sampled"}]
    num_updates: 4
    demonstrations_per_update: 8
    optimizer: {learning_rate: 1.0e-3}
  on_policy: {kind: on_policy_distill, model: distilled, teacher: reasoning}
  measured:
    kind: eval
    models: [on_policy]
    recipe: {evaluation: {num_completions: 2}}
"""


def command(folder: Path) -> list[str]:
    pipeline, run_dir = str(folder / "mini.yaml"), str(folder / "run")
    return [sys.executable, "-m", "rayzero", "pipeline", "run", pipeline, "--run-dir", run_dir]


def stage(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """A stage's directory and its record."""
    (directory,) = (folder / "run" / "stages" / name).iterdir()
    return directory, json.loads((directory / "stage.json").read_text())


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """The first whole checkpoint of the first stage."""
    deadline = time.monotonic() + 300
    while True:
        found = list((folder / "run").glob("stages/cold/*/work/update_*"))
        if found:
            return found[0].name
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "no checkpoint in 300 s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed with SIGKILL inside its first stage, and continued by the same command."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "mini.yaml").write_text(PIPELINE)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command(folder), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_checkpoint(folder, process)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
    assert stage(folder, "cold")[1]["state"] == "running"
    again = subprocess.run(command(folder), capture_output=True, text=True, timeout=800, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    (folder / "again.log").write_text(again.stdout)
    return folder


def test_a_killed_stage_goes_on_from_its_checkpoint(finished: Path) -> None:
    directory, record = stage(finished, "cold")
    assert "continuing from update_" in (finished / "again.log").read_text()
    assert record["attempts"] == 2 and record["state"] == "done"
    rows = read_lines(directory / "work" / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 41))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


def test_every_stage_is_done_and_names_what_it_read(finished: Path) -> None:
    names = ["cold", "polite", "reasoning", "sampled", "distilled", "on_policy", "measured"]
    records = {name: stage(finished, name)[1] for name in names}
    assert {record["state"] for record in records.values()} == {"done"}
    assert set(records["reasoning"]["inputs"]) == {"cold", "polite"}
    assert records["reasoning"]["inputs"]["cold"]["digest"] == records["cold"]["artefact"]["digest"]
    assert records["polite"]["figures"]["accuracy"] > 0.6


def test_the_dataset_says_where_every_row_comes_from(finished: Path) -> None:
    directory, record = stage(finished, "sampled")
    rows = read_lines(directory / "dataset.jsonl")
    assert rows and record["figures"]["kept"] == len(rows)
    digest = stage(finished, "reasoning")[1]["artefact"]["digest"]
    for row in rows:
        assert row["provenance"]["model_digest"] == digest
        assert row["provenance"]["verdict"]["components"]["accuracy"] == 1.0


def test_the_teacher_was_the_reference(finished: Path) -> None:
    directory, _ = stage(finished, "on_policy")
    rows = read_lines(directory / "work" / "run" / "metrics.jsonl")
    assert len(rows) == 2 and all(row["kl_reference"] > 0 and row["advantage_abs_mean"] == 0 for row in rows)


def test_the_report_shows_the_models_that_were_measured(finished: Path) -> None:
    results = json.loads((finished / "run" / "report.json").read_text())["results"]
    assert list(results) == ["on_policy"]
    assert set(results["on_policy"]["sums"]) >= {"accuracy", "pass@2", "majority@2", "language", "length"}
    assert "<svg" in (finished / "run" / "report.html").read_text()
    assert (finished / "run" / "report.png").is_file()


def test_a_finished_pipeline_starts_nothing(finished: Path) -> None:
    started = time.monotonic()
    result = subprocess.run(command(finished), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[1/7]" not in result.stdout and "report: " in result.stdout
    assert time.monotonic() - started < 60
