"""Options of actors as Ray takes them: the environment that their processes start in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.services.schema.devices import VISIBLE_DEVICES


def thread_environment(num_threads: int) -> dict[str, str]:
    """Variables of a process that computes on so many threads.

    Ray sets OMP_NUM_THREADS from num_cpus. Passive: threads that spin while they wait make a shared core's other
    process four times slower.
    """
    return {"OMP_NUM_THREADS": str(num_threads), "OMP_WAIT_POLICY": "PASSIVE"}


def with_threads(options: Mapping[str, Any], num_threads: int) -> dict[str, Any]:
    """Options of an actor that computes on so many threads."""
    return _with_environment(options, thread_environment(num_threads))


def hiding_gpus(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options; an actor without GPUs sees none, or those of others that its options name.

    Ray lets it see all of its node's: it would compute on one that another has reserved.
    """
    shared = options.get(VISIBLE_DEVICES, "")
    options = {name: value for name, value in options.items() if name != VISIBLE_DEVICES}
    return options if options.get("num_gpus") else _with_environment(options, {VISIBLE_DEVICES: shared})


def _with_environment(options: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    known = options.get("runtime_env", {}).get("env_vars", {})
    return {**options, "runtime_env": {"env_vars": {**known, **variables}}}
