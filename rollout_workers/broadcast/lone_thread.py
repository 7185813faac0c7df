"""A thread inside an engine's process that works beside generation: on one core, and on the engine's own GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def lone_thread(name: str, device: torch.device) -> ThreadPoolExecutor:
    """One thread that computes alone: a pair of OpenMP threads waits for the slower one at every small tensor, and
    beside generation there always is one."""

    def begin() -> None:
        set_num_threads: Any = torch._C.set_num_threads  # vLLM disarms torch.set_num_threads
        set_num_threads(1)
        if device.type == "cuda":
            # A new thread begins on GPU 0, and the first thing that it does there makes a CUDA context.
            torch.cuda.set_device(device)

    return ThreadPoolExecutor(1, f"weights-{name}", initializer=begin)
