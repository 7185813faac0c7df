"""A learner sharded over two GPUs by FSDP2 over NCCL: it saves, and goes on from what it saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.conftest import DEVICE
from tests.gpu.hour.shards import LARGEST_DIFFERENCE, run_ranks
from tests.models import build_tiny_model

pytestmark = pytest.mark.gpu


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    DEVICE == "cuda" and torch.cuda.device_count() < 2, reason="needs two GPUs, and this machine has not two"
)
def test_two_ranks_go_on_from_their_checkpoint_as_if_nothing_had_been(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", hidden_size=128, head_dim=64)
    told = run_ranks(model, tmp_path / "ranks", DEVICE, tokens=1024)
    assert all(one["resume_difference"] <= (LARGEST_DIFFERENCE if DEVICE == "cuda" else 0.0) for one in told)
    if DEVICE == "cuda":
        assert all(one["peak_bytes"] > 0 for one in told)
