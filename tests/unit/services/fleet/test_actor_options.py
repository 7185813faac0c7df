"""An actor's environment: what is added to it, and what it may not see."""

from __future__ import annotations

from rayzero.services.fleet.actor_options import hiding_gpus, with_threads

NCCL = {"runtime_env": {"env_vars": {"NCCL_DEBUG": "INFO"}}}


def environment(options: dict[str, object]) -> object:
    return options["runtime_env"]["env_vars"]  # type: ignore[index]


def test_only_an_actor_without_gpus_sees_none() -> None:
    assert environment(hiding_gpus({"num_cpus": 1})) == {"CUDA_VISIBLE_DEVICES": ""}
    assert environment(hiding_gpus({"num_gpus": 0, **NCCL})) == {"NCCL_DEBUG": "INFO", "CUDA_VISIBLE_DEVICES": ""}
    for share in (1, 0.25):
        assert hiding_gpus({"num_gpus": share, **NCCL}) == {"num_gpus": share, **NCCL}, "Ray says which it sees"


def test_threads_are_added_to_what_the_recipe_says() -> None:
    options = with_threads({"num_cpus": 1, **NCCL}, 4)
    assert options["num_cpus"] == 1
    assert environment(options) == {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
    assert environment(dict(NCCL)) == {"NCCL_DEBUG": "INFO"}
