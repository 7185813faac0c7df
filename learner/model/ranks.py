"""Several learner processes as one: FSDP2 shards the weights, micro-batches are dealt, everything else is the same.

Every rank is given the same groups and computes the same denominators, so no normaliser is ever communicated; gradients
are summed, not averaged. With one rank nothing is sharded and nothing communicates.
"""

from __future__ import annotations

import builtins
import contextlib
import io
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
from rayzero.learner.model.rounded_shard import round_shards
from rayzero.services.schema import errors
from rayzero.services.schema.addresses import family_of
from rayzero.services.schema.weights import Rendezvous

T = TypeVar("T")

DISTRIBUTED: Any = dist
"""Untyped: torch's stubs leave its stores out."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among the learner's."""

    rank: int = 0
    world_size: int = 1
    mesh: DeviceMesh | None = None

    def shard(
        self,
        scorer: nn.Module,
        parts: Sequence[nn.Module],
        dtype: torch.dtype,
        fill: Callable[[nn.Module], None] | None = None,
        *,
        by_thresholds: bool = False,
    ) -> None:
        """Shard fp32 parameters, each of `parts` by itself and what is left of `scorer` together; forward and backward
        compute in `dtype`, gradients are summed in fp32. `fill` makes the parameters of a part before it is sharded.
        `by_thresholds`: what is trained is rounded so (learner/model/rounded_shard.py), not to the nearest.
        """
        if self.mesh is None:
            return
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in (*parts, scorer):
            if fill is not None:
                fill(module)
            if by_thresholds:
                round_shards(module)
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
        """What rank 0 makes, sent to all. An exception there is raised on all: they would wait for it in vain.

        It travels as tensors and plain values (`torch.load` with `weights_only`): peers are not to bring code.
        """
        if self.mesh is None:
            return make()
        made: Any = None
        failure: Exception | None = None
        if self.rank == 0:
            try:
                made = make()
            except Exception as error:
                failure = error
        told = None if failure is None else [type(failure).__name__, str(failure)]
        sent, problem = self.gather((made, told))[0]
        if failure is not None:
            raise failure
        if problem is not None:
            raise _named_error(*problem)
        result: T = sent
        return result

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order: tensors and plain values, in tuples, lists and dicts."""
        if self.mesh is None:
            return [value]
        group = self.mesh.get_group()
        packed = io.BytesIO()
        torch.save(value, packed)
        own = torch.frombuffer(packed.getbuffer(), dtype=torch.uint8).to(self.mesh.device_type)
        sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.full_like(sizes[0], own.numel()), group=group)
        lengths = [int(size) for size in sizes]
        room = torch.zeros(max(lengths), dtype=torch.uint8, device=own.device)
        room[: own.numel()] = own
        rooms = [torch.empty_like(room) for _ in lengths]
        dist.all_gather(rooms, room, group=group)
        return [_unpacked(each[:length]) for each, length in zip(rooms, lengths, strict=True)]


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


def _unpacked(content: Tensor) -> Any:
    return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)


def _named_error(name: str, text: str) -> Exception:
    """Of this process, as rank 0's: the control plane tells them apart by their kind."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.RayzeroError | OSError | ValueError):
        with contextlib.suppress(TypeError):  # one that wants more than a text
            return kind(text)
    return RuntimeError(f"rank 0 failed: {name}: {text}")


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
