"""Fixtures of the learner's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.learner.kit import build_model


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
