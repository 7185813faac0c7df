"""A recipe's own environment variables: NCCL's come through, those that rayzero sets are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.fleet.actor_options import thread_environment
from rayzero.services.schema.config.cluster import OWN_VARIABLES, ClusterSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.devices import VISIBLE_DEVICES


def test_numbers_of_yaml_become_text() -> None:
    given = {"NCCL_SOCKET_IFNAME": "=eth0", "NCCL_IB_DISABLE": 1, "NCCL_IB_HCA": "mlx5"}
    settings = ClusterSettings.model_validate({"environment": given})
    assert settings.environment == {"NCCL_SOCKET_IFNAME": "=eth0", "NCCL_IB_DISABLE": "1", "NCCL_IB_HCA": "mlx5"}
    assert ClusterSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, r"CUDA_VISIBLE_DEVICES is set by rayzero: leave it out; Ray gives"),
        ({"OMP_NUM_THREADS": 8}, r"OMP_NUM_THREADS is set by rayzero: leave it out; set learner\.compute\.num_threads"),
        ({"LD_PRELOAD": "x.so"}, r"LD_PRELOAD is set by rayzero: leave it out$"),
        ({"NCCL-DEBUG": "INFO"}, r"'NCCL-DEBUG' is no name of an environment variable"),
        ({"NCCL_DEBUG": True}, r"valid string"),
        (["NCCL_DEBUG=INFO"], r"valid dict"),
    ],
)
def test_what_is_not_the_recipes_is_refused_by_name(environment: Any, problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ClusterSettings.model_validate({"environment": environment})
    (error,) = refused.value.errors()
    assert error["loc"][0] == "environment"
    assert re.search(problem, error["msg"])


def test_everything_that_rayzero_sets_is_known_to_be_its_own() -> None:
    engines = [engine_environment(RolloutSettings(device=device)) for device in ("cpu", "cuda")]
    own = {VISIBLE_DEVICES, *thread_environment(1), *engines[0], *engines[1]}
    assert own <= OWN_VARIABLES.keys()
