"""A whole run in float16: engine and learner agree, and what is saved is float16."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rayzero.services.store.json_lines import read_lines

CHANGES = (
    "model.dtype=float16",
    "training.num_updates=3",
    "training.groups_per_update=4",
    "training.group_size=4",
    "cold_start.num_updates=10",
    "evaluation.num_prompts=8",
    "evaluation.every_updates=0",
    "evaluation.greedy=never",
    "rollout.num_workers=1",
    "reward.num_workers=1",
    "rollout.canary_every_syncs=1",
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_engine_and_learner_agree_and_the_run_ends_well(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "rayzero", "train", "deploy/recipes/tiny_addition.yaml", *CHANGES]
    done = subprocess.run([*command, "--run-dir", str(run)], capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = read_lines(run / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2, 3]
    # After so short a start every reward may be 0, and with it the gradient: tests of the loss scale have one.
    assert all(0 <= row["kl_rollout"] < 1e-4 and math.isfinite(row["grad_norm"]) for row in rows), rows
    with (run / "model" / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    assert {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} == {"F16"}
