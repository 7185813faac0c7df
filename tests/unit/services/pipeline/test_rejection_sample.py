"""The dataset of a rejection_sample stage, from shards that an earlier attempt has left: no engine is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayzero.learner.builtin_models.tiny_words import save_words_model
from rayzero.services.pipeline.context import StageContext
from rayzero.services.pipeline.fingerprints import digest
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.rejection_sample import run_rejection_sample
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.store.json_lines import append_lines, read_lines

PIPELINE = """\
name: sampled
models: {base: BASE}
dtype: float32
recipe:
  data:
    train: [{kind: function, function: "rayzero.services.data.tasks.words:word_sums", arguments: {num_prompts: 40}}]
    num_held_out: 4
  rollout: {device: cpu, prompt_template: text, max_model_tokens: 64, sampling: {max_tokens: 32}}
  reward: {rubrics: {default: {accuracy: {kind: math}}}}
  evaluation: {num_prompts: 4}
stages:
  best:
    kind: rejection_sample
    model: base
    num_prompts: 6
    prompts_per_shard: 4
    num_completions: 2
    mix: [{kind: function, name: talk, function: "rayzero.services.data.tasks.words:small_talk"}]
    mix_share: 0.25
"""


def line(group: int, index: int, correct: bool) -> dict[str, Any]:
    score = float(correct)
    return {
        "group_id": group,
        "index": index,
        "prompt_id": f"train/{group}",
        "source": "default",
        "messages": [{"role": "user", "content": f"{group}+1="}],
        "answer": str(group + 1),
        "completion": f"<think> x{index}</think>\\boxed{{{group + 1}}}",
        "reward": score,
        "status": "correct" if correct else "wrong",
        "components": {"accuracy": score},
        "reason": "",
        "num_tokens": 5 + index,
        "finish_reason": "stop",
    }


def context(folder: Path, correct: bool) -> StageContext:
    save_words_model(folder / "base", seed=0, small=True)
    (folder / "work").mkdir()
    (folder / "p.yaml").write_text(PIPELINE.replace("BASE", str(folder / "base")))
    loaded = load_pipeline(folder / "p.yaml")
    for start, stop in ((0, 4), (4, 6)):
        rows = [line(group, index, correct) for group in range(start, stop) for index in (0, 1)]
        append_lines(folder / "work" / f"shard_{start:08d}.jsonl", rows)
    recipe = loaded.recipes["best"]
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(folder / "base")})})
    return StageContext(
        name="best",
        settings=loaded.pipeline.stages["best"],
        recipe=recipe,
        models={"base": folder / "base"},
        directory=folder,
        work=folder / "work",
        console=Console(quiet=True),
    )


def test_the_best_of_each_prompt_with_its_provenance_and_the_mix(tmp_path: Path) -> None:
    outcome = run_rejection_sample(context(tmp_path, correct=True))
    rows = read_lines(outcome.artefact)
    sampled, mixed = rows[:6], rows[6:]
    assert [row["provenance"]["index"] for row in sampled] == [0] * 6
    assert sampled[2]["provenance"]["prompt_id"] == "train/2" and sampled[2]["answer"] == "3"
    assert sampled[2]["provenance"]["model_digest"] == digest(tmp_path / "base")
    assert len(mixed) == 2, "a quarter of eight"
    assert all(row["provenance"]["mixed_in"] == "talk" for row in mixed)
    assert outcome.figures["left_out"] == {"not among the best": 6}


def test_no_verified_row_stops_with_the_reason_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(
        RayzeroError, match=r"none of 12 completions of base passed \(12 wrong\).*raise num_completions"
    ):
        run_rejection_sample(context(tmp_path, correct=False))
    assert not (tmp_path / "dataset.jsonl").exists()
