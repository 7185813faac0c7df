"""What holds for every test: nothing phones home, nothing leaves the machine, no test sees another's cache."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.system import check_needs

# Before anything imports Ray, vLLM or transformers: they read these once.
os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=secrets.token_hex(32),  # here and nowhere else: Ray would write one into the home directory
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs something this machine lacks is skipped with the reason; in CI it fails."""
    for marker in item.iter_markers("needs"):
        check_needs(*marker.args)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for built-in models."""
    path = tmp_path / "cache"
    monkeypatch.setenv("RAYZERO_CACHE", str(path))
    return path
