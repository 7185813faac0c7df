"""What vLLM imports in an engine's process where a profile of its pause is wanted: the three phases of a load, counted.

vLLM names the worker's extension by its class, so `ProfiledReceiver` stands in for `WeightReceiver`.
"""

from __future__ import annotations

import cProfile
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from rayzero.rollout_workers.broadcast.receiver import StagedWeightTransferEngine, WeightReceiver

DUMP = "RAYZERO_ENGINE_PROFILE"
"""Environment variable: where the profile goes, anew after every load."""
PHASES = ("start_weight_update", "receive_weights", "finish_weight_update")
PROFILE = cProfile.Profile()


def profiled(phase: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with the profile running inside."""

    @wraps(phase)
    def run(*arguments: Any) -> Any:
        PROFILE.enable()
        try:
            return phase(*arguments)
        finally:
            PROFILE.disable()
            PROFILE.dump_stats(os.environ[DUMP])

    return run


if DUMP in os.environ:
    for name in PHASES:
        setattr(StagedWeightTransferEngine, name, profiled(getattr(StagedWeightTransferEngine, name)))


class ProfiledReceiver(WeightReceiver):
    """As it is."""
