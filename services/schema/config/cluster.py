"""Which Ray the run uses and what each actor asks of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from services.schema.config.base import Section
from services.schema.transport import Transport


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
    learner_resources: dict[str, float] = Field(default_factory=dict)
    """Named Ray resources the learner asks for."""
    learner_gpus: int = Field(default=1, ge=1)
    """GPUs of the learner. More than one: FSDP2 shards weights, gradients and moments over them, on one node where they
    fit."""
    colocate: Literal["no", "shared", "sleep"] = "no"
    """Learner and engine on one GPU. `shared`: both stay in its memory, and rollout.kv_cache_bytes decides who has
    what. `sleep`: the engine gives its keys and values up and moves its weights to the host while the learner works."""
    weight_transport: Transport = "auto"
    """How weights reach the engines. `auto`: `ipc` on the learner's own GPU, `nccl` between GPUs, shared memory or
    `gloo` where one of the two is a CPU. `gloo`: over the host also between GPUs, where NCCL does not work."""
    gpu_memory_bytes: int | None = Field(default=None, ge=2**30)
    """Memory of one GPU, for the memory plan. Empty: what nvidia-smi says here, else an H100's 79 GiB."""
    wait_for_nodes_s: float = Field(default=0.0, ge=0)
    """Clusters that grow: how long to wait for GPUs that no node has yet. 0: what does not fit now is refused."""

    @property
    def shares_gpu(self) -> bool:
        """Learner and engine are on one GPU."""
        return self.colocate != "no"

    @property
    def takes_turns(self) -> bool:
        """The engine leaves the GPU's memory to the learner while that works."""
        return self.colocate == "sleep"

    @model_validator(mode="after")
    def _one_gpu_is_one_gpu(self) -> ClusterSettings:
        if self.shares_gpu and self.learner_gpus > 1:
            raise ValueError("colocate puts learner and engine on one GPU: leave learner_gpus at 1")
        if self.shares_gpu and self.weight_transport == "nccl":
            raise ValueError("nccl refuses two ranks on one GPU: leave weight_transport at auto where colocate is on")
        if not self.shares_gpu and self.weight_transport == "ipc":
            raise ValueError("ipc needs learner and engine on one GPU: set colocate, or leave weight_transport at auto")
        return self
