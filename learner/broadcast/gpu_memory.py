"""GPU memory that another process can map, which torch's expandable segments are not in many containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPTION = "expandable_segments"


@contextmanager
def mappable_memory() -> Iterator[None]:
    """What is allocated within lies in blocks of its own kind, whatever PYTORCH_CUDA_ALLOC_CONF says: with the option
    off, torch's allocator takes none that is cached from expandable segments."""
    allocator: Any = torch._C
    before = allocator._accelerator_getAllocatorSettings()
    if not (without := without_expandable_segments(before)):
        yield
        return
    allocator._accelerator_setAllocatorSettings(without)
    try:
        yield
    finally:
        allocator._accelerator_setAllocatorSettings(before)


def without_expandable_segments(settings: str) -> str:
    """The same settings with the option off; empty where it is off already.

    All of them, for torch takes what a new setting leaves out back to its default.
    """
    options = [option.strip() for option in settings.split(",") if option.strip()]
    kept = [option for option in options if option.partition(":")[0].strip() != OPTION]
    asked = [option.partition(":")[2].strip().lower() for option in options if option not in kept]
    return ",".join([*kept, f"{OPTION}:False"]) if asked and asked[-1] in ("true", "1") else ""
