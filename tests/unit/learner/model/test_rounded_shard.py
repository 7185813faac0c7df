"""A parameter that ranks share is rounded as one rank alone rounds it, and is a plain tensor to all but FSDP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import Ranks, full, shard_like
from rayzero.learner.model.rounded_shard import RoundedShard, round_shards, rows_of_a_rank
from rayzero.learner.model.rounding import rounded
from rayzero.services.schema.config.learner import LearnerSettings
from tests.unit.learner.kit import some_groups

BF16 = torch.bfloat16
PRECISION: Any = SimpleNamespace(param_dtype=BF16)


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    """A group of one: what is sharded is sharded, and nothing travels."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        yield Ranks(0, 1, init_device_mesh("cpu", (1,)))
    finally:
        dist.destroy_process_group()


def gathered(whole: Tensor, world_size: int) -> Tensor:
    """What the ranks send, one after the other."""
    rows = rows_of_a_rank(len(whole), world_size)
    sent = []
    for rank in range(world_size):
        mesh: Any = SimpleNamespace(size=lambda: world_size, get_local_rank=lambda rank=rank: rank)
        shard = RoundedShard(whole[rank * rows : (rank + 1) * rows])
        (part,), kept = shard.fsdp_pre_all_gather(mesh, whole.shape, whole.stride(), nn.Module(), PRECISION)
        assert type(part) is Tensor and kept is None
        sent.append(part)
    return torch.cat(sent)


@pytest.mark.parametrize("shape", [(8, 3), (7, 300), (5,), (1, 40), (3, 2, 70_000)])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_what_is_put_together_is_the_whole_rounded(shape: tuple[int, ...], world_size: int) -> None:
    whole = torch.randn(shape)
    together = gathered(whole, world_size)
    assert len(together) == world_size * rows_of_a_rank(len(whole), world_size)
    assert torch.equal(together[: len(whole)], rounded(whole, BF16))
    assert not together[len(whole) :].any()


def test_to_all_but_fsdp_it_is_a_plain_tensor() -> None:
    memory = torch.randn(6, 4)
    shard = RoundedShard(memory)
    assert shard.untyped_storage().data_ptr() == memory.data_ptr()
    for kept in (shard.detach(), shard.new_zeros(3, 4), shard.narrow(0, 1, 2)):
        assert type(kept) is RoundedShard
    for plain in (shard + 1, shard.clone(), shard.view(-1), shard.to(torch.float64), torch.stack([shard, shard])):
        assert type(plain) is Tensor
    shard.mul_(2)
    shard.narrow(0, 0, 1).zero_()
    assert torch.equal(memory, shard.clone()) and not memory[0].any()


def test_a_tied_weight_stays_one_and_what_is_frozen_stays_as_it_is() -> None:
    part = nn.Module()
    part.first, part.second, part.frozen = (nn.Linear(3, 3, bias=False) for _ in range(3))
    part.second.weight = part.first.weight
    part.frozen.weight.requires_grad_(False)
    round_shards(part)
    assert part.first.weight is part.second.weight
    assert isinstance(part.first.weight, RoundedShard) and isinstance(part.first.weight, nn.Parameter)
    assert part.first.weight.requires_grad and type(part.frozen.weight) is nn.Parameter


def test_a_sharded_policy_computes_and_sends_what_one_rank_does(tiny_model: Path, ranks: Ranks) -> None:
    one, sharded = Policy(tiny_model, dtype="bfloat16"), Policy(tiny_model, dtype="bfloat16", ranks=ranks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (name, parameter), (_, shard) in zip(one.named_parameters(), sharded.named_parameters(), strict=True):
            values = one.masters[name] + 1e-4 * torch.randn(parameter.shape, generator=generator)
            shard.copy_(shard_like(values, shard))
            parameter.copy_(one.computed(values))
            assert isinstance(shard, DTensor) and type(full(shard.detach())) is Tensor
            assert torch.equal(full(shard.detach()), values)
    for (name, mine), (_, theirs) in zip(one.sent_weights(), sharded.sent_weights(), strict=True):
        assert torch.equal(mine, theirs) and type(theirs) is Tensor, name
    (packed,) = pack(make_batch(some_groups()).samples, tokens_per_microbatch=1000)
    with torch.no_grad():
        assert torch.equal(one.logprobs(packed)[0], sharded.logprobs(packed)[0])


def test_adapters_are_rounded_to_the_nearest(tiny_model: Path, ranks: Ranks) -> None:
    """They do not begin on bfloat16's grid, and their frozen base is what the engine reads from disk."""
    lora = LearnerSettings.model_validate({"lora": {"rank": 2}}).lora
    sharded = Policy(tiny_model, dtype="bfloat16", lora=lora, ranks=ranks)
    parts = [parameter for parameter in sharded.model.parameters() if isinstance(parameter, DTensor)]
    assert parts and not any(isinstance(part._local_tensor, RoundedShard) for part in parts)
