"""What an engine's process must find in its environment."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rayzero.rollout_workers.engine_process import EngineSpec, engine_arguments
from rayzero.rollout_workers.environment import engine_environment, usable_cores
from rayzero.services.schema.config.rollout import RolloutSettings


def test_gpu_engine_is_told_what_it_would_guess_wrongly() -> None:
    def arguments(**changes: Any) -> dict[str, Any]:
        settings = RolloutSettings(device="cuda", **changes)
        return engine_arguments(EngineSpec(model_path="m", dtype="bfloat16", settings=settings, sleeps=True))

    assert arguments()["distributed_executor_backend"] == "uni"
    shared = arguments(tensor_parallel_size=4, quantization="fp8", enforce_eager=False)
    assert shared["distributed_executor_backend"] == "mp", "inside a placement group vLLM would take Ray's"
    assert shared["gpu_memory_utilization"] < 0.1, "beside a learner most of the memory is not free"
    assert (shared["quantization"], shared["enable_sleep_mode"], shared["enforce_eager"]) == ("fp8", True, False)
    with pytest.raises(ValueError, match="quantization needs device cuda"):
        RolloutSettings(device="cpu", quantization="fp8")


def test_cpu_engine_waits_passively_on_as_many_threads_as_there_are_cores() -> None:
    environment = engine_environment(RolloutSettings(device="cpu"))
    assert environment["OMP_NUM_THREADS"] == str(usable_cores())
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["TORCHDYNAMO_DISABLE"] == "1"
    assert engine_environment(RolloutSettings(device="cpu", num_threads=3))["OMP_NUM_THREADS"] == "3"
    assert "TORCHDYNAMO_DISABLE" not in engine_environment(RolloutSettings(device="cpu", enforce_eager=False))


def test_preloaded_libraries_exist() -> None:
    libraries = engine_environment(RolloutSettings(device="cpu"))["LD_PRELOAD"].split(":")
    assert any("libgomp" in library for library in libraries)
    assert all(os.path.isfile(library) for library in libraries)


def test_gpu_engine_keeps_its_threads_and_processes() -> None:
    environment = engine_environment(RolloutSettings(device="cuda"))
    assert not {"OMP_NUM_THREADS", "LD_PRELOAD", "VLLM_ENABLE_V1_MULTIPROCESSING"} & environment.keys()
