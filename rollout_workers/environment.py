"""The environment that an engine's processes need from their first instruction on.

Set it where the process is made (Ray: `runtime_env={"env_vars": engine_environment(...)}`): a preloaded library or an
OpenMP setting changed later has no effect.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
from pathlib import Path

from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.reports import NO_REPORTS, OFFLINE


def engine_environment(settings: RolloutSettings) -> dict[str, str]:
    """Environment variables of a rollout worker."""
    common = {
        **NO_REPORTS,
        **OFFLINE,  # a model is a local directory by now: a lookup could only hang
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CONFIGURE_LOGGING": "1",
    }
    return common | (_cpu(settings) if settings.engine_device == "cpu" else {})


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _cpu(settings: RolloutSettings) -> dict[str, str]:
    # vLLM compiles three small functions of its sampler even in eager mode: five seconds inside the first request.
    eager = {"TORCHDYNAMO_DISABLE": "1"} if settings.eager else {}
    return eager | {
        "OMP_NUM_THREADS": str(settings.num_threads or usable_cores()),
        # Spinning OpenMP threads would steal the cores of the learner that waits for this engine, and the other way.
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Scheduler and model in one process instead of two: half the start time, and no queue to poll between them.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "LD_PRELOAD": ":".join(_preloaded_libraries()),
    }


def _preloaded_libraries() -> list[str]:
    """torch's own libgomp (one OpenMP runtime, not two), and tcmalloc: vLLM's, or the system's where it ships none."""
    torch, vllm = _package("torch"), _package("vllm")
    found: list[str] = []
    if vllm is not None:
        found += [str(path) for path in sorted((vllm / "libs").glob("libtcmalloc*.so*"))[:1]]
    if not found and (installed := ctypes.util.find_library("tcmalloc_minimal")):
        found.append(installed)
    if torch is not None:
        places = (torch.parent / "torch.libs", torch / "lib")
        found += [str(path) for path in sorted(path for place in places for path in place.glob("libgomp*.so*"))[:1]]
    return found


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
