"""What holds for every test: nothing phones home, nothing leaves the machine, no test sees another's cache."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.system import check_needs, in_ci, missing_of, skipped_line

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


_REPRESENTED = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One skip for each set of missing programs, which says how many tests want it; in CI each test fails by itself."""
    if in_ci():
        return
    first: dict[tuple[str, ...], pytest.Item] = {}
    represented: list[pytest.Item] = []
    for item in items:
        missing = tuple(sorted({name for marker in item.iter_markers("needs") for name in missing_of(*marker.args)}))
        if missing and first.setdefault(missing, item) is not item:
            represented.append(item)
            first[missing].stash[_REPRESENTED] = first[missing].stash.get(_REPRESENTED, 0) + 1
    if represented:
        left_out = set(represented)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=represented)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs something this machine lacks is skipped with the reason; in CI it fails."""
    check_needs(*(name for marker in item.iter_markers("needs") for name in marker.args),
                others=item.stash.get(_REPRESENTED, 0))  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for built-in models."""
    path = tmp_path / "cache"
    monkeypatch.setenv("RAYZERO_CACHE", str(path))
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end: what was skipped, and what runs it."""
    if line := skipped_line([str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]):
        terminalreporter.write_line(line, yellow=True)
