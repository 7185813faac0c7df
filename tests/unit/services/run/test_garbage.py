"""How often garbage is looked for while a run goes on, and afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from rayzero.services.run.garbage import THRESHOLDS, collected_seldom


class Cyclic:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_it_is_looked_for_seldom_and_as_before_when_the_run_ends() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="the run fails"), collected_seldom():
        assert gc.get_threshold() == THRESHOLDS and gc.get_freeze_count() > 0
        raise ValueError("the run fails")
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_what_comes_in_a_run_is_found_all_the_same() -> None:
    with collected_seldom():
        gone = weakref.ref(Cyclic())
        gc.collect()
        assert gone() is None
