"""Fixtures of the learner's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rayzero.learner.batch.samples import Batch, make_batch
from tests.unit.learner.kit import build_model, make_group


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors: a second thread costs more than it gives, and the cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["llama", "qwen2", "qwen3"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each architecture."""
    return build_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama."""
    return build_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture
def batch() -> Batch:
    """Ragged groups: an empty completion, a prompt of one token, one of twenty."""
    rng = np.random.default_rng(0)
    return make_batch([
        make_group(rng, [7, 1, 0, 12], [1, 0, 0, 1], prompt_length=9),
        make_group(rng, [4, 4], [1, 0], prompt_length=1, group_id=1),
        make_group(rng, [30, 2, 11], [1, 0, 1], prompt_length=20, group_id=2),
    ])  # fmt: skip
