"""What an actor computes on, and the variable that says which GPUs a process sees."""

from __future__ import annotations

from typing import Literal

Device = Literal["cpu", "cuda"]

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Ray sets it for actors that have GPUs, and leaves it as it is for those that have none: they would see all."""
