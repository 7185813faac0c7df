"""Imports without the garbage collector leave it as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from rayzero.rollout_workers.quick_imports import uncollected


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_inside_and_is_as_before_afterwards(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() is enabled


def test_what_came_is_not_looked_at_again() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        came = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    assert gc.get_freeze_count() >= before + len(came)
