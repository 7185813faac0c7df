"""What an engine's process must find in its environment."""

from __future__ import annotations

import os
from typing import Any, Literal

import pytest

from rayzero.rollout_workers.engine_process import EngineSpec, engine_arguments
from rayzero.rollout_workers.environment import engine_environment, usable_cores
from rayzero.services.schema.config.rollout import RolloutSettings


def arguments(device: Literal["cpu", "cuda"] = "cuda", **changes: Any) -> dict[str, Any]:
    settings = RolloutSettings(device=device, **changes)
    return engine_arguments(EngineSpec(model_path="m", dtype="bfloat16", settings=settings, sleeps=True))


def test_gpu_engine_is_told_what_it_would_guess_wrongly() -> None:
    assert arguments()["distributed_executor_backend"] == "uni"
    shared = arguments(tensor_parallel_size=4, quantization="fp8_per_block", enforce_eager=False)
    assert shared["distributed_executor_backend"] == "mp", "inside a placement group vLLM would take Ray's"
    assert shared["gpu_memory_utilization"] < 0.1, "beside a learner most of the memory is not free"
    found = shared["quantization"], shared["enable_sleep_mode"], shared["enforce_eager"]
    assert found == ("fp8_per_block", True, False)
    assert arguments(quantization="fp8")["quantization"] == "fp8_per_tensor", "vLLM's own name; the short one is old"
    assert arguments()["quantization"] is None
    with pytest.raises(ValueError, match="quantization needs device cuda"):
        RolloutSettings(device="cpu", quantization="fp8")


def test_logits_are_fp32_on_gpus_and_as_the_model_on_cpus() -> None:
    assert arguments()["hf_overrides"] == arguments(quantization="fp8")["hf_overrides"] == {"head_dtype": "float32"}
    assert "hf_overrides" not in arguments("cpu"), "vLLM's CPU head is repacked: there is nothing left to cast"


def test_engines_read_the_files_that_the_learner_reads() -> None:
    for device in ("cpu", "cuda"):
        found = arguments(device)
        assert (found["config_format"], found["load_format"]) == ("hf", "safetensors")


def test_defaults_follow_the_device_and_the_recipe_is_obeyed() -> None:
    def of(device: Literal["cpu", "cuda"], **changes: Any) -> tuple[Any, ...]:
        found = arguments(device, **changes)
        names = ("enforce_eager", "max_num_seqs", "max_num_batched_tokens", "max_cudagraph_capture_size")
        return tuple(found.get(name) for name in names)

    assert of("cuda") == (False, 1024, 8192, 1024)
    assert of("cpu") == (True, 128, 4096, None)
    assert of("cpu", max_model_tokens=9000) == (True, 128, 9000, None), "a prompt is never cut there"
    assert of("cuda", max_model_tokens=90_000) == (False, 1024, 8192, 1024)
    assert of("cuda", max_num_seqs=512) == (False, 512, 8192, None), "as far as vLLM captures by itself"
    assert of("cuda", max_num_seqs=600) == (False, 600, 8192, 608)
    assert of("cuda", enforce_eager=True) == (True, 1024, 8192, None)
    assert of("cuda", max_num_seqs=10_000)[2] == 10_000
    assert of("cuda", max_num_batched_tokens=16_384)[2] == 16_384
    with pytest.raises(ValueError, match=r"max_num_batched_tokens \(512\) is less than max_num_seqs \(1024\)"):
        RolloutSettings(device="cuda", max_num_batched_tokens=512)
    assert [RolloutSettings(device=device).num_groups for device in ("cpu", "cuda")] == [32, 64]
    assert RolloutSettings(device="cuda", concurrent_groups=3).num_groups == 3


def test_cpu_engine_waits_passively_on_as_many_threads_as_there_are_cores() -> None:
    environment = engine_environment(RolloutSettings(device="cpu"))
    assert environment["OMP_NUM_THREADS"] == str(usable_cores())
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["TORCHDYNAMO_DISABLE"] == "1"
    assert engine_environment(RolloutSettings(device="cpu", num_threads=3))["OMP_NUM_THREADS"] == "3"
    assert "TORCHDYNAMO_DISABLE" not in engine_environment(RolloutSettings(device="cpu", enforce_eager=False))
    assert "TORCHDYNAMO_DISABLE" not in engine_environment(RolloutSettings(device="cuda"))


def test_preloaded_libraries_exist() -> None:
    libraries = engine_environment(RolloutSettings(device="cpu"))["LD_PRELOAD"].split(":")
    assert any("libgomp" in library for library in libraries)
    assert all(os.path.isfile(library) for library in libraries if "tcmalloc" not in library)


def test_an_installed_tcmalloc_is_preloaded_where_vllm_ships_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's wheels for CPUs have it, those of PyPI do not: then the system's is taken, by its name."""
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.4")
    libraries = engine_environment(RolloutSettings(device="cpu"))["LD_PRELOAD"].split(":")
    assert "tcmalloc" in libraries[0]


def test_gpu_engine_keeps_its_threads_and_processes() -> None:
    environment = engine_environment(RolloutSettings(device="cuda"))
    assert not {"OMP_NUM_THREADS", "LD_PRELOAD", "VLLM_ENABLE_V1_MULTIPROCESSING"} & environment.keys()
