"""A minute of `rayzero chaos` on a real Ray cluster of three nodes: whatever dies, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_loop import RECIPE, assert_nothing_is_left

SMALL = [
    "cold_start.num_updates=5",
    "cold_start.source.arguments.num_prompts=400",
    "training.groups_per_update=4",
    "training.group_size=4",
    "rollout.max_num_seqs=64",
]

pytestmark = pytest.mark.timeout(1200)


def test_a_minute_of_kills_loses_and_doubles_no_group(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.cli", "chaos", RECIPE, *SMALL, "--minutes", "1", "--seed", "5", "--json"]
    environment = {**os.environ, "RAYZERO_TEST_RUN": str(tmp_path), "TMPDIR": "/tmp"}
    storm = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False, env=environment)
    assert storm.returncode == 0, storm.stdout + storm.stderr
    found = json.loads(storm.stdout)
    assert found["audit"]["problems"] == []
    assert found["audit"]["updates"] >= 1
    assert sum(pair["kills"] for pair in found["kills"]) >= 1
    assert_nothing_is_left(str(tmp_path))
