"""Which Ray the run uses and what each actor asks of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.config.base import Section

_THREADS = "set learner.compute.num_threads or rollout.num_threads"
_DEVICES = "Ray gives every actor its GPUs"

OWN_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": _DEVICES, "NVIDIA_VISIBLE_DEVICES": _DEVICES,
    "OMP_NUM_THREADS": _THREADS, "VLLM_CPU_OMP_THREADS_BIND": _THREADS, "OMP_WAIT_POLICY": "", "LD_PRELOAD": "",
    "THP_MEM_ALLOC_ENABLE": "",
    "TORCHDYNAMO_DISABLE": "set rollout.enforce_eager", "HF_HUB_OFFLINE": "", "TOKENIZERS_PARALLELISM": "",
    "TRANSFORMERS_OFFLINE": "", "HF_HUB_DISABLE_TELEMETRY": "", "RAY_USAGE_STATS_ENABLED": "", "DO_NOT_TRACK": "",
    "VLLM_DO_NOT_TRACK": "", "VLLM_NO_USAGE_STATS": "", "VLLM_LOGGING_LEVEL": "", "VLLM_CONFIGURE_LOGGING": "",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "", "VLLM_RPC_BASE_PATH": "",
}  # fmt: skip
"""Environment variables of learner and engines that are not the recipe's, with what to do instead."""


class ClusterSettings(Section):
    """Where the actors live."""

    address: str | None = None
    """A running Ray (`host:port`, or `auto` inside a Ray job). Empty: the run starts its own local Ray and ends it."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of the local Ray; empty: all of the machine."""
    object_store_bytes: int = Field(default=256 * 2**20, ge=80 * 2**20)
    """Shared memory of the local Ray. Weights do not pass through it."""
    rollout_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources each rollout worker asks for, e.g. `{rollout: 1}`: places it on the nodes that have them."""
    reward_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources each reward worker asks for."""
    environment_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources each environment worker asks for."""
    learner_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources the learner asks for."""
    learner_gpus: int = Field(default=1, ge=1)
    """GPUs of the learner. More than one: FSDP2 shards weights, gradients and moments over them, on one node where they
    fit."""
    colocate: Literal["no", "shared", "sleep"] = "no"
    """Learner and engines on the same GPUs: one and one, or, with learner_gpus above 1, the learner's ranks and as many
    GPUs of engines. `shared`: both stay in their memory, and rollout.kv_cache_bytes decides who has what. `sleep`: the
    engines give keys and values up while the learner works, and their weights, too: those that come next replace them.
    Where adapters alone come, the weights are moved to the host meanwhile."""
    weight_transport: Transport = "auto"
    """How weights reach the engines. `auto`: `ipc` on the learner's own GPU, `nccl` between GPUs, shared memory or
    `gloo` where one of the two is a CPU. `gloo`: over the host also between GPUs, where NCCL does not work."""
    delta_sync: bool = False
    """Send engines the values that changed since the version before, where these are less than a quarter of the bytes:
    for networks on which a sync waits for its bytes. In bfloat16 it sends a tenth at learning rates near 1e-6, and all
    near 1e-4. Both ends take a quarter of the weights' memory more. For a learner of one GPU, and engines of one GPU
    each that is not the learner's: there both hold a whole version beside the weights."""
    gpu_memory_bytes: int | None = Field(default=None, ge=2**30)
    """Memory of one GPU, for the memory plan. Empty: what nvidia-smi says here, else an H100's 79 GiB."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the learner's and the engines' processes on all nodes: the one place for NCCL's, e.g.
    `{NCCL_SOCKET_IFNAME: eth0, NCCL_IB_HCA: mlx5}`. No secrets: Ray shows them to all who may see the job. What rayzero
    sets itself is refused."""
    wait_for_nodes_s: float = Field(default=0.0, ge=0)
    """Clusters that grow: how long to wait for GPUs that no node has yet. 0: what does not fit now is refused."""

    @property
    def shares_gpu(self) -> bool:
        """Learner and engines are on the same GPUs."""
        return self.colocate != "no"

    @property
    def takes_turns(self) -> bool:
        """The engine leaves the GPU's memory to the learner while that works."""
        return self.colocate == "sleep"

    @field_validator("environment", mode="before")
    @classmethod
    def _numbers_are_text(cls, environment: Any) -> Any:
        """`NCCL_IB_DISABLE: 1` is a number in YAML."""
        if not isinstance(environment, Mapping):
            return environment
        return {name: str(value) if type(value) in (int, float) else value for name, value in environment.items()}

    @field_validator("environment")
    @classmethod
    def _leaves_rayzeros_own(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of an environment variable: use letters, digits and _")
            if name in OWN_VARIABLES:
                raise ValueError(
                    f"{name} is set by rayzero: leave it out{OWN_VARIABLES[name] and '; '}{OWN_VARIABLES[name]}"
                )
            if "\0" in value:
                raise ValueError(f"{name}: a value holds no NUL")
        return environment

    @model_validator(mode="after")
    def _one_gpu_is_one_gpu(self) -> ClusterSettings:
        if self.shares_gpu and self.weight_transport == "nccl":
            raise ValueError("nccl refuses two ranks on one GPU: leave weight_transport at auto where colocate is on")
        if self.weight_transport == "ipc" and not (self.shares_gpu and self.learner_gpus == 1):
            raise ValueError("ipc needs learner and engine on one GPU: set colocate, or leave weight_transport at auto")
        return self
