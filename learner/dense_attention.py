"""Attention of short trees: whole trees under one mask, batched, with a hand-written gradient.

torch's fused CPU attention is several times slower than five matrix products in the backward pass of short sequences,
and gathering rows by autograd would add each gradient row up where copying it is enough: no token is in two trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.batching import Tree


@dataclass(frozen=True, slots=True)
class DenseBlock:
    """B trees of similar length, padded to S; n real tokens in all."""

    index: Tensor
    """[B, S] int64 position in the micro-batch; padding repeats the tree's first token."""
    rows: Tensor
    """[n] int64 where each real token is in `index`, flattened, in the order of the trees."""
    positions: Tensor
    """[n] int64 position of each real token in the micro-batch."""
    mask: Tensor
    """[B, 1, S, S] float32, 0 where the query may see the key and -inf elsewhere."""


def dense_block(trees: Sequence[Tree]) -> DenseBlock:
    """The block of some trees."""
    length = max(tree.num_tokens for tree in trees)
    index = torch.stack([_padded_index(tree, length) for tree in trees])
    rows = torch.cat([torch.arange(n * length, n * length + tree.num_tokens) for n, tree in enumerate(trees)])
    visible = torch.stack([_visible(tree, length) for tree in trees])
    mask = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    return DenseBlock(index, rows, index.view(-1)[rows], mask[:, None])


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, block: DenseBlock) -> Tensor:
    """[n, H, d] for the block's real tokens. q [T, H, d], k and v [T, K, d]; the softmax runs in fp32."""
    out: Tensor = _DenseAttention.apply(q, k, v, scale, block)  # type: ignore[no-untyped-call]
    return out


class _DenseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, block: DenseBlock) -> Tensor:
        kv_heads = k.shape[1]
        queries, keys, values = (_gather(x, kv_heads, block) for x in (q, k, v))
        scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
        batch, length = block.index.shape
        scores.view(batch, -1, length, length).add_(block.mask.to(scores.dtype))
        # fp32 inside, rounded to the compute dtype once: what torch does for bf16 input.
        probabilities = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(queries, keys, values, probabilities)
        ctx.block, ctx.scale, ctx.heads, ctx.num_tokens = block, scale, (q.shape[1], kv_heads), len(q)
        return _scatter(torch.bmm(probabilities, values), q.shape[1], block)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        queries, keys, values, probabilities = ctx.saved_tensors
        block, (heads, kv_heads) = ctx.block, ctx.heads
        padded = grad.new_zeros(block.index.numel(), *grad.shape[1:]).index_copy_(0, block.rows, grad)
        grads = _stack_heads(padded, kv_heads, block)
        grad_values = torch.bmm(probabilities.transpose(1, 2), grads)
        grad_probabilities = torch.bmm(grads, values.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities, -1, probabilities.dtype)
        grad_queries = torch.bmm(grad_scores, keys).mul_(ctx.scale)
        grad_keys = torch.bmm(grad_scores.transpose(1, 2), queries).mul_(ctx.scale)
        whole = (
            _to_positions(_scatter(one, count, block), ctx.num_tokens, block)
            for one, count in ((grad_queries, heads), (grad_keys, kv_heads), (grad_values, kv_heads))
        )
        return *whole, None, None  # type: ignore[return-value]


def _gather(x: Tensor, kv_heads: int, block: DenseBlock) -> Tensor:
    """[T, H, d] -> [B * K, R * S, d], the R = H / K heads of a key head stacked: one product serves them all."""
    return _stack_heads(x.index_select(0, block.index.view(-1)), kv_heads, block)


def _stack_heads(x: Tensor, kv_heads: int, block: DenseBlock) -> Tensor:
    batch, length = block.index.shape
    heads, size = x.shape[1:]
    stacked = x.view(batch, length, heads, size).transpose(1, 2)
    return stacked.reshape(batch * kv_heads, heads // kv_heads * length, size)


def _scatter(x: Tensor, heads: int, block: DenseBlock) -> Tensor:
    """[B * K, R * S, d] -> [n, H, d], padding dropped."""
    batch, length = block.index.shape
    tokens = x.view(batch, heads, length, -1).transpose(1, 2).reshape(batch * length, heads, -1)
    return tokens.index_select(0, block.rows)


def _to_positions(x: Tensor, num_tokens: int, block: DenseBlock) -> Tensor:
    """[n, H, d] -> [T, H, d], zero where other blocks are."""
    return x.new_zeros(num_tokens, *x.shape[1:]).index_copy_(0, block.positions, x)


def _padded_index(tree: Tree, length: int) -> Tensor:
    index = torch.full((length,), tree.start)
    index[: tree.num_tokens] = torch.arange(tree.start, tree.start + tree.num_tokens)
    return index


def _visible(tree: Tree, length: int) -> Tensor:
    """[length, length] bool. Padding sees itself alone: a row that sees nothing would be NaN."""
    branch = torch.full((length,), -1)
    at = tree.prompt_length
    for number, fed in enumerate(tree.completion_lengths):
        branch[at : at + fed] = number
        at += fed
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    in_prompt = torch.arange(length) < tree.prompt_length
    visible = causal & (in_prompt[None, :] | (branch[:, None] == branch[None, :]))
    padding = torch.arange(length) >= tree.num_tokens
    visible[padding] = torch.eye(length, dtype=torch.bool)[padding]
    return visible
