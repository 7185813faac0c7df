"""A trained parameter that ranks share: every rank keeps fp32, and what is put together of it is bfloat16, rounded by
thresholds as one rank alone would round it (learner/model/rounding.py)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.utils._mode_utils import no_dispatch

from rayzero.learner.model.rounding import rounded

_ATEN = torch.ops.aten
_KEEPERS = {_ATEN.detach.default, _ATEN.new_zeros.default, _ATEN.slice.Tensor}
"""What FSDP makes a rank's part with. The results of all else are plain tensors."""


class RoundedShard(Tensor):
    """A rank's part of a parameter, fp32, sharded by rows. FSDP2 asks a tensor with these two methods what to send."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, content: Tensor) -> RoundedShard:
        """The same memory."""
        shard: RoundedShard = Tensor._make_subclass(cls, content.detach())
        return shard

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every operation is a plain tensor's."""
        with no_dispatch():
            found = func(*args, **(kwargs or {}))
            return cls(found) if func in _KEEPERS else found

    def fsdp_pre_all_gather(
        self,
        mesh: DeviceMesh,
        outer_size: torch.Size,
        outer_stride: tuple[int, ...],
        module: nn.Module,
        precision: MixedPrecisionPolicy,
    ) -> tuple[tuple[Tensor, ...], None]:
        """This rank's rows, rounded; as many as any rank's, the last ranks' filled up."""
        assert precision.param_dtype is not None
        rows = rows_of_a_rank(outer_size[0], mesh.size())
        part = _rounded_rows(self, precision.param_dtype, mesh.get_local_rank() * rows)
        if len(part) < rows:
            part = torch.cat([part, part.new_zeros(rows - len(part), *outer_size[1:])])
        return (part,), None

    def fsdp_post_all_gather(
        self, gathered: tuple[Tensor, ...], metadata: None, dtype: torch.dtype, *, out: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """What came is the parameter. From the second time on `out` is, in the memory that was gathered into."""
        return None if out is not None else (gathered[0], ())


def round_shards(part: nn.Module) -> None:
    """Before `part` is sharded: have its trained parameters, fp32, become rounded shards."""
    made: dict[int, nn.Parameter] = {}
    for module in part.modules():
        for name, parameter in module._parameters.items():
            # A DTensor is sharded already, as a part of its own.
            if parameter is None or isinstance(parameter, DTensor) or not parameter.requires_grad:
                continue
            if id(parameter) not in made:  # a tied weight is one parameter of two modules
                made[id(parameter)] = nn.Parameter(RoundedShard(parameter))
            module._parameters[name] = made[id(parameter)]


def rounded_like(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter, or a rank's part of it, in `dtype` as the model computes with it: what is rounded so, else cast."""
    if not isinstance(weight, DTensor):
        return weight.to(dtype)
    part = weight._local_tensor
    if not isinstance(part, RoundedShard):
        return weight.to(dtype)
    mesh = weight.device_mesh
    rows = rows_of_a_rank(len(weight), mesh.size())
    return DTensor.from_local(
        _rounded_rows(part, dtype, mesh.get_local_rank() * rows),
        mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )


def rows_of_a_rank(num_rows: int, world_size: int) -> int:
    """Of every rank but the last ones, which may have fewer or none."""
    return -(-num_rows // world_size)


def _rounded_rows(part: Tensor, dtype: torch.dtype, first_row: int) -> Tensor:
    with no_dispatch():
        return rounded(part.as_subclass(Tensor), dtype, first_row * math.prod(part.shape[1:]))
