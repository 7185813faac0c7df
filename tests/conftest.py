"""What holds for every test: nothing phones home, nothing leaves the machine, no test sees another's cache."""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import check_needs, in_ci, missing_of, skipped_line, smallest_sets

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
# As at a terminal, for what the tests start as well: under nohup, or behind an `&` of a script, these are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


_REPRESENTED = pytest.StashKey[int]()
_ALIKE = pytest.StashKey[Counter[str]]()
"""Of a session: tests that a `skipif` leaves out beside the one that says so, by its reason."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One skip for each program that is missing, and for each reason, which says how many tests it leaves out; in CI
    each test fails or is skipped by itself."""
    if in_ci():
        return
    alike = config.stash[_ALIKE] = Counter[str]()
    lacking = {item: set(_missing(item)) for item in items}
    firsts = {item: one for item, one in smallest_sets(lacking).items() if one is not item}
    for first in firsts.values():
        first.stash[_REPRESENTED] = first.stash.get(_REPRESENTED, 0) + 1
    seen: set[str] = set()
    represented = list(firsts)
    for item in items:
        reason = "" if lacking[item] else _reason(item)
        if reason in seen:
            alike[reason] += 1
            represented.append(item)
        elif reason:
            seen.add(reason)
    if represented:
        left_out = set(represented)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=represented)


def _missing(item: pytest.Item) -> Iterator[str]:
    for marker in item.iter_markers("needs"):
        yield from missing_of(*marker.args)


def _reason(item: pytest.Item) -> str:
    """Of a `skipif` that holds; empty where none does."""
    holding = (marker for marker in item.iter_markers("skipif") if marker.args and marker.args[0] is True)
    return next((str(marker.kwargs.get("reason", "")) for marker in holding), "")


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
    alike = terminalreporter.config.stash.get(_ALIKE, Counter[str]())
    if line := skipped_line([str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())], alike):
        terminalreporter.write_line(line, yellow=True)
