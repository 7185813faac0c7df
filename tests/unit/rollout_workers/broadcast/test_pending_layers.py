"""What vLLM keeps of a bucket outlives it, and nothing else is copied."""

from __future__ import annotations

import inspect

import torch
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from rayzero.rollout_workers.broadcast.pending_layers import detach_pending


def test_views_of_the_bucket_are_copied_and_other_tensors_left() -> None:
    bucket, other = torch.arange(64, dtype=torch.uint8), torch.arange(8)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))

    def loader(param: object, loaded_weight: torch.Tensor, shard_id: str = "") -> None: ...

    def kept(value: torch.Tensor) -> inspect.BoundArguments:
        return inspect.signature(loader).bind(None, value, "q")

    waiting, elsewhere = kept(bucket[8:24].view(torch.float32)), kept(other)
    info = get_layerwise_info(model[0])
    info.loaded_weights += [("weight", waiting), ("weight", elsewhere)]
    expected = waiting.arguments["loaded_weight"].clone()
    assert detach_pending(model, bucket) == 16
    bucket.zero_()
    assert torch.equal(waiting.arguments["loaded_weight"], expected)
    assert elsewhere.arguments["loaded_weight"] is other
    assert detach_pending(model, bucket) == 0
    info.reset()
