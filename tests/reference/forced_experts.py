"""A mixture's log-probabilities where each token is sent to given experts: token by token, expert by expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def forced_logprobs(model: Any, tokens: NDArray[Any], experts: NDArray[Any]) -> Tensor:
    """[T - 1] of each token after the first, by transformers' own attention; `experts` [T, L, K], or fewer rows."""
    with _forced(model, experts):
        ids = torch.from_numpy(tokens.astype(np.int64))
        logits = model(ids[None], use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]


def own_experts(model: Any, tokens: NDArray[Any]) -> NDArray[np.int64]:
    """[T, L, K] the experts that the model itself sends each token to, in order of their number."""
    chosen: list[NDArray[np.int64]] = []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda gate, args, output: chosen.append(output[2].numpy()))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(torch.from_numpy(tokens.astype(np.int64))[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return np.sort(np.stack(chosen, axis=1), axis=-1)


@contextmanager
def _forced(model: Any, experts: NDArray[Any]) -> Iterator[None]:
    blocks = [layer.mlp for layer in model.model.layers]
    for number, block in enumerate(blocks):
        block.forward = _slow_block(block, experts[:, number], getattr(model.config, "norm_topk_prob", True))
    yield
    for block in blocks:
        del block.forward


def _slow_block(block: Any, experts: NDArray[Any], normalises: bool) -> Any:
    def forward(hidden: Tensor) -> Tensor:
        return torch.stack([token(x, place) for place, x in enumerate(hidden[0])])[None]

    def token(x: Tensor, place: int) -> Tensor:
        shares = (block.gate.weight @ x).softmax(0)
        if place < len(experts):
            chosen = [int(expert) for expert in experts[place]]
        else:
            chosen = shares.topk(block.gate.top_k).indices.tolist()
        total = sum(shares[expert] for expert in chosen) if normalises else 1.0
        return torch.stack([shares[expert] / total * of_expert(x, expert) for expert in chosen]).sum(0)

    def of_expert(x: Tensor, expert: int) -> Tensor:
        gate, up = (block.experts.gate_up_proj[expert] @ x).chunk(2)
        y: Tensor = block.experts.down_proj[expert] @ (block.experts.act_fn(gate) * up)
        return y

    return forward
