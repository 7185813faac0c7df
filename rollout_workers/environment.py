"""The environment that an engine's processes need from their first instruction on.

Set it where the process is made (Ray: `runtime_env={"env_vars": engine_environment(...)}`): a preloaded library or an
OpenMP setting changed later has no effect.
"""

from __future__ import annotations

import os

from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.cpu_process import cpu_environment
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
    threads = {
        "OMP_NUM_THREADS": str(settings.num_threads or usable_cores()),
        # Spinning OpenMP threads would steal the cores of the learner that waits for this engine, and the other way.
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    # Scheduler and model in one process instead of two: half the start time, and no queue to poll between them.
    return {**cpu_environment(), **threads, **eager, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
