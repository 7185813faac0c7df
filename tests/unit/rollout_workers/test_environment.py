"""What an engine's process must find in its environment."""

from __future__ import annotations

import os

from rollout_workers.environment import engine_environment, usable_cores
from services.schema.config.rollout import RolloutSettings


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
