"""What the fork server of engine processes imports ahead, by importing this module.

Never broadcast/receiver.py: its watchdog thread would not survive the fork.
"""

from __future__ import annotations

import importlib

from rayzero.rollout_workers.quick_imports import uncollected

with uncollected():
    for _name in ("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama"):
        importlib.import_module(_name)
