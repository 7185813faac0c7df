"""This process's environment as placement gives it to an actor with an engine, for a while: its children inherit it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.schema.config.rollout import RolloutSettings


@contextmanager
def as_an_engines(settings: RolloutSettings) -> Iterator[None]:
    """Until the block ends."""
    before = dict(os.environ)
    os.environ.update(engine_environment(settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
