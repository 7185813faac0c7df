"""How often Python looks for garbage while a run goes on.

A thousand engines keep a million objects alive here, nearly none of them in a cycle. At Python's own thresholds all of
them are walked several times an update, .3 s each time, in which no engine that is done is given its next group.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 10, 10)
"""Python's are 700, 10 and 10. Rare enough not to be felt, often enough for cycles that failures leave."""


@contextmanager
def collected_seldom() -> Iterator[None]:
    """What is loaded so far is not looked at again, and what comes is looked at less often; until the block ends."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
