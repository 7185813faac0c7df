"""What vLLM imports in an engine's process, where a test names `Receiver` as the worker's extension.

There, too, gloo stands in NCCL's place; and no second set of weights, as on a GPU: loading is left to the pause.
"""

from __future__ import annotations

from rayzero.rollout_workers.broadcast.double_buffer import DoubleBuffer
from rayzero.rollout_workers.broadcast.receiver import WeightReceiver
from tests.gloo_for_nccl import install_receiver

install_receiver(setattr)
DoubleBuffer.supports = staticmethod(lambda model: False)  # type: ignore[method-assign]


class Receiver(WeightReceiver):
    """As it is."""
