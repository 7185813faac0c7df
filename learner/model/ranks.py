"""Several learner processes as one: FSDP2 shards the weights, micro-batches are dealt, everything else is the same.

Every rank is given the same groups and computes the same denominators, so no normaliser is ever communicated; gradients
are summed, not averaged. With one rank nothing is sharded and nothing communicates.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rayzero.learner.batch.batching import Microbatch
from rayzero.services.schema.addresses import family_of
from rayzero.services.schema.messages import Rendezvous

T = TypeVar("T")

DISTRIBUTED: Any = dist
"""Untyped: torch's stubs leave its stores out."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among the learner's."""

    rank: int = 0
    world_size: int = 1
    mesh: DeviceMesh | None = None

    def shard(self, scorer: nn.Module, layers: Sequence[nn.Module], dtype: torch.dtype) -> None:
        """Shard fp32 parameters; forward and backward compute in `dtype`, gradients are summed in fp32."""
        if self.mesh is None:
            return
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in (*layers, scorer):
            # The root too: left whole after a forward pass without gradient, it would miss the next step or copy.
            sharded = fully_shard(module, mesh=self.mesh, mp_policy=precision, reshard_after_forward=True)
            # Denominators are global already: dividing by the number of ranks would shrink every gradient.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def deal(self, microbatches: Sequence[Microbatch]) -> list[tuple[Microbatch, bool]]:
        """This rank's micro-batches, each with whether it counts.

        All ranks must run as many: where there is too little, a rank runs one again that does not count.
        """
        mine = microbatches[self.rank :: self.world_size]
        return [(one, True) if one.num_tokens else (microbatches[0], False) for one in mine]

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over all ranks."""
        if self.mesh is not None:
            dist.all_reduce(tensor, group=self.mesh.get_group())
        return tensor

    def collect(self, tensor: Tensor) -> Tensor | None:
        """The tensor, put together in the host's memory of rank 0 where ranks shard it; None on the others.

        All ranks must ask. A GPU holds no more than this one tensor whole, and that until this returns.
        """
        whole = full(tensor.detach())
        if self.rank != 0:
            return None
        return whole.cpu() if isinstance(tensor, DTensor) else whole

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, sent to all. An exception there is raised on all: they would wait for it in vain."""
        if self.mesh is None:
            return make()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = make()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, group=self.mesh.get_group(), group_src=0)
        if outcome[1] is not None:
            raise outcome[1]
        made: T = outcome[0]
        return made

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order."""
        if self.mesh is None:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.mesh.get_group())
        return values


ONE_RANK = Ranks()


def join(rank: int, rendezvous: Rendezvous, device: str, deadline_s: float) -> Ranks:
    """Meet the other ranks; blocks until all have come or the deadline has passed."""
    if rendezvous.world_size == 1:
        return ONE_RANK
    timeout = timedelta(seconds=deadline_s)
    dist.init_process_group(
        backend="nccl" if device == "cuda" else "gloo",
        store=meeting_store(rank, rendezvous, timeout),
        rank=rank,
        world_size=rendezvous.world_size,
        timeout=timeout,
    )
    return Ranks(rank, rendezvous.world_size, init_device_mesh(device, (rendezvous.world_size,)))


def meeting_store(rank: int, rendezvous: Rendezvous, timeout: timedelta) -> Any:
    """Where the ranks find each other: a file of this user's, or a port of rank 0's address and of no other."""
    if rendezvous.file:
        return DISTRIBUTED.FileStore(rendezvous.file, rendezvous.world_size)
    host, port = rendezvous.host, rendezvous.port
    # Left to itself the store would listen on every interface.
    listener = socket.create_server((host, port), family=family_of(host)).detach() if rank == 0 else None
    return DISTRIBUTED.TCPStore(host, port, rendezvous.world_size, rank == 0, timeout, master_listen_fd=listener)


def leave() -> None:
    """End this process's part in the group, if it has one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def full(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all ranks must ask), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a full tensor, laid out as `like` is. Sharded, it is rank 0's that counts: others may give its shape
    alone, on the meta device."""
    if not isinstance(like, DTensor):
        return value.to(like.device, copy=True)
    whole = torch.empty_like(value, device=like.device) if value.is_meta else value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements)
